//! An [`Instant`] as a number.
//!
//! The standard library tells how far apart two instants are, and takes some fifty instructions for
//! that: a tenth of what a call costs with the default configuration. But an instant hands its parts to
//! whoever hashes it, and they are seconds and nanoseconds, on Linux as elsewhere. Nobody promises that,
//! so it is [tried](is_readable) whenever a circuit is made, and where it doesn't hold, instants are
//! subtracted.

use std::{
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

/// A moment from which others are told, by their parts or by subtraction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    Read(u64),
    Subtracted(Instant),
}

impl Origin {
    pub(super) fn new(instant: Instant) -> Self {
        if is_readable(instant) {
            Self::Read(read(instant))
        } else {
            Self::Subtracted(instant)
        }
    }

    /// Nanoseconds from then until `instant`: 0 if that was before, and less than `u64::MAX`.
    #[inline(always)]
    pub(super) fn until(self, instant: Instant) -> u64 {
        match self {
            Self::Read(origin) => read(instant).saturating_sub(origin),
            Self::Subtracted(origin) => subtract(instant, origin),
        }
    }
}

#[cold]
fn subtract(instant: Instant, origin: Instant) -> u64 {
    let nanos = instant.saturating_duration_since(origin).as_nanos();
    u64::try_from(nanos).map_or(u64::MAX - 1, |nanos| nanos.min(u64::MAX - 1))
}

/// Its nanoseconds since a moment that is the same for all, if it is [readable](is_readable).
#[inline(always)]
pub(super) fn read(instant: Instant) -> u64 {
    let mut parts = Parts::default();
    instant.hash(&mut parts);
    parts.finish()
}

/// Whether [`read`] tells the same as subtracting does.
fn is_readable(instant: Instant) -> bool {
    // Some that carry into the seconds, and some that don't; up to a year.
    let steps = [1, 999_999_999, 1_000_000_000, u64::from(u32::MAX), 1 << 55];
    steps.into_iter().all(|step| {
        let later = instant.checked_add(Duration::from_nanos(step)).map(read);
        later.is_some_and(|later| later.checked_sub(read(instant)) == Some(step))
    })
}

#[derive(Default)]
struct Parts {
    seconds: u64,
    nanos: u32,
}

impl Hasher for Parts {
    /// Not what we know.
    fn write(&mut self, _: &[u8]) {}

    #[inline]
    fn write_u64(&mut self, seconds: u64) {
        self.seconds = seconds;
    }

    #[inline]
    fn write_i64(&mut self, seconds: i64) {
        self.seconds = seconds as u64;
    }

    #[inline]
    fn write_u32(&mut self, nanos: u32) {
        self.nanos = nanos;
    }

    #[inline]
    fn finish(&self) -> u64 {
        // 544 years are enough, and then nothing can overflow.
        self.seconds.min(1 << 34) * 1_000_000_000 + u64::from(self.nanos)
    }
}

#[cfg(all(test, not(tower_breaker_loom)))]
#[allow(clippy::disallowed_methods)] // any instant will do
mod tests {
    use super::*;
    use crate::circuit::clock::{NEVER, nanos};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn b11_instants_are_as_far_apart_however_they_are_read(
            before in 0..u64::MAX / 8,
            after in 0..u64::MAX / 8,
        ) {
            let origin = Instant::now() + Duration::from_nanos(before);
            let later = origin + Duration::from_nanos(after);
            for origin in [Origin::new(origin), Origin::Subtracted(origin)] {
                prop_assert_eq!(origin.until(later), after);
            }
            prop_assert_eq!(Origin::new(later).until(origin), 0);
        }
    }

    #[test]
    fn b11_instants_are_told_apart_where_they_cannot_be_read() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        // From there on nothing is read; and a little before, not for as long as a circuit may run.
        let last = seconds((1 << 34) - read(now) / 1_000_000_000);
        for origin in [now + last - seconds(100), now + last] {
            let later = origin + seconds(1_000);
            assert_eq!(Origin::new(origin).until(later), nanos(seconds(1_000)));
        }
    }

    #[test]
    fn b11_no_instant_is_so_late_that_it_never_comes() {
        let now = Instant::now();
        let late = now + Duration::from_secs(1 << 35);
        assert!(Origin::new(now).until(late) < NEVER);
        assert_eq!(Origin::Subtracted(now).until(late), NEVER - 1);
    }

    /// An instant is one on some systems.
    #[test]
    fn b11_a_duration_can_be_read() {
        let mut parts = Parts::default();
        Duration::new(5, 7).hash(&mut parts);
        assert_eq!(parts.finish(), 5_000_000_007);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn b11_instants_can_be_read_here() {
        assert!(is_readable(Instant::now()));
    }
}

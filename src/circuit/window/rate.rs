//! A rate: the window that it is taken over, and the rule that looks at it.
//!
//! A circuit can be reconfigured while calls settle, so a rate has room for a window of either
//! kind, and calls carry in their word which one they are recorded in. Windows of calls differ in size, which is
//! part of how they work; each size that a circuit has ever been configured with stays allocated
//! (half a byte per call of the window) until the circuit is dropped, because a call that has been
//! suspended might still look at it.

use std::sync::OnceLock;

use super::{
    Counts,
    count::{CountWindow, Held, Recorded},
    time::{Ring, TimeWindow},
};
use crate::circuit::sync::{AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub(crate) struct Rate {
    /// The percentage in the lowest byte (0: the rule is off), above it the volume.
    rule: AtomicU64,
    time: TimeWindow,
    /// One of each size that there was, and which of these it is.
    calls: OnceLock<Box<CountWindows>>,
    size: AtomicU64,
}

/// What a window is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// The last so many nanoseconds.
    Period(u64),
    /// The last so many settled calls.
    Calls(u32),
}

/// Which window is recorded in, in two bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    None,
    Time,
    Calls,
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self {
            rule: AtomicU64::new(0),
            time: TimeWindow::new(),
            calls: OnceLock::new(),
            size: AtomicU64::new(0),
        }
    }

    /// Counts a call that settled at `now`, if `is_current` says that it is still to be counted
    /// there, and tells what the window holds right after it. `turn` takes the lock and calls
    /// [`turn`](Self::turn).
    #[inline]
    pub(crate) fn record(
        &self,
        kind: Kind,
        bad: bool,
        now: u64,
        is_current: impl Fn() -> bool,
        turn: impl Fn(),
    ) -> Option<Counts> {
        match kind {
            Kind::None => None,
            Kind::Time => self.time.record(bad, now, is_current, turn),
            Kind::Calls => match self.calls().record(bad, is_current) {
                Recorded::Kept(held) => Some(held.into()),
                Recorded::Late => None,
            },
        }
    }

    /// Counts a good call in the window of time, unless something is in the way: then nothing is
    /// counted, and it is to be [recorded](Self::record).
    #[inline]
    pub(crate) fn record_good(&self, now: u64, is_current: impl Fn() -> bool) -> Option<Counts> {
        self.time.record_good(now, is_current)
    }

    /// The window of calls.
    #[inline]
    fn calls(&self) -> &CountWindow {
        let windows = self.calls.get().expect("it was made before");
        // Relaxed: who is led to the window of another shape finds itself not current there.
        windows.get(self.size.load(Relaxed))
    }

    /// Whether the window of calls is full, and all of them are good: then one more changes nothing.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        self.calls().is_clean()
    }

    /// Whether the rule says open.
    #[inline]
    pub(crate) fn is_broken_by(&self, counts: Counts) -> bool {
        // Relaxed: whoever configures anew while a call settles can't say which rule it is under.
        let rule = self.rule.load(Relaxed);
        let (percentage, volume) = (rule & 0xff, rule >> 8);
        let settled = counts.settled();
        // Counts stay below 2^57, far more calls than anyone makes, so a hundredfold fits.
        percentage != 0 && settled >= volume && counts.bad * 100 >= percentage * settled
    }

    // ===== under the lock =====

    pub(crate) fn set_rule(&self, percentage: Option<u8>, volume: u32) {
        let rule = u64::from(percentage.unwrap_or(0)) | (u64::from(volume) << 8);
        self.rule.store(rule, Relaxed);
    }

    /// Makes an empty window ready. Nobody may record meanwhile, and what was recorded before has
    /// to have been [cleared](Self::clear).
    pub(crate) fn begin(&self, span: Option<Span>, now: u64) -> Option<Box<Ring>> {
        match span? {
            Span::Period(period) => Some(Box::new(self.time.begin(period, now))),
            Span::Calls(size) => {
                let windows = self.calls.get_or_init(|| Box::new(CountWindows::new(size)));
                self.size.store(windows.find(size), Relaxed);
                self.calls().clear();
                None
            }
        }
    }

    /// Moves the window on to `now`.
    pub(crate) fn turn(&self, ring: &mut Option<Box<Ring>>, now: u64) {
        if let Some(ring) = ring {
            self.time.turn(ring, now);
        }
    }

    /// When the window changes by time alone.
    pub(crate) fn next_turn(&self, ring: &Option<Box<Ring>>) -> Option<u64> {
        ring.as_ref().map(|_| self.time.ends())
    }

    /// Empties the window. No call that may be recorded in it may be present: those of the old
    /// generation or shape are no longer, and the next one is yet to be published.
    pub(crate) fn clear(&self, kind: Kind, ring: &mut Option<Box<Ring>>) {
        if let Some(ring) = ring {
            self.time.clear(ring);
        }
        if kind == Kind::Calls {
            self.calls().clear();
        }
    }

    /// What the window holds.
    pub(crate) fn counts(&self, kind: Kind, ring: &mut Option<Box<Ring>>, now: u64) -> Counts {
        match (kind, ring) {
            (Kind::Calls, _) => self.calls().counts().into(),
            (Kind::Time, Some(ring)) => self.time.counts(ring, now),
            (Kind::Time | Kind::None, _) => Counts::default(),
        }
    }

    /// All that was ever recorded in a window of time.
    pub(crate) fn lifetime(&self, ring: &Option<Box<Ring>>) -> Counts {
        let ring = ring.as_ref();
        ring.map_or(Counts::default(), |ring| self.time.lifetime(ring))
    }
}

impl From<Held> for Counts {
    #[inline]
    fn from(held: Held) -> Self {
        Self {
            good: held.settled - held.bad,
            bad: held.bad,
        }
    }
}

impl Span {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Period(_) => Kind::Time,
            Self::Calls(_) => Kind::Calls,
        }
    }
}

impl Kind {
    pub(crate) const fn pack(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Time => 1,
            Self::Calls => 2,
        }
    }

    /// The inverse of `pack`, from the lowest two bits.
    #[inline]
    pub(crate) fn unpack(bits: u64) -> Self {
        match bits & 0b11 {
            0 => Self::None,
            1 => Self::Time,
            _ => Self::Calls,
        }
    }
}

/// A window of calls, and those of other sizes.
#[derive(Debug)]
struct CountWindows {
    first: CountWindow,
    rest: OnceLock<Box<CountWindows>>,
}

impl CountWindows {
    fn new(size: u32) -> Self {
        Self {
            first: CountWindow::new(size),
            rest: OnceLock::new(),
        }
    }

    #[inline]
    fn get(&self, index: u64) -> &CountWindow {
        let mut here = self;
        for _ in 0..index {
            here = here.rest.get().expect("it was found before");
        }
        &here.first
    }

    /// The window of this size, made where there is none.
    fn find(&self, size: u32) -> u64 {
        let (mut here, mut index) = (self, 0);
        while here.first.size() != size {
            here = here.rest.get_or_init(|| Box::new(Self::new(size)));
            index += 1;
        }
        index
    }
}

#[cfg(all(test, not(tower_breaker_loom)))]
mod tests {
    use super::*;

    #[test]
    fn b8_each_size_of_a_window_is_made_once() {
        let windows = CountWindows::new(10);
        assert_eq!(
            [10, 20, 10, 30, 20].map(|size| windows.find(size)),
            [0, 1, 0, 2, 1]
        );
        assert_eq!(
            [0, 1, 2].map(|index| windows.get(index).size()),
            [10, 20, 30]
        );
    }
}

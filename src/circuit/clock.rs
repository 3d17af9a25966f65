//! The one place that reads the time.
//!
//! A circuit measures everything with its own [`Clock`]: the window, the wait before a probe,
//! the deadline of a call. Tests set it: with the `tokio` feature the default clock is tokio's,
//! so it follows `tokio::time::pause` and `advance`, and [`ManualClock`] moves only when told to.
//! The times of day that metrics and events show are counted from one anchor, taken when the
//! circuit was made, so they never run backwards against each other.
//!
//! The default is the one that tests can set, and that is right to the nanosecond anywhere, though
//! reading it is most of what a call costs: of 74 ns with the default configuration, some 50 are its two
//! reads. Who makes ten million calls a second can have another with
//! [`Circuit::with_clock`](super::Circuit::with_clock), and does without paused time: the same call
//! took 61 ns with `QuantaClock` on that machine, and less on one that reads its time stamp
//! counter faster; with `CoarseClock` it took 37. (`benches/README.md`)

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::instant::{self, Origin};

/// A source of monotonic time.
///
/// A clock that stands still or jumps makes a circuit late or early, nothing worse: all
/// arithmetic on its readings saturates.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Nanoseconds since a fixed moment of the clock's own choosing.
    fn now(&self) -> u64;
}

/// The clock of a circuit that was given no other: tokio's with the `tokio` feature (it works
/// outside a runtime too, and follows paused time inside one), std's without it.
#[derive(Debug, Default, Clone, Copy)]
pub struct DefaultClock;

/// Readings are relative to the first one, which is given this value instead of 0, because
/// paused clocks of several runtimes may lie before each other. 2^62 ns leaves 146 years on
/// either side.
const ORIGIN: u64 = 1 << 62;

impl Clock for DefaultClock {
    #[inline]
    fn now(&self) -> u64 {
        static ANCHOR: OnceLock<Instant> = OnceLock::new();
        let now = instant();
        let anchor = *ANCHOR.get_or_init(|| now);
        match now.checked_duration_since(anchor) {
            Some(after) => ORIGIN.saturating_add(nanos(after)),
            None => ORIGIN.saturating_sub(nanos(anchor.saturating_duration_since(now))),
        }
    }
}

#[cfg(feature = "tokio")]
#[inline]
#[allow(clippy::disallowed_methods)] // this is the place where the time is read
fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(not(feature = "tokio"))]
#[inline]
#[allow(clippy::disallowed_methods)] // this is the place where the time is read
fn instant() -> Instant {
    Instant::now()
}

/// The time of day, for anchors and for deadlines that the other side gave as dates.
#[allow(clippy::disallowed_methods)] // this is the place where the time is read
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The time that timers go by.
#[cfg(feature = "http")]
#[allow(clippy::disallowed_methods)] // this is the place where the time is read
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A moment that no clock reaches.
pub(super) const NEVER: u64 = u64::MAX;

/// Whole nanoseconds, or [`NEVER`] for what has 2^34 seconds (544 years) or more.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    // One comparison, where saturating in each step would be two: every reading of the clock pays.
    if duration.as_secs() < 1 << 34 {
        duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
    } else {
        NEVER
    }
}

/// A clock that reads the processor's time stamp counter, by way of the [`quanta`] crate: about half
/// the cost of the default. It does not follow tokio's paused time.
#[cfg(feature = "quanta")]
#[cfg_attr(docsrs, doc(cfg(feature = "quanta")))]
#[derive(Debug, Clone)]
pub struct QuantaClock(quanta::Clock);

#[cfg(feature = "quanta")]
impl QuantaClock {
    /// The first one in a process takes some milliseconds, to be calibrated.
    pub fn new() -> Self {
        Self(quanta::Clock::new())
    }
}

#[cfg(feature = "quanta")]
impl Default for QuantaClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "quanta")]
impl Clock for QuantaClock {
    #[inline]
    fn now(&self) -> u64 {
        self.0.delta_as_nanos(0, self.0.raw())
    }
}

/// A clock that reads the time of the operating system's last tick, by way of the [`coarsetime`] crate:
/// the cheapest there is. It does not follow tokio's paused time.
///
/// It moves in steps of 1 to 10 ms on Linux (`CLOCK_MONOTONIC_COARSE`; 10 to 16 ms on Windows), so
/// latencies are rounded to that, and it suits a `slow_call_duration` that is much longer.
#[cfg(feature = "coarse")]
#[cfg_attr(docsrs, doc(cfg(feature = "coarse")))]
#[derive(Debug, Default, Clone, Copy)]
pub struct CoarseClock;

#[cfg(feature = "coarse")]
impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> u64 {
        // Not `now`, which also writes to a place that all threads share.
        let now = coarsetime::Instant::now_without_cache_update();
        coarsetime::Duration::from_ticks(now.as_ticks()).as_nanos()
    }
}

/// A clock that moves only when told to. Clones show the same time.
///
/// Timers are not bound to it: a service that waits in `poll_ready` looks again when its
/// runtime's timer fires or its circuit changes, not when this clock is moved.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Circuit, CircuitBreakerConfig, CircuitState, ManualClock};
///
/// let clock = ManualClock::new();
/// let config = CircuitBreakerConfig::builder().failure_threshold(1).build()?;
/// let circuit = Circuit::with_clock(config, clock.clone());
///
/// circuit.try_acquire()?.failure();
/// assert_eq!(circuit.state(), CircuitState::Open);
///
/// clock.advance(Duration::from_secs(120));
/// assert!(circuit.is_available());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on by `by`.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(nanos(by)));
    }

    /// Sets the clock to `nanos` since its beginning, which may lie before its present reading.
    pub fn set(&self, nanos: u64) {
        // Relaxed: the reading is the only thing that is shared.
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        // Relaxed: as in `set`.
        self.0.load(Ordering::Relaxed)
    }
}

/// A circuit's time: nanoseconds since the circuit was made.
#[derive(Debug)]
pub(super) struct Timeline {
    source: Source,
    /// The time of day when the circuit was made.
    born: SystemTime,
}

/// The clock, and its reading when the circuit was made.
#[derive(Debug)]
enum Source {
    /// As [`DefaultClock`], but not called through a pointer.
    Default(Origin),
    Custom(Box<dyn Clock>, u64),
}

impl Source {
    #[inline(never)]
    fn now(&self) -> u64 {
        match self {
            Self::Default(origin) => origin.until(instant()),
            // No clock reads `NEVER`.
            Self::Custom(clock, origin) => clock.now().saturating_sub(*origin).min(NEVER - 1),
        }
    }
}

impl Timeline {
    pub(super) fn new(clock: Option<Box<dyn Clock>>) -> Self {
        Self {
            source: match clock {
                None => Source::Default(Origin::new(instant())),
                Some(clock) => {
                    let origin = clock.now();
                    Source::Custom(clock, origin)
                }
            },
            born: wall_clock(),
        }
    }

    /// Each call reads the clock twice, so for the clock that most have it is inlined.
    #[inline(always)]
    pub(super) fn now(&self) -> u64 {
        match &self.source {
            Source::Default(Origin::Read(origin)) => {
                instant::read(instant()).saturating_sub(*origin)
            }
            other => other.now(),
        }
    }

    /// The time of day at a moment of this timeline.
    pub(super) fn date(&self, at: u64) -> SystemTime {
        self.born
            .checked_add(Duration::from_nanos(at))
            .unwrap_or(self.born)
    }
}

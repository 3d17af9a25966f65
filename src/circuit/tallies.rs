//! Counters of what no window counts.

use super::{
    clock::NEVER,
    outcome::Cause,
    sync::{AtomicU64, Ordering::Relaxed},
    window::Sums,
};

#[derive(Debug)]
#[repr(C)]
pub(super) struct Tallies {
    /// Settled calls that were late, or probes, or that no window of time has counted.
    pub(super) good: AtomicU64,
    pub(super) bad: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) slow: AtomicU64,
    /// A moment, `NEVER` at first.
    pub(super) last_failure: AtomicU64,
}

impl Tallies {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            good: zero(),
            bad: zero(),
            ignored: zero(),
            rejected: zero(),
            cancelled: zero(),
            timed_out: zero(),
            slow: zero(),
            last_failure: AtomicU64::new(NEVER),
        }
    }

    /// Counts one. Relaxed: a count orders nothing else.
    #[inline]
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a settled call; a good one only if those are counted.
    #[inline]
    pub(super) fn settled(&self, bad: bool, slow: bool, counts_good: bool) {
        if bad {
            Self::count(&self.bad);
        } else if counts_good {
            Self::count(&self.good);
        }
        if slow {
            Self::count(&self.slow);
        }
    }

    /// Takes over what a window of time has counted.
    pub(super) fn keep(&self, counted: Sums) {
        let Sums {
            settled,
            failed,
            slow,
        } = counted;
        self.good.fetch_add(settled - failed, Relaxed);
        self.bad.fetch_add(failed, Relaxed);
        self.slow.fetch_add(slow, Relaxed);
    }

    #[inline]
    pub(super) fn cause(&self, cause: Cause) {
        match cause {
            Cause::Answered => {}
            Cause::TimedOut => Self::count(&self.timed_out),
            Cause::Cancelled => Self::count(&self.cancelled),
        }
    }
}

//! A rate: the rule that looks at it, and the windows of calls that it may be taken over.
//!
//! A circuit can be reconfigured while calls settle, so calls carry in their word which kind of
//! window they are recorded in. Windows of calls differ in size, which is part of how they work;
//! each size that a circuit has ever been configured with stays allocated (half a byte per call of
//! the window) until the circuit is dropped, because a call that has been suspended might still
//! look at it.

use std::sync::OnceLock;

use super::{
    Counts,
    count::{CountWindow, Held, Recorded},
};
use crate::circuit::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

#[derive(Debug)]
pub(crate) struct Rate {
    /// The percentage in the lowest byte (0: the rule is off), above it the volume.
    rule: AtomicU64,
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
            calls: OnceLock::new(),
            size: AtomicU64::new(0),
        }
    }

    /// Counts a settled call in the window of calls, if `is_current` says that it is still to be
    /// counted there, and tells what that holds right after it.
    #[inline(always)]
    pub(crate) fn record(&self, bad: bool, is_current: impl Fn() -> bool) -> Option<Counts> {
        match self.calls().record(bad, is_current) {
            Recorded::Kept(held) => Some(held.into()),
            Recorded::Late => None,
        }
    }

    /// The window of calls.
    #[inline]
    fn calls(&self) -> &CountWindow {
        let windows = self.calls.get().expect("it was made before");
        // Who is led to the window of another shape finds itself not current there. Acquire: it finds
        // the window made. (So says its cell too, but not to loom.)
        windows.get(self.size.load(Acquire))
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
        let Counts { settled, bad } = counts;
        // Counts stay below 2^57, far more calls than anyone makes, so a hundredfold fits.
        percentage != 0 && settled >= volume && bad * 100 >= percentage * settled
    }

    // ===== under the lock =====

    pub(crate) fn set_rule(&self, percentage: Option<u8>, volume: u32) {
        let rule = u64::from(percentage.unwrap_or(0)) | (u64::from(volume) << 8);
        self.rule.store(rule, Relaxed);
    }

    /// Makes an empty window of so many calls ready. Nobody may record meanwhile, and what was
    /// recorded before has to have been [cleared](Self::clear).
    pub(crate) fn begin(&self, size: u32) {
        let windows = self.calls.get_or_init(|| Box::new(CountWindows::new(size)));
        self.size.store(windows.find(size), Release);
        self.clear();
    }

    /// Empties the window of calls. No call that may be recorded in it may be present: those of the
    /// old generation or shape are no longer, and the next one is yet to be published.
    pub(crate) fn clear(&self) {
        self.calls().clear();
    }

    /// What the window of calls holds.
    pub(crate) fn counts(&self) -> Counts {
        self.calls().counts().into()
    }
}

impl From<Held> for Counts {
    #[inline]
    fn from(held: Held) -> Self {
        Self {
            settled: held.settled,
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

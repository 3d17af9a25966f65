//! A rate: the window that it is taken over, and the rule that looks at it.
//!
//! A circuit can be reconfigured while calls settle, so a rate has room for a window of either
//! kind, and those who record are told which one it is. Windows of calls differ in size, which is
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
    calls: CountWindows,
}

/// What a window is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// The last so many nanoseconds.
    Period(u64),
    /// The last so many settled calls.
    Calls(u32),
}

/// Which window is recorded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    None,
    Time,
    /// The so-manieth size that there was.
    Calls(u32),
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self {
            rule: AtomicU64::new(0),
            time: TimeWindow::new(),
            calls: CountWindows::default(),
        }
    }

    /// Counts a call that settled at `now`, if `is_current` says that it is still to be counted
    /// there, and tells what the window holds right after it. `turn` takes the lock and calls
    /// [`turn`](Self::turn).
    #[inline]
    pub(crate) fn record(
        &self,
        select: Select,
        bad: bool,
        now: u64,
        is_current: impl Fn() -> bool,
        turn: impl Fn(),
    ) -> Option<Counts> {
        match select {
            Select::None => None,
            Select::Time => self.time.record(bad, now, is_current, turn),
            Select::Calls(index) => match self.calls.get(index).record(bad, is_current) {
                Recorded::Kept(held) => Some(held.into()),
                Recorded::Late => None,
            },
        }
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
    pub(crate) fn begin(&self, span: Option<Span>, now: u64) -> (Select, Option<Ring>) {
        match span {
            None => (Select::None, None),
            Some(Span::Period(period)) => (Select::Time, Some(self.time.begin(period, now))),
            Some(Span::Calls(size)) => {
                let index = self.calls.find(size);
                self.calls.get(index).clear();
                (Select::Calls(index), None)
            }
        }
    }

    /// Moves the window on to `now`.
    pub(crate) fn turn(&self, ring: &mut Option<Ring>, now: u64) {
        if let Some(ring) = ring {
            self.time.turn(ring, now);
        }
    }

    /// When the window changes by time alone.
    pub(crate) fn next_turn(&self, ring: &Option<Ring>) -> Option<u64> {
        ring.as_ref().map(|_| self.time.ends())
    }

    /// Empties the window. No call that may be recorded in it may be present: those of the old
    /// generation or shape are no longer, and the next one is yet to be published.
    pub(crate) fn clear(&self, select: Select, ring: &mut Option<Ring>) {
        if let Some(ring) = ring {
            self.time.clear(ring);
        }
        if let Select::Calls(index) = select {
            self.calls.get(index).clear();
        }
    }

    /// What the window holds.
    pub(crate) fn counts(&self, select: Select, ring: &mut Option<Ring>, now: u64) -> Counts {
        match (select, ring) {
            (Select::Calls(index), _) => self.calls.get(index).counts().into(),
            (Select::Time, Some(ring)) => self.time.counts(ring, now),
            (Select::Time | Select::None, _) => Counts::default(),
        }
    }

    /// All that was ever recorded in a window of time.
    pub(crate) fn lifetime(&self, ring: &Option<Ring>) -> Counts {
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

impl Select {
    const BITS: u32 = 24;

    /// As a number of 24 bits.
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Time => 1,
            Self::Calls(index) => u64::from(index) + 2,
        }
    }

    /// The inverse of `pack`, from the lowest 24 bits.
    #[inline]
    pub(crate) fn unpack(bits: u64) -> Self {
        match bits & ((1 << Self::BITS) - 1) {
            0 => Self::None,
            1 => Self::Time,
            calls => Self::Calls((calls - 2) as u32),
        }
    }
}

/// Windows of calls, one of each size that there was.
#[derive(Debug, Default)]
struct CountWindows {
    first: OnceLock<CountWindow>,
    rest: OnceLock<Box<CountWindows>>,
}

impl CountWindows {
    #[inline]
    fn get(&self, index: u32) -> &CountWindow {
        let mut here = self;
        for _ in 0..index {
            here = here.rest.get().expect("it was found before");
        }
        here.first.get().expect("it was found before")
    }

    /// The window of this size, made where there is none.
    fn find(&self, size: u32) -> u32 {
        let (mut here, mut index) = (self, 0);
        while here.first.get_or_init(|| CountWindow::new(size)).size() != size {
            here = here.rest.get_or_init(Box::default);
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
        let windows = CountWindows::default();
        assert_eq!(
            [10, 20, 10, 30, 20].map(|size| windows.find(size)),
            [0, 1, 0, 2, 1]
        );
        assert_eq!(
            [0, 1, 2].map(|index| windows.get(index).size()),
            [10, 20, 30]
        );
    }

    #[test]
    fn a_selection_survives_packing() {
        for select in [
            Select::None,
            Select::Time,
            Select::Calls(0),
            Select::Calls(70_000),
        ] {
            assert_eq!(Select::unpack(select.pack() | 1 << 24), select);
        }
    }
}

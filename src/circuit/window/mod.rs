//! The sliding windows over which rates are taken.
//!
//! A window counts settled calls of one generation as *bad* or good; a circuit has one for failures
//! and, where calls can be slow, one for those.

mod count;
mod time;

use self::count::{CountWindow, Held, Recorded};
pub(super) use self::{
    count::MAX_SIZE,
    time::{Ring, TimeWindow},
};

/// What a window holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Counts {
    pub(super) fn settled(self) -> u64 {
        self.good + self.bad
    }

    /// The bad share, between 0 and 1; 0 of nothing.
    pub(super) fn rate(self) -> f64 {
        match self.settled() {
            0 => 0.0,
            settled => self.bad as f64 / settled as f64,
        }
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.bad += other.bad;
    }

    fn subtract(&mut self, other: Self) {
        self.good -= other.good;
        self.bad -= other.bad;
    }
}

/// A window of either kind.
#[derive(Debug)]
pub(super) enum Window {
    Time(TimeWindow),
    Count(CountWindow),
}

impl From<Held> for Counts {
    fn from(held: Held) -> Self {
        Self {
            good: held.settled - held.bad,
            bad: held.bad,
        }
    }
}

impl Window {
    /// A window of the last `calls`, or else of the last `period` in nanoseconds, with the part of
    /// it that is kept under the circuit's lock.
    pub(super) fn new(calls: Option<u32>, period: u64) -> (Self, Option<Ring>) {
        if let Some(calls) = calls {
            return (Self::Count(CountWindow::new(calls)), None);
        }
        let (window, ring) = TimeWindow::new(period);
        (Self::Time(window), Some(ring))
    }

    /// Whether all that was ever recorded can be told from it.
    pub(super) fn keeps_totals(&self) -> bool {
        matches!(self, Self::Time(_))
    }

    /// See [`TimeWindow::record`] and [`CountWindow::record`].
    #[inline]
    pub(super) fn record(
        &self,
        bad: bool,
        now: u64,
        is_current: impl Fn() -> bool,
        turn: impl Fn(),
    ) -> Option<Counts> {
        match self {
            Self::Time(window) => window.record(bad, now, is_current, turn),
            Self::Count(window) => match window.record(bad, is_current) {
                Recorded::Kept(held) => Some(held.into()),
                Recorded::Late => None,
            },
        }
    }

    /// Moves it on to `now`. Needs the lock.
    pub(super) fn turn(&self, ring: &mut Option<Ring>, now: u64) {
        if let (Self::Time(window), Some(ring)) = (self, ring) {
            window.turn(ring, now);
        }
    }

    /// Empties it. Needs the lock, and that no generation is present; see [`TimeWindow::clear`].
    pub(super) fn clear(&self, ring: &mut Option<Ring>) {
        match (self, ring) {
            (Self::Time(window), Some(ring)) => window.clear(ring),
            (Self::Time(_), None) => {}
            (Self::Count(window), _) => window.clear(),
        }
    }

    /// What it holds. Needs the lock.
    pub(super) fn counts(&self, ring: &mut Option<Ring>, now: u64) -> Counts {
        match (self, ring) {
            (Self::Time(window), Some(ring)) => window.counts(ring, now),
            (Self::Time(_), None) => Counts::default(),
            (Self::Count(window), _) => window.counts().into(),
        }
    }

    /// All that was ever recorded, if it keeps that. Needs the lock.
    pub(super) fn lifetime(&self, ring: &Option<Ring>) -> Option<Counts> {
        match (self, ring) {
            (Self::Time(window), Some(ring)) => Some(window.lifetime(ring)),
            _ => None,
        }
    }
}

/// When a rate says open.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateRule {
    /// 0: the rule is off.
    percentage: u64,
    volume: u64,
}

impl RateRule {
    pub(super) fn new(percentage: Option<u8>, volume: u32) -> Self {
        Self {
            percentage: u64::from(percentage.unwrap_or(0)),
            volume: u64::from(volume),
        }
    }

    #[inline]
    pub(super) fn is_broken_by(self, counts: Counts) -> bool {
        let settled = counts.settled();
        // Counts stay below 2^57, far more calls than anyone makes, so a hundredfold fits.
        self.percentage != 0
            && settled >= self.volume
            && counts.bad * 100 >= self.percentage * settled
    }
}

//! The sliding windows over which rates are taken.
//!
//! A window counts settled calls of one generation as *bad* or good; a circuit has one for failures
//! and, where calls can be slow, one for those.

mod time;

pub(super) use self::time::{Ring, TimeWindow};

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

//! The sliding windows over which rates are taken.
//!
//! A window counts settled calls of one generation as *bad* or good; a circuit has one for failures
//! and, where calls can be slow, one for those.

mod count;
mod rate;
mod time;

#[cfg(all(test, tower_breaker_loom))]
pub(super) use self::time::TimeWindow;
pub(super) use self::{
    count::MAX_SIZE,
    rate::{Kind, Rate, Span},
    time::Ring,
};

/// What a window holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Counts {
    #[inline]
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

    #[inline]
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.bad += other.bad;
    }

    fn subtract(&mut self, other: Self) {
        self.good -= other.good;
        self.bad -= other.bad;
    }
}

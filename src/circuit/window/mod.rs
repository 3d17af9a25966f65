//! The sliding windows over which rates are taken.
//!
//! They hold the settled calls of one generation, and tell how many of them were *bad*: failed, or
//! slow. A window of time counts both at once; of calls, there is one for each.

mod count;
mod packed;
mod rate;
mod ring;
mod time;

pub(super) use self::{
    count::MAX_SIZE,
    packed::{Settled, Sums},
    rate::{Kind, Rate, Span},
    ring::Ring,
    time::{Present, TimeWindow},
};

/// What a window holds, of which so many are bad.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) settled: u64,
    pub(super) bad: u64,
}

impl Counts {
    /// The bad share, between 0 and 1; 0 of nothing.
    pub(super) fn rate(self) -> f64 {
        match self.settled {
            0 => 0.0,
            settled => self.bad as f64 / settled as f64,
        }
    }

    /// With so many more bad ones.
    #[inline]
    pub(super) fn and_bad(self, more: u64) -> Self {
        Self {
            settled: self.settled + more,
            bad: self.bad + more,
        }
    }
}

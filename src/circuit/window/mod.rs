//! The sliding windows over which rates are taken.

mod time;

pub(super) use self::time::TimeWindow;

/// What settled within a window.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) successes: u64,
    pub(super) failures: u64,
    /// How many of the calls above were slow.
    pub(super) slow: u64,
}

impl Counts {
    pub(super) fn settled(&self) -> u64 {
        self.successes + self.failures
    }

    pub(super) fn error_rate(&self) -> f64 {
        share(self.failures, self.settled())
    }

    pub(super) fn slow_rate(&self) -> f64 {
        share(self.slow, self.settled())
    }

    fn add(&mut self, other: &Self) {
        self.successes += other.successes;
        self.failures += other.failures;
        self.slow += other.slow;
    }

    fn subtract(&mut self, other: &Self) {
        self.successes -= other.successes;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }
}

/// `part` of `whole`, between 0 and 1; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

//! The window of the last so many seconds.
//!
//! It is a ring of buckets, each a step of time wide, with a running sum beside them: recording
//! and asking cost the same whether ten calls or ten million fell into the window, and so does
//! the memory. The window moves in whole steps. A call stays in it for the period or up to one
//! step less. (A step is a whole number of nanoseconds, rounded up, so the period is kept to within
//! 300 ns.)

use super::Counts;

/// Buckets in the ring. At the default period of 300 s a step is one second; the contract asks
/// for steps of at most 1/30 of the period.
const STEPS: u64 = 300;

#[derive(Debug)]
pub(crate) struct TimeWindow {
    /// Nanoseconds per bucket, at least 1.
    step: u64,
    /// The step that `now` was in when the window was last moved.
    current: u64,
    /// The bucket of step `s` is at `s % STEPS`.
    buckets: Box<[Counts]>,
    sum: Counts,
}

impl TimeWindow {
    pub(crate) fn new(period: u64) -> Self {
        Self {
            step: period.div_ceil(STEPS).max(1),
            current: 0,
            buckets: vec![Counts::default(); STEPS as usize].into_boxed_slice(),
            sum: Counts::default(),
        }
    }

    /// Adds what settled at `now`. A `now` that lies before the newest step counts in that step.
    pub(crate) fn record(&mut self, now: u64, counts: Counts) {
        self.advance(now);
        let slot = (self.current % STEPS) as usize;
        self.buckets[slot].add(&counts);
        self.sum.add(&counts);
    }

    /// What the window holds at `now`, without moving it.
    pub(crate) fn peek(&self, now: u64) -> Counts {
        let mut sum = self.sum;
        for step in self.leaving(now) {
            sum.subtract(&self.buckets[(step % STEPS) as usize]);
        }
        sum
    }

    /// What the window holds at `now`.
    pub(crate) fn counts(&mut self, now: u64) -> Counts {
        self.advance(now);
        self.sum
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(Counts::default());
        self.sum = Counts::default();
    }

    fn advance(&mut self, now: u64) {
        for step in self.leaving(now) {
            let slot = (step % STEPS) as usize;
            self.sum.subtract(&self.buckets[slot]);
            self.buckets[slot] = Counts::default();
        }
        self.current = self.current.max(now / self.step);
    }

    /// The buckets that drop out when the window moves on to `now`, named by the steps that take
    /// their places.
    fn leaving(&self, now: u64) -> std::ops::Range<u64> {
        let target = now / self.step;
        let moved = target.saturating_sub(self.current).min(STEPS);
        let first = self.current.saturating_add(1);
        first..first.saturating_add(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAILURE: Counts = Counts {
        successes: 0,
        failures: 1,
        slow: 0,
    };

    #[test]
    fn b6_a_call_stays_for_the_period_or_up_to_a_step_less() {
        let period = 300_000;
        let mut window = TimeWindow::new(period);
        window.record(0, FAILURE);
        window.record(999, FAILURE);
        assert_eq!(window.peek(period - 1).failures, 2);
        assert_eq!(window.peek(period).failures, 0);
        assert_eq!(window.counts(period).failures, 0);
    }

    #[test]
    fn b11_a_clock_that_jumps_back_loses_nothing() {
        let mut window = TimeWindow::new(300);
        window.record(200, FAILURE);
        window.record(10, FAILURE);
        assert_eq!(window.counts(5).failures, 2);
        assert_eq!(window.counts(499).failures, 2);
        assert_eq!(window.counts(500).failures, 0);
        window.record(u64::MAX, FAILURE);
        assert_eq!(window.counts(u64::MAX).failures, 1);
    }

    proptest! {
        /// The ring against a plain list of what was recorded when.
        #[test]
        fn b6_the_ring_equals_a_list(
            period in 1_u64..5_000,
            calls in prop::collection::vec((0_u64..400, any::<bool>(), any::<bool>()), 0..400),
        ) {
            let mut window = TimeWindow::new(period);
            let mut list: Vec<(u64, Counts)> = Vec::new();
            let step = period.div_ceil(STEPS).max(1);
            let mut now = 0;
            for (wait, failed, slow) in calls {
                now += wait;
                let counts = Counts {
                    successes: u64::from(!failed),
                    failures: u64::from(failed),
                    slow: u64::from(slow),
                };
                window.record(now, counts);
                list.push((now / step, counts));

                let mut expected = Counts::default();
                for (at, counts) in &list {
                    if now / step - at < STEPS {
                        expected.add(counts);
                    }
                }
                prop_assert_eq!(window.peek(now), expected);
                prop_assert_eq!(window.counts(now), expected);
            }
        }
    }
}

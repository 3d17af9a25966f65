//! What calls are recorded in, as far as that is kept under the lock.

use super::{Machine, Phase};
use crate::circuit::{
    clock::nanos,
    hot::Hot,
    running::Cohort,
    shape,
    sync::Ordering::{Acquire, Relaxed},
    window::{Counts, Kind, Present, Rate, Sums},
};

impl Machine {
    /// Prepares what a new generation is recorded in.
    pub(super) fn begin(&mut self, hot: &Hot, now: u64) {
        if matches!(self.phase, Phase::Closed(_)) {
            self.clear(hot);
            hot.begin_run(self.generation);
        }
        self.watch_nobody(hot);
        self.watch(hot, now);
    }

    /// Empties the windows. Nobody may be recording.
    fn clear(&mut self, hot: &Hot) {
        if let Some(ring) = &mut self.ring {
            hot.time.clear(ring, same_moment(&mut self.cohort, hot));
        }
        for rate in self.rates_of_calls(hot).into_iter().flatten() {
            rate.clear();
        }
    }

    /// The rates that are taken over windows of calls.
    pub(super) fn rates_of_calls<'a>(&self, hot: &'a Hot) -> [Option<&'a Rate>; 2] {
        let shape = self.shape;
        let slow = hot.slow().map(|slow| &slow.rate);
        let rates = [
            shape.errors.then_some(&hot.errors),
            slow.filter(|_| shape.slow),
        ];
        rates.map(|rate| rate.filter(|_| shape.window == Kind::Calls))
    }

    /// Watches the calls of a new cohort, if calls are to be watched.
    pub(super) fn watch(&mut self, hot: &Hot, now: u64) {
        if let Some(slow_after) = self.config.slow_call_duration {
            let number = self.word().cohort();
            let cohort = hot.running().begin(number, nanos(slow_after), now);
            if let Some(ring) = &mut self.ring {
                // Who has settled up to now was of no cohort, or of another one.
                hot.time.go_on(ring, |_| hot.running().present(&cohort));
            }
            self.cohort = Some(Box::new(cohort));
            hot.set_look_at(0);
        }
    }

    /// Nobody is watched any more who was up to now.
    pub(super) fn watch_nobody(&mut self, hot: &Hot) {
        if self.cohort.take().is_some() {
            self.count_admitted(hot, hot.running().end());
        }
    }

    /// Those who are watched count as admitted once they have been seen.
    fn count_admitted(&self, hot: &Hot, calls: u64) {
        if self.shape.counting != 0 {
            hot.admitted.fetch_add(calls, Relaxed);
        }
    }

    /// All that were admitted, where they are counted.
    pub(in crate::circuit) fn admitted(&self, hot: &Hot) -> u64 {
        // Acquire: whoever has settled was admitted before.
        let counted = hot.admitted.load(Acquire);
        match &self.cohort {
            Some(_) => counted + hot.running().begun(),
            None => counted,
        }
    }

    /// Watches the calls of a new cohort from `now` on, in the same generation, because the clock was
    /// set back. Calls in flight count as slow only when they have settled.
    fn watch_anew(&mut self, hot: &Hot, now: u64) {
        hot.suspend();
        self.watch_nobody(hot);
        self.shape.watching = shape::another(&mut self.last_watching, 15);
        self.shape.version = self.shape.version.wrapping_add(1);
        self.watch(hot, now);
        hot.publish(self.word(), self.until());
    }

    /// Turns the windows on to `now`, and the watch over running calls.
    pub(in crate::circuit) fn turn(&mut self, hot: &Hot, now: u64) {
        let cohort = &mut self.cohort;
        let mut begun = 0;
        let mut watch = |settled| {
            let Some(cohort) = cohort else {
                return Present::ALWAYS;
            };
            cohort.settled(settled);
            begun = hot.running().turn(cohort, now);
            hot.running().present(cohort)
        };
        match &mut self.ring {
            Some(ring) if hot.time.is_due(now) => hot.time.turn(ring, now, watch),
            // The present moment isn't over, or nobody counts by it.
            _ => _ = watch(0),
        }
        self.count_admitted(hot, begun);
        if self.cohort.is_some() && hot.running().is_astray() {
            self.watch_anew(hot, now);
        }
    }

    /// What the windows hold of failures and of slow calls, and those calls that are not in them yet
    /// though they are slow already.
    #[inline]
    pub(super) fn counts(&mut self, hot: &Hot, now: u64) -> [Counts; 2] {
        self.turn(hot, now);
        let [errors, mut slow] = if self.ring.is_some() {
            let sums = hot.time.sums();
            [sums.errors(), sums.slow()]
        } else {
            self.rates_of_calls(hot)
                .map(|rate| rate.map_or(Counts::default(), Rate::counts))
        };
        if self.cohort.is_some() {
            slow = slow.and_bad(hot.running().overdue(self.word().cohort()));
        }
        [errors, slow]
    }

    /// All that the window of time has ever counted.
    pub(super) fn lifetime(&self, hot: &Hot) -> Sums {
        let ring = self.ring.as_ref();
        ring.map_or(Sums::default(), |ring| hot.time.lifetime(ring))
    }
}

/// Has the window of time go on within the present moment, and the cohort know how many of it have
/// settled.
pub(super) fn same_moment(
    cohort: &mut Option<Box<Cohort>>,
    hot: &Hot,
) -> impl FnOnce(u64) -> Present {
    |settled| {
        let Some(cohort) = cohort else {
            return Present::ALWAYS;
        };
        cohort.settled(settled);
        hot.running().present(cohort)
    }
}

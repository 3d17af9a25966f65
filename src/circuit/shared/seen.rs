//! What others see of a circuit.

use super::Shared;
use crate::circuit::{
    clock::NEVER,
    config::CircuitBreakerConfig,
    hot::Hot,
    machine::Machine,
    metrics::{CircuitBreakerMetrics, Latency},
    sync::{AtomicU64, Ordering::Relaxed},
    window::Sums,
};

impl Shared {
    pub(in crate::circuit) fn config(&self) -> CircuitBreakerConfig {
        self.lock().config().clone()
    }

    pub(in crate::circuit) fn metrics(&self) -> CircuitBreakerMetrics {
        let now = self.now();
        let hot = &self.hot;
        let mut machine = self.lock();
        let (seen, word) = (machine.snapshot(hot, now), hot.word());
        let date = |at| self.timeline.date(at);
        let moment = |counter| Some(read(counter)).filter(|at| *at != NEVER).map(date);
        let tallies = &hot.tallies;
        let totals = Totals::of(hot, seen.lifetime);
        let in_flight = totals.in_flight(&machine, hot);
        drop(machine);
        let if_counted = |count: u64| word.is_counted().then_some(count);
        CircuitBreakerMetrics {
            total_requests: if_counted(totals.settled() + in_flight),
            successful_requests: if_counted(totals.good),
            failed_requests: totals.failed,
            ignored_requests: totals.ignored,
            rejected_requests: read(&tallies.rejected),
            cancelled_requests: read(&tallies.cancelled),
            timed_out_requests: read(&tallies.timed_out),
            slow_requests: word.is_watched().then_some(totals.slow),
            in_flight: if_counted(in_flight),
            last_success_time: moment(&hot.last_success).filter(|_| word.is_counted()),
            last_failure_time: moment(&tallies.last_failure).filter(|_| word.is_timed_at_its_end()),
            current_state: seen.state,
            available: seen.available,
            state_changed_at: date(seen.since),
            error_rate: word.keeps_errors().then(|| seen.errors.rate()),
            slow_rate: word.keeps_slow().then(|| seen.slow.rate()),
            retry_after: seen.retry_after,
            next_probe_at: seen.due.map(date),
            latency: self.latency().filter(|_| word.is_counted()),
            trip_reason: seen.reason,
            opened_total: seen.opened,
            recoveries_total: seen.recoveries,
            failed_recoveries_total: seen.failed_recoveries,
        }
    }

    /// `None` if a call is in flight, as far as that is known: it isn't where only what the rules need
    /// is recorded. Else whether no call in the windows failed or was slow.
    pub(in crate::circuit) fn rests_well(&self) -> Option<bool> {
        let (now, hot) = (self.now(), &self.hot);
        let mut machine = self.lock();
        let seen = machine.snapshot(hot, now);
        let in_flight = Totals::of(hot, seen.lifetime).in_flight(&machine, hot);
        let is_used = hot.word().is_counted() && in_flight != 0;
        (!is_used).then_some(seen.errors.bad == 0 && seen.slow.bad == 0)
    }

    #[cfg(feature = "latency")]
    fn latency(&self) -> Option<Latency> {
        let latencies = self.hot.latencies.get()?;
        latencies.percentiles()
    }

    #[cfg(not(feature = "latency"))]
    fn latency(&self) -> Option<Latency> {
        None
    }
}

/// Calls that have ever settled.
struct Totals {
    good: u64,
    failed: u64,
    ignored: u64,
    /// Among the good and failed ones.
    slow: u64,
}

impl Totals {
    /// `counted` is what the window of time has.
    fn of(hot: &Hot, counted: Sums) -> Self {
        let tallies = &hot.tallies;
        Self {
            good: counted.settled - counted.failed + read(&tallies.good),
            failed: counted.failed + read(&tallies.bad),
            ignored: read(&tallies.ignored),
            slow: counted.slow + read(&tallies.slow),
        }
    }

    fn settled(&self) -> u64 {
        self.good + self.failed + self.ignored
    }

    /// Who was admitted, looked at after who has settled, and was admitted before. (A processor may still
    /// show the one count before the other: then nobody is in flight.)
    fn in_flight(&self, machine: &Machine, hot: &Hot) -> u64 {
        machine.admitted(hot).saturating_sub(self.settled())
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

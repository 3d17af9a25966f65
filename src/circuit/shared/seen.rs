//! What others see of a circuit.

use super::Shared;
use crate::circuit::{
    clock::NEVER,
    config::CircuitBreakerConfig,
    metrics::{CircuitBreakerMetrics, Latency},
    sync::{AtomicU64, Ordering::Relaxed},
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
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let moment = |counter| Some(read(counter)).filter(|at| *at != NEVER).map(date);
        let tallies = &hot.tallies;
        let counted = seen.lifetime;
        let failed = counted.failed + read(&tallies.bad);
        let ignored = read(&tallies.ignored);
        let good = counted.settled - counted.failed + read(&tallies.good);
        let slow = word
            .is_watched()
            .then(|| counted.slow + read(&tallies.slow));
        // After the settled ones, who were admitted before. (A processor may still show the one count
        // before the other: then nobody is in flight.)
        let settled = good + failed + ignored;
        let in_flight = machine.admitted(hot).saturating_sub(settled);
        drop(machine);
        let if_counted = |count: u64| word.is_counted().then_some(count);
        CircuitBreakerMetrics {
            total_requests: if_counted(settled + in_flight),
            successful_requests: if_counted(good),
            failed_requests: failed,
            ignored_requests: ignored,
            rejected_requests: read(&tallies.rejected),
            cancelled_requests: read(&tallies.cancelled),
            timed_out_requests: read(&tallies.timed_out),
            slow_requests: slow,
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

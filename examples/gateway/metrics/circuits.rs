//! What the circuits have seen, as metrics.

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry, proto::MetricFamily};
use tower_breaker::{CircuitState, models::ModelManager};

use super::counters;

/// Every state, because each is a gauge of its own: 1 for the present one and 0 for the others.
const STATES: [CircuitState; 5] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::Disabled,
];

/// A snapshot of every circuit as metrics. The counts are the circuits' own, so nothing is counted
/// twice; a registry for the moment puts them into shape.
pub(super) fn gather(manager: &ModelManager) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let registry = Registry::new();
    let counter = |name, help, labels| {
        let counter = counters(name, help, labels);
        registry.register(Box::new(counter.clone()))?;
        Ok::<_, prometheus::Error>(counter)
    };
    let state = IntGaugeVec::new(
        Opts::new("circuit_breaker_state", "1 for the circuit's present state"),
        &["circuit", "state"],
    )?;
    registry.register(Box::new(state.clone()))?;
    let in_flight = IntGaugeVec::new(
        Opts::new("circuit_breaker_in_flight", "Calls that are under way"),
        &["circuit"],
    )?;
    registry.register(Box::new(in_flight.clone()))?;
    let error_rate = GaugeVec::new(
        Opts::new(
            "circuit_breaker_error_rate",
            "Failed share of the calls in the window, 0 to 1",
        ),
        &["circuit"],
    )?;
    registry.register(Box::new(error_rate.clone()))?;
    let retry_after = GaugeVec::new(
        Opts::new(
            "circuit_breaker_retry_after_seconds",
            "Time until calls may be admitted again, 0 if they are",
        ),
        &["circuit"],
    )?;
    registry.register(Box::new(retry_after.clone()))?;
    let calls = counter(
        "circuit_breaker_calls_total",
        "Calls that were admitted and have ended",
        &["circuit", "outcome"],
    )?;
    let of_these = counter(
        "circuit_breaker_cut_short_total",
        "Calls that did not end by themselves; they are among circuit_breaker_calls_total",
        &["circuit", "cause"],
    )?;
    let rejected = counter(
        "circuit_breaker_rejected_total",
        "Calls that were refused because the circuit was open",
        &["circuit"],
    )?;
    let transitions = counter(
        "circuit_breaker_transitions_total",
        "Openings, and how the half-open turns after them ended",
        &["circuit", "kind"],
    )?;
    for (name, circuit) in manager.circuits() {
        let seen = circuit.metrics();
        for candidate in STATES {
            let present = i64::from(candidate == seen.current_state);
            state
                .with_label_values(&[name, candidate.as_str()])
                .set(present);
        }
        in_flight
            .with_label_values(&[name])
            .set(i64::try_from(seen.in_flight.unwrap_or_default()).unwrap_or(i64::MAX));
        let rate = seen.error_rate.unwrap_or_default();
        error_rate.with_label_values(&[name]).set(rate);
        retry_after
            .with_label_values(&[name])
            .set(seen.retry_after.unwrap_or_default().as_secs_f64());
        rejected
            .with_label_values(&[name])
            .inc_by(seen.rejected_requests);
        for (family, label, count) in [
            (
                &calls,
                "success",
                seen.successful_requests.unwrap_or_default(),
            ),
            (&calls, "failure", seen.failed_requests),
            (&calls, "ignored", seen.ignored_requests),
            (&of_these, "timeout", seen.timed_out_requests),
            (&of_these, "cancelled", seen.cancelled_requests),
            (&transitions, "opened", seen.opened_total),
            (&transitions, "recovered", seen.recoveries_total),
            (
                &transitions,
                "recovery_failed",
                seen.failed_recoveries_total,
            ),
        ] {
            family.with_label_values(&[name, label]).inc_by(count);
        }
    }
    Ok(registry.gather())
}

//! `GET /metrics`: what the gateway counts itself, and what its circuits have seen.

use std::time::UNIX_EPOCH;

use prometheus::{
    Encoder, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    proto::MetricFamily,
};
use tower_breaker::{
    CircuitState,
    models::{ModelAttempt, ModelManager},
};

use crate::app::App;

/// Every state, because each is a gauge of its own: 1 for the present one and 0 for the others.
const STATES: [CircuitState; 5] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::Disabled,
];

/// What the gateway counts itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    attempts: IntCounterVec,
    refused: IntCounterVec,
    connections: IntGauge,
}

/// An open connection, until dropped.
pub(crate) struct Connection(IntGauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help, labels| {
            let counter = counters(name, help, labels);
            registry
                .register(Box::new(counter.clone()))
                .expect("each name is registered once");
            counter
        };
        let connections = IntGauge::new("gateway_connections", "Open connections of clients")
            .expect("the name is valid");
        registry
            .register(Box::new(connections.clone()))
            .expect("each name is registered once");
        Self {
            refused: counter(
                "gateway_refused_total",
                "What the gateway did not take on, by the limit that it would have exceeded",
                &["limit"],
            ),
            connections,
            requests: counter(
                "gateway_requests_total",
                "Requests for a model by who answered; empty if nobody did",
                &["model", "answered_by"],
            ),
            attempts: counter(
                "gateway_attempts_total",
                "What became of each provider that was considered for a request",
                &["provider", "outcome"],
            ),
            registry,
        }
    }

    /// Counts a request that was understood. `model` must be one that exists: labels are kept for
    /// good.
    pub(crate) fn request(&self, model: &str, answered_by: &str, attempts: &[ModelAttempt]) {
        self.requests.with_label_values(&[model, answered_by]).inc();
        for attempt in attempts {
            self.attempts
                .with_label_values(&[&attempt.provider, attempt.outcome.as_str()])
                .inc();
        }
    }

    /// Counts a request, or a connection, that would have exceeded this limit.
    pub(crate) fn refused(&self, limit: &str) {
        self.refused.with_label_values(&[limit]).inc();
    }

    /// Counts a connection for as long as what is returned lives.
    pub(crate) fn connection(&self) -> Connection {
        self.connections.inc();
        Connection(self.connections.clone())
    }

    /// Everything as Prometheus text.
    pub(crate) fn render(&self, app: &App) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(gateway(app)?);
        families.extend(circuits(&app.manager())?);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// How the gateway is at the moment.
fn gateway(app: &App) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let registry = Registry::new();
    let gauge = |name, help, value: usize| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))
    };
    let running = app.running();
    let reload = app.last_reload();
    let loaded = reload.loaded_at.duration_since(UNIX_EPOCH);
    let loaded = loaded.unwrap_or_default().as_secs();
    gauge(
        "gateway_requests_active",
        "Requests to models that are worked on",
        running.gate.active(),
    )?;
    gauge(
        "gateway_requests_waiting",
        "Requests to models that wait for their turn",
        running.gate.waiting(),
    )?;
    gauge(
        "gateway_config_last_reload_successful",
        "1 if the configuration that was read last is in force, else 0",
        usize::from(reload.error.is_none()),
    )?;
    gauge(
        "gateway_config_loaded_timestamp_seconds",
        "When the configuration that is in force was read",
        usize::try_from(loaded).unwrap_or(usize::MAX),
    )?;
    let trouble = IntGaugeVec::new(
        Opts::new(
            "gateway_credential_trouble",
            "1 while the provider refuses the key or the account, else 0",
        ),
        &["provider"],
    )?;
    registry.register(Box::new(trouble.clone()))?;
    for (provider, health) in running.manager.health_check() {
        let value = i64::from(health.credentials.is_some());
        trouble.with_label_values(&[&provider]).set(value);
    }
    Ok(registry.gather())
}

/// A snapshot of every circuit as metrics. The counts are the circuits' own, so nothing is counted
/// twice; a registry for the moment puts them into shape.
fn circuits(manager: &ModelManager) -> Result<Vec<MetricFamily>, prometheus::Error> {
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

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("the names here are valid")
}

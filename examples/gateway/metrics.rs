//! `GET /metrics`: what the gateway counts itself, and what its circuits have seen.

mod circuits;

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
    core::Collector,
    proto::{Metric, MetricFamily},
};
use serde_json::{Value, json};
use tower_breaker::{fallback::AttemptOutcome, models::ModelAttempt};

use crate::app::App;

/// The upper ends of the latencies' buckets, in seconds: from a server on loopback to the longest
/// answers of a model.
const LATENCIES: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
    120.0, 300.0,
];

/// What the gateway counts itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    attempts: IntCounterVec,
    latencies: HistogramVec,
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
        let latencies = HistogramOpts::new(
            "gateway_attempt_duration_seconds",
            "How long providers that were asked took to answer, or to fail",
        );
        let labels = ["model", "provider", "outcome"];
        let latencies = HistogramVec::new(latencies.buckets(LATENCIES.to_vec()), &labels)
            .expect("the names here are valid");
        registry
            .register(Box::new(latencies.clone()))
            .expect("each name is registered once");
        Self {
            latencies,
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
            if attempt.outcome != AttemptOutcome::Skipped {
                self.latencies
                    .with_label_values(&[
                        &attempt.model,
                        &attempt.provider,
                        attempt.outcome.as_str(),
                    ])
                    .observe(attempt.latency.as_secs_f64());
            }
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

    /// Who has answered how many requests for which model: `[model, provider, count]`, with an empty
    /// provider where nobody did.
    pub(crate) fn answers(&self) -> Vec<Value> {
        let families = self.requests.collect();
        let metrics = families.iter().flat_map(MetricFamily::get_metric);
        let answers = metrics.map(|metric| {
            let count = metric.get_counter().get_value() as u64;
            json!([label(metric, "model"), label(metric, "answered_by"), count])
        });
        answers.collect()
    }

    /// The latencies of all circuits, which `circuit` names by their model and provider.
    pub(crate) fn latencies(
        &self,
        circuit: impl Fn(&str, &str) -> String,
    ) -> BTreeMap<String, Buckets> {
        let mut all: BTreeMap<String, Buckets> = BTreeMap::new();
        let families = self.latencies.collect();
        for metric in families.iter().flat_map(MetricFamily::get_metric) {
            let circuit = circuit(label(metric, "model"), label(metric, "provider"));
            let histogram = metric.get_histogram();
            let mut buckets: Vec<u64> = histogram
                .get_bucket()
                .iter()
                .map(|bucket| bucket.cumulative_count())
                .collect();
            buckets.push(histogram.get_sample_count());
            all.entry(circuit).or_default().add(&buckets);
        }
        all
    }

    /// Everything as Prometheus text.
    pub(crate) fn render(&self, app: &App) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(gateway(app)?);
        families.extend(circuits::gather(&app.manager())?);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Latencies: how many were at most as long as each bucket's end, and how many there were.
#[derive(Debug, Default, Clone)]
pub(crate) struct Buckets([u64; LATENCIES.len() + 1]);

impl Buckets {
    fn add(&mut self, counts: &[u64]) {
        for (sum, count) in self.0.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    /// What has come in since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut buckets = self.clone();
        for (now, before) in buckets.0.iter_mut().zip(before.0) {
            *now = now.saturating_sub(before);
        }
        buckets
    }

    /// The latency, in milliseconds, that this share of them did not exceed: within its bucket as
    /// if they were spread evenly. `None` of none.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let all = *self.0.last()?;
        if all == 0 {
            return None;
        }
        let rank = share * all as f64;
        let found = self.0.iter().position(|count| *count as f64 >= rank)?;
        let below = found.checked_sub(1);
        let (from, before) = below.map_or((0.0, 0), |below| (LATENCIES[below], self.0[below]));
        // There is no end to the last one.
        let to = LATENCIES.get(found).copied().unwrap_or(from);
        let within = self.0[found] - before;
        let part = (rank - before as f64) / within.max(1) as f64;
        Some((from + (to - from) * part) * 1000.0)
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    let labels = metric.get_label().iter();
    let mut named = labels.filter(|label| label.name() == name);
    named.next().map_or("", |label| label.value())
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

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("the names here are valid")
}

//! What the gateway looks like at one moment, for the dashboard.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, UNIX_EPOCH},
};

use axum::http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::{
    app::{App, Running, now},
    metrics::Buckets,
};

/// Over how many samples percentiles are taken: fewer would jump about, more would be slow to tell.
const SPAN: usize = 10;

/// How long a simulated provider may take to say which fault it has.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the latencies were at the last few samples, by circuit.
#[derive(Default)]
pub(super) struct Latencies(VecDeque<BTreeMap<String, Buckets>>);

impl Latencies {
    /// Takes in what was counted until now. For each circuit: what has come in over the span.
    fn advance(&mut self, now: BTreeMap<String, Buckets>) -> BTreeMap<String, Buckets> {
        let before = self.0.front();
        let recent = now.iter().map(|(circuit, buckets)| {
            let before = before.and_then(|before| before.get(circuit));
            let recent = before.map_or_else(|| buckets.clone(), |before| buckets.since(before));
            (circuit.clone(), recent)
        });
        let recent = recent.collect();
        if self.0.len() == SPAN {
            self.0.pop_front();
        }
        self.0.push_back(now);
        recent
    }
}

pub(super) async fn take(app: &App, latencies: &mut Latencies) -> Value {
    let running = app.running();
    let faults = faults(app, &running).await;
    let manager = &running.manager;
    let names: Vec<&str> = manager.circuits().map(|(name, _)| name).collect();
    let recent = latencies.advance(app.metrics.latencies(|model, provider| {
        let own = names.contains(&model);
        if own {
            model.to_owned()
        } else {
            provider.to_owned()
        }
    }));
    let mut circuits = Map::new();
    for (name, circuit) in manager.circuits() {
        let metrics = circuit.metrics();
        let recent = recent.get(name);
        let percentile = |share| recent.and_then(|recent| recent.percentile(share));
        let sample = json!({
            "state": metrics.current_state,
            "reason": metrics.trip_reason,
            "since": milliseconds(metrics.state_changed_at),
            "retryAfter": metrics.retry_after.map(|wait| wait.as_millis() as u64),
            "errorRate": metrics.error_rate,
            "succeeded": metrics.successful_requests,
            "failed": metrics.failed_requests,
            "rejected": metrics.rejected_requests,
            "inFlight": metrics.in_flight,
            "p50": percentile(0.5),
            "p90": percentile(0.9),
            "p99": percentile(0.99),
        });
        circuits.insert(name.to_owned(), sample);
    }
    let providers = manager.health_check().into_iter().map(|(name, health)| {
        let provider = json!({
            "models": health.models,
            "credentials": health.credentials,
            "simulated": faults.get(&name),
        });
        (name, provider)
    });
    json!({
        "at": milliseconds(now()),
        "circuits": circuits,
        "providers": providers.collect::<Map<_, _>>(),
        "models": manager.models().collect::<BTreeMap<_, _>>(),
        "defaultModel": manager.default_model(),
        "answers": app.metrics.answers(),
        "active": running.gate.active(),
        "waiting": running.gate.waiting(),
        "configError": app.last_reload().error,
    })
}

/// What each simulated provider says of itself.
async fn faults(app: &App, running: &Running) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, companion) in &running.simulated {
        let request = Request::builder()
            .uri(format!("{}/stats", companion.server.control()))
            .body(Full::default())
            .expect("its address is one");
        let asked = async {
            let response = app.http().oneshot(request).await.ok()?;
            let body = response.into_body().collect().await.ok()?.to_bytes();
            serde_json::from_slice(&body).ok()
        };
        let stats: Option<Value> = tokio::time::timeout(PATIENCE, asked).await.ok().flatten();
        all.insert(name.clone(), stats.unwrap_or_default());
    }
    all
}

fn milliseconds(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! `--otlp-endpoint`: each request as a trace, sent over OTLP as JSON.
//!
//! A request is a span, and so is each provider that was asked for it; those that were skipped are
//! events. What is needed for that of OTLP are the two structures below, so it is written here
//! rather than with OpenTelemetry's crates, which are more than all that this gateway depends on.
//! Traces are never waited for: what the collector doesn't take in time is dropped.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::{HeaderMap, Method, Request, header::CONTENT_TYPE};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;
use tower_breaker::{
    fallback::AttemptOutcome,
    models::{HttpClient, ModelAttempt},
};

use crate::app::now;

/// How many spans are sent at once, how long the first of them waits for the others, how many wait
/// at most, and how long the collector may take.
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_secs(1);
const BACKLOG: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a request comes from: the trace that it belongs to, and when it began.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    trace: String,
    parent: Option<String>,
    started: SystemTime,
}

tokio::task_local! {
    /// That of the request that this task is about.
    pub(crate) static ORIGIN: Origin;
}

impl Origin {
    /// The caller's own trace, if it tells of one, or a new one.
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let header = headers.get("traceparent");
        let header = header.and_then(|header| header.to_str().ok());
        let (trace, parent) = match header.and_then(parse) {
            Some((trace, parent)) => (trace.to_owned(), Some(parent.to_owned())),
            None => (format!("{:016x}{:016x}", random(), random()), None),
        };
        Self {
            trace,
            parent,
            started: now(),
        }
    }

    /// That of the request that this task is about, where traces are sent.
    pub(crate) fn current() -> Option<Self> {
        ORIGIN.try_with(Self::clone).ok()
    }
}

/// The trace and the span in a `traceparent`.
fn parse(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_id = |id: &str, digits| {
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        id.len() == digits && id.bytes().all(hex) && id.bytes().any(|digit| digit != b'0')
    };
    (version.len() == 2 && is_id(trace, 32) && is_id(span, 16)).then_some((trace, span))
}

/// Hashing nothing with new keys, which the standard library draws by chance.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

enum Message {
    Span(Value),
    Flush(oneshot::Sender<()>),
}

/// Where traces go, if they go anywhere.
pub(crate) struct Traces(Option<mpsc::Sender<Message>>);

impl Traces {
    /// Sends them to the collector at `endpoint`.
    pub(crate) fn new(endpoint: Option<&str>, http: HttpClient) -> Self {
        Self(endpoint.map(|endpoint| {
            let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
            let (sender, receiver) = mpsc::channel(BACKLOG);
            tokio::spawn(export(receiver, url, http));
            sender
        }))
    }

    /// Whether they go anywhere.
    pub(crate) fn are_sent(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of a request that is over.
    pub(crate) fn record(
        &self,
        origin: Option<&Origin>,
        model: &str,
        answered_by: &str,
        attempts: &[ModelAttempt],
    ) {
        let (Some(sender), Some(origin)) = (&self.0, origin) else {
            return;
        };
        let root = format!("{:016x}", random());
        let mut begun = origin.started;
        let mut skipped = Vec::new();
        let mut spans = Vec::new();
        for attempt in attempts {
            let mut attributes = vec![
                attribute("gen_ai.provider.name", &attempt.provider),
                attribute("gen_ai.request.model", &attempt.model),
            ];
            if let Some(reason) = attempt.reason.as_deref() {
                attributes.push(attribute("error.message", reason));
            }
            if attempt.outcome == AttemptOutcome::Skipped {
                skipped.push(json!({
                    "timeUnixNano": nanoseconds(begun), "name": "skipped", "attributes": attributes,
                }));
                continue;
            }
            // They are asked one after the other.
            let end = begun + attempt.latency;
            spans.push(json!({
                "traceId": origin.trace,
                "spanId": format!("{:016x}", random()),
                "parentSpanId": root,
                "name": format!("ask {}", attempt.provider),
                "kind": 3, // a client's
                "startTimeUnixNano": nanoseconds(begun),
                "endTimeUnixNano": nanoseconds(end),
                "attributes": attributes,
                "status": status(attempt.outcome == AttemptOutcome::Answered),
            }));
            begun = end;
        }
        spans.push(json!({
            "traceId": origin.trace,
            "spanId": root,
            "parentSpanId": origin.parent.as_deref().unwrap_or_default(),
            "name": format!("chat {model}"),
            "kind": 2, // a server's
            "startTimeUnixNano": nanoseconds(origin.started),
            "endTimeUnixNano": nanoseconds(now().max(begun)),
            "attributes": [
                attribute("gen_ai.operation.name", "chat"),
                attribute("gen_ai.request.model", model),
                attribute("gateway.answered_by", answered_by),
            ],
            "events": skipped,
            "status": status(!answered_by.is_empty()),
        }));
        for span in spans {
            // An error means that there is no room, or nobody: requests don't wait for traces.
            let _ = sender.try_send(Message::Span(span));
        }
    }

    /// Waits until what has been recorded is sent, or can't be.
    pub(crate) async fn flush(&self) {
        let Some(sender) = &self.0 else { return };
        let (done, sent) = oneshot::channel();
        if sender.send(Message::Flush(done)).await.is_ok() {
            let _ = sent.await;
        }
    }
}

/// Sends spans on, as many as there are at once.
async fn export(mut receiver: mpsc::Receiver<Message>, url: String, http: HttpClient) {
    let mut messages = Vec::new();
    while receiver.recv_many(&mut messages, BATCH).await > 0 {
        if !messages
            .iter()
            .any(|message| matches!(message, Message::Flush(_)))
        {
            tokio::time::sleep(WAIT).await;
            while messages.len() < BATCH
                && let Ok(message) = receiver.try_recv()
            {
                messages.push(message);
            }
        }
        let mut spans = Vec::new();
        let mut flushed = Vec::new();
        for message in messages.drain(..) {
            match message {
                Message::Span(span) => spans.push(span),
                Message::Flush(done) => flushed.push(done),
            }
        }
        if !spans.is_empty() {
            send(spans, &url, &http).await;
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

async fn send(spans: Vec<Value>, url: &str, http: &HttpClient) {
    let count = spans.len();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", "tower-breaker-gateway")]},
        "scopeSpans": [{"scope": {"name": "gateway"}, "spans": spans}],
    }]});
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))
        .expect("the address was checked at the start");
    let problem = match tokio::time::timeout(PATIENCE, http.clone().oneshot(request)).await {
        Ok(Ok(response)) if response.status().is_success() => return,
        Ok(Ok(response)) => response.status().to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {PATIENCE:?}"),
    };
    tracing::warn!("the collector did not take {count} spans: {problem}");
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn status(well: bool) -> Value {
    // Unset, as servers and clients should leave it, or an error.
    if well { json!({}) } else { json!({"code": 2}) }
}

fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

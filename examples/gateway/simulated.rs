//! Model providers that live in this process: what the gateway talks to when nothing is configured.
//!
//! Each is a real HTTP server on a loopback port of its own and speaks its provider's wire format, so that
//! everything between the gateway and a provider is as it would be: connections, status codes, headers, bodies
//! that break off. A mock behind a trait could not fail in half of these ways.
//!
//! Faults are switched from outside, with any HTTP client:
//!
//! ```text
//! curl -X POST   http://127.0.0.1:PORT/fault/unavailable?retry_after=30
//! curl -X DELETE http://127.0.0.1:PORT/fault
//! curl           http://127.0.0.1:PORT/stats
//! ```

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

// The paths are spelled out because this file is also a module of tests, where Rust would look beside it.
#[path = "simulated/anthropic.rs"]
mod anthropic;
#[path = "simulated/ask.rs"]
mod ask;
#[path = "simulated/deepseek.rs"]
mod deepseek;
#[path = "simulated/fault.rs"]
mod fault;

use ask::{Ask, Refusal, Reply};
use fault::{Active, Fault};

/// How long a shutdown waits for the answers that are under way. They are short, so this only bounds clients that
/// don't read.
const GRACE: Duration = Duration::from_secs(2);

/// Whose wire format a simulated provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /chat/completions`, with or without `/v1` before it.
    DeepSeek,
}

impl Kind {
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Anthropic => &["/v1/messages"],
            Self::DeepSeek => &["/chat/completions", "/v1/chat/completions"],
        }
    }

    fn read(self, headers: &HeaderMap, body: &[u8]) -> Result<Ask, Refusal> {
        match self {
            Self::Anthropic => anthropic::read(headers, body),
            Self::DeepSeek => deepseek::read(headers, body),
        }
    }

    fn answer(self, id: u64, ask: &Ask, reply: &Reply) -> Response {
        match self {
            Self::Anthropic => anthropic::answer(id, ask, reply),
            Self::DeepSeek => deepseek::answer(id, ask, reply),
        }
    }

    fn refuse(self, id: u64, refusal: &Refusal) -> Response {
        match self {
            Self::Anthropic => anthropic::refuse(id, refusal),
            Self::DeepSeek => deepseek::refuse(id, refusal),
        }
    }
}

/// A running provider. Dropping it stops the server too, without waiting for it.
#[derive(Debug)]
pub(crate) struct Simulated {
    url: String,
    stop: watch::Sender<bool>,
    server: JoinHandle<io::Result<()>>,
}

impl Simulated {
    /// Starts a provider on a free loopback port. `name` is what it calls itself in its answers.
    ///
    /// # Errors
    ///
    /// When no loopback port can be had.
    pub(crate) async fn start(kind: Kind, name: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = watch::channel(false);
        let provider = Arc::new(Provider {
            kind,
            name: name.into(),
            fault: Mutex::new(None),
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stopped: stopped.clone(),
        });
        let server =
            axum::serve(listener, router(provider)).with_graceful_shutdown(asked_to_stop(stopped));
        let server = tokio::spawn(server.into_future());
        Ok(Self { url, stop, server })
    }

    /// Where it listens: `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stops listening, lets the answers under way finish, ends the hanging ones, and waits for that, two seconds
    /// at most.
    pub(crate) async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// Ends when the provider is shut down, or dropped.
async fn asked_to_stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and `Simulated` with it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What the handlers share.
struct Provider {
    kind: Kind,
    name: String,
    fault: Mutex<Option<Active>>,
    // Counters that nothing else is ordered by, hence `Relaxed` everywhere.
    requests: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    stopped: watch::Receiver<bool>,
}

impl Provider {
    fn fault(&self) -> MutexGuard<'_, Option<Active>> {
        // Only whole values are ever stored, so a panic elsewhere leaves nothing half done.
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> Response {
        let fault = self.fault().map(|active| active.fault.name());
        Json(json!({
            "name": self.name,
            "fault": fault,
            "requests": self.requests.load(Relaxed),
            "answered": self.answered.load(Relaxed),
            "failed": self.failed.load(Relaxed),
        }))
        .into_response()
    }

    /// The healthy answer, or the reason why there is none.
    fn answer(
        &self,
        id: u64,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Refusal> {
        let body =
            body.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
        let ask = self.kind.read(headers, &body)?;
        if ask.stream {
            // The one place that a stream of events will take the whole answer's place.
            return Err(Refusal::bad_request(
                "stream: this simulated provider can't stream yet",
            ));
        }
        Ok(self.kind.answer(id, &ask, &Reply::new(&self.name, &ask)))
    }
}

fn router(provider: Arc<Provider>) -> Router {
    let mut router = Router::new();
    for path in provider.kind.paths() {
        router = router.route(path, post(model));
    }
    router
        .route("/fault/{name}", post(break_down))
        .route("/fault", delete(heal))
        .route("/stats", get(stats))
        .fallback(nothing_here)
        .with_state(provider)
}

/// A model request: counted when it arrives, and settled even if the client goes away before the answer.
async fn model(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let arrival = Arrival::new(&provider);
    let active = *provider.fault();
    let Some(active) = active else {
        return match provider.answer(arrival.id, &headers, body) {
            Ok(response) => {
                arrival.answered();
                response
            }
            Err(refusal) => provider.kind.refuse(arrival.id, &refusal),
        };
    };
    if active.fault == Fault::Hang {
        // Waits for the shutdown. A client that goes away drops this future.
        asked_to_stop(provider.stopped.clone()).await;
    }
    active.respond(provider.kind, arrival.id)
}

async fn break_down(
    State(provider): State<Arc<Provider>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(fault) = Fault::named(&name) else {
        let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        let error = json!({ "error": format!("no fault is called `{name}`"), "faults": names });
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    };
    let retry_after = match query
        .get("retry_after")
        .map(|seconds| seconds.parse::<u64>())
    {
        None => None,
        Some(Ok(seconds)) => Some(seconds),
        Some(Err(_)) => {
            let error = json!({ "error": "retry_after: must be a whole number of seconds" });
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
    };
    *provider.fault() = Some(Active { fault, retry_after });
    provider.stats()
}

async fn heal(State(provider): State<Arc<Provider>>) -> Response {
    *provider.fault() = None;
    provider.stats()
}

async fn stats(State(provider): State<Arc<Provider>>) -> Response {
    provider.stats()
}

async fn nothing_here(State(provider): State<Arc<Provider>>) -> Response {
    provider
        .kind
        .refuse(0, &Refusal::new(StatusCode::NOT_FOUND, "Not Found"))
}

/// One model request on the books. It counts as failed unless it is told that it was answered, so that a request
/// whose client has gone away is settled too.
struct Arrival<'a> {
    provider: &'a Provider,
    id: u64,
    answered: bool,
}

impl<'a> Arrival<'a> {
    fn new(provider: &'a Provider) -> Self {
        let id = provider.requests.fetch_add(1, Relaxed) + 1;
        Self {
            provider,
            id,
            answered: false,
        }
    }

    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        let counter = if self.answered {
            &self.provider.answered
        } else {
            &self.provider.failed
        };
        counter.fetch_add(1, Relaxed);
    }
}

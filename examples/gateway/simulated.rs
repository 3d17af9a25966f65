//! Model providers that live in this process: what the gateway talks to when nothing is configured.
//!
//! Each is a real HTTP server on loopback and speaks its provider's wire format, so that everything between the
//! gateway and a provider is as it would be: connections, status codes, headers, bodies that break off. A mock
//! behind a trait could not fail in half of these ways.
//!
//! Faults are switched from outside, with any HTTP client. For that each provider has a second port, which stays
//! open when the provider itself refuses connections, and answers all that the first one does:
//!
//! ```text
//! curl -X POST   http://127.0.0.1:PORT/fault/unavailable?retry_after=30
//! curl -X POST   http://127.0.0.1:PORT/fault/cut-mid-stream?after=3     (pieces of the answer before it)
//! curl -X DELETE http://127.0.0.1:PORT/fault
//! curl -X POST   http://127.0.0.1:PORT/pace?first_ms=200&gap_ms=20     (before the answer, between its pieces)
//! curl           http://127.0.0.1:PORT/stats
//! ```

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::Response,
    routing::post,
};
use tokio::{sync::watch, task::JoinHandle};

// The paths are spelled out because this file is also a module of tests, where Rust would look beside it.
#[path = "simulated/anthropic.rs"]
mod anthropic;
#[path = "simulated/ask.rs"]
mod ask;
#[path = "simulated/control.rs"]
mod control;
#[path = "simulated/deepseek.rs"]
mod deepseek;
#[path = "simulated/door.rs"]
mod door;
#[path = "simulated/fault.rs"]
mod fault;
#[path = "simulated/kind.rs"]
mod kind;
#[path = "simulated/reply.rs"]
mod reply;
#[path = "simulated/script.rs"]
mod script;

use ask::Refusal;
use door::{Door, Line};
use fault::{Active, Fault};
pub(crate) use kind::Kind;

/// How long a shutdown waits for the answers that are under way. They are short, so this only bounds clients that
/// don't read.
const GRACE: Duration = Duration::from_secs(2);

/// The time between the pieces of an answer: enough for an eye to see that it is a stream.
const GAP: Duration = Duration::from_millis(5);

/// A running provider. Dropping it stops the server too, without waiting for it.
#[derive(Debug)]
pub(crate) struct Simulated {
    url: String,
    control: String,
    stop: watch::Sender<bool>,
    servers: [JoinHandle<io::Result<()>>; 2],
}

impl Simulated {
    /// Starts a provider on free loopback ports. `name` is what it calls itself in its answers.
    ///
    /// # Errors
    ///
    /// When no loopback port can be had.
    pub(crate) async fn start(kind: Kind, name: impl Into<String>) -> io::Result<Self> {
        let (front, control) = (Door::open()?, Door::open()?);
        let url = |door: &Door| format!("http://{}", door.address());
        let (stop, stopped) = watch::channel(false);
        let provider = Arc::new(Provider {
            kind,
            name: name.into(),
            front: front.clone(),
            fault: Mutex::new(None),
            pace: Mutex::new(Pace {
                first: Duration::ZERO,
                gap: GAP,
            }),
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            stopped: stopped.clone(),
        });
        let (url, control_url) = (url(&front), url(&control));
        let servers = [front, control].map(|door| {
            let router = router(provider.clone()).into_make_service_with_connect_info::<Line>();
            let stopped = asked_to_stop(stopped.clone());
            let server = axum::serve(door, router).with_graceful_shutdown(stopped);
            tokio::spawn(server.into_future())
        });
        Ok(Self {
            url,
            control: control_url,
            stop,
            servers,
        })
    }

    /// Where the provider listens: `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where its faults are switched, whatever the fault.
    pub(crate) fn control(&self) -> &str {
        &self.control
    }

    /// Stops listening, lets the answers under way finish, ends the hanging ones, and waits for that, two seconds
    /// at most.
    pub(crate) async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let both = futures_util::future::join_all(&mut self.servers);
        if tokio::time::timeout(GRACE, both).await.is_err() {
            self.servers.iter().for_each(JoinHandle::abort);
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
    front: Door,
    fault: Mutex<Option<Active>>,
    pace: Mutex<Pace>,
    // Counters that nothing else is ordered by, hence `Relaxed` everywhere.
    requests: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
    stopped: watch::Receiver<bool>,
}

#[derive(Clone, Copy)]
struct Pace {
    /// Before an answer.
    first: Duration,
    /// Between the pieces of a stream.
    gap: Duration,
}

/// Only whole values are ever stored, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn router(provider: Arc<Provider>) -> Router {
    let mut router = Router::new();
    for path in provider.kind.paths() {
        router = router.route(path, post(model));
    }
    router
        .merge(control::routes())
        .fallback(nothing_here)
        .with_state(provider)
}

/// A model request: counted when it arrives, and settled even if the client goes away before the answer.
async fn model(
    State(provider): State<Arc<Provider>>,
    Extension(ConnectInfo(line)): Extension<ConnectInfo<Line>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let arrival = Arrival::new(provider.clone());
    let kind = provider.kind;
    let active = *lock(&provider.fault);
    let pace = *lock(&provider.pace);
    if !pace.first.is_zero() {
        tokio::time::sleep(pace.first).await;
    }
    match active.map(|active| active.fault) {
        Some(Fault::Refused | Fault::Reset) => line.cut(),
        // Waits for the shutdown. A client that goes away drops this future.
        Some(Fault::Hang) => {
            arrival.shutdown().await;
            let gone = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable");
            return arrival.refuse(&gone);
        }
        _ => {}
    }
    if let Some(active) = active
        && let Some(refusal) = active.fault.refusal(kind)
    {
        let mut response = arrival.refuse(&refusal);
        if let Some(seconds) = active.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        return response;
    }
    let ask = body
        .map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))
        .and_then(|body| kind.read(&headers, &body));
    match ask {
        Ok(ask) => {
            let script = kind.script(&provider.name, arrival.id, &ask, active, pace.gap);
            let id = arrival.id;
            kind.name(id, script.perform(arrival))
        }
        Err(refusal) => arrival.refuse(&refusal),
    }
}

async fn nothing_here(State(provider): State<Arc<Provider>>) -> Response {
    let refusal = Refusal::new(StatusCode::NOT_FOUND, "Not Found");
    provider.kind.refuse(0, &refusal)
}

/// One model request on the books. It counts as failed unless it is told that it was answered, so that a request
/// whose client has gone away is settled too; that one counts as abandoned besides.
struct Arrival {
    provider: Arc<Provider>,
    id: u64,
    settled: bool,
}

impl Arrival {
    fn new(provider: Arc<Provider>) -> Self {
        let id = provider.requests.fetch_add(1, Relaxed) + 1;
        Self {
            provider,
            id,
            settled: false,
        }
    }

    /// Waits for the provider's end.
    async fn shutdown(&self) {
        asked_to_stop(self.provider.stopped.clone()).await;
    }

    fn settle(mut self, answered: bool) {
        self.settled = true;
        let counter = if answered {
            &self.provider.answered
        } else {
            &self.provider.failed
        };
        counter.fetch_add(1, Relaxed);
    }

    fn refuse(self, refusal: &Refusal) -> Response {
        let response = self.provider.kind.refuse(self.id, refusal);
        self.settle(false);
        response
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.settled {
            self.provider.failed.fetch_add(1, Relaxed);
            self.provider.abandoned.fetch_add(1, Relaxed);
        }
    }
}

//! How many requests to models are worked on at the same time, and how many wait for their turn.
//!
//! Tower's `ConcurrencyLimit` under `LoadShed` ends a request's turn with the head of its response.
//! Here that is where a streamed answer begins, so the turn lasts until the end of the body.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    app::App,
    config::Limits,
    routes::{ApiError, Caller},
    traces::{ORIGIN, Origin},
};

/// The turns, and those who wait for one.
pub(crate) struct Gate {
    turns: Arc<Semaphore>,
    concurrency: usize,
    /// Only a count: nothing is ordered by it.
    waiting: AtomicUsize,
    queue: usize,
    patience: Duration,
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(limits.concurrency)),
            concurrency: limits.concurrency,
            waiting: AtomicUsize::new(0),
            queue: limits.queue,
            patience: limits.queue_timeout,
        }
    }

    /// How many requests have their turn.
    pub(crate) fn active(&self) -> usize {
        self.concurrency - self.turns.available_permits()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, String> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let waiter = Waiter::new(&self.waiting);
        if waiter.before >= self.queue {
            return Err(format!(
                "{} requests are being worked on and {} wait, which is the limit",
                self.concurrency, self.queue
            ));
        }
        match tokio::time::timeout(self.patience, self.turns.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(format!("no turn came within {:?}", self.patience)),
        }
    }
}

/// One who waits, until dropped.
struct Waiter<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiter<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        let before = waiting.fetch_add(1, Relaxed);
        Self { waiting, before }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// The middleware: a turn for each request, or `503` at once.
pub(crate) async fn turns(State(app): State<App>, request: Request, next: Next) -> Response {
    let traced = app.traces.are_sent();
    let origin = traced.then(|| Origin::new(request.headers()));
    let gate = app.running().gate.clone();
    let turn = match gate.enter().await {
        Ok(turn) => turn,
        Err(why) => {
            app.metrics.refused("queue");
            let caller = Caller::new(request.uri().path(), request.headers());
            return ApiError::gateway_is_full(why).respond(&caller);
        }
    };
    let response = match origin {
        Some(origin) => ORIGIN.scope(origin, next.run(request)).await,
        None => next.run(request).await,
    };
    response.map(|body| Body::new(Held { body, _turn: turn }))
}

/// A body that keeps its request's turn. `map_frame` would do, but it loses the size, and with it `Content-Length`.
struct Held {
    body: Body,
    _turn: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! `GET /`: the dashboard, one page with no build step that asks nobody but this gateway.
//!
//! Once a second a sample of everything is taken, and kept for a few minutes, so that a page that
//! is opened just now has a past to show. The page gets them, and each change of a circuit's state,
//! as server-sent events. Nothing in them is more than `/health` and `/metrics` tell.

mod sample;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::watch;

use crate::app::App;

const EVERY: Duration = Duration::from_secs(1);

/// Five minutes of samples.
const KEPT: usize = 300;

/// The page runs its own script and style, and talks to its own server; nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The samples of the last minutes, as JSON.
pub(crate) struct History {
    kept: Mutex<VecDeque<Arc<str>>>,
    newest: watch::Sender<Arc<str>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            newest: watch::Sender::new("{}".into()),
        }
    }

    fn push(&self, sample: Arc<str>) {
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(sample.clone());
        // Under the lock, so that a page gets each sample once: as history or as news.
        self.newest.send_replace(sample);
    }

    /// All that is kept as the members of a JSON array, and what tells of those that follow.
    fn subscribe(&self) -> (String, watch::Receiver<Arc<str>>) {
        let kept = self.lock();
        let samples: Vec<&str> = kept.iter().map(|sample| &**sample).collect();
        (samples.join(","), self.newest.subscribe())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<str>>> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a sample each second, for good.
pub(crate) async fn sample(app: App) {
    let mut latencies = sample::Latencies::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = sample::take(&app, &mut latencies).await;
        app.history.push(sample.to_string().into());
    }
}

pub(crate) fn routes() -> Router<App> {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || {
            let headers = [
                (CONTENT_TYPE, kind),
                (CONTENT_SECURITY_POLICY, POLICY),
                (CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        })
    };
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("index.html")),
        )
        .route(
            "/dashboard/style.css",
            file("text/css; charset=utf-8", include_str!("style.css")),
        )
        .route(
            "/dashboard/script.js",
            file("text/javascript; charset=utf-8", include_str!("script.js")),
        )
        .route("/dashboard/events", get(events))
}

/// First `hello`, with what there is; then each `sample` and each change of a `state`.
async fn events(State(app): State<App>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (history, newest) = app.history.subscribe();
    let (changes, following) = app.feed.subscribe();
    let hello = format!(r#"{{"samples":[{history}],"changes":{}}}"#, json!(changes));
    let hello = stream::iter([Event::default().event("hello").data(hello)]);
    // A page that is slow misses samples, and has not missed anything that the next doesn't tell.
    let samples = stream::unfold(newest, async |mut newest| {
        newest.changed().await.ok()?;
        let sample = newest.borrow_and_update().clone();
        Some((Event::default().event("sample").data(&*sample), newest))
    });
    let changes = stream::unfold(following, async |mut following| {
        loop {
            match following.recv().await {
                Ok(change) => {
                    let data = json!(change).to_string();
                    return Some((Event::default().event("state").data(data), following));
                }
                // The page shows the last few, and these are not among them.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let events = hello
        .chain(stream::select(samples, changes))
        .map(Ok)
        .take_until(app.stopped());
    Sse::new(events).keep_alive(KeepAlive::default())
}

//! `GET /admin/events`: every change of a circuit's state as a server-sent event.

use std::convert::Infallible;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::{app::App, events::Change};

/// Those from now on, or from a `Last-Event-ID` on as far back as they are kept. Who is too slow is
/// told how many it has missed. The stream ends when the gateway stops.
pub(super) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id");
    let last: Option<u64> = last.and_then(|id| id.to_str().ok()?.parse().ok());
    let (mut recent, receiver) = app.feed.subscribe();
    recent.retain(|change| last.is_some_and(|last| change.id > last));
    let following = stream::unfold(receiver, async |mut receiver| {
        let event = match receiver.recv().await {
            Ok(change) => event(&change),
            Err(RecvError::Lagged(lost)) => Event::default()
                .event("lagged")
                .data(json!({ "lost": lost }).to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((event, receiver))
    });
    let events = stream::iter(recent)
        .map(|change| event(&change))
        .chain(following)
        .map(Ok)
        .take_until(app.stopped());
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn event(change: &Change) -> Event {
    let event = Event::default().event("state").id(change.id.to_string());
    event
        .json_data(change)
        .expect("a change of state can be written as JSON")
}

//! The switches of a simulated provider: its faults, its pace and its own count of what happened.

use std::{collections::HashMap, io, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::json;

use super::{
    Provider,
    fault::{Active, Fault},
    lock,
};

/// The time between two pieces of an answer that trickles, if it isn't given.
const TRICKLE: Duration = Duration::from_millis(100);

pub(super) fn routes() -> Router<Arc<Provider>> {
    Router::new()
        .route("/fault/{name}", post(break_down))
        .route("/fault", delete(heal))
        .route("/pace", post(set_pace))
        .route("/stats", get(stats))
}

impl Provider {
    fn set_fault(&self, active: Option<Active>) -> io::Result<()> {
        *lock(&self.fault) = active;
        match active {
            Some(active) if active.fault == Fault::Refused => self.front.shut(),
            _ => self.front.reopen()?,
        }
        Ok(())
    }

    fn stats(&self) -> Response {
        let fault = lock(&self.fault).map(|active| active.fault.name());
        Json(json!({
            "name": self.name,
            "fault": fault,
            "faults": Fault::ALL.map(Fault::name),
            "requests": self.requests.load(Relaxed),
            "answered": self.answered.load(Relaxed),
            "failed": self.failed.load(Relaxed),
            "abandoned": self.abandoned.load(Relaxed),
        }))
        .into_response()
    }
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
    let active = || {
        let gap = number(&query, "gap_ms")?.map_or(TRICKLE, Duration::from_millis);
        let after = number(&query, "after")?.unwrap_or(3);
        Ok(Active {
            fault,
            retry_after: number(&query, "retry_after")?,
            after: usize::try_from(after).unwrap_or(usize::MAX),
            gap,
        })
    };
    switch(&provider, active().map(Some))
}

async fn heal(State(provider): State<Arc<Provider>>) -> Response {
    switch(&provider, Ok(None))
}

fn switch(provider: &Provider, active: Result<Option<Active>, String>) -> Response {
    match active.map(|active| provider.set_fault(active)) {
        Ok(Ok(())) => provider.stats(),
        Ok(Err(error)) => bad(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(wrong) => bad(StatusCode::BAD_REQUEST, &wrong),
    }
}

async fn set_pace(
    State(provider): State<Arc<Provider>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (first, gap) = match (number(&query, "first_ms"), number(&query, "gap_ms")) {
        (Ok(first), Ok(gap)) => (first, gap),
        (Err(wrong), _) | (_, Err(wrong)) => return bad(StatusCode::BAD_REQUEST, &wrong),
    };
    let mut pace = lock(&provider.pace);
    pace.first = first.map_or(pace.first, Duration::from_millis);
    pace.gap = gap.map_or(pace.gap, Duration::from_millis);
    provider.stats()
}

fn number(query: &HashMap<String, String>, name: &str) -> Result<Option<u64>, String> {
    let value = query.get(name).map(|value| value.parse());
    let value = value.transpose();
    value.map_err(|_| format!("{name}: must be a whole number"))
}

fn bad(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn stats(State(provider): State<Arc<Provider>>) -> Response {
    provider.stats()
}

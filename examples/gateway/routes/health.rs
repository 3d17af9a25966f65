//! `GET /health`, and `/metrics`: what is known, at no provider's cost.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_breaker::models::ProviderHealth;

use super::error::ApiError;
use crate::app::App;

pub(crate) fn health() -> Router<App> {
    Router::new()
        .route("/health", get(providers))
        .route("/health/live", get(StatusCode::OK))
        .route("/health/ready", get(ready))
}

pub(crate) fn metrics() -> Router<App> {
    Router::new().route("/metrics", get(text))
}

/// What all of this is, for programs.
pub(crate) fn openapi() -> Router<App> {
    let document = include_str!("../openapi.json");
    let json = [(header::CONTENT_TYPE, "application/json")];
    Router::new().route("/openapi.json", get((json, document)))
}

/// Every provider by its name.
async fn providers(State(app): State<App>) -> Json<BTreeMap<String, ProviderHealth>> {
    Json(app.manager().health_check())
}

/// Whether a request could be answered: one available circuit is enough. Not any more once the
/// gateway is stopping, so that load balancers send no more.
async fn ready(State(app): State<App>) -> StatusCode {
    let manager = app.manager();
    let available = manager
        .circuits()
        .any(|(_, circuit)| circuit.is_available());
    if available && !app.is_stopping() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn text(State(app): State<App>) -> Result<Response, ApiError> {
    let text = app
        .metrics
        .render(&app)
        .map_err(|error| ApiError::internal(format!("the metrics can not be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

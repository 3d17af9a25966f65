//! `/admin/simulated`: the faults of the simulated providers, for the dashboard, which may talk to
//! nobody but the gateway.

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::{Method, Request},
    response::{IntoResponse, Response},
};
use http_body_util::Full;
use tower::ServiceExt;

use super::error::ApiError;
use crate::app::App;

pub(super) async fn break_down(
    State(app): State<App>,
    Path((provider, fault)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    switch(
        &app,
        Method::POST,
        &provider,
        &format!("/fault/{fault}{query}"),
    )
    .await
}

pub(super) async fn repair(
    State(app): State<App>,
    Path(provider): Path<String>,
) -> Result<Response, ApiError> {
    switch(&app, Method::DELETE, &provider, "/fault").await
}

async fn switch(
    app: &App,
    method: Method,
    provider: &str,
    path: &str,
) -> Result<Response, ApiError> {
    let running = app.running();
    let companion = running.simulated.get(provider).ok_or_else(|| {
        ApiError::not_found(format!("there is no simulated provider `{provider}`"))
    })?;
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", companion.server.control()))
        .body(Full::default())
        .map_err(|error| ApiError::not_found(error.to_string()))?;
    let response = app.http().oneshot(request).await;
    let response = response.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(response.map(Body::new).into_response())
}

//! `/admin`: for whoever has the token, or, where none is configured, whoever is on this machine.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::header,
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use tower_breaker::models::ProviderHealth;

use super::error::ApiError;
use crate::stack::App;

pub(crate) fn admin(app: App) -> Router<App> {
    Router::new()
        .route("/circuit-breakers/reset", post(reset))
        // Before the guard: what exists here is not told to strangers either.
        .fallback(super::not_found)
        .layer(middleware::from_fn_with_state(app, guard))
}

/// Closes every circuit, and shows what that led to.
async fn reset(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Json<BTreeMap<String, ProviderHealth>> {
    app.manager.reset_circuit_breakers();
    tracing::info!(%peer, "admin: all circuit breakers were reset");
    Json(app.manager.health_check())
}

async fn guard(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match &app.admin_token {
        Some(token) => {
            let given = request.headers().get(header::AUTHORIZATION);
            let given = given
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            if !given.is_some_and(|(_, given)| token.is(given.trim())) {
                tracing::warn!(%peer, path = request.uri().path(), "admin: refused");
                return Err(ApiError::unauthorized(
                    "send the admin token as `Authorization: Bearer TOKEN`",
                ));
            }
        }
        None if !peer.ip().to_canonical().is_loopback() => {
            return Err(ApiError::forbidden(
                "without GATEWAY_ADMIN_TOKEN, /admin answers callers on its own machine only",
            ));
        }
        None => {}
    }
    Ok(next.run(request).await)
}

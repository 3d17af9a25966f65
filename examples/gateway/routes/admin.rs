//! `/admin`: for whoever has the token, or, where none is configured, whoever is on this machine.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use tower_breaker::models::ProviderHealth;

use super::{
    error::ApiError,
    guard::{self, Refusal},
};
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
    let refusal = match guard::check(app.admin_token.as_ref(), peer.ip(), request.headers()) {
        Ok(()) => return Ok(next.run(request).await),
        Err(refusal) => refusal,
    };
    tracing::warn!(%peer, path = request.uri().path(), ?refusal, "admin: refused");
    Err(match refusal {
        Refusal::Token => {
            ApiError::unauthorized("send the admin token as `Authorization: Bearer TOKEN`")
        }
        Refusal::NotLocal => ApiError::forbidden(
            "without GATEWAY_ADMIN_TOKEN, /admin answers callers on its own machine only: \
             no proxies, and no web pages of others",
        ),
    })
}

//! `/admin`: for whoever has the token, or, where none is configured, whoever is on this machine.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};
use tower_breaker::models::ProviderHealth;

use super::{
    circuits,
    error::ApiError,
    events,
    guard::{self, Refusal},
    switches,
};
use crate::app::App;

pub(crate) fn admin(app: App) -> Router<App> {
    Router::new()
        .route("/circuit-breakers", get(circuits::list))
        .route("/circuit-breakers/reset", post(reset))
        .route("/circuit-breakers/{name}", get(circuits::one))
        .route("/circuit-breakers/{name}/reset", post(circuits::reset))
        .route(
            "/circuit-breakers/{name}/force-open",
            post(circuits::force_open),
        )
        .route("/circuit-breakers/{name}/disable", post(circuits::disable))
        .route(
            "/circuit-breakers/{name}/config",
            put(circuits::reconfigure).get(circuits::config),
        )
        .route("/config", get(config))
        .route("/config/reload", post(reload))
        .route("/events", get(events::events))
        .route(
            "/simulated/{provider}/fault",
            axum::routing::delete(switches::repair),
        )
        .route(
            "/simulated/{provider}/fault/{fault}",
            post(switches::break_down),
        )
        // Before the guard: what exists here is not told to strangers either.
        .fallback(super::not_found)
        .layer(middleware::from_fn_with_state(app, guard))
}

/// Closes every circuit, and shows what that led to.
async fn reset(State(app): State<App>) -> Json<BTreeMap<String, ProviderHealth>> {
    let manager = app.manager();
    manager.reset_circuit_breakers();
    Json(manager.health_check())
}

/// Since when the configuration is in force, and why a newer one is not.
async fn config(State(app): State<App>) -> Json<Value> {
    Json(describe(&app))
}

/// What SIGHUP does.
async fn reload(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    app.reload().await;
    match app.last_reload().error {
        None => Ok(Json(describe(&app))),
        Some(error) => Err(ApiError::invalid_config(None, error)),
    }
}

fn describe(app: &App) -> Value {
    let reload = app.last_reload();
    json!({
        "file": app.file(),
        "loadedAt": humantime::format_rfc3339_millis(reload.loaded_at).to_string(),
        "error": reload.error,
    })
}

/// What an action did, for the audit log: an extension of its response.
#[derive(Clone)]
pub(super) struct Details(pub(super) String);

/// Lets in who may, and keeps a record of what they change.
async fn guard(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let token = app.running().admin_token.clone();
    // Nesting has taken the prefix off.
    let path = format!("/admin{}", request.uri().path());
    let method = request.method().clone();
    if let Err(refusal) = guard::check(token.as_ref(), peer.ip(), request.headers()) {
        tracing::warn!(target: "audit", %peer, %method, path, ?refusal, "refused");
        return refuse(refusal).into_response();
    }
    let response = next.run(request).await;
    if method != Method::GET {
        let by = token.as_ref().map_or("local", |token| token.id());
        let status = response.status().as_u16();
        let details = response.extensions().get::<Details>();
        let details = details.map_or("", |details| &details.0);
        tracing::info!(target: "audit", %peer, by, %method, path, status, details, "admin");
    }
    response
}

fn refuse(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Token => {
            ApiError::unauthorized("send the admin token as `Authorization: Bearer TOKEN`")
        }
        Refusal::NotLocal => ApiError::forbidden(
            "without GATEWAY_ADMIN_TOKEN, /admin answers callers on its own machine only: \
             no proxies, and no web pages of others",
        ),
    }
}

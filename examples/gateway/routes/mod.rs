//! The endpoints.

mod admin;
mod answer;
mod ask;
mod caller;
mod circuits;
mod error;
mod events;
mod guard;
mod health;
mod models;
mod process;
mod read;
mod stream;
mod switches;

use axum::{
    Router,
    extract::Request,
    response::Response,
    routing::{get, post},
};

pub(crate) use self::{
    admin::admin,
    caller::Caller,
    error::ApiError,
    guard::AdminToken,
    health::{health, metrics, openapi},
};
use crate::app::App;

/// What asks a model.
pub(crate) fn models() -> Router<App> {
    Router::new()
        .route("/v1/process", post(process::process))
        .route("/v1/chat/completions", post(answer::answer))
        .route("/v1/messages", post(answer::answer))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
}

pub(crate) async fn not_found(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let error = ApiError::not_found(format!(
        "there is no {method} {path}; there are POST /v1/chat/completions, POST /v1/messages, POST /v1/process, \
         GET /v1/models and GET /health; all are in GET /openapi.json"
    ));
    error.respond(&Caller::new(path, request.headers()))
}

pub(crate) async fn method_not_allowed(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let error = ApiError::method_not_allowed(format!("{path} does not answer to {method}"));
    error.respond(&Caller::new(path, request.headers()))
}

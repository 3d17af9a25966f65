//! The endpoints.

mod admin;
mod chat;
mod circuits;
mod error;
mod events;
mod guard;
mod health;
mod process;
mod read;
mod switches;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue, Method, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tower_breaker::models::{ModelError, ModelRequest, ModelResponse};

pub(crate) use self::{
    admin::admin,
    error::ApiError,
    guard::AdminToken,
    health::{health, metrics},
};
use crate::app::App;

/// What asks a model.
pub(crate) fn models() -> Router<App> {
    Router::new()
        .route("/v1/process", post(process::process))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(list))
}

/// `GET /v1/models`, in OpenAI's shape.
async fn list(State(app): State<App>) -> Json<Value> {
    let manager = app.manager();
    let models = manager.models().map(|(model, provider)| {
        json!({"id": model, "object": "model", "created": 0, "owned_by": provider})
    });
    Json(json!({"object": "list", "data": models.collect::<Vec<_>>()}))
}

/// Has a request answered, and counts it.
async fn ask(app: &App, request: ModelRequest) -> Result<ModelResponse, ModelError> {
    // The same one from beginning to end, whatever a reload puts in its place meanwhile.
    let manager = app.manager();
    let model = request.preferred_model.clone();
    let model = model.as_deref().unwrap_or(manager.default_model());
    let result = manager.process_request(request).await;
    // Others' names may be any text at all, and labels are kept for good.
    if manager.models().any(|(known, _)| known == model) {
        match &result {
            Ok(answer) => app
                .metrics
                .request(model, &answer.provider, &answer.metadata.attempts),
            Err(error) => app.metrics.request(model, "", error.attempts()),
        }
    }
    result
}

/// Tells in headers who answered: SDKs don't show other members of the body.
fn tell_who_answered(answer: &ModelResponse, response: &mut Response) {
    for (name, value) in [
        ("x-gateway-provider", &answer.provider),
        ("x-gateway-model", &answer.model),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, value);
        }
    }
}

pub(crate) async fn not_found(method: Method, uri: Uri) -> Response {
    ApiError::not_found(format!(
        "there is no {method} {}; there are POST /v1/process, POST /v1/chat/completions, \
         GET /v1/models, GET /health, GET /metrics and POST /admin/circuit-breakers/reset",
        uri.path()
    ))
    .into_response()
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    ApiError::method_not_allowed(format!("{} does not answer to {method}", uri.path()))
        .into_response()
}

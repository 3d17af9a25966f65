//! `GET /v1/models`, in the shape of the client that asks.

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tower_breaker::models::ClientFormat;

use super::{caller::Caller, error::ApiError};
use crate::app::App;

/// All models.
pub(super) async fn list(State(app): State<App>, request: Request) -> Response {
    let caller = Caller::new(request.uri().path(), request.headers());
    let manager = app.manager();
    let models: Vec<_> = manager
        .models()
        .map(|(model, provider)| describe(&caller, model, provider))
        .collect();
    let list = match caller.format {
        ClientFormat::OpenAi => json!({ "object": "list", "data": models }),
        ClientFormat::Anthropic => json!({
            "first_id": models.first().map(|model| &model["id"]),
            "last_id": models.last().map(|model| &model["id"]),
            // There is one page.
            "has_more": false,
            "data": models,
        }),
    };
    caller.sign(Json(list).into_response())
}

/// One model.
pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let caller = Caller::new(request.uri().path(), request.headers());
    let manager = app.manager();
    match manager.models().find(|(model, _)| *model == name) {
        Some((model, provider)) => {
            caller.sign(Json(describe(&caller, model, provider)).into_response())
        }
        None => ApiError::model_not_found(format!("there is no model `{name}`")).respond(&caller),
    }
}

/// When a model was made is known to nobody here, so it is said to be very old.
fn describe(caller: &Caller, model: &str, provider: &str) -> Value {
    match caller.format {
        ClientFormat::OpenAi => {
            json!({ "id": model, "object": "model", "created": 0, "owned_by": provider })
        }
        ClientFormat::Anthropic => json!({
            "type": "model",
            "id": model,
            "display_name": model,
            "created_at": "1970-01-01T00:00:00Z",
        }),
    }
}

//! Anthropic's Messages API, as its documentation shows it.

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::ask::{Ask, Refusal, Reply};

/// The status that Anthropic made up for "overloaded".
pub(super) const OVERLOADED: u16 = 529;

/// Checks the headers and reads the body, in the order in which the real API complains.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Ask, Refusal> {
    if headers.get("x-api-key").is_none_or(|key| key.is_empty()) {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "x-api-key header is required",
        ));
    }
    if headers
        .get("anthropic-version")
        .is_none_or(|version| version.is_empty())
    {
        return Err(Refusal::bad_request(
            "anthropic-version: header is required",
        ));
    }
    let ask = Ask::read(body)?;
    if ask.max_tokens.is_none() {
        return Err(Refusal::bad_request("max_tokens: Field required"));
    }
    Ok(ask)
}

pub(super) fn answer(id: u64, ask: &Ask, reply: &Reply) -> Response {
    let body = json!({
        "id": format!("msg_{id:024}"),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [{ "type": "text", "text": reply.text }],
        "stop_reason": if reply.cut_short { "max_tokens" } else { "end_turn" },
        "stop_sequence": null,
        "usage": {
            "input_tokens": ask.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": reply.completion_tokens,
        },
    });
    ([("request-id", request_id(id))], Json(body)).into_response()
}

pub(super) fn refuse(id: u64, refusal: &Refusal) -> Response {
    let kind = match refusal.status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        OVERLOADED => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let request_id = request_id(id);
    let body = json!({
        "type": "error",
        "error": { "type": kind, "message": refusal.message },
        "request_id": request_id,
    });
    (refusal.status, [("request-id", request_id)], Json(body)).into_response()
}

fn request_id(id: u64) -> String {
    format!("req_{id:024}")
}

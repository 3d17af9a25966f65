//! DeepSeek's chat completions: OpenAI's format, with DeepSeek's own fields in `usage`.

use std::time::SystemTime;

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::ask::{Ask, Refusal, Reply};

/// Checks the key and reads the body.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Ask, Refusal> {
    let key = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if key.is_none_or(|key| key.trim().is_empty()) {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "Authentication Fails (auth header format should be Bearer sk-...)",
        ));
    }
    Ask::read(body)
}

pub(super) fn answer(id: u64, ask: &Ask, reply: &Reply) -> Response {
    Json(json!({
        "id": format!("chatcmpl-{id:024}"),
        "object": "chat.completion",
        "created": unix_time(),
        "model": ask.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": reply.text },
            "logprobs": null,
            "finish_reason": if reply.cut_short { "length" } else { "stop" },
        }],
        "usage": {
            "prompt_tokens": ask.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": ask.prompt_tokens + reply.completion_tokens,
            "prompt_tokens_details": { "cached_tokens": 0 },
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": ask.prompt_tokens,
        },
        "system_fingerprint": "fp_simulated",
    }))
    .into_response()
}

pub(super) fn refuse(_id: u64, refusal: &Refusal) -> Response {
    let (kind, code) = match refusal.status.as_u16() {
        401 => ("authentication_error", "invalid_request_error"),
        402 => ("unknown_error", "invalid_request_error"),
        429 => ("rate_limit_error", "rate_limit_exceeded"),
        503 => ("service_unavailable_error", "service_unavailable_error"),
        400..=499 => ("invalid_request_error", "invalid_request_error"),
        _ => ("server_error", "internal_error"),
    };
    let body = json!({
        "error": { "message": refusal.message, "type": kind, "param": null, "code": code },
    });
    (refusal.status, Json(body)).into_response()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the answer's `created` is a date on the wire; no rule depends on it"
)]
fn unix_time() -> u64 {
    // A machine that is set to before 1970 gets a date of 0.
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

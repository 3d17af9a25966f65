//! DeepSeek's chat completions: OpenAI's format, with DeepSeek's own fields in `usage`.

use std::time::SystemTime;

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Kind,
    ask::{Ask, Refusal},
    reply::{Block, Finish, Reply},
    script::Event,
};

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
    Ask::read(Kind::DeepSeek, body)
}

/// The whole answer.
pub(super) fn answer(id: u64, ask: &Ask, reply: &Reply) -> Value {
    let mut message = json!({ "role": "assistant", "content": null });
    for (index, block) in reply.blocks.iter().enumerate() {
        match block {
            Block::Thought(pieces) => message["reasoning_content"] = json!(pieces.concat()),
            Block::Text(pieces) => message["content"] = json!(pieces.concat()),
            Block::Call(name, pieces) => {
                let function = json!({ "name": name, "arguments": pieces.concat() });
                message["tool_calls"] = json!([
                    { "index": 0, "id": call_id(id, index), "type": "function", "function": function }
                ]);
            }
        }
    }
    let mut body = envelope(id, ask, "chat.completion");
    body["choices"] = json!([{
        "index": 0,
        "message": message,
        "logprobs": null,
        "finish_reason": finish_reason(&reply.finish),
    }]);
    body["usage"] = usage(ask, reply);
    body
}

fn envelope(id: u64, ask: &Ask, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{id:024}"),
        "object": object,
        "created": unix_time(),
        "model": ask.model,
        "choices": [],
        "system_fingerprint": "fp_simulated",
    })
}

fn call_id(id: u64, index: usize) -> String {
    format!("call_{index}_{id:020}")
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Done | Finish::Stopped(_) => "stop",
        Finish::CutShort => "length",
        Finish::Called => "tool_calls",
    }
}

fn usage(ask: &Ask, reply: &Reply) -> Value {
    json!({
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": ask.prompt_tokens + reply.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": reply.thought_tokens },
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": ask.prompt_tokens,
    })
}

/// The answer as a stream.
pub(super) fn events(id: u64, ask: &Ask, reply: &Reply) -> Vec<Event> {
    let chunk = |delta: Value, finish: Option<&str>| {
        let mut chunk = envelope(id, ask, "chat.completion.chunk");
        chunk["choices"] = json!([
            { "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }
        ]);
        if ask.include_usage {
            chunk["usage"] = Value::Null;
        }
        frame(&chunk)
    };
    let mut events = vec![
        // What it sends while a request waits for its turn.
        Event::new(": keep-alive\n\n"),
        chunk(json!({ "role": "assistant", "content": "" }), None),
    ];
    for (index, block) in reply.blocks.iter().enumerate() {
        let pieces = match block {
            Block::Thought(pieces) | Block::Text(pieces) | Block::Call(_, pieces) => pieces,
        };
        if let Block::Call(name, _) = block {
            let function = json!({ "name": name, "arguments": "" });
            let call = json!({
                "index": 0, "id": call_id(id, index), "type": "function", "function": function,
            });
            events.push(chunk(json!({ "tool_calls": [call] }), None).content());
        }
        events.extend(pieces.iter().map(|piece| {
            let delta = match block {
                Block::Thought(_) => json!({ "content": null, "reasoning_content": piece }),
                Block::Text(_) => json!({ "content": piece }),
                Block::Call(..) => {
                    json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] })
                }
            };
            chunk(delta, None).content()
        }));
    }
    let finish = finish_reason(&reply.finish);
    events.push(chunk(json!({ "content": "" }), Some(finish)).finish());
    if ask.include_usage {
        let mut last = envelope(id, ask, "chat.completion.chunk");
        last["usage"] = usage(ask, reply);
        events.push(frame(&last).finish());
    }
    events.push(Event::new("data: [DONE]\n\n").finish());
    events
}

fn frame(data: &Value) -> Event {
    Event::new(format!("data: {data}\n\n"))
}

/// What breaks off a stream, or comes as its first event.
pub(super) fn error_event(refusal: &Refusal) -> Event {
    frame(&error(refusal))
}

/// An error as the body of a response.
pub(super) fn error(refusal: &Refusal) -> Value {
    let (kind, code) = match refusal.status.as_u16() {
        401 => ("authentication_error", "invalid_request_error"),
        402 => ("unknown_error", "invalid_request_error"),
        429 => ("rate_limit_error", "rate_limit_exceeded"),
        503 => ("service_unavailable_error", "service_unavailable_error"),
        400..=499 => ("invalid_request_error", "invalid_request_error"),
        _ => ("server_error", "internal_error"),
    };
    json!({
        "error": { "message": refusal.message, "type": kind, "param": null, "code": code },
    })
}

pub(super) fn refuse(refusal: &Refusal) -> Response {
    (refusal.status, Json(error(refusal))).into_response()
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

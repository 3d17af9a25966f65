//! Anthropic's Messages API, as its documentation shows it.

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Kind,
    ask::{Ask, Refusal},
    reply::{Block, Finish, Reply},
    script::Event,
};

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
    let ask = Ask::read(Kind::Anthropic, body)?;
    if ask.max_tokens.is_none() {
        return Err(Refusal::bad_request("max_tokens: Field required"));
    }
    Ok(ask)
}

/// The whole answer.
pub(super) fn answer(id: u64, ask: &Ask, reply: &Reply) -> Value {
    let content = reply.blocks.iter().enumerate().map(|(index, block)| {
        let pieces = |pieces: &[String]| pieces.concat();
        match block {
            Block::Thought(thought) => {
                json!({ "type": "thinking", "thinking": pieces(thought), "signature": SIGNATURE })
            }
            Block::Text(text) => json!({ "type": "text", "text": pieces(text) }),
            Block::Call(name, arguments) => {
                let input: Value = serde_json::from_str(&pieces(arguments)).unwrap_or_default();
                json!({ "type": "tool_use", "id": call_id(id, index), "name": name, "input": input })
            }
        }
    });
    let mut message = message(id, ask, content.collect());
    let (reason, sequence) = stop_reason(&reply.finish);
    message["stop_reason"] = reason;
    message["stop_sequence"] = sequence;
    message["usage"]["output_tokens"] = json!(reply.completion_tokens);
    message
}

/// What proves that a thought is the model's own.
const SIGNATURE: &str = "c2ltdWxhdGVk";

fn message(id: u64, ask: &Ask, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{id:024}"),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {
            "input_tokens": ask.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 1,
        },
    })
}

fn call_id(id: u64, index: usize) -> String {
    format!("toolu_{id:020}_{index}")
}

fn stop_reason(finish: &Finish) -> (Value, Value) {
    match finish {
        Finish::Done => (json!("end_turn"), Value::Null),
        Finish::CutShort => (json!("max_tokens"), Value::Null),
        Finish::Stopped(at) => (json!("stop_sequence"), json!(at)),
        Finish::Called => (json!("tool_use"), Value::Null),
    }
}

/// The answer as a stream.
pub(super) fn events(id: u64, ask: &Ask, reply: &Reply) -> Vec<Event> {
    let mut events = vec![
        frame(json!({ "type": "message_start", "message": message(id, ask, Vec::new()) })),
        frame(json!({ "type": "ping" })),
    ];
    for (index, block) in reply.blocks.iter().enumerate() {
        let delta = |delta: Value| {
            let event = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            frame(event)
        };
        let (start, pieces) = match block {
            Block::Thought(pieces) => (
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
                pieces,
            ),
            Block::Text(pieces) => (json!({ "type": "text", "text": "" }), pieces),
            Block::Call(name, pieces) => (
                json!({ "type": "tool_use", "id": call_id(id, index), "name": name, "input": {} }),
                pieces,
            ),
        };
        events.push(frame(
            json!({ "type": "content_block_start", "index": index, "content_block": start }),
        ));
        events.extend(pieces.iter().map(|piece| {
            delta(match block {
                Block::Thought(_) => json!({ "type": "thinking_delta", "thinking": piece }),
                Block::Text(_) => json!({ "type": "text_delta", "text": piece }),
                Block::Call(..) => json!({ "type": "input_json_delta", "partial_json": piece }),
            })
            .content()
        }));
        if matches!(block, Block::Thought(_)) {
            events.push(delta(
                json!({ "type": "signature_delta", "signature": SIGNATURE }),
            ));
        }
        events.push(frame(
            json!({ "type": "content_block_stop", "index": index }),
        ));
    }
    let (reason, sequence) = stop_reason(&reply.finish);
    let last = json!({
        "type": "message_delta",
        "delta": { "stop_reason": reason, "stop_sequence": sequence },
        "usage": { "output_tokens": reply.completion_tokens },
    });
    events.push(frame(last).finish());
    events.push(frame(json!({ "type": "message_stop" })).finish());
    events
}

fn frame(data: Value) -> Event {
    let kind = data["type"].as_str().unwrap_or_default();
    Event::new(format!("event: {kind}\ndata: {data}\n\n"))
}

/// What breaks off a stream, or comes as its first event.
pub(super) fn error_event(id: u64, refusal: &Refusal) -> Event {
    frame(error(id, refusal))
}

/// An error as the body of a response.
pub(super) fn error(id: u64, refusal: &Refusal) -> Value {
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
    json!({
        "type": "error",
        "error": { "type": kind, "message": refusal.message },
        "request_id": request_id(id),
    })
}

pub(super) fn refuse(id: u64, refusal: &Refusal) -> Response {
    (refusal.status, Json(error(id, refusal))).into_response()
}

/// What stands in the header `request-id` of every response.
pub(super) fn request_id(id: u64) -> String {
    format!("req_{id:024}")
}

//! Whole answers and errors in Anthropic's format.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use crate::models::{
    anthropic::Arguments,
    content::Reasoning,
    format::{FormatError, Reply, ReplyContext, write},
    response::{FinishReason, Usage},
};

#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<Block<'a>>,
    pub(super) stop_reason: Option<&'a str>,
    pub(super) stop_sequence: Option<&'a str>,
    pub(super) usage: WireUsage,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: &'a str,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Arguments<'a>,
    },
}

#[derive(Serialize)]
pub(super) struct WireUsage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Serialize)]
struct OutputDetails {
    thinking_tokens: u64,
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        let cached = usage
            .cache_read_tokens
            .saturating_add(usage.cache_write_tokens);
        Self {
            // Here what went through the cache is not counted in.
            input_tokens: usage.input_tokens.saturating_sub(cached),
            cache_creation_input_tokens: usage.cache_write_tokens,
            cache_read_input_tokens: usage.cache_read_tokens,
            output_tokens: usage.output_tokens,
            output_tokens_details: (usage.reasoning_tokens > 0).then_some(OutputDetails {
                thinking_tokens: usage.reasoning_tokens,
            }),
        }
    }
}

/// The id of an answer that came without one.
pub(super) fn id<'a>(own: &'a str, request_id: &str) -> Cow<'a, str> {
    if own.is_empty() {
        format!("msg_{request_id}").into()
    } else {
        own.into()
    }
}

/// One of the words that this format has, and the sequence where it was one.
pub(super) fn stop_reason(reason: &FinishReason) -> (&str, Option<&str>) {
    match reason {
        FinishReason::StopSequence(sequence) => ("stop_sequence", Some(sequence)),
        FinishReason::Length => ("max_tokens", None),
        FinishReason::ToolCalls => ("tool_use", None),
        FinishReason::ContentFilter => ("refusal", None),
        FinishReason::Other(word) if word == "pause_turn" => ("pause_turn", None),
        FinishReason::Stop | FinishReason::Other(_) => ("end_turn", None),
    }
}

pub(in crate::models::format) fn encode_response(
    reply: &Reply<'_>,
    context: &ReplyContext<'_>,
) -> Bytes {
    let mut content = Vec::new();
    for block in reply.reasoning_blocks {
        content.push(match block {
            Reasoning::Text { text, signature } => Block::Thinking {
                thinking: text,
                signature: signature.as_deref().unwrap_or_default(),
            },
            Reasoning::Redacted(data) => Block::RedactedThinking { data },
        });
    }
    if let (Some(thinking), true) = (reply.reasoning, content.is_empty()) {
        content.push(Block::Thinking {
            thinking,
            signature: "",
        });
    }
    if !reply.text.is_empty() {
        content.push(Block::Text { text: reply.text });
    }
    content.extend(reply.tool_calls.iter().map(|call| Block::ToolUse {
        id: &call.id,
        name: &call.name,
        input: Arguments::of(call),
    }));
    let (stop_reason, stop_sequence) = stop_reason(reply.finish_reason);
    write::body(&Message {
        id: &id(reply.id, context.request_id),
        r#type: "message",
        role: "assistant",
        model: reply.model,
        content,
        stop_reason: Some(stop_reason),
        stop_sequence,
        usage: reply.usage.into(),
    })
}

#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    r#type: &'static str,
    error: WireError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct WireError<'a> {
    r#type: &'static str,
    message: &'a str,
    /// Ours: Anthropic's own types say no more than the status.
    code: &'a str,
}

impl<'a> ErrorBody<'a> {
    pub(super) fn new(error: &'a FormatError, request_id: &'a str) -> Self {
        Self {
            r#type: "error",
            error: WireError {
                r#type: match error.status().as_u16() {
                    401 => "authentication_error",
                    402 => "billing_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    408 | 504 => "timeout_error",
                    409 => "conflict_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    529 => "overloaded_error",
                    400..=499 => "invalid_request_error",
                    _ => "api_error",
                },
                message: error.message(),
                code: error.code(),
            },
            request_id,
        }
    }
}

pub(in crate::models::format) fn encode_error(error: &FormatError, request_id: &str) -> Bytes {
    write::body(&ErrorBody::new(error, request_id))
}

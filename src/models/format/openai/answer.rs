//! Whole answers and errors in OpenAI's format.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::models::{
    format::{FormatError, Reply, ReplyContext, write},
    response::{FinishReason, Usage},
};

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: WireUsage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
pub(super) struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cache_read_tokens,
                cache_write_tokens: usage.cache_write_tokens,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
        }
    }
}

/// The id of an answer that came without one.
pub(super) fn id<'a>(own: &'a str, request_id: &str) -> Cow<'a, str> {
    if own.is_empty() {
        format!("chatcmpl-{request_id}").into()
    } else {
        own.into()
    }
}

/// One of the words that this format has; a client may know no other.
pub(super) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopSequence(_) | FinishReason::Other(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

pub(in crate::models::format) fn encode_response(
    reply: &Reply<'_>,
    context: &ReplyContext<'_>,
) -> Bytes {
    let calls = reply.tool_calls.iter().map(|call| Call {
        id: &call.id,
        r#type: "function",
        function: Function {
            name: &call.name,
            arguments: &call.arguments,
        },
    });
    let only_calls = reply.text.is_empty() && !reply.tool_calls.is_empty();
    write::body(&Answer {
        id: &id(reply.id, context.request_id),
        object: "chat.completion",
        created: write::unix_seconds(context.created),
        model: reply.model,
        choices: [Choice {
            index: 0,
            message: Message {
                role: "assistant",
                content: (!only_calls).then_some(reply.text),
                refusal: None,
                reasoning_content: reply.reasoning,
                tool_calls: calls.collect(),
            },
            logprobs: None,
            finish_reason: finish_reason(reply.finish_reason),
        }],
        usage: reply.usage.into(),
    })
}

#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    error: WireError<'a>,
}

#[derive(Serialize)]
struct WireError<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'a str,
}

impl<'a> From<&'a FormatError> for ErrorBody<'a> {
    fn from(error: &'a FormatError) -> Self {
        Self {
            error: WireError {
                message: error.message(),
                r#type: match (error.code(), error.status()) {
                    ("insufficient_quota", _) => "insufficient_quota",
                    (_, StatusCode::TOO_MANY_REQUESTS) => "rate_limit_error",
                    (_, status) if status.is_client_error() => "invalid_request_error",
                    _ => "server_error",
                },
                param: error.param(),
                code: error.code(),
            },
        }
    }
}

pub(in crate::models::format) fn encode_error(error: &FormatError) -> Bytes {
    write::body(&ErrorBody::from(error))
}

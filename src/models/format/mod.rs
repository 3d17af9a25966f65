//! The formats that clients speak: the other half of the codecs.
//!
//! A [`Provider`](super::Provider) writes a [`ModelRequest`] for a provider and reads its answer. A
//! [`ClientFormat`] reads a [`ModelRequest`] from a client and writes the answer for it, so that
//! every client can be answered by every provider. As pure as the codecs: bytes in, types out, and
//! no clock, so whoever uses it says what time it is.
//!
//! What a client sends that has no place in a [`ModelRequest`] is read over where it is a wish
//! (where to bill, what to store), and refused, by the name of its field, where the answer would not
//! be what was asked for.
//!
//! ```
//! use tower_breaker::models::ClientFormat;
//!
//! let body = br#"{"model": "claude", "messages": [{"role": "user", "content": "Hi"}]}"#;
//! let asked = ClientFormat::OpenAi.decode_request(body)?;
//! assert_eq!(asked.request.preferred_model.as_deref(), Some("claude"));
//!
//! let error = ClientFormat::Anthropic.decode_request(body).unwrap_err();
//! assert_eq!(error.param(), Some("max_tokens"));
//! # Ok::<_, tower_breaker::models::FormatError>(())
//! ```

mod anthropic;
mod error;
mod openai;
mod read;
mod write;

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

pub use self::error::FormatError;
use super::content::{Reasoning, ToolCall};
use super::error::ModelError;
use super::event::StreamEvent;
use super::manager::ModelResponse;
use super::request::ModelRequest;
use super::response::{Completion, FinishReason, Usage};

/// A format that clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientFormat {
    /// OpenAI's chat completions: `POST /v1/chat/completions`.
    ///
    /// Refused: more than one choice, `logprobs`, `logit_bias`, audio, files, and `functions`, which
    /// `tools` have replaced. Read over: `store`, `metadata`, `service_tier` and whatever else there
    /// is. System messages are joined into one, wherever they stand; an empty message of the
    /// assistant is left out. `thinking` is read as DeepSeek has it, and so is `reasoning_content`,
    /// which answers carry too. The signatures of thoughts are lost: this format has no place for
    /// them.
    OpenAi,
    /// Anthropic's messages: `POST /v1/messages`.
    ///
    /// Refused: documents other than plain text, files, the tools that Anthropic itself runs,
    /// `container` and `mcp_servers`. Read over: `service_tier` and whatever else there is. System
    /// messages are joined to the system text. `cache_control` counts by whether it stands on tools or
    /// system text, or on the conversation; its `ttl` is read over.
    Anthropic,
}

/// What a client asked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClientRequest {
    /// What is asked of a model, by the name that the client gave it.
    pub request: ModelRequest,
    /// Whether a stream ends with its usage. In Anthropic's format it always does.
    pub include_usage: bool,
}

/// A whole answer as it is written for a client: borrowed from a [`Completion`] or a
/// [`ModelResponse`].
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    id: &'a str,
    model: &'a str,
    text: &'a str,
    reasoning: Option<&'a str>,
    reasoning_blocks: &'a [Reasoning],
    tool_calls: &'a [ToolCall],
    finish_reason: &'a FinishReason,
    usage: Usage,
}

impl<'a> From<&'a Completion> for Reply<'a> {
    fn from(completion: &'a Completion) -> Self {
        Self {
            id: &completion.id,
            model: &completion.model,
            text: &completion.text,
            reasoning: completion.reasoning.as_deref(),
            reasoning_blocks: &completion.reasoning_blocks,
            tool_calls: &completion.tool_calls,
            finish_reason: &completion.finish_reason,
            usage: completion.usage,
        }
    }
}

/// The model is the alias of the one that really answered.
impl<'a> From<&'a ModelResponse> for Reply<'a> {
    fn from(response: &'a ModelResponse) -> Self {
        Self {
            id: &response.id,
            model: &response.model,
            text: &response.text,
            reasoning: response.reasoning.as_deref(),
            reasoning_blocks: &response.reasoning_blocks,
            tool_calls: &response.tool_calls,
            finish_reason: &response.finish_reason,
            usage: response.usage,
        }
    }
}

/// What an answer needs beside itself.
#[derive(Debug, Clone, Copy)]
pub struct ReplyContext<'a> {
    /// The request's id: errors carry it, and an answer that has no id of its own.
    pub request_id: &'a str,
    /// When the answer was made.
    pub created: SystemTime,
    /// The client's wish from [`ClientRequest::include_usage`].
    pub include_usage: bool,
}

impl ClientFormat {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// If it isn't JSON of this format, or asks for what nobody could answer; the error names the
    /// field.
    pub fn decode_request(self, body: &[u8]) -> Result<ClientRequest, FormatError> {
        match self {
            Self::OpenAi => openai::decode_request(body),
            Self::Anthropic => anthropic::decode_request(body),
        }
    }

    /// Writes a whole answer.
    pub fn encode_response<'a>(
        self,
        reply: impl Into<Reply<'a>>,
        context: &ReplyContext<'_>,
    ) -> Bytes {
        let reply = reply.into();
        match self {
            Self::OpenAi => openai::encode_response(&reply, context),
            Self::Anthropic => anthropic::encode_response(&reply, context),
        }
    }

    /// Writes a failure: the status and the body that have the client's SDK raise what its own
    /// provider would have made it raise.
    ///
    /// A status that a provider answered is kept; what the gateway found out by itself gets the
    /// nearest one. `Retry-After`, and `x-should-retry: false` where every circuit is open, are
    /// headers, and those are the caller's.
    pub fn encode_error(self, error: &ModelError, request_id: &str) -> (StatusCode, Bytes) {
        let error = FormatError::of_model(error, self);
        self.encode_format_error(&error, request_id)
    }

    /// Writes what is wrong with a request.
    pub fn encode_format_error(self, error: &FormatError, request_id: &str) -> (StatusCode, Bytes) {
        let body = match self {
            Self::OpenAi => openai::encode_error(error),
            Self::Anthropic => anthropic::encode_error(error, request_id),
        };
        (error.status(), body)
    }

    /// What writes a streamed answer.
    pub fn stream_encoder(self, context: &ReplyContext<'_>) -> StreamEncoder {
        StreamEncoder(match self {
            Self::OpenAi => Encoder::OpenAi(openai::Encoder::new(context)),
            Self::Anthropic => Encoder::Anthropic(anthropic::Encoder::new(context)),
        })
    }
}

/// Writes a streamed answer as server-sent events.
///
/// It appends to a buffer, so that events that are ready together can go out in one write.
#[derive(Debug)]
pub struct StreamEncoder(Encoder);

#[derive(Debug)]
enum Encoder {
    OpenAi(openai::Encoder),
    Anthropic(anthropic::Encoder),
}

impl StreamEncoder {
    /// Writes one event. After [`Finish`](StreamEvent::Finish) the body is complete.
    pub fn event(&mut self, event: &StreamEvent, out: &mut BytesMut) {
        match &mut self.0 {
            Encoder::OpenAi(encoder) => encoder.event(event, out),
            Encoder::Anthropic(encoder) => encoder.event(event, out),
        }
    }

    /// Writes that the answer has failed. The body ends with it, and without the format's own end,
    /// so that it can't be taken for complete.
    pub fn error(&mut self, error: &ModelError, out: &mut BytesMut) {
        match &mut self.0 {
            Encoder::OpenAi(encoder) => encoder.error(error, out),
            Encoder::Anthropic(encoder) => encoder.error(error, out),
        }
    }

    /// Writes a sign of life that means nothing.
    pub fn keep_alive(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(match &self.0 {
            Encoder::OpenAi(_) => b": keep-alive\n\n",
            Encoder::Anthropic(_) => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        });
    }
}

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;

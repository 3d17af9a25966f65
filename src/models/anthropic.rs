//! Anthropic's Messages API.
//!
//! Follows the documentation of API version 2023-06-01: `POST /v1/messages`, keys in `x-api-key`,
//! the system text beside the messages, errors as `{"type":"error","error":{"type","message"}}`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ModelError, ModelErrorKind};
use super::failure;
use super::provider::{Provider, post};
use super::request::{Content, ModelRequest, Part, Role};
use super::response::{Completion, FinishReason, Usage};
use super::setup::{ApiKey, SetupError, endpoint};

/// The version of the API that this codec was written for.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// The API wants a limit; this is the highest that every model of the Claude 3 family and later
/// takes.
const DEFAULT_MAX_TOKENS: u32 = 4096;

const PATH: &str = "/v1/messages";

/// The codec of Anthropic's Messages API.
///
/// What differs from the request as given: `max_tokens` is 4096 if it isn't set, because the API
/// demands one, and a `temperature` above 1 is sent as 1, where this API's range ends, so that a
/// request written for another provider can fall back to this one.
#[derive(Debug, Clone)]
pub struct Anthropic {
    key: ApiKey,
    header: HeaderValue,
    endpoint: Uri,
}

impl Anthropic {
    /// The codec for `https://api.anthropic.com`, with this key.
    pub fn new(key: ApiKey) -> Self {
        let header = key.header("");
        let endpoint = Uri::from_static("https://api.anthropic.com/v1/messages");
        Self {
            key,
            header,
            endpoint,
        }
    }

    /// Sends requests to `/v1/messages` under this address instead; a slash at its end is ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(mut self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        self.endpoint = endpoint(url.as_ref(), PATH)?;
        Ok(self)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: WireContent<'a>,
}

/// One text goes as a string, which is how most people read and log requests.
#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(&'a str),
    Blocks(Vec<WireBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock<'a> {
    Text { text: &'a str },
}

impl<'a> From<&'a Content> for WireContent<'a> {
    fn from(content: &'a Content) -> Self {
        match content.parts() {
            [Part::Text(text)] => Self::Text(text),
            parts => Self::Blocks(
                parts
                    .iter()
                    .map(|part| match part {
                        Part::Text(text) => WireBlock::Text { text },
                    })
                    .collect(),
            ),
        }
    }
}

impl Provider for Anthropic {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        request.validate()?;
        let messages = request.messages.iter().map(|message| WireMessage {
            role: match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            },
            content: (&message.content).into(),
        });
        let mut http = post(
            &self.endpoint,
            &Body {
                model,
                max_tokens: request.max_tokens.map_or(DEFAULT_MAX_TOKENS, u32::from),
                messages: messages.collect(),
                system: request.system.as_deref(),
                temperature: request.temperature.map(|t| t.min(1.0)),
                top_p: request.top_p,
                stop_sequences: &request.stop,
            },
        )?;
        let headers = http.headers_mut();
        headers.insert(HeaderName::from_static("x-api-key"), self.header.clone());
        headers.insert(HeaderName::from_static("anthropic-version"), VERSION);
        Ok(http)
    }

    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        if let Some(kind) = ModelErrorKind::from_status(status) {
            return Err(failure::from_status(kind, status, headers, body, &self.key));
        }
        let answer: Answer =
            serde_json::from_slice(body).map_err(|e| failure::not_understood(status, &e))?;
        // Once the answer has begun the status is spent, and an error comes under a 200.
        if let Some(error) = answer.error {
            return Err(failure::from_error(status, headers, &error, &self.key));
        }
        let Some(blocks) = answer.content else {
            return Err(failure::malformed(status, "the answer has no `content`"));
        };
        let mut completion = Completion::new("");
        for block in blocks {
            match block {
                Block::Text { text } => completion.text.push_str(&text),
                Block::Thinking { thinking } => {
                    completion
                        .reasoning
                        .get_or_insert_default()
                        .push_str(&thinking);
                }
                Block::Other => {}
            }
        }
        completion.id = answer.id.unwrap_or_default();
        completion.model = answer.model.unwrap_or_default();
        completion.finish_reason = finish_reason(answer.stop_reason);
        completion.usage = usage(&answer.usage);
        Ok(completion)
    }
}

#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    model: Option<String>,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    // Read leniently: an answer isn't worthless because its bill can't be read.
    #[serde(default)]
    usage: Value,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
    },
    // Tool use, redacted thinking, and what is yet to come: the API adds types without a version.
    #[serde(other)]
    Other,
}

fn finish_reason(reason: Option<String>) -> FinishReason {
    let Some(reason) = reason else {
        return FinishReason::unknown();
    };
    match reason.as_str() {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Other(reason),
    }
}

fn usage(usage: &Value) -> Usage {
    let tokens = |field| usage.get(field).and_then(Value::as_u64).unwrap_or(0);
    // `input_tokens` leaves out what went through the cache; other providers count it in.
    let input = [
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    ];
    Usage {
        input_tokens: input.into_iter().map(tokens).fold(0, u64::saturating_add),
        output_tokens: tokens("output_tokens"),
    }
}

#[cfg(test)]
#[path = "anthropic_tests.rs"]
mod tests;

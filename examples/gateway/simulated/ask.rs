//! What the two wire formats have in common: a question with messages, and an answer in words.

use axum::http::StatusCode;
use serde_json::Value;

/// How much of the last user message an answer repeats.
const ECHOED_WORDS: usize = 12;

/// A model request, read from either wire format.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) max_tokens: Option<u64>,
    pub(super) stream: bool,
    /// The text of the last message that a user wrote.
    last_user_message: String,
    pub(super) prompt_tokens: usize,
}

impl Ask {
    /// Reads a body. Fields that aren't simulated are let through, as the real APIs do with most.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body isn't JSON: {error}")))?;
        let model = match body.get("model") {
            Some(Value::String(model)) if !model.is_empty() => model.clone(),
            Some(_) => {
                return Err(Refusal::bad_request(
                    "model: must be a string that isn't empty",
                ));
            }
            None => return Err(Refusal::bad_request("model: Field required")),
        };
        let max_tokens = match body.get("max_tokens") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64() {
                Some(tokens) if tokens > 0 => Some(tokens),
                _ => {
                    return Err(Refusal::bad_request(
                        "max_tokens: must be a whole number above 0",
                    ));
                }
            },
        };
        let stream = match body.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return Err(Refusal::bad_request("stream: must be true or false")),
        };
        let messages = match body.get("messages") {
            Some(Value::Array(messages)) if !messages.is_empty() => messages,
            Some(_) => {
                return Err(Refusal::bad_request(
                    "messages: at least one message is required",
                ));
            }
            None => return Err(Refusal::bad_request("messages: Field required")),
        };
        let mut prompt_tokens = body
            .get("system")
            .and_then(text)
            .map_or(0, |system| words(&system));
        let mut last_user_message = String::new();
        for (index, message) in messages.iter().enumerate() {
            let Some(role) = message.get("role").and_then(Value::as_str) else {
                return Err(Refusal::bad_request(format!(
                    "messages.{index}.role: Field required"
                )));
            };
            // An assistant's message that only calls tools has no text.
            let content = message.get("content").and_then(text);
            if content.is_none() && role == "user" {
                return Err(Refusal::bad_request(format!(
                    "messages.{index}.content: Field required"
                )));
            }
            let content = content.unwrap_or_default();
            prompt_tokens += words(&content);
            if role == "user" {
                last_user_message = content;
            }
        }
        Ok(Self {
            model,
            max_tokens,
            stream,
            last_user_message,
            prompt_tokens,
        })
    }
}

/// The text of a `content`, which is a string or a list of parts.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<_> = parts
                .iter()
                .filter_map(|part| part.get("text")?.as_str())
                .collect();
            Some(texts.join(" "))
        }
        _ => None,
    }
}

/// Usage is counted by words: nobody has to know a tokenizer to check the sums.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// What the provider says.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) completion_tokens: usize,
    /// It was cut short by `max_tokens`.
    pub(super) cut_short: bool,
}

impl Reply {
    pub(super) fn new(name: &str, ask: &Ask) -> Self {
        let said: Vec<_> = ask.last_user_message.split_whitespace().collect();
        let echo = said[..said.len().min(ECHOED_WORDS)].join(" ");
        let more = if said.len() > ECHOED_WORDS {
            " ..."
        } else {
            ""
        };
        let text = format!("Hello! This is {name}, simulated. You said: {echo}{more}");
        let length = words(&text);
        let limit = ask
            .max_tokens
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX);
        let text = text
            .split_whitespace()
            .take(limit)
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            text,
            completion_tokens: length.min(limit),
            cut_short: length > limit,
        }
    }
}

/// Why a request gets no answer. Each wire format gives it its own shape.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

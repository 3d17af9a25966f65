//! `POST /v1/chat/completions`: OpenAI's form, for whoever has an SDK of theirs.

use std::{
    num::NonZeroU32,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_breaker::models::{Message, ModelRequest, ModelResponse};

use super::{ask, error::ApiError, read, tell_who_answered};
use crate::app::App;

/// The request. Members that are not here are tolerated: SDKs send more than anyone reads.
#[derive(Debug, Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<ChatMessage>,
    max_completion_tokens: Option<NonZeroU32>,
    max_tokens: Option<NonZeroU32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default)]
    stop: Stop,
    stream: Option<bool>,
    n: Option<u32>,
    tools: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: ChatRole,
    content: ChatContent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "text, or a list of parts of type \"text\"")]
enum ChatContent {
    Text(String),
    Parts(Vec<ChatPart>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart {
    Text { text: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged, expecting = "text, or a list of texts")]
enum Stop {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

pub(super) async fn completions(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let request: ChatRequest = read::json(&app, body).await?;
    let answer = ask(&app, request.try_into()?).await;
    let answer = answer.map_err(|error| ApiError::from_model(error, "model"))?;
    let mut response = Json(write(&answer)).into_response();
    tell_who_answered(&answer, &mut response);
    Ok(response)
}

impl TryFrom<ChatRequest> for ModelRequest {
    type Error = ApiError;

    fn try_from(chat: ChatRequest) -> Result<Self, ApiError> {
        let refuse =
            |field: &str, why: &str| ApiError::invalid(field.to_owned(), format!("{field}: {why}"));
        if chat.stream == Some(true) {
            return Err(refuse(
                "stream",
                "streaming is not supported yet, send false or leave it out",
            ));
        }
        if chat.n.is_some_and(|n| n != 1) {
            return Err(refuse("n", "only 1 choice is supported"));
        }
        if chat.tools.is_some_and(|tools| !tools.is_empty()) {
            return Err(refuse("tools", "tools are not supported yet"));
        }
        let mut system = Vec::new();
        let mut messages = Vec::new();
        for (index, message) in chat.messages.into_iter().enumerate() {
            let text = message.content.into_text();
            if text.trim().is_empty() {
                let field = format!("messages[{index}].content");
                return Err(refuse(&field, "it must not be empty"));
            }
            match message.role {
                ChatRole::System | ChatRole::Developer => system.push(text),
                ChatRole::User => messages.push(Message::user(text)),
                ChatRole::Assistant => messages.push(Message::assistant(text)),
            }
        }
        if messages.is_empty() {
            return Err(refuse(
                "messages",
                "there must be at least one that is not of the system's",
            ));
        }
        let mut request = Self::messages(messages).preferred_model(chat.model);
        if !system.is_empty() {
            request.system = Some(system.join("\n\n"));
        }
        request.max_tokens = chat.max_completion_tokens.or(chat.max_tokens);
        request.temperature = chat.temperature;
        request.top_p = chat.top_p;
        request.stop = match chat.stop {
            Stop::None => Vec::new(),
            Stop::One(stop) => vec![stop],
            Stop::Many(stop) => stop,
        };
        Ok(request)
    }
}

impl ChatContent {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts
                .into_iter()
                .map(|ChatPart::Text { text }| text)
                .collect(),
        }
    }
}

fn write(answer: &ModelResponse) -> Value {
    let usage = answer.usage;
    let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
    if let Some(reasoning) = &answer.reasoning {
        message["reasoning_content"] = json!(reasoning);
    }
    json!({
        "id": answer.id,
        "object": "chat.completion",
        "created": unix_time(),
        "model": answer.model,
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": answer.finish_reason,
        }],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "OpenAI's answers carry the time of day"
)]
fn unix_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

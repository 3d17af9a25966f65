//! Chat completions, as OpenAI made them and many others speak them.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ModelError, ModelErrorKind};
use super::failure;
use super::provider::{Provider, post};
use super::request::{ModelRequest, Role};
use super::response::{Completion, FinishReason, Usage};
use super::setup::{ApiKey, SetupError, endpoint};

const PATH: &str = "/chat/completions";

/// The codec of OpenAI's chat completions, and of every API that is compatible with them.
///
/// The length of the answer is limited by `max_completion_tokens` at OpenAI and Azure, whose newer
/// models refuse the old name, and by `max_tokens` everywhere else, where the new one may be
/// unknown and silently ignored. The address decides;
/// [`max_completion_tokens`](Self::max_completion_tokens) overrules it.
#[derive(Debug, Clone)]
pub struct OpenAi {
    key: ApiKey,
    header: HeaderValue,
    endpoint: Uri,
    max_completion_tokens: Option<bool>,
}

impl OpenAi {
    /// The codec for `https://api.openai.com/v1`, with this key.
    pub fn new(key: ApiKey) -> Self {
        Self::at(
            key,
            Uri::from_static("https://api.openai.com/v1/chat/completions"),
        )
    }

    /// The codec for another endpoint, for presets.
    pub(super) fn at(key: ApiKey, endpoint: Uri) -> Self {
        let header = key.header("Bearer ");
        Self {
            key,
            header,
            endpoint,
            max_completion_tokens: None,
        }
    }

    /// Sends requests to `/chat/completions` under this address instead; a slash at its end is
    /// ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(mut self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        self.endpoint = endpoint(url.as_ref(), PATH)?;
        Ok(self)
    }

    /// Sets whether the limit of the answer is called `max_completion_tokens` or, as it was first,
    /// `max_tokens`. Default: by the address.
    #[must_use]
    pub fn max_completion_tokens(mut self, yes: bool) -> Self {
        self.max_completion_tokens = Some(yes);
        self
    }

    fn uses_max_completion_tokens(&self) -> bool {
        self.max_completion_tokens.unwrap_or_else(|| {
            let host = self.endpoint.host().unwrap_or_default();
            [".openai.com", ".openai.azure.com"]
                .iter()
                .any(|end| host.ends_with(end))
        })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    // Always a string: not everyone who speaks this format reads an array of parts.
    content: std::borrow::Cow<'a, str>,
}

impl Provider for OpenAi {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        request.validate()?;
        let system = request.system.as_deref().map(|text| WireMessage {
            role: "system",
            content: text.into(),
        });
        let messages = request.messages.iter().map(|message| WireMessage {
            role: match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            },
            content: message.content.text(),
        });
        let limit = request.max_tokens.map(u32::from);
        let (max_tokens, max_completion_tokens) = if self.uses_max_completion_tokens() {
            (None, limit)
        } else {
            (limit, None)
        };
        let mut http = post(
            &self.endpoint,
            &Body {
                model,
                messages: system.into_iter().chain(messages).collect(),
                max_tokens,
                max_completion_tokens,
                temperature: request.temperature,
                top_p: request.top_p,
                stop: &request.stop,
            },
        )?;
        http.headers_mut()
            .insert(AUTHORIZATION, self.header.clone());
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
        if let Some(error) = answer.error {
            return Err(failure::from_error(status, headers, &error, &self.key));
        }
        let choice = answer.choices.unwrap_or_default().into_iter().next();
        let Some(Choice {
            message: Some(message),
            finish_reason,
        }) = choice
        else {
            return Err(failure::malformed(
                status,
                "the answer has no `choices[0].message`",
            ));
        };
        // DeepSeek's word for an answer that it broke off because it had no room.
        if finish_reason.as_deref() == Some("insufficient_system_resource") {
            let message = "the provider broke the answer off: insufficient system resource";
            return Err(ModelError::new(ModelErrorKind::Overloaded, message).with_status(status));
        }
        let mut completion = Completion::new(message.content.map(String::from).unwrap_or_default());
        completion.finish_reason = finish(finish_reason);
        // A refusal stands in place of the content, under an ordinary `stop`.
        if let (true, Some(refusal)) = (completion.text.is_empty(), message.refusal) {
            completion.text = refusal;
            completion.finish_reason = FinishReason::ContentFilter;
        }
        completion.id = answer.id.unwrap_or_default();
        completion.model = answer.model.unwrap_or_default();
        completion.reasoning = message.reasoning_content.or(message.reasoning);
        let tokens = |field| answer.usage.get(field).and_then(Value::as_u64).unwrap_or(0);
        completion.usage = Usage {
            input_tokens: tokens("prompt_tokens"),
            output_tokens: tokens("completion_tokens"),
        };
        Ok(completion)
    }
}

#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    // Read leniently: an answer isn't worthless because its bill can't be read.
    #[serde(default)]
    usage: Value,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<WireAnswer>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireAnswer {
    content: Option<Text>,
    refusal: Option<String>,
    // DeepSeek's name, and the one that routers use.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

/// A string at OpenAI, at times a list of parts elsewhere.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Parts(Vec<TextPart>),
}

#[derive(Deserialize)]
struct TextPart {
    text: Option<String>,
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) => text,
            Text::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

fn finish(reason: Option<String>) -> FinishReason {
    let Some(reason) = reason else {
        return FinishReason::unknown();
    };
    match reason.as_str() {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other(reason),
    }
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;

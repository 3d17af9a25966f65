//! What is asked of a model, whoever answers it.
//!
//! The smallest set that every provider can express. It reads the body of `POST /v1/process`
//! through [`serde::Deserialize`]; see [`ModelRequest`] for that form.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::content::Message;
use super::error::{ModelError, ModelErrorKind};
use super::tools::{Effort, ResponseFormat, Thinking, Tool, ToolChoice};

/// One request to a model.
///
/// # As JSON
///
/// ```
/// # use tower_breaker::models::ModelRequest;
/// let request: ModelRequest = serde_json::from_str(
///     r#"{
///         "messages": [
///             {"role": "system", "content": "Be brief."},
///             {"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]}
///         ],
///         "preferredModel": "claude-3.5-sonnet",
///         "maxTokens": 200,
///         "temperature": 0.2,
///         "stop": ["\n\n"]
///     }"#,
/// )?;
/// assert_eq!(request.system.as_deref(), Some("Be brief."));
/// assert_eq!(request.messages.len(), 1);
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// Either `prompt` or `messages`, exactly one of them. `preferredModel`, `maxTokens` and `topP` may
/// be written in snake case, `stop` may be one string, and messages of the role `system` are joined
/// into `system`, after the one that stands outside. An unknown field is an error, and every error
/// names its field.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelRequest {
    /// The conversation so far, oldest first. Never empty in a request that was read from JSON.
    pub messages: Vec<Message>,
    /// What the model is told before the conversation.
    pub system: Option<String>,
    /// The name of the model that should answer, as configured; without it the default one does.
    pub preferred_model: Option<String>,
    /// The longest answer, in tokens; without it the provider's limit, or the codec's.
    pub max_tokens: Option<NonZeroU32>,
    /// How freely the model chooses its words, from 0 to 2; without it the provider's default.
    pub temperature: Option<f64>,
    /// The share of likely words that the model chooses from, from 0 to 1; without it the
    /// provider's default.
    pub top_p: Option<f64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// Whether the caller would like the answer as a stream.
    pub stream: bool,
    /// The tools that the model may ask for.
    pub tools: Vec<Tool>,
    /// Whether the model has to call one; without it the model decides.
    pub tool_choice: Option<ToolChoice>,
    /// Whether the model may call several at once; without it the provider's default.
    pub parallel_tool_calls: Option<bool>,
    /// Whether the model thinks before it answers; without it the provider's default. Sent to
    /// Anthropic and DeepSeek: OpenAI knows only [`effort`](Self::effort).
    pub thinking: Option<Thinking>,
    /// Whether its thoughts are told; without it the provider's default. Sent to Anthropic alone, as
    /// the `display` of [`thinking`](Self::thinking).
    pub show_thinking: Option<bool>,
    /// How much work the model puts into the answer; without it the provider's default. Sent to
    /// Anthropic only beside [`thinking`](Self::thinking), because models that don't know it refuse
    /// the request.
    pub effort: Option<Effort>,
    /// The form that the answer has to have; without it plain text.
    pub response_format: Option<ResponseFormat>,
    /// From how many of the likeliest words the model chooses. Anthropic's alone: not sent to others.
    pub top_k: Option<u32>,
    /// Makes answers repeatable, as far as the provider can. Not sent to Anthropic, which has no such
    /// thing.
    pub seed: Option<i64>,
    /// How much words that came often are avoided, from -2 to 2. Not sent to Anthropic.
    pub frequency_penalty: Option<f64>,
    /// How much words that came at all are avoided, from -2 to 2. Not sent to Anthropic.
    pub presence_penalty: Option<f64>,
    /// The end user's id, by which the provider finds abuse.
    pub user: Option<String>,
    /// Whether the provider should keep the tools and the system text in its cache, where it doesn't
    /// do so by itself: Anthropic's `cache_control` on them.
    pub cache_system: bool,
    /// Whether it should keep the whole conversation so far: Anthropic's `cache_control` of the
    /// request.
    pub cache: bool,
    /// The text that the answer already began with, at another provider that then broke off. The
    /// answer is what comes after it.
    ///
    /// Only text goes on: an answer that was calling a tool, or whose text is blank, can't.
    pub continue_from: Option<String>,
    /// Headers of the caller's, for a [`Provider`](super::Provider) of one's own that passes them on.
    /// The codecs send none of them.
    pub headers: http::HeaderMap,
}

impl ModelRequest {
    /// A request with one message of the user.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::messages(vec![Message::user(text.into())])
    }

    /// A request with a conversation, oldest message first.
    pub fn messages(messages: Vec<Message>) -> Self {
        Self {
            messages,
            system: None,
            preferred_model: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            stop: Vec::new(),
            stream: false,
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            thinking: None,
            show_thinking: None,
            effort: None,
            response_format: None,
            top_k: None,
            seed: None,
            frequency_penalty: None,
            presence_penalty: None,
            user: None,
            cache_system: false,
            cache: false,
            continue_from: None,
            headers: http::HeaderMap::new(),
        }
    }

    /// Sets what the model is told before the conversation.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Sets the model that should answer, by its configured name.
    #[must_use]
    pub fn preferred_model(mut self, name: impl Into<String>) -> Self {
        self.preferred_model = Some(name.into());
        self
    }

    /// Sets the longest answer, in tokens.
    #[must_use]
    pub fn max_tokens(mut self, tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets how freely the model chooses its words, from 0 to 2.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Sets the share of likely words that the model chooses from, from 0 to 1.
    #[must_use]
    pub fn top_p(mut self, top_p: f64) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Sets the texts at which the answer ends.
    #[must_use]
    pub fn stop<T: Into<String>>(mut self, stop: impl IntoIterator<Item = T>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the caller would like the answer as a stream.
    #[must_use]
    pub fn stream(mut self, stream: bool) -> Self {
        self.stream = stream;
        self
    }

    /// Adds a tool that the model may ask for.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// Sets whether the model has to call a tool.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = Some(choice);
        self
    }

    /// Sets the text that the answer already began with.
    #[must_use]
    pub fn continue_from(mut self, text: impl Into<String>) -> Self {
        self.continue_from = Some(text.into());
        self
    }

    /// Checks what the types leave open. Codecs do this before they encode.
    ///
    /// # Errors
    ///
    /// [`ModelErrorKind::InvalidRequest`], naming the field, if there is no message, a message says
    /// nothing, a number is outside its range, or `tool_choice` names a tool that isn't there.
    pub fn validate(&self) -> Result<(), ModelError> {
        let wrong =
            |message: Cow<'_, str>| ModelError::new(ModelErrorKind::InvalidRequest, message);
        if self.messages.is_empty() {
            return Err(wrong(NO_MESSAGES.into()));
        }
        for (index, message) in self.messages.iter().enumerate() {
            if message.content.is_blank() {
                let field = format!("`messages[{index}].content` must not be empty");
                return Err(wrong(field.into()));
            }
        }
        check_temperature(self.temperature).map_err(|e| wrong(e.into()))?;
        check_top_p(self.top_p).map_err(|e| wrong(e.into()))?;
        let penalties = [
            ("frequencyPenalty", self.frequency_penalty),
            ("presencePenalty", self.presence_penalty),
        ];
        for (field, value) in penalties {
            if value.is_some_and(|value| !(-2.0..=2.0).contains(&value)) {
                let message = format!("`{field}` must be a number from -2 to 2");
                return Err(wrong(message.into()));
            }
        }
        match &self.tool_choice {
            Some(ToolChoice::Tool(name)) if !self.tools.iter().any(|tool| tool.name == *name) => {
                let message = format!("`toolChoice` names `{name}`, which is not among the tools");
                Err(wrong(message.into()))
            }
            _ => Ok(()),
        }
    }
}

/// Why a request without a message is wrong.
pub(super) const NO_MESSAGES: &str =
    "`messages` must hold at least one message of the user or the assistant";

/// The widest range that a provider takes, OpenAI's and DeepSeek's.
pub(super) fn check_temperature(value: Option<f64>) -> Result<(), &'static str> {
    match value {
        // NaN and the infinities are in no range.
        Some(value) if !(0.0..=2.0).contains(&value) => {
            Err("`temperature` must be a number from 0 to 2")
        }
        _ => Ok(()),
    }
}

/// A share.
pub(super) fn check_top_p(value: Option<f64>) -> Result<(), &'static str> {
    match value {
        Some(value) if !(0.0..=1.0).contains(&value) => Err("`topP` must be a number from 0 to 1"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_no_provider_can_take_is_told_by_its_field() {
        let blank = ModelRequest::messages(vec![Message::user("hi"), Message::assistant(" \n")]);
        let table = [
            (ModelRequest::messages(vec![]), "`messages` "),
            (blank, "`messages[1].content` "),
            (
                ModelRequest::prompt("hi").temperature(f64::NAN),
                "`temperature` ",
            ),
            (
                ModelRequest::prompt("hi").temperature(f64::INFINITY),
                "`temperature` ",
            ),
            (
                ModelRequest::prompt("hi").temperature(-0.1),
                "`temperature` ",
            ),
            (
                ModelRequest::prompt("hi").temperature(2.1),
                "`temperature` ",
            ),
            (ModelRequest::prompt("hi").top_p(1.1), "`topP` "),
        ];
        for (request, field) in table {
            let error = request.validate().unwrap_err();
            assert_eq!(error.kind(), ModelErrorKind::InvalidRequest);
            assert!(error.message().starts_with(field), "{error}");
        }
        let edges = ModelRequest::prompt("hi").temperature(2.0).top_p(0.0);
        edges.validate().unwrap();
    }
}

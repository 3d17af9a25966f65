//! What is asked of a model, whoever answers it.
//!
//! The smallest set that every provider can express. It reads the body of `POST /v1/process`
//! through [`serde::Deserialize`]; see [`ModelRequest`] for that form.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::error::{ModelError, ModelErrorKind};

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
    /// Whether the caller would like the answer as a stream. Providers are asked for whole answers
    /// for now, whatever this says.
    pub stream: bool,
}

impl ModelRequest {
    /// A request with one message of the user.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::messages(vec![Message::user(text)])
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

    /// Checks what the types leave open. Codecs do this before they encode.
    ///
    /// # Errors
    ///
    /// [`ModelErrorKind::InvalidRequest`], naming the field, if there is no message, a message has
    /// no text, or `temperature` or `top_p` is outside its range.
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
        check_top_p(self.top_p).map_err(|e| wrong(e.into()))
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

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

impl Message {
    /// A message of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            content: Content::from(text.into()),
        }
    }

    /// A message of the assistant: what a model said before.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            content: Content::from(text.into()),
        }
    }
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

/// What a message says: a list of parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Content(Vec<Part>);

impl Content {
    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The text of all parts, joined with nothing in between; borrowed where there is one part.
    pub fn text(&self) -> Cow<'_, str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Cow::Borrowed(text),
            parts => parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.as_str(),
                })
                .collect::<String>()
                .into(),
        }
    }

    /// Whether there is nothing to read: no provider takes a message of spaces.
    pub(super) fn is_blank(&self) -> bool {
        self.0.iter().all(|part| match part {
            Part::Text(text) => text.trim().is_empty(),
        })
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self(parts)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// One part of a [`Content`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Plain text.
    Text(String),
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

    #[test]
    fn content_reads_as_one_text() {
        let one = Content::from("one");
        assert!(matches!(one.text(), Cow::Borrowed("one")));
        let two = Content::from(vec![Part::Text("one, ".into()), Part::Text("two".into())]);
        assert_eq!(two.text(), "one, two");
        assert_eq!(Content::default().text(), "");
    }
}

//! What a conversation is made of: messages, and the parts that they say.

use std::borrow::Cow;

use serde::Serialize;

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
    pub fn user(content: impl Into<Content>) -> Self {
        Self {
            role: Role::User,
            content: content.into(),
        }
    }

    /// A message of the assistant: what a model said before.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self {
            role: Role::Assistant,
            content: content.into(),
        }
    }
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Whoever asks. The results of tools are the user's too.
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
            parts => parts.iter().filter_map(Part::as_text).collect(),
        }
    }

    pub(super) fn push(&mut self, part: Part) {
        self.0.push(part);
    }

    /// Whether there is nothing to read: no provider takes a message of spaces.
    pub(super) fn is_blank(&self) -> bool {
        self.0.iter().all(Part::is_blank)
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self(parts)
    }
}

impl From<Part> for Content {
    fn from(part: Part) -> Self {
        Self(vec![part])
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
    /// A picture; the user's.
    Image(Image),
    /// What the model thought before it went on; the assistant's.
    Reasoning(Reasoning),
    /// The model calls a tool; the assistant's.
    ToolCall(ToolCall),
    /// What a tool answered; the user's.
    ToolResult(ToolResult),
}

impl Part {
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.as_text().is_some_and(|text| text.trim().is_empty())
    }
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Image {
    /// One that the provider fetches by itself.
    Url(String),
    /// One that comes with the request.
    Base64 {
        /// Its type, `image/png` for instance.
        media_type: String,
        /// Its bytes in base64.
        data: String,
    },
}

/// What a model thought, as it was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reasoning {
    /// Thoughts that can be read.
    Text {
        /// The thoughts.
        text: String,
        /// What proves to the provider that they are its own.
        signature: Option<String>,
    },
    /// Thoughts that only the provider can read.
    Redacted(String),
}

/// A model's wish that a tool be called.
///
/// As JSON its fields are in camel case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    /// The id that the [result](ToolResult::id) names.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, as JSON text. A model wrote it: it may be cut off, or no JSON at all.
    pub arguments: String,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToolResult {
    /// The id of the [call](ToolCall::id).
    pub id: String,
    /// The answer: text and images.
    pub content: Content,
    /// Whether the tool failed.
    pub is_error: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_reads_as_one_text() {
        let one = Content::from("one");
        assert!(matches!(one.text(), Cow::Borrowed("one")));
        let two = Content::from(vec![
            Part::Text("one, ".into()),
            Part::Image(Image::Url("https://example.com/a.png".into())),
            Part::Text("two".into()),
        ]);
        assert_eq!(two.text(), "one, two");
        assert_eq!(Content::default().text(), "");
    }

    #[test]
    fn a_message_without_words_may_still_say_something() {
        let call = ToolCall {
            id: "1".into(),
            name: "time".into(),
            arguments: String::new(),
        };
        assert!(!Content::from(Part::ToolCall(call)).is_blank());
        assert!(Content::from(" \n").is_blank());
        assert!(Content::default().is_blank());
    }
}

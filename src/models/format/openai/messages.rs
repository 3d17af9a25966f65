//! The messages of a client, in OpenAI's format.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::models::{
    content::{Content, Image, Message, Part, Reasoning, Role, ToolCall, ToolResult},
    format::{FormatError, read::TextOr},
};

#[derive(Deserialize)]
pub(super) struct WireMessage {
    role: WireRole,
    content: Option<TextOr<WirePart>>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
    tool_call_id: Option<String>,
    function_call: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A part of any type.
#[derive(Deserialize)]
struct WirePart {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

#[derive(Deserialize)]
struct WireCall {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

/// The conversation, as far as it has been read.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) system: Vec<String>,
    pub(super) messages: Vec<Message>,
    /// The last message holds the results of tools, and more of them belong to it.
    results: bool,
}

impl Conversation {
    /// Adds the message that stands at `path`.
    pub(super) fn add(&mut self, message: WireMessage, path: &str) -> Result<(), FormatError> {
        let follows_results = std::mem::take(&mut self.results);
        let field = |name: &str| format!("{path}.{name}");
        if message.function_call.is_some() {
            let problem = "is not supported, use `tool_calls`";
            return Err(FormatError::at(field("function_call"), problem));
        }
        let mut parts = parts(message.content, &field("content"), message.role)?;
        match message.role {
            WireRole::System | WireRole::Developer => {
                let text = Content::from(parts).text().into_owned();
                // Providers refuse an empty system text, and mean the same by none.
                if !text.trim().is_empty() {
                    self.system.push(text);
                }
            }
            WireRole::User => {
                let content = Content::from(parts);
                if content.is_blank() {
                    return Err(FormatError::at(field("content"), "must not be empty"));
                }
                self.push(Role::User, content);
            }
            WireRole::Assistant => {
                let thoughts = message.reasoning_content.filter(|text| !text.is_empty());
                if let Some(text) = thoughts {
                    let signature = None;
                    parts.insert(0, Part::Reasoning(Reasoning::Text { text, signature }));
                }
                parts.extend(
                    message
                        .refusal
                        .filter(|text| !text.is_empty())
                        .map(Part::Text),
                );
                for call in message.tool_calls.unwrap_or_default() {
                    parts.push(Part::ToolCall(ToolCall {
                        id: call.id,
                        name: call.function.name,
                        arguments: call.function.arguments,
                    }));
                }
                parts.retain(|part| !part.is_blank());
                if !parts.is_empty() {
                    self.push(Role::Assistant, parts.into());
                }
            }
            WireRole::Tool => {
                let id = message.tool_call_id.ok_or_else(|| {
                    FormatError::at(field("tool_call_id"), "the field is missing")
                })?;
                let result = Part::ToolResult(ToolResult {
                    id,
                    content: parts.into(),
                    is_error: false,
                });
                match self.messages.last_mut() {
                    Some(last) if follows_results => last.content.push(result),
                    _ => self.push(Role::User, result.into()),
                }
                self.results = true;
            }
        }
        Ok(())
    }

    fn push(&mut self, role: Role, content: Content) {
        self.messages.push(Message { role, content });
    }
}

fn parts(
    content: Option<TextOr<WirePart>>,
    path: &str,
    role: WireRole,
) -> Result<Vec<Part>, FormatError> {
    let list = match content {
        None => return Ok(Vec::new()),
        Some(TextOr::Text(text)) => return Ok(vec![Part::Text(text)]),
        Some(TextOr::List(list)) => list,
    };
    let part = |(index, part): (usize, WirePart)| {
        let missing = |field: &str| {
            FormatError::at(format!("{path}[{index}].{field}"), "the field is missing")
        };
        match (part.r#type.as_str(), role) {
            ("text", _) => part.text.ok_or_else(|| missing("text")).map(Part::Text),
            ("refusal", WireRole::Assistant) => part
                .refusal
                .ok_or_else(|| missing("refusal"))
                .map(Part::Text),
            ("image_url", WireRole::User) => {
                let image = part.image_url.ok_or_else(|| missing("image_url"))?;
                let path = format!("{path}[{index}].image_url.url");
                image_of(image.url, &path).map(Part::Image)
            }
            (kind, _) => Err(FormatError::at(
                format!("{path}[{index}].type"),
                format_args!("`{kind}` is not supported here"),
            )),
        }
    };
    list.into_iter().enumerate().map(part).collect()
}

/// An address, or the image itself as a `data:` URL.
fn image_of(url: String, path: &str) -> Result<Image, FormatError> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Image::Url(url));
    }
    let inline = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"));
    match inline {
        Some((media_type, data)) if media_type.starts_with("image/") && !data.is_empty() => {
            Ok(Image::Base64 {
                media_type: media_type.to_owned(),
                data: data.to_owned(),
            })
        }
        _ => Err(FormatError::at(
            path,
            "must be an http or https URL, or a data URL of an image in base64",
        )),
    }
}

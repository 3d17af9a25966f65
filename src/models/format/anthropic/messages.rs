//! The messages of a client, in Anthropic's format.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::models::{
    content::{Content, Image, Message, Part, Reasoning, Role, ToolCall, ToolResult},
    format::{FormatError, read::TextOr},
};

#[derive(Deserialize)]
pub(super) struct WireMessage {
    pub(super) role: WireRole,
    pub(super) content: TextOr<Block>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireRole {
    User,
    Assistant,
    System,
}

/// A block of any type.
#[derive(Deserialize)]
pub(super) struct Block {
    r#type: String,
    text: Option<String>,
    source: Option<Source>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Box<RawValue>>,
    tool_use_id: Option<String>,
    content: Option<TextOr<Block>>,
    is_error: Option<bool>,
    cache_control: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Source {
    r#type: String,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
}

/// Reads messages, and remembers what it has seen.
pub(super) struct Reader {
    /// Something was marked to be cached.
    pub(super) marked: bool,
}

impl Reader {
    /// Reads the message whose content stands at `path`.
    pub(super) fn message(
        &mut self,
        role: Role,
        content: TextOr<Block>,
        path: &str,
    ) -> Result<Message, FormatError> {
        let content = match content {
            TextOr::Text(text) => Content::from(text),
            TextOr::List(blocks) => {
                self.blocks(blocks, path, |reader, block, path| match role {
                    Role::User => reader.users(block, path),
                    Role::Assistant => assistants(block, path),
                })?
            }
        };
        if content.is_blank() {
            return Err(FormatError::at(path, "must not be empty"));
        }
        Ok(Message { role, content })
    }

    /// Reads a system text that stands at `path`; `None` if it says nothing.
    pub(super) fn system(
        &mut self,
        system: Option<TextOr<Block>>,
        path: &str,
    ) -> Result<Option<String>, FormatError> {
        let text = match system {
            None => return Ok(None),
            Some(TextOr::Text(text)) => text,
            Some(TextOr::List(blocks)) => {
                let content = self.blocks(blocks, path, |_, block, path| text(block, path))?;
                let texts: Vec<_> = content.parts().iter().filter_map(Part::as_text).collect();
                texts.join("\n\n")
            }
        };
        // Providers refuse an empty system text, and mean the same by none.
        Ok((!text.trim().is_empty()).then_some(text))
    }

    fn blocks(
        &mut self,
        blocks: Vec<Block>,
        path: &str,
        read: impl Fn(&mut Self, Block, &str) -> Result<Part, FormatError>,
    ) -> Result<Content, FormatError> {
        let mut parts = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.into_iter().enumerate() {
            self.marked |= block.cache_control.is_some();
            parts.push(read(self, block, &format!("{path}[{index}]"))?);
        }
        Ok(parts.into())
    }

    fn users(&mut self, block: Block, path: &str) -> Result<Part, FormatError> {
        if block.r#type != "tool_result" {
            return seen(block, path);
        }
        let content = match block.content {
            None => Content::default(),
            Some(TextOr::Text(text)) => Content::from(text),
            Some(TextOr::List(blocks)) => {
                let path = format!("{path}.content");
                self.blocks(blocks, &path, |_, block, path| seen(block, path))?
            }
        };
        Ok(Part::ToolResult(ToolResult {
            id: block
                .tool_use_id
                .ok_or_else(|| missing(path, "tool_use_id"))?,
            content,
            is_error: block.is_error.unwrap_or(false),
        }))
    }
}

/// What can be read or seen: text, images, and documents of plain text.
fn seen(block: Block, path: &str) -> Result<Part, FormatError> {
    let kind = block.r#type.as_str();
    if kind != "image" && kind != "document" {
        return text(block, path);
    }
    let source = block.source.ok_or_else(|| missing(path, "source"))?;
    let path = format!("{path}.source");
    match (kind, source.r#type.as_str()) {
        ("image", "url") => {
            let url = source.url.ok_or_else(|| missing(&path, "url"))?;
            Ok(Part::Image(Image::Url(url)))
        }
        ("image", "base64") => Ok(Part::Image(Image::Base64 {
            media_type: source
                .media_type
                .ok_or_else(|| missing(&path, "media_type"))?,
            data: source.data.ok_or_else(|| missing(&path, "data"))?,
        })),
        ("document", "text") => source
            .data
            .ok_or_else(|| missing(&path, "data"))
            .map(Part::Text),
        (_, source) => Err(unsupported(&path, source)),
    }
}

fn text(block: Block, path: &str) -> Result<Part, FormatError> {
    match block.r#type.as_str() {
        "text" => block
            .text
            .ok_or_else(|| missing(path, "text"))
            .map(Part::Text),
        kind => Err(unsupported(path, kind)),
    }
}

fn assistants(block: Block, path: &str) -> Result<Part, FormatError> {
    match block.r#type.as_str() {
        "thinking" => Ok(Part::Reasoning(Reasoning::Text {
            text: block.thinking.ok_or_else(|| missing(path, "thinking"))?,
            // Empty where another provider has thought, and the answer came in this format.
            signature: block.signature.filter(|signature| !signature.is_empty()),
        })),
        "redacted_thinking" => {
            let data = block.data.ok_or_else(|| missing(path, "data"))?;
            Ok(Part::Reasoning(Reasoning::Redacted(data)))
        }
        "tool_use" => Ok(Part::ToolCall(ToolCall {
            id: block.id.ok_or_else(|| missing(path, "id"))?,
            name: block.name.ok_or_else(|| missing(path, "name"))?,
            arguments: block
                .input
                .ok_or_else(|| missing(path, "input"))?
                .get()
                .to_owned(),
        })),
        _ => text(block, path),
    }
}

pub(super) fn missing(path: &str, field: &str) -> FormatError {
    FormatError::at(format!("{path}.{field}"), "the field is missing")
}

pub(super) fn unsupported(path: &str, kind: &str) -> FormatError {
    let problem = format_args!("`{kind}` is not supported here");
    FormatError::at(format!("{path}.type"), problem)
}

//! A conversation, as Anthropic reads it.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::models::{
    content::{Image, Message, Part, Reasoning, Role, ToolCall},
    provider::CONTINUE,
};

/// Has the model go on with an answer that begins like this.
pub(super) fn go_on<'a>(messages: &mut Vec<WireMessage<'a>>, beginning: &'a str, prefill: bool) {
    match messages.last_mut() {
        // The caller had begun the answer for the model already.
        Some(WireMessage {
            role: "assistant",
            content,
        }) => match content {
            WireContent::Text(text) => text.to_mut().push_str(beginning),
            WireContent::Blocks(blocks) => match blocks.last_mut() {
                Some(WireBlock::Text { text }) => text.to_mut().push_str(beginning),
                _ => blocks.push(WireBlock::Text {
                    text: beginning.into(),
                }),
            },
        },
        _ => messages.push(WireMessage {
            role: "assistant",
            content: WireContent::Text(beginning.into()),
        }),
    }
    if !prefill {
        messages.push(WireMessage {
            role: "user",
            content: WireContent::Text(CONTINUE.into()),
        });
    }
}

#[derive(Serialize)]
pub(super) struct WireMessage<'a> {
    role: &'static str,
    content: WireContent<'a>,
}

/// One text goes as a string, which is how most people read and log requests.
#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<WireBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Image {
        source: Source<'a>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Arguments<'a>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<WireContent<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Url { url: &'a str },
    Base64 { media_type: &'a str, data: &'a str },
}

/// `None` for a message of which nothing is left.
pub(super) fn message(message: &Message) -> Option<WireMessage<'_>> {
    Some(match message.role {
        Role::User => WireMessage {
            role: "user",
            content: content(message.content.parts(), |part| {
                // The API wants the results of tools before anything else.
                u8::from(!matches!(part, Part::ToolResult(_)))
            })?,
        },
        Role::Assistant => WireMessage {
            role: "assistant",
            content: content(message.content.parts(), |_| 0)?,
        },
    })
}

fn content<'a>(parts: &'a [Part], order: impl Fn(&Part) -> u8) -> Option<WireContent<'a>> {
    if let [Part::Text(text)] = parts {
        return Some(WireContent::Text(text.into()));
    }
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| order(part));
    let blocks: Vec<_> = parts.into_iter().filter_map(block).collect();
    (!blocks.is_empty()).then_some(WireContent::Blocks(blocks))
}

/// `None` for what this API would refuse: blank text, and thoughts that it can't know again.
fn block(part: &Part) -> Option<WireBlock<'_>> {
    Some(match part {
        Part::Text(_) if part.is_blank() => return None,
        Part::Text(text) => WireBlock::Text { text: text.into() },
        Part::Image(image) => WireBlock::Image {
            source: match image {
                Image::Url(url) => Source::Url { url },
                Image::Base64 { media_type, data } => Source::Base64 { media_type, data },
            },
        },
        Part::Reasoning(Reasoning::Text { text, signature }) => WireBlock::Thinking {
            thinking: text,
            signature: signature.as_deref()?,
        },
        Part::Reasoning(Reasoning::Redacted(data)) => WireBlock::RedactedThinking { data },
        Part::ToolCall(call) => WireBlock::ToolUse {
            id: &call.id,
            name: &call.name,
            input: Arguments::of(call),
        },
        Part::ToolResult(result) => WireBlock::ToolResult {
            tool_use_id: &result.id,
            content: content(result.content.parts(), |_| 0),
            is_error: result.is_error,
        },
    })
}

/// The arguments of a tool call, which this API wants as an object.
///
/// Text that is none goes under a name that says so, as Anthropic's documentation of its own
/// unchecked tool streaming has it: dropped, it would look like a call without arguments.
pub(in super::super) struct Arguments<'a>(Result<Option<&'a RawValue>, &'a str>);

impl<'a> Arguments<'a> {
    pub(in super::super) fn of(call: &'a ToolCall) -> Self {
        let text = call.arguments.trim();
        if text.is_empty() {
            return Self(Ok(None));
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) if text.starts_with('{') => Self(Ok(Some(raw))),
            _ => Self(Err(text)),
        }
    }
}

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Ok(Some(raw)) => raw.serialize(serializer),
            Ok(None) => serializer.serialize_map(Some(0))?.end(),
            Err(text) => serializer.collect_map([("INVALID_JSON", text)]),
        }
    }
}

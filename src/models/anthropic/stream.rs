//! What Anthropic answers, as a stream.
//!
//! `message_start`, then each block as `content_block_start`, `content_block_delta`s and
//! `content_block_stop`, then `message_delta` with the reason of the end, then `message_stop`. A
//! `ping` or an `error` can come anywhere, and so can events that don't exist yet.

use std::{borrow::Cow, collections::VecDeque};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Block, add_usage, finish_reason};
use crate::models::{
    error::ModelError,
    event::StreamEvent,
    failure::{self, malformed},
    json::Str,
    response::Usage,
    setup::ApiKey,
    sse::Dialect,
};

/// Reads the events of one answer.
pub(super) struct Events {
    status: StatusCode,
    key: ApiKey,
    begun: bool,
    finished: bool,
    /// The tool call whose block is open.
    tool: Option<OpenTool>,
    tools: u32,
    usage: Usage,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

struct OpenTool {
    block: u64,
    index: u32,
    has_arguments: bool,
}

impl Events {
    pub(super) fn new(status: StatusCode, key: &ApiKey) -> Self {
        Self {
            status,
            key: key.clone(),
            begun: false,
            finished: false,
            tool: None,
            tools: 0,
            usage: Usage::default(),
            stop_reason: None,
            stop_sequence: None,
        }
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Str<'a>,
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    content_block: Option<Block>,
    message: Option<Message>,
    #[serde(default)]
    usage: Value,
    error: Option<Value>,
}

/// All that any delta may hold. The names of the fields tell the types apart.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Str<'a>>,
    signature: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    usage: Value,
}

/// The events that are read. Others may have any shape.
const KNOWN: [&str; 7] = [
    "content_block_delta",
    "content_block_start",
    "content_block_stop",
    "message_start",
    "message_delta",
    "message_stop",
    "error",
];

impl Dialect for Events {
    fn event<'a>(
        &mut self,
        data: &'a [u8],
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<Option<&'a str>, ModelError> {
        let event: Event<'_> = match serde_json::from_slice(data) {
            Ok(event) => event,
            Err(error) => return self.unreadable(data, &error).map(|()| None),
        };
        match &*event.r#type {
            "content_block_delta" => {
                let delta = event.delta.ok_or_else(|| self.lacks("delta"))?;
                self.must_have_begun()?;
                return Ok(self.delta(event.index, delta, out));
            }
            "content_block_start" => {
                let block = event
                    .content_block
                    .ok_or_else(|| self.lacks("content_block"))?;
                self.must_have_begun()?;
                self.block(event.index, block, out)?;
            }
            "content_block_stop" => self.end_tool(out),
            "message_start" => {
                let message = event.message.ok_or_else(|| self.lacks("message"))?;
                self.begun = true;
                out.push_back(StreamEvent::Start {
                    id: message.id.unwrap_or_default(),
                    model: message.model.unwrap_or_default(),
                });
                self.usage(&message.usage, out);
            }
            "message_delta" => {
                let delta = event.delta.ok_or_else(|| self.lacks("delta"))?;
                self.stop_reason = delta.stop_reason;
                self.stop_sequence = delta.stop_sequence;
                self.usage(&event.usage, out);
            }
            "message_stop" => {
                self.must_have_begun()?;
                self.end_tool(out);
                self.finished = true;
                let reason = finish_reason(self.stop_reason.take(), self.stop_sequence.take());
                out.push_back(StreamEvent::Finish(reason));
            }
            "error" => {
                let error = event.error.unwrap_or_default();
                let headers = HeaderMap::new();
                return Err(failure::from_error(
                    self.status,
                    &headers,
                    &error,
                    &self.key,
                ));
            }
            // `ping`, and what is yet to come: the API adds events without a version.
            _ => {}
        }
        Ok(None)
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Events {
    fn block(
        &mut self,
        index: Option<u64>,
        block: Block,
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<(), ModelError> {
        self.end_tool(out);
        match block.r#type.as_str() {
            "text" => push(block.text, StreamEvent::Text, out),
            "thinking" => push(block.thinking, StreamEvent::Reasoning, out),
            "redacted_thinking" => push(block.data, StreamEvent::RedactedReasoning, out),
            "tool_use" => {
                let index_of_call = self.tools;
                self.tools += 1;
                out.push_back(StreamEvent::ToolCall {
                    index: index_of_call,
                    id: block.id.ok_or_else(|| self.lacks("id"))?,
                    name: block.name.ok_or_else(|| self.lacks("name"))?,
                });
                let mut tool = OpenTool {
                    block: index.unwrap_or_default(),
                    index: index_of_call,
                    has_arguments: false,
                };
                // Empty, unless a proxy has put a whole answer into this form.
                if let Some(input) = block.input.filter(|input| !is_empty_object(input.get())) {
                    tool.has_arguments = true;
                    out.push_back(StreamEvent::ToolArguments {
                        index: index_of_call,
                        json: input.get().to_owned(),
                    });
                }
                self.tool = Some(tool);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns a text or a thought as it stands in the data.
    fn delta<'a>(
        &mut self,
        index: Option<u64>,
        delta: Delta<'a>,
        out: &mut VecDeque<StreamEvent>,
    ) -> Option<&'a str> {
        let plain = match (&delta.text, &delta.thinking) {
            (Some(Str(Cow::Borrowed(text))), None) | (None, Some(Str(Cow::Borrowed(text)))) => {
                Some(*text)
            }
            _ => None,
        };
        let owned = |text: Option<Str<'_>>| text.map(|text| text.0.into_owned());
        push(owned(delta.text), StreamEvent::Text, out);
        push(owned(delta.thinking), StreamEvent::Reasoning, out);
        push(delta.signature, StreamEvent::ReasoningSignature, out);
        // What belongs to a block of an unknown type, a tool of the provider's own say, is nobody's.
        let tool = self.tool.as_mut();
        if let Some(tool) = tool.filter(|tool| index.is_none_or(|index| index == tool.block))
            && let Some(json) = delta.partial_json.filter(|json| !json.is_empty())
        {
            tool.has_arguments = true;
            let index = tool.index;
            out.push_back(StreamEvent::ToolArguments { index, json });
        }
        plain
    }

    /// A call without arguments has an empty object: half of all clients parse what they get.
    fn end_tool(&mut self, out: &mut VecDeque<StreamEvent>) {
        if let Some(tool) = self.tool.take()
            && !tool.has_arguments
        {
            out.push_back(StreamEvent::ToolArguments {
                index: tool.index,
                json: "{}".to_owned(),
            });
        }
    }

    fn usage(&mut self, json: &Value, out: &mut VecDeque<StreamEvent>) {
        if json.is_object() {
            add_usage(json, &mut self.usage);
            out.push_back(StreamEvent::Usage(self.usage));
        }
    }

    fn must_have_begun(&self) -> Result<(), ModelError> {
        if self.begun {
            return Ok(());
        }
        Err(malformed(
            self.status,
            "the stream does not begin with `message_start`",
        ))
    }

    #[cold]
    fn lacks(&self, field: &str) -> ModelError {
        malformed(
            self.status,
            format!("an event of the stream has no `{field}`"),
        )
    }

    /// An event that can't be read is none of ours if it says so.
    #[cold]
    fn unreadable(&self, data: &[u8], error: &serde_json::Error) -> Result<(), ModelError> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            r#type: Str<'a>,
        }
        match serde_json::from_slice::<Kind<'_>>(data) {
            Ok(kind) if !KNOWN.contains(&&*kind.r#type) => Ok(()),
            _ => Err(failure::not_understood(self.status, error)),
        }
    }
}

fn push(text: Option<String>, event: fn(String) -> StreamEvent, out: &mut VecDeque<StreamEvent>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        out.push_back(event(text));
    }
}

fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inside| inside.trim().is_empty())
}

//! Streamed answers in Anthropic's format.
//!
//! An answer is a sequence of blocks here, one open at a time, while elsewhere text and calls of
//! tools can come in any order. So a block is opened when the first of its kind comes, and closed when
//! something else does.

use bytes::BytesMut;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::answer::{ErrorBody, Message, WireUsage, id, stop_reason};
use crate::models::{
    error::ModelError,
    event::StreamEvent,
    format::{ClientFormat, FormatError, ReplyContext, write},
    response::{FinishReason, Usage},
};

/// Writes events.
#[derive(Debug)]
pub(in crate::models::format) struct Encoder {
    request_id: Box<str>,
    /// The id and the model of an answer whose beginning has not been written: its usage comes with
    /// the next event.
    start: Option<(String, String)>,
    begun: bool,
    open: Open,
    /// The index of the block that is open, or of the next one.
    index: u32,
    /// Calls that began while another one's arguments were not complete.
    waiting: Vec<Call>,
    usage: Usage,
}

/// The block that is open.
#[derive(Debug)]
enum Open {
    None,
    Text,
    /// With its signature, it is over.
    Thinking {
        signed: bool,
    },
    Tool(Call),
}

/// A call of a tool, and its arguments so far.
#[derive(Debug)]
struct Call {
    index: u32,
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    fn is_complete(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

impl Encoder {
    pub(in crate::models::format) fn new(context: &ReplyContext<'_>) -> Self {
        Self {
            request_id: context.request_id.into(),
            start: None,
            begun: false,
            open: Open::None,
            index: 0,
            waiting: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub(in crate::models::format) fn event(&mut self, event: &StreamEvent, out: &mut BytesMut) {
        if !self.begun {
            match event {
                StreamEvent::Start { id, model } => {
                    self.start = Some((id.clone(), model.clone()));
                    return;
                }
                StreamEvent::Usage(usage) => {
                    self.usage = *usage;
                    return;
                }
                _ => self.begin(out),
            }
        }
        match event {
            StreamEvent::Text(text) => {
                if !matches!(self.open, Open::Text) {
                    self.open(Open::Text, r#"{"type":"text","text":""}"#, out);
                }
                self.delta(r#""text_delta","text":"#, text, out);
            }
            StreamEvent::Reasoning(text) => {
                self.open_thinking(out);
                self.delta(r#""thinking_delta","thinking":"#, text, out);
            }
            StreamEvent::ReasoningSignature(signature) => {
                self.open_thinking(out);
                self.open = Open::Thinking { signed: true };
                self.delta(r#""signature_delta","signature":"#, signature, out);
            }
            StreamEvent::RedactedReasoning(data) => {
                self.close_all(out);
                self.start_block(out, |out| {
                    out.extend_from_slice(br#"{"type":"redacted_thinking","data":"#);
                    write::json(data.as_str(), out);
                    out.extend_from_slice(b"}");
                });
                self.stop_block(out);
            }
            StreamEvent::ToolCall { index, id, name } => {
                let call = Call {
                    index: *index,
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                };
                match &self.open {
                    Open::Tool(open) if !open.is_complete() => self.waiting.push(call),
                    _ => {
                        self.close_all(out);
                        self.open_tool(call, out);
                    }
                }
            }
            StreamEvent::ToolArguments { index, json } => match &mut self.open {
                Open::Tool(call) if call.index == *index => {
                    call.arguments.push_str(json);
                    self.delta(r#""input_json_delta","partial_json":"#, json, out);
                }
                _ => {
                    let call = self.waiting.iter_mut().find(|call| call.index == *index);
                    if let Some(call) = call {
                        call.arguments.push_str(json);
                    }
                }
            },
            StreamEvent::Usage(usage) => self.usage = *usage,
            StreamEvent::Finish(reason) => self.finish(reason, out),
            // There is one.
            StreamEvent::Start { .. } => {}
        }
    }

    pub(in crate::models::format) fn error(&mut self, error: &ModelError, out: &mut BytesMut) {
        let error = FormatError::of_model(error, ClientFormat::Anthropic);
        event("error", &ErrorBody::new(&error, &self.request_id), out);
    }

    fn begin(&mut self, out: &mut BytesMut) {
        #[derive(Serialize)]
        struct Start<'a> {
            r#type: &'static str,
            message: Message<'a>,
        }

        self.begun = true;
        let (own_id, model) = self.start.take().unwrap_or_default();
        let start = Start {
            r#type: "message_start",
            message: Message {
                id: &id(&own_id, &self.request_id),
                r#type: "message",
                role: "assistant",
                model: &model,
                content: Vec::new(),
                stop_reason: None,
                stop_sequence: None,
                usage: self.usage.into(),
            },
        };
        event("message_start", &start, out);
    }

    fn finish(&mut self, reason: &FinishReason, out: &mut BytesMut) {
        #[derive(Serialize)]
        struct End<'a> {
            r#type: &'static str,
            delta: Delta<'a>,
            usage: WireUsage,
        }

        #[derive(Serialize)]
        struct Delta<'a> {
            stop_reason: &'a str,
            stop_sequence: Option<&'a str>,
        }

        self.close_all(out);
        let (stop_reason, stop_sequence) = stop_reason(reason);
        let end = End {
            r#type: "message_delta",
            delta: Delta {
                stop_reason,
                stop_sequence,
            },
            usage: self.usage.into(),
        };
        event("message_delta", &end, out);
        out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    fn open_thinking(&mut self, out: &mut BytesMut) {
        if !matches!(self.open, Open::Thinking { signed: false }) {
            let block = r#"{"type":"thinking","thinking":"","signature":""}"#;
            self.open(Open::Thinking { signed: false }, block, out);
        }
    }

    fn open(&mut self, open: Open, block: &str, out: &mut BytesMut) {
        self.close_all(out);
        self.start_block(out, |out| out.extend_from_slice(block.as_bytes()));
        self.open = open;
    }

    fn open_tool(&mut self, call: Call, out: &mut BytesMut) {
        self.start_block(out, |out| {
            out.extend_from_slice(br#"{"type":"tool_use","id":"#);
            write::json(call.id.as_str(), out);
            out.extend_from_slice(br#","name":"#);
            write::json(call.name.as_str(), out);
            out.extend_from_slice(br#","input":{}}"#);
        });
        self.open = Open::Tool(call);
    }

    /// Closes the open block, and writes the calls that have waited for that.
    fn close_all(&mut self, out: &mut BytesMut) {
        self.close(out);
        for call in std::mem::take(&mut self.waiting) {
            let arguments = call.arguments.clone();
            self.open_tool(call, out);
            if !arguments.is_empty() {
                self.delta(r#""input_json_delta","partial_json":"#, &arguments, out);
            }
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut BytesMut) {
        if !matches!(std::mem::replace(&mut self.open, Open::None), Open::None) {
            self.stop_block(out);
        }
    }

    fn start_block(&self, out: &mut BytesMut, block: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(
            b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        );
        write::number(self.index, out);
        out.extend_from_slice(b",\"content_block\":");
        block(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn stop_block(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(
            b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
        );
        write::number(self.index, out);
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    /// `kind` is the delta's type and the name of its one field.
    fn delta(&self, kind: &str, text: &str, out: &mut BytesMut) {
        out.extend_from_slice(
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        write::number(self.index, out);
        out.extend_from_slice(b",\"delta\":{\"type\":");
        out.extend_from_slice(kind.as_bytes());
        write::json(text, out);
        out.extend_from_slice(b"}}\n\n");
    }
}

fn event(name: &str, data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write::json(data, out);
    out.extend_from_slice(b"\n\n");
}

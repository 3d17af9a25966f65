//! Streamed answers in Anthropic's format.
//!
//! An answer is a sequence of blocks here, one open at a time. A block is opened when the first event
//! of its kind comes, and closed when something else does.

use bytes::BytesMut;
use serde::Serialize;

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
    /// The call of this index.
    Tool(u32),
}

impl Encoder {
    pub(in crate::models::format) fn new(context: &ReplyContext<'_>) -> Self {
        Self {
            request_id: context.request_id.into(),
            start: None,
            begun: false,
            open: Open::None,
            index: 0,
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
                self.close(out);
                self.start_block(out, |out| {
                    out.extend_from_slice(br#"{"type":"redacted_thinking","data":"#);
                    write::json(data.as_str(), out);
                    out.extend_from_slice(b"}");
                });
                self.stop_block(out);
            }
            StreamEvent::ToolCall { index, id, name } => {
                self.close(out);
                self.start_block(out, |out| {
                    out.extend_from_slice(br#"{"type":"tool_use","id":"#);
                    write::json(id.as_str(), out);
                    out.extend_from_slice(br#","name":"#);
                    write::json(name.as_str(), out);
                    out.extend_from_slice(br#","input":{}}"#);
                });
                self.open = Open::Tool(*index);
            }
            StreamEvent::ToolArguments { index, json } => {
                if matches!(self.open, Open::Tool(open) if open == *index) {
                    self.delta(r#""input_json_delta","partial_json":"#, json, out);
                }
            }
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

        self.close(out);
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
        self.close(out);
        self.start_block(out, |out| out.extend_from_slice(block.as_bytes()));
        self.open = open;
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

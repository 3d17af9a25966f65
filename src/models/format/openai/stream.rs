//! Streamed answers in OpenAI's format.

use bytes::BytesMut;
use serde::Serialize;

use super::answer::{ErrorBody, WireUsage, finish_reason, id};
use crate::models::{
    error::ModelError,
    event::StreamEvent,
    format::{ClientFormat, FormatError, ReplyContext, write},
    response::Usage,
};

/// Writes chunks. All that is the same in each of them is written once, at the beginning.
#[derive(Debug)]
pub(in crate::models::format) struct Encoder {
    request_id: Box<str>,
    created: u64,
    include_usage: bool,
    /// A chunk up to its `choices`; empty until the answer has begun.
    head: Vec<u8>,
    usage: Usage,
}

#[derive(Serialize)]
struct Head<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
}

impl Encoder {
    pub(in crate::models::format) fn new(context: &ReplyContext<'_>) -> Self {
        Self {
            request_id: context.request_id.into(),
            created: write::unix_seconds(context.created),
            include_usage: context.include_usage,
            head: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub(in crate::models::format) fn event(&mut self, event: &StreamEvent, out: &mut BytesMut) {
        let begins = matches!(event, StreamEvent::Start { .. } | StreamEvent::Usage(_));
        if self.head.is_empty() && !begins {
            self.begin("", "", out);
        }
        match event {
            StreamEvent::Text(text) => self.delta(out, |out| {
                out.extend_from_slice(b"{\"content\":");
                write::json(text.as_str(), out);
                out.extend_from_slice(b"}");
            }),
            StreamEvent::Reasoning(text) => self.delta(out, |out| {
                out.extend_from_slice(b"{\"reasoning_content\":");
                write::json(text.as_str(), out);
                out.extend_from_slice(b"}");
            }),
            StreamEvent::ToolArguments { index, json } => self.delta(out, |out| {
                out.extend_from_slice(b"{\"tool_calls\":[{\"index\":");
                write::number(*index, out);
                out.extend_from_slice(b",\"function\":{\"arguments\":");
                write::json(json.as_str(), out);
                out.extend_from_slice(b"}}]}");
            }),
            StreamEvent::ToolCall { index, id, name } => self.delta(out, |out| {
                out.extend_from_slice(b"{\"tool_calls\":[{\"index\":");
                write::number(*index, out);
                out.extend_from_slice(b",\"id\":");
                write::json(id.as_str(), out);
                out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                write::json(name.as_str(), out);
                out.extend_from_slice(b",\"arguments\":\"\"}}]}");
            }),
            StreamEvent::Usage(usage) => self.usage = *usage,
            StreamEvent::Start { id, model } => self.begin(id, model, out),
            StreamEvent::Finish(reason) => {
                out.extend_from_slice(&self.head);
                out.extend_from_slice(
                    b"[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":",
                );
                write::json(finish_reason(reason), out);
                out.extend_from_slice(b"}]");
                self.end_chunk(out);
                if self.include_usage {
                    out.extend_from_slice(&self.head);
                    out.extend_from_slice(b"[],\"usage\":");
                    write::json(&WireUsage::from(self.usage), out);
                    out.extend_from_slice(b"}\n\n");
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            // This format has no place for them.
            StreamEvent::ReasoningSignature(_) | StreamEvent::RedactedReasoning(_) => {}
        }
    }

    pub(in crate::models::format) fn error(&mut self, error: &ModelError, out: &mut BytesMut) {
        let error = FormatError::of_model(error, ClientFormat::OpenAi);
        out.extend_from_slice(b"data: ");
        write::json(&ErrorBody::from(&error), out);
        out.extend_from_slice(b"\n\n");
    }

    fn begin(&mut self, own_id: &str, model: &str, out: &mut BytesMut) {
        let head = Head {
            id: &id(own_id, &self.request_id),
            object: "chat.completion.chunk",
            created: self.created,
            model,
        };
        let mut bytes = BytesMut::from(&b"data: "[..]);
        write::json(&head, &mut bytes);
        // Open again for the fields that follow.
        bytes.truncate(bytes.len() - 1);
        bytes.extend_from_slice(b",\"choices\":");
        self.head = bytes.to_vec();
        self.delta(out, |out| {
            out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}");
        });
    }

    fn delta(&self, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":");
        write(out);
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null}]");
        self.end_chunk(out);
    }

    fn end_chunk(&self, out: &mut BytesMut) {
        out.extend_from_slice(if self.include_usage {
            b",\"usage\":null}\n\n"
        } else {
            b"}\n\n"
        });
    }
}

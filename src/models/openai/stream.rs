//! What an API of OpenAI's kind answers, as a stream.
//!
//! Chunks that each add a little to a message, the last of them with the `finish_reason`; then a
//! chunk without choices that tells the usage, for whoever asked for it; then `[DONE]`. What others
//! made of it: the usage beside the last choice or in every chunk, calls of tools without an index or
//! an id, an `error` in place of a chunk.

use std::{borrow::Cow, collections::VecDeque};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Function, NAMELESS, Text, call_id, finish_reason, usage};
use crate::models::{
    error::{ModelError, ModelErrorKind},
    event::StreamEvent,
    failure::{self, malformed},
    json::Str,
    response::FinishReason,
    setup::ApiKey,
    sse::Dialect,
};

/// The most calls in one answer, as OpenAI has it for tools.
const MAX_CALLS: usize = 128;

/// Reads the chunks of one answer.
pub(super) struct Chunks {
    status: StatusCode,
    key: ApiKey,
    begun: bool,
    finished: bool,
    refused: bool,
    finish: Option<FinishReason>,
    calls: Vec<Call>,
}

/// A call that has begun. Its place among the calls is the index that we give it.
struct Call {
    /// The index that the provider gave it.
    theirs: Option<u64>,
    id: String,
    has_arguments: bool,
}

impl Chunks {
    pub(super) fn new(status: StatusCode, key: &ApiKey) -> Self {
        Self {
            status,
            key: key.clone(),
            begun: false,
            finished: false,
            refused: false,
            finish: None,
            calls: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<Text>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

impl Dialect for Chunks {
    fn event(&mut self, data: &[u8], out: &mut VecDeque<StreamEvent>) -> Result<(), ModelError> {
        if data.trim_ascii() == b"[DONE]" {
            return self.done(out);
        }
        let chunk: Chunk<'_> = serde_json::from_slice(data)
            .map_err(|error| failure::not_understood(self.status, &error))?;
        if let Some(error) = chunk.error {
            let headers = HeaderMap::new();
            return Err(failure::from_error(
                self.status,
                &headers,
                &error,
                &self.key,
            ));
        }
        for choice in chunk.choices.unwrap_or_default() {
            // Nobody asks for more than one.
            if choice.index != 0 {
                continue;
            }
            if !self.begun {
                self.begun = true;
                let owned = |text: &Option<Str<'_>>| text.as_deref().unwrap_or("").to_owned();
                out.push_back(StreamEvent::Start {
                    id: owned(&chunk.id),
                    model: owned(&chunk.model),
                });
            }
            if let Some(delta) = choice.delta {
                self.delta(delta, out)?;
            }
            if choice.finish_reason.is_some() {
                let reason = finish_reason(choice.finish_reason);
                self.finish = Some(reason.map_err(|(kind, why)| self.error(kind, why))?);
            }
        }
        if let Some(json) = chunk.usage {
            out.push_back(StreamEvent::Usage(usage(&json)));
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Chunks {
    fn delta(&mut self, delta: Delta, out: &mut VecDeque<StreamEvent>) -> Result<(), ModelError> {
        if let Some(text) = delta.reasoning_content.or(delta.reasoning)
            && !text.is_empty()
        {
            out.push_back(StreamEvent::Reasoning(text));
        }
        if let Some(Text(text)) = delta.content
            && !text.is_empty()
        {
            out.push_back(StreamEvent::Text(text));
        }
        if let Some(text) = delta.refusal
            && !text.is_empty()
        {
            self.refused = true;
            out.push_back(StreamEvent::Text(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            self.call(call, out)?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        delta: CallDelta,
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<(), ModelError> {
        let id = delta.id.unwrap_or_default();
        let (name, arguments) = match delta.function {
            Some(function) => (function.name, function.arguments),
            None => (None, None),
        };
        let known = match delta.index {
            Some(_) => self
                .calls
                .iter()
                .position(|call| call.theirs == delta.index),
            // Without an index: another id begins another call, and so does a name without any id.
            None if id.is_empty() => self.calls.len().checked_sub(1).filter(|_| name.is_none()),
            None => self.calls.iter().position(|call| call.id == id),
        };
        let at = match known {
            Some(at) => at,
            None => {
                let at = self.calls.len();
                let name = name.filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| malformed(self.status, NAMELESS))?;
                if at == MAX_CALLS {
                    let message = format!("the answer calls more than {MAX_CALLS} tools");
                    return Err(malformed(self.status, message));
                }
                self.calls.push(Call {
                    theirs: delta.index,
                    id: id.clone(),
                    has_arguments: false,
                });
                out.push_back(StreamEvent::ToolCall {
                    index: index(at),
                    id: if id.is_empty() { call_id(at) } else { id },
                    name,
                });
                at
            }
        };
        if let Some(json) = arguments.filter(|json| !json.is_empty()) {
            self.calls[at].has_arguments = true;
            out.push_back(StreamEvent::ToolArguments {
                index: index(at),
                json,
            });
        }
        Ok(())
    }

    fn done(&mut self, out: &mut VecDeque<StreamEvent>) -> Result<(), ModelError> {
        if !self.begun {
            return Err(malformed(self.status, "the stream ended without an answer"));
        }
        // A call without arguments has an empty object: half of all clients parse what they get.
        for (at, call) in self.calls.iter().enumerate() {
            if !call.has_arguments {
                out.push_back(StreamEvent::ToolArguments {
                    index: index(at),
                    json: "{}".to_owned(),
                });
            }
        }
        let finish = self.finish.take().unwrap_or_else(FinishReason::unknown);
        self.finished = true;
        out.push_back(StreamEvent::Finish(if self.refused {
            FinishReason::ContentFilter
        } else {
            finish
        }));
        Ok(())
    }

    fn error(&self, kind: ModelErrorKind, message: Cow<'static, str>) -> ModelError {
        ModelError::new(kind, message).with_status(self.status)
    }
}

/// No more than [`MAX_CALLS`].
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

//! What an API of OpenAI's kind answers, as a stream.
//!
//! Chunks that each add a little to a message, the last of them with the `finish_reason`; then a
//! chunk without choices that tells the usage, for whoever asked for it; then `[DONE]`. What others
//! made of it: the usage beside the last choice or in every chunk, calls of tools without an index or
//! an id, an `error` in place of a chunk.
//!
//! Calls could come interleaved, by their index. None of the APIs does that, and clients don't expect it
//! (OpenAI's own SDK takes a call for complete when the next one begins), so a call waits until the
//! one before it is over.

use std::{borrow::Cow, collections::VecDeque, mem};

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

/// As much as one event may have.
const MAX_WAITING: usize = 1024 * 1024;

/// Reads the chunks of one answer.
pub(super) struct Chunks {
    status: StatusCode,
    key: ApiKey,
    begun: bool,
    finished: bool,
    refused: bool,
    finish: Option<FinishReason>,
    calls: Vec<Call>,
    /// How many of them have been told: the last of these is open, the others wait until it is over.
    told: usize,
    /// How much is kept of those that wait, in bytes.
    waiting: usize,
}

/// A call that has begun. Its place among the calls is the index that we give it.
struct Call {
    /// The index that the provider gave it.
    theirs: Option<u64>,
    id: String,
    name: String,
    /// What has come of the arguments while the call waits for those before it.
    arguments: String,
    nesting: Nesting,
}

/// How deep in a JSON value we are: enough to tell where an object ends.
#[derive(Default)]
struct Nesting {
    depth: usize,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn read(&mut self, json: &str) {
        self.begun |= !json.is_empty();
        for byte in json.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
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
            told: 0,
            waiting: 0,
        }
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning: Option<Str<'a>>,
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
    fn event<'a>(
        &mut self,
        data: &'a [u8],
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<Option<&'a str>, ModelError> {
        if data.trim_ascii() == b"[DONE]" {
            self.done(out)?;
            return Ok(None);
        }
        let mut plain = None;
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
                plain = self.delta(delta, out)?;
            }
            if choice.finish_reason.is_some() {
                let reason = finish_reason(choice.finish_reason);
                self.finish = Some(reason.map_err(|(kind, why)| self.error(kind, why))?);
            }
        }
        if let Some(json) = chunk.usage {
            out.push_back(StreamEvent::Usage(usage(&json)));
        }
        Ok(plain)
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Chunks {
    /// Returns a text or a thought as it stands in the data.
    fn delta<'a>(
        &mut self,
        delta: Delta<'a>,
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<Option<&'a str>, ModelError> {
        let mut plain = None;
        let mut push = |text: Option<Cow<'a, str>>, event: fn(String) -> StreamEvent| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                if let Cow::Borrowed(text) = text {
                    plain = Some(text);
                }
                out.push_back(event(text.into_owned()));
            }
        };
        let reasoning = delta.reasoning_content.or(delta.reasoning);
        push(reasoning.map(|text| text.0), StreamEvent::Reasoning);
        push(delta.content.map(|text| text.0), StreamEvent::Text);
        if let Some(text) = delta.refusal
            && !text.is_empty()
        {
            self.refused = true;
            out.push_back(StreamEvent::Text(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            self.call(call, out)?;
        }
        Ok(plain)
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
            None => self.begin_call(delta.index, id, name)?,
        };
        if let Some(json) = arguments.filter(|json| !json.is_empty()) {
            let call = &mut self.calls[at];
            call.nesting.read(&json);
            if at + 1 == self.told {
                out.push_back(StreamEvent::ToolArguments {
                    index: index(at),
                    json,
                });
            } else {
                self.waiting += json.len();
                call.arguments.push_str(&json);
            }
        }
        if self.waiting > MAX_WAITING {
            let message = format!("the calls of tools that wait exceed {MAX_WAITING} bytes");
            return Err(malformed(self.status, message));
        }
        while self.calls.len() > self.told && self.open_call().is_none_or(|c| c.nesting.is_over()) {
            self.tell_next(out);
        }
        Ok(())
    }

    fn begin_call(
        &mut self,
        theirs: Option<u64>,
        id: String,
        name: Option<String>,
    ) -> Result<usize, ModelError> {
        let at = self.calls.len();
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| malformed(self.status, NAMELESS))?;
        if at == MAX_CALLS {
            let message = format!("the answer calls more than {MAX_CALLS} tools");
            return Err(malformed(self.status, message));
        }
        self.waiting += id.len() + name.len();
        self.calls.push(Call {
            theirs,
            id,
            name,
            arguments: String::new(),
            nesting: Nesting::default(),
        });
        Ok(at)
    }

    fn open_call(&self) -> Option<&Call> {
        self.calls.get(self.told.checked_sub(1)?)
    }

    fn tell_next(&mut self, out: &mut VecDeque<StreamEvent>) {
        let at = self.told;
        self.told += 1;
        let call = &mut self.calls[at];
        let json = mem::take(&mut call.arguments);
        let name = mem::take(&mut call.name);
        self.waiting -= json.len() + name.len() + call.id.len();
        out.push_back(StreamEvent::ToolCall {
            index: index(at),
            id: if call.id.is_empty() {
                call_id(at)
            } else {
                call.id.clone()
            },
            name,
        });
        if !json.is_empty() {
            out.push_back(StreamEvent::ToolArguments {
                index: index(at),
                json,
            });
        }
    }

    fn done(&mut self, out: &mut VecDeque<StreamEvent>) -> Result<(), ModelError> {
        if !self.begun {
            return Err(malformed(self.status, "the stream ended without an answer"));
        }
        loop {
            // A call without arguments has an empty object: half of all clients parse what they get.
            if self.open_call().is_some_and(|call| !call.nesting.begun) {
                out.push_back(StreamEvent::ToolArguments {
                    index: index(self.told - 1),
                    json: "{}".to_owned(),
                });
            }
            if self.told == self.calls.len() {
                break;
            }
            self.tell_next(out);
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

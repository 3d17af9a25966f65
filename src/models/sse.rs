//! Server-sent events, from bytes to the data of each event.
//!
//! Follows the WHATWG's "event stream" format, as far as model providers use it: the names, ids and
//! retry times of events are read over, because what they say stands in the data too.
//!
//! Written here, because what exists is a `Stream` or a body (`eventsource-stream`, `sse-stream`),
//! while the codecs have no I/O, and because those hold an event of any size: a provider that never
//! ends a line would fill the memory. This one holds at most `LIMIT` bytes, and looks at each byte
//! once.

use std::collections::VecDeque;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use memchr::memchr2;
use serde_json::Value;

use super::error::ModelError;
use super::event::{StreamDecoder, StreamEvent};
use super::failure::{self, malformed};
use super::provider::Seam;
use super::setup::ApiKey;

/// The largest event, in bytes. A provider writes a few words into each; the largest are whole
/// tool calls and signatures, which stay far below.
const LIMIT: usize = 1024 * 1024;

/// Splits bytes, however they come, into the data of events.
#[derive(Debug, Default)]
struct Parser {
    /// A line whose end hasn't come.
    line: Vec<u8>,
    /// The data lines of an event whose end hasn't come, each with a line feed after it.
    data: Vec<u8>,
    /// The data has been handed out, and makes room for that of the next event.
    handed_out: bool,
    /// The last byte was a carriage return: a line feed after it ends the same line.
    after_return: bool,
    /// The first line has been read, and with it the byte order mark that it may begin with.
    begun: bool,
}

/// An event, or a line of one, is larger than the limit.
#[derive(Debug)]
struct TooLarge;

impl Parser {
    /// Reads lines from the front of `bytes` until they complete an event, whose data it returns.
    /// `None` when there is nothing more to read.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<&[u8]>, TooLarge> {
        if std::mem::take(&mut self.handed_out) {
            self.data.clear();
        }
        loop {
            if self.after_return && !bytes.is_empty() {
                self.after_return = false;
                *bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.check(bytes.len())?;
                self.line.extend_from_slice(bytes);
                *bytes = &[];
                return Ok(None);
            };
            let (line, rest) = bytes.split_at(end);
            self.after_return = rest[0] == b'\r';
            *bytes = &rest[1..];
            self.check(line.len())?;

            let ended = if self.line.is_empty() {
                read_line(line, &mut self.data, &mut self.begun)
            } else {
                self.line.extend_from_slice(line);
                let ended = read_line(&self.line, &mut self.data, &mut self.begun);
                self.line.clear();
                ended
            };
            if ended && !self.data.is_empty() {
                self.handed_out = true;
                return Ok(self.data.strip_suffix(b"\n"));
            }
        }
    }

    fn check(&self, more: usize) -> Result<(), TooLarge> {
        if self.line.len() + self.data.len() + more > LIMIT {
            return Err(TooLarge);
        }
        Ok(())
    }
}

/// Whether the line ends an event.
fn read_line(mut line: &[u8], data: &mut Vec<u8>, begun: &mut bool) -> bool {
    if !*begun {
        *begun = true;
        line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    }
    if line.is_empty() {
        return true;
    }
    // A comment begins with the colon, so it is a field without a name.
    let value = match line.strip_prefix(b"data") {
        Some([]) => &[],
        Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
        _ => return false,
    };
    data.extend_from_slice(value);
    data.push(b'\n');
    false
}

/// What a provider puts into its events.
pub(super) trait Dialect: Send {
    /// Reads the data of one event. It returns the part of the data, between its quotes, that became
    /// a text or a thought, if the event held nothing else that matters.
    fn event<'a>(
        &mut self,
        data: &'a [u8],
        out: &mut VecDeque<StreamEvent>,
    ) -> Result<Option<&'a str>, ModelError>;

    /// Whether the answer has had its [`Finish`](StreamEvent::Finish).
    fn is_finished(&self) -> bool;
}

/// All of an event but its text.
///
/// The words of an answer come in events that differ in nothing but the word. One that equals the
/// last one before and after its text needs no JSON parser: it means the same with another text.
/// It saves two thirds of the time (`benches/codecs.rs`).
struct Template {
    head: Vec<u8>,
    tail: Vec<u8>,
    event: fn(String) -> StreamEvent,
}

impl Template {
    /// What is around `text`, which is a part of `data`.
    fn around(text: &str, data: &[u8], event: &StreamEvent) -> Option<Self> {
        let event = match event {
            StreamEvent::Text(_) => StreamEvent::Text,
            StreamEvent::Reasoning(_) => StreamEvent::Reasoning,
            _ => return None,
        };
        let start = text.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
        Some(Self {
            head: data.get(..start)?.to_vec(),
            tail: data.get(start + text.len()..)?.to_vec(),
            event,
        })
    }

    /// The event, if it has this shape and a text without escapes.
    fn read(&self, data: &[u8]) -> Option<StreamEvent> {
        let text = data.strip_prefix(&*self.head)?.strip_suffix(&*self.tail)?;
        let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
        if text.is_empty() || !text.iter().all(plain) {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        Some((self.event)(text.to_owned()))
    }
}

/// The decoder of a stream of server-sent events.
pub(super) struct SseDecoder<D> {
    parser: Parser,
    dialect: D,
    template: Option<Template>,
    seam: Seam,
    status: StatusCode,
    /// The body so far, where it is no stream after all.
    whole: Option<Vec<u8>>,
    headers: HeaderMap,
    key: ApiKey,
}

/// As much as the longest error has.
const WHOLE_LIMIT: usize = 64 * 1024;

impl<D: Dialect> SseDecoder<D> {
    pub(super) fn new(
        dialect: D,
        seam: Seam,
        key: &ApiKey,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Self {
        // Some say 200 and then, in plain JSON, what went wrong.
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let is_json = content_type.is_some_and(|value| value.starts_with(b"application/json"));
        Self {
            parser: Parser::default(),
            dialect,
            template: None,
            seam,
            status,
            whole: is_json.then(Vec::new),
            // Asked for a `Retry-After` only in the case of an error in plain JSON.
            headers: if is_json {
                headers.clone()
            } else {
                HeaderMap::new()
            },
            key: key.clone(),
        }
    }
}

impl<D: Dialect> StreamDecoder for SseDecoder<D> {
    fn feed(
        &mut self,
        mut bytes: &[u8],
        events: &mut VecDeque<StreamEvent>,
    ) -> Result<(), ModelError> {
        if let Some(whole) = &mut self.whole {
            let room = WHOLE_LIMIT - whole.len();
            whole.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return Ok(());
        }
        loop {
            match self.parser.next(&mut bytes) {
                // What comes after the end is nobody's; an event of nothing keeps alive.
                Ok(Some(data)) if self.dialect.is_finished() || data.trim_ascii().is_empty() => {}
                Ok(Some(data)) => {
                    let before = events.len();
                    let template = self.template.as_ref();
                    if let Some(event) = template.and_then(|template| template.read(data)) {
                        events.push_back(event);
                    } else if let Some(text) = self.dialect.event(data, events)? {
                        let event = events.back().filter(|_| events.len() == before + 1);
                        self.template = event.and_then(|it| Template::around(text, data, it));
                    }
                    self.seam.join(before, events);
                }
                Ok(None) => return Ok(()),
                Err(TooLarge) => {
                    let message = format!("an event of the stream is larger than {LIMIT} bytes");
                    return Err(malformed(self.status, message));
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), ModelError> {
        if let Some(whole) = &self.whole {
            let whole: Value = serde_json::from_slice(whole)
                .map_err(|error| failure::not_understood(self.status, &error))?;
            return Err(match whole.get("error") {
                Some(error) => failure::from_error(self.status, &self.headers, error, &self.key),
                None => malformed(self.status, "the answer is no stream"),
            });
        }
        if self.dialect.is_finished() {
            return Ok(());
        }
        Err(malformed(
            self.status,
            "the stream ended without its finish",
        ))
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;

//! Anthropic's Messages API.
//!
//! Follows the documentation of API version 2023-06-01: `POST /v1/messages`, keys in `x-api-key`,
//! the system text beside the messages, errors as `{"type":"error","error":{"type","message"}}`.

mod answer;
mod messages;
mod request;
mod stream;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use self::answer::Answer;
pub(super) use self::messages::Arguments;
use self::request::Body;
use self::stream::Events;
use super::error::{ModelError, ModelErrorKind};
use super::event::StreamDecoder;
use super::failure;
use super::provider::{Provider, Seam, post};
use super::request::ModelRequest;
use super::response::Completion;
use super::setup::{ApiKey, SetupError, endpoint};
use super::sse::SseDecoder;

/// The version of the API that this codec was written for.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

const PATH: &str = "/v1/messages";

/// The codec of Anthropic's Messages API.
///
/// What differs from the request as given, so that one that was written for another provider can
/// fall back to this one:
///
/// - `max_tokens` is 4096 if it isn't set, because the API demands one.
/// - A `temperature` above 1 is sent as 1, where this API's range ends.
/// - `seed` and the penalties have no counterpart and are left out, as is `strict` of a tool, which
///   older models refuse. [`effort`](ModelRequest::effort) is sent beside `thinking` alone.
/// - Thoughts of other providers, which have no signature, are left out of the conversation.
/// - A request for any JSON object becomes a sentence at the end of the system text. One for JSON of
///   a schema is sent as such.
/// - Tools that were called earlier in the conversation are named, and forbidden, where the request has
///   no tools any more: this API demands it.
/// - A stop sequence of white space, which this API refuses, makes the request
///   [`Unsupported`](ModelErrorKind::Unsupported).
///
/// An answer [goes on](ModelRequest::continue_from) by way of prefill: its beginning, without the
/// white space at its end, is the last message. White space that comes again is taken out of the
/// stream. Thinking is off then, because the API has no prefill beside it.
#[derive(Debug, Clone)]
pub struct Anthropic {
    key: ApiKey,
    header: HeaderValue,
    endpoint: Uri,
    prefill: bool,
}

impl Anthropic {
    /// The codec for `https://api.anthropic.com`, with this key.
    pub fn new(key: ApiKey) -> Self {
        let header = key.header("");
        let endpoint = Uri::from_static("https://api.anthropic.com/v1/messages");
        Self {
            key,
            header,
            endpoint,
            prefill: true,
        }
    }

    /// Sends requests to `/v1/messages` under this address instead; a slash at its end is ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(mut self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        self.endpoint = endpoint(url.as_ref(), PATH)?;
        Ok(self)
    }

    /// Sets whether an answer goes on by prefill. Default: yes.
    ///
    /// Models from Claude Opus 4.6 on refuse it: without it, they are asked in words to go on.
    #[must_use]
    pub fn prefill(mut self, yes: bool) -> Self {
        self.prefill = yes;
        self
    }
}

impl Provider for Anthropic {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        request.validate()?;
        let body = Body::new(request, model, self.prefill)?;
        let mut http = post(&self.endpoint, &body)?;
        let headers = http.headers_mut();
        headers.insert(HeaderName::from_static("x-api-key"), self.header.clone());
        headers.insert(HeaderName::from_static("anthropic-version"), VERSION);
        Ok(http)
    }

    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        if let Some(kind) = ModelErrorKind::from_status(status) {
            return Err(failure::from_status(kind, status, headers, body, &self.key));
        }
        let answer: Answer =
            serde_json::from_slice(body).map_err(|e| failure::not_understood(status, &e))?;
        // Once the answer has begun the status is spent, and an error comes under a 200.
        if let Some(error) = answer.error {
            return Err(failure::from_error(status, headers, &error, &self.key));
        }
        answer
            .into_completion()
            .map_err(|problem| failure::malformed(status, problem))
    }

    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        let (_, seam) = Seam::split(request.continue_from.as_deref());
        let events = Events::new(status, &self.key);
        Box::new(SseDecoder::new(events, seam, &self.key, status, headers))
    }
}

#[cfg(test)]
pub(super) use self::stream_tests::STREAM;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

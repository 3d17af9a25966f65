//! What makes a provider: how it is asked, and how it is understood.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use serde::Serialize;

use super::error::{ModelError, ModelErrorKind};
use super::event::{StreamDecoder, StreamEvent};
use super::request::ModelRequest;
use super::response::Completion;

/// The codec of one provider's API: pure functions from a request to HTTP and back.
///
/// A codec holds its configuration (key, address) and nothing else, so one value serves any number
/// of requests and models. [`ProviderService`](super::ProviderService) drives it over an HTTP
/// service.
pub trait Provider: Send + Sync + Debug {
    /// Writes the request for this provider.
    ///
    /// `model` is the name that the provider knows the model by; the request's own
    /// `preferred_model` is the caller's name for it, and is not looked at.
    ///
    /// # Errors
    ///
    /// [`ModelErrorKind::InvalidRequest`] if the request is wrong, and
    /// [`ModelErrorKind::Unsupported`] if this provider can't express it; the message names the
    /// field.
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError>;

    /// Reads a whole answer.
    ///
    /// # Errors
    ///
    /// For every status but 2xx, for a 2xx that carries an error, and for a body that isn't what
    /// the API promises. The message is the provider's own, without any key.
    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError>;

    /// What reads the answer to a `request` for a [stream](ModelRequest::stream).
    ///
    /// `status` is 2xx: whatever else an answer has is for [`decode`](Self::decode).
    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder>;
}

impl<P: Provider + ?Sized> Provider for Arc<P> {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        (**self).encode(request, model)
    }

    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        (**self).decode(status, headers, body)
    }

    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        (**self).stream_decoder(request, status, headers)
    }
}

/// What the next provider is told where it can't simply be given the beginning of its own answer.
pub(super) const CONTINUE: &str = "Your answer above was cut off. Go on from exactly where it breaks \
    off: begin with the very next character, also if that is a space or in the middle of a word. \
    Do not repeat any of it, and do not comment on the interruption.";

/// Where an answer that another provider began goes on.
///
/// The beginning is sent without the white space at its end: Anthropic refuses it there, and it
/// would mislead any model. Models then often begin with that very white space, which the client
/// has already got, so as much of it as comes again is taken away.
#[derive(Debug, Default)]
pub(super) struct Seam(String);

impl Seam {
    /// The beginning as it is sent, if there is something to send, and the seam after it.
    pub(super) fn split(beginning: Option<&str>) -> (Option<&str>, Self) {
        let beginning = beginning.unwrap_or_default();
        let sent = beginning.trim_end();
        let seam = Self(beginning[sent.len()..].to_owned());
        ((!sent.is_empty()).then_some(sent), seam)
    }

    /// Takes from the texts among the events from `first` on what the client has already got.
    pub(super) fn join(&mut self, first: usize, events: &mut VecDeque<StreamEvent>) {
        if self.0.is_empty() {
            return;
        }
        let mut at = first;
        while let Some(event) = events.get_mut(at) {
            if let StreamEvent::Text(text) = event {
                let same = self.0.chars().zip(text.chars()).take_while(|(a, b)| a == b);
                let same: usize = same.map(|(a, _)| a.len_utf8()).sum();
                if same == text.len() {
                    self.0.drain(..same);
                    events.remove(at);
                    continue;
                }
                text.drain(..same);
                self.0.clear();
                return;
            }
            at += 1;
        }
    }
}

/// A `POST` with a JSON body, which is all that these APIs are asked with.
pub(super) fn post(uri: &Uri, body: &impl Serialize) -> Result<Request<Bytes>, ModelError> {
    let body = serde_json::to_vec(body).map_err(|error| {
        ModelError::new(
            ModelErrorKind::InvalidRequest,
            "the request can not be written as JSON",
        )
        .with_source(error)
    })?;
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let json = HeaderValue::from_static("application/json");
    let agent = HeaderValue::from_static(concat!("tower-breaker/", env!("CARGO_PKG_VERSION")));
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, json.clone());
    headers.insert(ACCEPT, json);
    headers.insert(USER_AGENT, agent);
    Ok(request)
}

//! A provider as a Tower service.
//!
//! The seam between the codecs and the network: a [`Provider`] knows no socket, and the HTTP
//! service below knows no model. Deadlines, retries and circuit breakers are other services'
//! business and go around this one; the whole answer is read inside its future, so a deadline
//! around it covers the body too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, response};
use http_body::Body;
use http_body_util::combinators::Collect;
use http_body_util::{BodyExt, Full, Limited};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::BoxError;

use super::error::{ModelError, ModelErrorKind};
use super::provider::Provider;
use super::request::ModelRequest;
use super::response::Completion;
use super::stream::ProviderStreams;
use super::transport;

/// The largest answer that is read by default: hundreds of times the longest text that a model
/// writes, and still nothing that fills a server's memory.
const DEFAULT_BODY_LIMIT: usize = 32 * 1024 * 1024;

/// What is asked of one provider: the request, and the name that this provider knows the model by.
///
/// Cheap to clone, so that a fallback can keep it for the next provider.
#[derive(Debug, Clone)]
pub struct ProviderRequest {
    /// What the caller asked.
    pub request: Arc<ModelRequest>,
    /// The model, by the provider's own name.
    pub model: Arc<str>,
}

impl ProviderRequest {
    /// A request to the model that the provider knows by this name.
    pub fn new(request: impl Into<Arc<ModelRequest>>, model: impl Into<Arc<str>>) -> Self {
        Self {
            request: request.into(),
            model: model.into(),
        }
    }
}

/// A [`Provider`] over an HTTP service.
///
/// `H` is any service from `http::Request` to `http::Response`, such as
/// [`HttpClient`](super::HttpClient); its readiness is this service's readiness. A request that
/// can't be encoded fails without a call, and leaves the readied instance ready.
///
/// # Cancel safety
///
/// Dropping the future drops the HTTP call and with it its connection or stream.
#[derive(Clone)]
pub struct ProviderService<H> {
    provider: Arc<dyn Provider>,
    http: H,
    body_limit: usize,
}

impl<H> ProviderService<H> {
    /// This provider over this HTTP service.
    pub fn new(provider: impl Provider + 'static, http: H) -> Self {
        Self {
            provider: Arc::new(provider),
            http,
            body_limit: DEFAULT_BODY_LIMIT,
        }
    }

    /// The same provider, asked for streams.
    pub(super) fn streams(&self) -> ProviderStreams<H>
    where
        H: Clone,
    {
        ProviderStreams {
            provider: self.provider.clone(),
            http: self.http.clone(),
            body_limit: self.body_limit,
        }
    }

    /// Sets the largest answer that is read, in bytes; one that is larger is
    /// [`Malformed`](ModelErrorKind::Malformed). Default: 32 MiB.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }
}

impl<H> fmt::Debug for ProviderService<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderService")
            .field("provider", &self.provider)
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}

impl<H, B> Service<ProviderRequest> for ProviderService<H>
where
    H: Service<Request<Full<Bytes>>, Response = Response<B>>,
    H::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Response = Completion;
    type Error = ModelError;
    type Future = ResponseFuture<H::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        self.http
            .poll_ready(cx)
            .map_err(|error| transport::before_the_head(error.into()))
    }

    fn call(&mut self, request: ProviderRequest) -> Self::Future {
        let state = match self.provider.encode(&request.request, &request.model) {
            Ok(request) => State::Head {
                call: self.http.call(request.map(Full::new)),
            },
            Err(error) => State::Refused { error: Some(error) },
        };
        ResponseFuture {
            provider: self.provider.clone(),
            body_limit: self.body_limit,
            state,
        }
    }
}

pin_project! {
    /// The future of [`ProviderService`]: the call, then the whole body, then the decoding.
    pub struct ResponseFuture<F, B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        provider: Arc<dyn Provider>,
        body_limit: usize,
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        // The request couldn't be encoded.
        Refused { error: Option<ModelError> },
        Head { #[pin] call: F },
        Body { head: response::Parts, #[pin] body: Collect<Limited<B>> },
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Completion, ModelError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                StateProj::Head { call } => {
                    let response = ready!(call.poll(cx))
                        .map_err(|error| transport::before_the_head(error.into()))?;
                    let (head, body) = response.into_parts();
                    let body = Limited::new(body, *this.body_limit).collect();
                    State::Body { head, body }
                }
                StateProj::Body { head, body } => {
                    let body = match ready!(body.poll(cx)) {
                        Ok(body) => body.to_bytes(),
                        // The head has already said what is wrong; the words are lost.
                        Err(_) if ModelErrorKind::from_status(head.status).is_some() => {
                            Bytes::new()
                        }
                        Err(error) => {
                            let error = transport::in_the_body(error, *this.body_limit);
                            return Poll::Ready(Err(error.with_status(head.status)));
                        }
                    };
                    return Poll::Ready(this.provider.decode(head.status, &head.headers, &body));
                }
            };
            this.state.set(next);
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

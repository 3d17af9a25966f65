//! What makes a provider: how it is asked, and how it is understood.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use serde::Serialize;

use super::error::{ModelError, ModelErrorKind};
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
    /// [`ModelErrorKind::InvalidRequest`] if the request can't be expressed.
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

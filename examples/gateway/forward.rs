//! The few headers of a client's that a provider may see: those that the configuration lists.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, Request, StatusCode},
};
use tower_breaker::models::{Completion, ModelError, ModelRequest, Provider, StreamDecoder};

/// A codec that adds those headers of the client's that its provider is to be told.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub(crate) codec: Arc<dyn Provider>,
    pub(crate) headers: Vec<HeaderName>,
}

impl Provider for Forwarding {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        let mut encoded = self.codec.encode(request, model)?;
        for name in &self.headers {
            if let Some(value) = request.headers.get(name) {
                // What the codec says itself stands.
                encoded.headers_mut().entry(name).or_insert(value.clone());
            }
        }
        Ok(encoded)
    }

    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        self.codec.decode(status, headers, body)
    }

    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        self.codec.stream_decoder(request, status, headers)
    }
}

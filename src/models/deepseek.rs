//! DeepSeek: OpenAI's chat completions at another address, with habits of its own.
//!
//! A request that has to queue is answered with blank lines until its turn comes, so the body may
//! begin with them. The thoughts of its reasoning models come as `reasoning_content`. An empty
//! balance is a 402. A model that runs out of room breaks the answer off with the finish reason
//! `insufficient_system_resource`, which is a failure like a 503.
//!
//! An answer [goes on](ModelRequest::continue_from) by way of prefix completion, from the very text,
//! for which the API has an address of its own: `/beta` in place of the base URL's `/v1`, or at the
//! end of one without it.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};

use super::error::ModelError;
use super::event::StreamDecoder;
use super::openai::{OpenAi, PATH};
use super::provider::Provider;
use super::request::ModelRequest;
use super::response::Completion;
use super::setup::{ApiKey, SetupError, endpoint};

/// The codec of DeepSeek's API: [`OpenAi`]'s, with DeepSeek's address and habits.
///
/// Beyond what [`OpenAi`] leaves out, `seed`, `user`, `parallel_tool_calls` and `strict` of a tool
/// are not sent; `thinking` is, without a budget, and so are thoughts beside a call to a tool. A
/// request with an image, or for JSON of a schema, is [`Unsupported`](super::ModelErrorKind::Unsupported).
#[derive(Debug, Clone)]
pub struct DeepSeek(OpenAi);

impl DeepSeek {
    /// The codec for `https://api.deepseek.com`, with this key.
    pub fn new(key: ApiKey) -> Self {
        let endpoint = Uri::from_static("https://api.deepseek.com/chat/completions");
        let beta = Uri::from_static("https://api.deepseek.com/beta/chat/completions");
        Self(OpenAi::new(key).deepseek(endpoint, beta))
    }

    /// Sends requests to `/chat/completions` under this address instead; a slash at its end is
    /// ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        let url = url.as_ref();
        let base = url.trim().trim_end_matches('/');
        let beta = format!("{}/beta", base.strip_suffix("/v1").unwrap_or(base));
        let uri = endpoint(url, PATH)?;
        let beta = endpoint(&beta, PATH)?;
        Ok(Self(self.0.deepseek(uri, beta)))
    }
}

impl Provider for DeepSeek {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        self.0.encode(request, model)
    }

    // JSON may begin with white space, so the blank lines need no code.
    fn decode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        self.0.decode(status, headers, body)
    }

    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        self.0.stream_decoder(request, status, headers)
    }
}

#[cfg(test)]
#[path = "deepseek_tests.rs"]
mod tests;

//! DeepSeek: OpenAI's chat completions at another address, with habits of its own.
//!
//! A request that has to queue is answered with blank lines until its turn comes, so the body may
//! begin with them. The thoughts of its reasoning models come as `reasoning_content`. An empty
//! balance is a 402. A model that runs out of room breaks the answer off with the finish reason
//! `insufficient_system_resource`, which is a failure like a 503.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};

use super::error::ModelError;
use super::openai::OpenAi;
use super::provider::Provider;
use super::request::ModelRequest;
use super::response::Completion;
use super::setup::{ApiKey, SetupError};

/// The codec of DeepSeek's API: [`OpenAi`]'s, with DeepSeek's address.
#[derive(Debug, Clone)]
pub struct DeepSeek(OpenAi);

impl DeepSeek {
    /// The codec for `https://api.deepseek.com`, with this key.
    pub fn new(key: ApiKey) -> Self {
        let endpoint = Uri::from_static("https://api.deepseek.com/chat/completions");
        Self(OpenAi::at(key, endpoint).max_completion_tokens(false))
    }

    /// Sends requests to `/chat/completions` under this address instead; a slash at its end is
    /// ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        self.0.base_url(url).map(Self)
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
}

#[cfg(test)]
#[path = "deepseek_tests.rs"]
mod tests;

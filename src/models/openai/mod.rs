//! Chat completions, as OpenAI made them and many others speak them.

mod answer;
mod messages;
mod request;
mod stream;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};

use self::answer::Answer;
use self::request::Body;
use self::stream::Chunks;
use super::error::{ModelError, ModelErrorKind};
use super::event::StreamDecoder;
use super::failure;
use super::provider::{Provider, Seam, post};
use super::request::ModelRequest;
use super::response::Completion;
use super::setup::{ApiKey, SetupError, endpoint};
use super::sse::SseDecoder;

pub(super) const PATH: &str = "/chat/completions";

/// The codec of OpenAI's chat completions, and of every API that is compatible with them.
///
/// The length of the answer is limited by `max_completion_tokens` at OpenAI and Azure, whose newer
/// models refuse the old name, and by `max_tokens` everywhere else, where the new one may be
/// unknown and silently ignored. The address decides;
/// [`max_completion_tokens`](Self::max_completion_tokens) overrules it.
///
/// What differs from the request as given:
///
/// - `top_k`, `cache`, `cache_system` and [`thinking`](ModelRequest::thinking) have no counterpart and are left out,
///   as are the thoughts in a conversation.
/// - The result of a tool is a message of its own, without a mark if the tool has failed. Images in
///   it follow in a message of the user.
///
/// An answer [goes on](ModelRequest::continue_from) on request: its beginning, without the white
/// space at its end, and after it a message that asks for the rest. White space that comes again is
/// taken out of the stream. Where the beginning ends in the middle of a sentence and the model starts
/// with a word, a space may be missing.
#[derive(Debug, Clone)]
pub struct OpenAi {
    key: ApiKey,
    header: HeaderValue,
    endpoint: Uri,
    max_completion_tokens: Option<bool>,
    habits: Habits,
    /// Where answers go on, if that is elsewhere.
    beta: Option<Uri>,
}

/// Whose dialect it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habits {
    OpenAi,
    DeepSeek,
}

impl OpenAi {
    /// The codec for `https://api.openai.com/v1`, with this key.
    pub fn new(key: ApiKey) -> Self {
        let endpoint = Uri::from_static("https://api.openai.com/v1/chat/completions");
        let header = key.header("Bearer ");
        Self {
            key,
            header,
            endpoint,
            max_completion_tokens: None,
            habits: Habits::OpenAi,
            beta: None,
        }
    }

    /// The same for DeepSeek, whose answers go on at `beta`.
    pub(super) fn deepseek(mut self, endpoint: Uri, beta: Uri) -> Self {
        self.endpoint = endpoint;
        self.beta = Some(beta);
        self.habits = Habits::DeepSeek;
        self.max_completion_tokens(false)
    }

    /// Sends requests to `/chat/completions` under this address instead; a slash at its end is
    /// ignored.
    ///
    /// # Errors
    ///
    /// If it isn't an `http` or `https` URL of a host and perhaps a path.
    pub fn base_url(mut self, url: impl AsRef<str>) -> Result<Self, SetupError> {
        self.endpoint = endpoint(url.as_ref(), PATH)?;
        Ok(self)
    }

    /// Sets whether the limit of the answer is called `max_completion_tokens` or, as it was first,
    /// `max_tokens`. Default: by the address.
    #[must_use]
    pub fn max_completion_tokens(mut self, yes: bool) -> Self {
        self.max_completion_tokens = Some(yes);
        self
    }

    fn uses_max_completion_tokens(&self) -> bool {
        self.max_completion_tokens.unwrap_or_else(|| {
            let host = self.endpoint.host().unwrap_or_default();
            [".openai.com", ".openai.azure.com"]
                .iter()
                .any(|end| host.ends_with(end))
        })
    }
}

impl Provider for OpenAi {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        request.validate()?;
        let body = Body::new(
            request,
            model,
            self.uses_max_completion_tokens(),
            self.habits,
        )?;
        let endpoint = match (&self.beta, &request.continue_from) {
            (Some(beta), Some(_)) => beta,
            _ => &self.endpoint,
        };
        let mut http = post(endpoint, &body)?;
        http.headers_mut()
            .insert(AUTHORIZATION, self.header.clone());
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
        let answer: Answer<'_> =
            serde_json::from_slice(body).map_err(|e| failure::not_understood(status, &e))?;
        if let Some(error) = answer.error {
            return Err(failure::from_error(status, headers, &error, &self.key));
        }
        answer
            .into_completion()
            .map_err(|(kind, problem)| ModelError::new(kind, problem).with_status(status))
    }

    fn stream_decoder(
        &self,
        request: &ModelRequest,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        let seam = match self.habits {
            Habits::OpenAi => Seam::split(request.continue_from.as_deref()).1,
            // It goes on from the very text.
            Habits::DeepSeek => Seam::default(),
        };
        let chunks = Chunks::new(status, &self.key);
        Box::new(SseDecoder::new(chunks, seam, &self.key, status, headers))
    }
}

#[cfg(test)]
pub(super) use self::stream_tests::{DEEPSEEK, STREAM};
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

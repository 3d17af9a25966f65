//! Language models: one request, and the providers that can answer it.
//!
//! A [`Provider`] is a pure codec: it writes a [`ModelRequest`] as the HTTP request of one
//! provider's API and reads the answer back as a [`Completion`], with no socket, clock or runtime
//! in sight. [`ProviderService`] puts a codec over any HTTP service and makes a Tower service of
//! it, so that a circuit breaker, a timeout or a fallback goes around it like around any other.
//!
//! [`ModelManager`] puts it all together: each provider behind its own circuit, and models that
//! stand in for one another.
//!
//! # Streams
//!
//! [`ModelManager::stream`] answers in pieces ([`StreamEvent`]). What becomes of an answer that fails
//! depends on how far it has come:
//!
//! | the provider fails | what the caller sees |
//! |---|---|
//! | before the first content: an error event, a cut, a silence beyond the [first-token deadline](Deadlines::first_token) | the next model's answer |
//! | after it, with [`MidStream::Error`] (the default) | what there was, then the error |
//! | after it, with [`MidStream::Continue`] | one unbroken answer, that the next model goes on with; the [`joins`](Metadata::joins) tell where |
//! | after it, while a tool is being called | what there was, then the error |
//!
//! An answer without its [`Finish`](StreamEvent::Finish) is never passed off as complete: the end of
//! the connection is not the end of the answer. The provider's circuit learns the outcome when the
//! stream has ended, so a stream that breaks off is a failure, and one whose caller goes away is not.
//! How long a streamed call took is, for the circuit, how long its first content took.
//!
//! # Errors
//!
//! What went wrong is a [`ModelError`]. Its [kind](ModelErrorKind) decides two things, each in a
//! plain function: whether the failure [counts against](ModelErrorKind::counts_as) the provider,
//! and whether [another one should be asked](ModelErrorKind::falls_back).
//!
//! ```
//! use std::num::NonZeroU32;
//! use tower_breaker::models::{Anthropic, ApiKey, ModelRequest, Provider};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let anthropic = Anthropic::new(ApiKey::new("a-key")?);
//! let request = ModelRequest::prompt("Why is the sky blue?")
//!     .system("Answer in one sentence.")
//!     .max_tokens(NonZeroU32::new(200).ok_or("zero")?);
//!
//! let http = anthropic.encode(&request, "claude-sonnet-4-5")?;
//! assert_eq!(http.uri(), "https://api.anthropic.com/v1/messages");
//! # Ok(())
//! # }
//! ```

mod anthropic;
#[cfg(feature = "client")]
mod client;
mod content;
mod deepseek;
mod error;
mod event;
mod failure;
mod format;
mod json;
mod manager;
mod openai;
mod provider;
mod request;
mod response;
mod service;
mod setup;
mod sse;
mod stream;
#[cfg(test)]
mod stream_support;
mod tools;
mod transport;
mod wire;

pub use self::anthropic::Anthropic;
#[cfg(feature = "client")]
pub use self::client::{HttpBody, HttpClient, HttpClientBuilder, HttpFuture};
pub use self::content::{Content, Image, Message, Part, Reasoning, Role, ToolCall, ToolResult};
pub use self::deepseek::DeepSeek;
pub use self::error::{Health, ModelError, ModelErrorKind};
pub use self::event::{StreamDecoder, StreamEvent};
pub use self::format::{
    ClientFormat, ClientRequest, FormatError, Reply, ReplyContext, StreamEncoder,
};
pub use self::manager::{
    CircuitHealth, CircuitSnapshot, CredentialTrouble, Deadlines, Degraded, Join, Metadata,
    MidStream, Model, ModelAttempt, ModelManager, ModelManagerBuilder, ModelResponse, ModelStream,
    ProviderHealth,
};
pub use self::openai::OpenAi;
pub use self::provider::Provider;
pub use self::request::ModelRequest;
pub use self::response::{Completion, FinishReason, Usage};
pub use self::service::{ProviderRequest, ProviderService, ResponseFuture};
pub use self::setup::{ApiKey, SetupError};
pub use self::tools::{Effort, Json, ResponseFormat, Thinking, Tool, ToolChoice};

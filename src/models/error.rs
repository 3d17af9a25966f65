//! What can go wrong between a request and its answer, and what follows from it.
//!
//! One opaque error for every provider: the [kind](ModelErrorKind) is what a program decides by,
//! the message is what a person reads. The decisions are functions of the kind alone, so that they
//! can be read, and tested, as a table.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::ModelAttempt;

/// The longest message that is kept, in characters: enough for every message that providers
/// document, short enough for a log line and a JSON answer.
const MESSAGE_LIMIT: usize = 512;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// The request is wrong, whoever answers it: the provider said 400 or 422, or it can't be
    /// expressed at all.
    InvalidRequest,
    /// No model of that name is configured.
    UnknownModel,
    /// A bad key, a missing permission or an empty balance: 401, 402, 403.
    Credentials,
    /// The provider turned the request down for a reason of its own: any other 4xx.
    Rejected,
    /// This provider has no way to express the request, so it was not asked: another may.
    Unsupported,
    /// Too many requests: 429.
    RateLimited,
    /// The provider is up and has no room: 503, 529, or an `overloaded_error`.
    Overloaded,
    /// The provider failed: any other 5xx.
    Server,
    /// The provider couldn't be reached: name resolution, connection, TLS.
    Connect,
    /// The answer didn't come in time, or the provider said 408.
    Timeout,
    /// The answer is rubbish, cut off, or larger than the limit.
    Malformed,
    /// The provider's circuit is open: it was not asked.
    CircuitOpen,
    /// Every provider is unavailable: none was asked.
    Unavailable,
}

/// What a failure says about the health of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It is unwell: counts against it.
    Failure,
    /// It did its part: whatever is wrong, it is not its health.
    Success,
    /// It was never asked, so nothing is known.
    Ignored,
}

impl ModelErrorKind {
    /// The kind that a response status stands for; `None` for the successes, 2xx.
    ///
    /// A status that no API answers with by itself (1xx, 3xx, 600 and above) comes from something
    /// that stands in between, and is [`Malformed`](Self::Malformed).
    pub fn from_status(status: StatusCode) -> Option<Self> {
        Some(match status.as_u16() {
            200..=299 => return None,
            400 | 422 => Self::InvalidRequest,
            401..=403 => Self::Credentials,
            408 => Self::Timeout,
            429 => Self::RateLimited,
            400..=499 => Self::Rejected,
            503 | 529 => Self::Overloaded,
            500..=599 => Self::Server,
            _ => Self::Malformed,
        })
    }

    /// What this failure says about the health of the provider.
    ///
    /// A provider that turns a request or a key down has answered, and promptly: for a circuit
    /// breaker that is a success. [`ModelError::counts_as`] also knows the requests that were never
    /// sent.
    pub fn counts_as(self) -> Health {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::Server
            | Self::Connect
            | Self::Timeout
            | Self::Malformed => Health::Failure,
            Self::InvalidRequest | Self::Credentials | Self::Rejected => Health::Success,
            Self::UnknownModel | Self::Unsupported | Self::CircuitOpen | Self::Unavailable => {
                Health::Ignored
            }
        }
    }

    /// Whether another provider should be asked: always, except where the request itself is wrong.
    pub fn falls_back(self) -> bool {
        !matches!(self, Self::InvalidRequest | Self::UnknownModel)
    }

    /// The name of the kind in JSON, logs and metrics, in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownModel => "unknown_model",
            Self::Credentials => "credentials",
            Self::Rejected => "rejected",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::CircuitOpen => "circuit_open",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ModelErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidRequest => "the request is invalid",
            Self::UnknownModel => "no such model is configured",
            Self::Credentials => "the provider refused the credentials",
            Self::Rejected => "the provider rejected the request",
            Self::Unsupported => "the provider can not express the request",
            Self::RateLimited => "the provider is limiting the rate",
            Self::Overloaded => "the provider is overloaded",
            Self::Server => "the provider failed",
            Self::Connect => "the provider could not be reached",
            Self::Timeout => "the provider did not answer in time",
            Self::Malformed => "the provider's answer can not be read",
            Self::CircuitOpen => "the circuit is open",
            Self::Unavailable => "no provider is available",
        })
    }
}

/// A request that got no answer, and why.
///
/// Cheap to clone, so that a list of attempts can keep every one and still return the last.
#[derive(Clone)]
pub struct ModelError {
    kind: ModelErrorKind,
    message: Box<str>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    attempts: Arc<[ModelAttempt]>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ModelError {
    /// An error of this kind, with a message for people: what a provider said of it, or which field
    /// is wrong.
    ///
    /// The message ends up in logs and answers: it is cut after 512 characters, and control
    /// characters become spaces. Whoever writes it sees to it that it holds no secret.
    pub fn new(kind: ModelErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: bounded(message.as_ref()),
            status: None,
            retry_after: None,
            attempts: Arc::new([]),
            source: None,
        }
    }

    /// The same error, with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error, with the status that the provider answered.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The same error, with the time for which the provider asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = retry_after.into();
        self
    }

    /// The same error, with what became of each model that was considered.
    #[must_use]
    pub(super) fn with_attempts(mut self, attempts: Vec<ModelAttempt>) -> Self {
        self.attempts = attempts.into();
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ModelErrorKind {
        self.kind
    }

    /// What a person should know, in the provider's own words where it had any; may be empty.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The status that the provider answered; `None` if it didn't get so far.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// When to try again, if that is known: what the provider asked for in its `Retry-After`, or when
    /// a circuit is due for a probe.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What became of each model that was considered; empty unless a
    /// [`ModelManager`](super::ModelManager) returned the error.
    pub fn attempts(&self) -> &[ModelAttempt] {
        &self.attempts
    }

    /// What this failure says about the health of the provider.
    ///
    /// As [`ModelErrorKind::counts_as`], but a request that was found wrong before it was sent says
    /// nothing: it must not close a circuit that is half open.
    pub fn counts_as(&self) -> Health {
        match (self.kind, self.status) {
            (ModelErrorKind::InvalidRequest, None) => Health::Ignored,
            (kind, _) => kind.counts_as(),
        }
    }

    /// Whether another provider should be asked.
    pub fn falls_back(&self) -> bool {
        self.kind.falls_back()
    }
}

impl fmt::Debug for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ModelError");
        out.field("kind", &self.kind);
        out.field("message", &self.message);
        if let Some(status) = &self.status {
            out.field("status", status);
        }
        if let Some(retry_after) = &self.retry_after {
            out.field("retry_after", retry_after);
        }
        if let Some(source) = &self.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(status) = self.status {
            write!(f, " (status {})", status.as_u16())?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Error for ModelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// At most [`MESSAGE_LIMIT`] characters on one line: a provider's words can't forge a log line.
pub(super) fn bounded(message: &str) -> Box<str> {
    let message = message.trim();
    let mut kept: String = message
        .chars()
        .take(MESSAGE_LIMIT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if message.chars().nth(MESSAGE_LIMIT).is_some() {
        kept.push('…');
    }
    kept.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn m4_each_status_has_its_kind_its_weight_and_its_next_step() {
        use Health::{Failure, Success};
        use ModelErrorKind::*;
        let table = [
            (302, Malformed, Failure, true),
            (400, InvalidRequest, Success, false),
            (401, Credentials, Success, true),
            (402, Credentials, Success, true),
            (403, Credentials, Success, true),
            (404, Rejected, Success, true),
            (408, Timeout, Failure, true),
            (409, Rejected, Success, true),
            (413, Rejected, Success, true),
            (422, InvalidRequest, Success, false),
            (429, RateLimited, Failure, true),
            (500, Server, Failure, true),
            (502, Server, Failure, true),
            (503, Overloaded, Failure, true),
            (504, Server, Failure, true),
            (529, Overloaded, Failure, true),
            (999, Malformed, Failure, true),
        ];
        for (code, kind, health, falls_back) in table {
            let got = ModelErrorKind::from_status(status(code)).unwrap();
            assert_eq!(
                (got, got.counts_as(), got.falls_back()),
                (kind, health, falls_back),
                "{code}"
            );
        }
        assert_eq!(ModelErrorKind::from_status(status(200)), None);
        assert_eq!(ModelErrorKind::from_status(status(299)), None);
    }

    #[test]
    fn m4_each_kind_without_a_status_has_its_weight_and_its_next_step() {
        use Health::{Failure, Ignored};
        use ModelErrorKind::*;
        let table = [
            (Connect, Failure, true),
            (Timeout, Failure, true),
            (Malformed, Failure, true),
            (UnknownModel, Ignored, false),
            (Unsupported, Ignored, true),
            (CircuitOpen, Ignored, true),
            (Unavailable, Ignored, true),
            (InvalidRequest, Ignored, false),
        ];
        for (kind, health, falls_back) in table {
            let error = ModelError::new(kind, "");
            assert_eq!(
                (error.counts_as(), error.falls_back()),
                (health, falls_back),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn display_tells_kind_status_and_message_and_leaves_the_source_to_the_chain() {
        let error = ModelError::new(ModelErrorKind::RateLimited, "Slow down, please")
            .with_status(status(429))
            .with_source("the cause");
        assert_eq!(
            error.to_string(),
            "the provider is limiting the rate (status 429): Slow down, please"
        );
        assert_eq!(error.source().unwrap().to_string(), "the cause");
        assert_eq!(
            ModelError::new(ModelErrorKind::Connect, "").to_string(),
            "the provider could not be reached"
        );
    }

    #[test]
    fn a_message_is_bounded_and_stays_on_one_line() {
        let error = ModelError::new(ModelErrorKind::Server, "ü".repeat(10_000));
        assert_eq!(error.message().chars().count(), MESSAGE_LIMIT + 1);
        assert!(error.message().ends_with('…'));

        let error = ModelError::new(ModelErrorKind::Server, "one\r\ntwo\u{1b}[31m\n");
        assert_eq!(error.message(), "one  two [31m");
    }
}

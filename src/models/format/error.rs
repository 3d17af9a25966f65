//! What a client is told when there is no answer.

use std::{error::Error, fmt};

use http::StatusCode;

use super::ClientFormat;
use crate::models::error::{ModelError, ModelErrorKind, bounded};

/// Why a client gets no answer: a status, a code for programs and words for people.
///
/// [`ClientFormat::encode_format_error`] puts it into the shape that the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    status: StatusCode,
    code: &'static str,
    message: Box<str>,
    param: Option<Box<str>>,
}

impl FormatError {
    /// An error of this status, with a code for programs and words for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl AsRef<str>) -> Self {
        Self {
            status,
            code,
            message: bounded(message.as_ref()),
            param: None,
        }
    }

    /// The same error, with the field of the request that is wrong.
    #[must_use]
    pub fn with_param(mut self, path: impl AsRef<str>) -> Self {
        self.param = Some(bounded(path.as_ref()));
        self
    }

    /// A request that is wrong at `path`.
    pub(super) fn at(path: impl AsRef<str>, problem: impl fmt::Display) -> Self {
        let path = path.as_ref();
        let message = if path.is_empty() {
            problem.to_string()
        } else {
            format!("{path}: {problem}")
        };
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        Self {
            param: (!path.is_empty()).then(|| bounded(path)),
            ..error
        }
    }

    /// What a failure is to a client of this format.
    pub(super) fn of_model(error: &ModelError, format: ClientFormat) -> Self {
        let (status, code) = status_and_code(error, format);
        Self {
            param: (error.kind() == ModelErrorKind::UnknownModel).then(|| "model".into()),
            ..Self::new(status, code, error.to_string())
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, for programs.
    pub fn code(&self) -> &str {
        self.code
    }

    /// What is wrong, for people. It names the field, if one is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field of the request that is wrong, by its path: `messages[0].content`.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for FormatError {}

/// The provider's own status where it had one, and the nearest one for what we found ourselves.
///
/// SDKs choose the exception to raise, and whether to try again, by the status alone.
fn status_and_code(error: &ModelError, format: ClientFormat) -> (StatusCode, &'static str) {
    use ModelErrorKind as Kind;
    let overloaded = match format {
        ClientFormat::OpenAi => 503,
        ClientFormat::Anthropic => 529,
    };
    let (status, code) = match error.kind() {
        Kind::InvalidRequest | Kind::Unsupported => (400, "invalid_request"),
        Kind::UnknownModel => (404, "model_not_found"),
        // Without a status of its own, or with one that says something else: an empty balance is
        // the one case, a 429 at OpenAI and a 400 at Anthropic.
        Kind::Credentials => match format {
            ClientFormat::OpenAi => (429, "insufficient_quota"),
            ClientFormat::Anthropic => (400, "insufficient_quota"),
        },
        Kind::Rejected => (502, "provider_rejected"),
        Kind::RateLimited => (429, "rate_limit_exceeded"),
        Kind::Overloaded => (overloaded, "provider_overloaded"),
        Kind::Timeout => (504, "provider_timeout"),
        Kind::Connect => (502, "provider_unreachable"),
        Kind::Malformed => (502, "provider_answer_unreadable"),
        Kind::CircuitOpen | Kind::Unavailable => (503, "all_circuits_open"),
        Kind::Server => (502, "provider_failed"),
    };
    let own = error.status().map_or(0, |status| status.as_u16());
    let (status, code) = match (error.kind(), own) {
        (Kind::Credentials, 401) => (401, "invalid_api_key"),
        (Kind::Credentials, 402) => (402, "insufficient_balance"),
        (Kind::Credentials, 403) => (403, "permission_denied"),
        (Kind::Credentials, _) => (status, code),
        // OpenAI has no 529, and Anthropic says with it what others say with 503.
        (Kind::Overloaded, _) => (overloaded, code),
        (Kind::Rejected, 404) => (404, "not_found"),
        (Kind::Rejected, 413) => (413, "request_too_large"),
        // An error in the body of a 2xx, or an answer of a proxy, has no status worth keeping.
        (Kind::Malformed, _) | (_, ..=399) => (status, code),
        (_, own) => (own, code),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, code)
}

//! What a client is told when there is no answer, in the shape that it knows.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tower_breaker::models::{ClientFormat, FormatError, ModelError, ModelErrorKind};

use super::caller::{Caller, tell_attempts};

/// When to come back where no time ends it: every circuit is forced open.
const FORCED_OPEN: Duration = Duration::from_secs(60);

/// An error as the client sees it.
#[derive(Debug)]
pub(crate) struct ApiError {
    what: What,
    retry_after: Option<Duration>,
    /// The scheme by which the client may try again to say who it is.
    authenticate: Option<&'static str>,
}

#[derive(Debug)]
enum What {
    /// Found out by the gateway itself.
    Own(FormatError),
    /// No model answered.
    Model(ModelError),
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl AsRef<str>) -> Self {
        FormatError::new(status, code, message).into()
    }

    /// The request is wrong at `param`.
    pub(super) fn invalid(param: impl Into<Option<String>>, message: impl AsRef<str>) -> Self {
        Self::at(StatusCode::BAD_REQUEST, "invalid_request", param, message)
    }

    /// A configuration is wrong at `field`.
    pub(super) fn invalid_config(
        field: impl Into<Option<String>>,
        message: impl AsRef<str>,
    ) -> Self {
        Self::at(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_config",
            field,
            message,
        )
    }

    fn at(
        status: StatusCode,
        code: &'static str,
        param: impl Into<Option<String>>,
        message: impl AsRef<str>,
    ) -> Self {
        let error = FormatError::new(status, code, message);
        match param.into() {
            Some(param) => error.with_param(param).into(),
            None => error.into(),
        }
    }

    pub(super) fn too_large(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(super) fn too_slow(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub(super) fn not_found(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// No model has that name, as OpenAI says it.
    pub(super) fn model_not_found(message: impl AsRef<str>) -> Self {
        Self::at(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "model".to_owned(),
            message,
        )
    }

    pub(super) fn method_not_allowed(message: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    pub(super) fn unauthorized(message: impl AsRef<str>) -> Self {
        Self {
            authenticate: Some("Bearer"),
            ..Self::new(StatusCode::UNAUTHORIZED, "invalid_admin_token", message)
        }
    }

    pub(super) fn forbidden(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "admin_is_local", message)
    }

    /// Too much to do; it will be less in a moment.
    pub(crate) fn gateway_is_full(message: impl AsRef<str>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_is_full", message)
        }
    }

    pub(super) fn internal(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The response in the caller's shape.
    pub(crate) fn respond(self, caller: &Caller) -> Response {
        let (status, body) = self.written(caller.format, caller.request_id());
        let body = match caller.format {
            ClientFormat::OpenAi if self.has_attempts() => {
                self.with_metadata(&body).to_string().into()
            }
            _ => body.into(),
        };
        caller.sign(self.response(status, body))
    }

    /// The response to the gateway's own form of a request, which has its own name for the model.
    pub(super) fn respond_to_process(self, caller: &Caller) -> Response {
        let (status, body) = self.written(ClientFormat::OpenAi, caller.request_id());
        let mut body = self.with_metadata(&body);
        if let What::Model(error) = &self.what
            && error.kind() == ModelErrorKind::UnknownModel
        {
            body["error"]["param"] = "preferredModel".into();
        }
        caller.sign(self.response(status, body.to_string().into()))
    }

    /// Nobody was asked, because no circuit admits a request.
    fn is_open(&self) -> bool {
        use ModelErrorKind::{CircuitOpen, Unavailable};
        matches!(&self.what, What::Model(error) if matches!(error.kind(), CircuitOpen | Unavailable))
    }

    fn has_attempts(&self) -> bool {
        matches!(&self.what, What::Model(error) if !error.attempts().is_empty())
    }

    /// The error in OpenAI's shape, with the attempts beside it, where clients that don't know them look past them.
    pub(super) fn with_metadata(&self, body: &[u8]) -> Value {
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        if let What::Model(error) = &self.what
            && self.has_attempts()
        {
            body["metadata"] = json!({ "attempts": error.attempts() });
        }
        body
    }

    fn written(&self, format: ClientFormat, request_id: &str) -> (StatusCode, axum::body::Bytes) {
        match &self.what {
            What::Own(error) => format.encode_format_error(error, request_id),
            What::Model(error) => format.encode_error(error, request_id),
        }
    }

    fn response(&self, status: StatusCode, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(wait) = self.retry_after.or(self.is_open().then_some(FORCED_OPEN)) {
            // Whole seconds, rounded up, and at least one: who comes back then must not be early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(scheme) = self.authenticate {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if let What::Model(error) = &self.what {
            tell_attempts(headers, error.attempts());
            if self.is_open() {
                // SDKs would otherwise send the same request again, at once.
                let name = HeaderName::from_static("x-should-retry");
                headers.insert(name, HeaderValue::from_static("false"));
            }
        }
        response
    }
}

impl From<FormatError> for ApiError {
    fn from(error: FormatError) -> Self {
        Self {
            what: What::Own(error),
            retry_after: None,
            authenticate: None,
        }
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        Self {
            retry_after: error.retry_after(),
            what: What::Model(error),
            authenticate: None,
        }
    }
}

/// For whoever has no SDK: OpenAI's shape.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, body) = self.written(ClientFormat::OpenAi, "");
        self.response(status, body.into())
    }
}

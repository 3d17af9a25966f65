//! What the client is told when there is no answer, in OpenAI's shape.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tower_breaker::models::{ModelError, ModelErrorKind};

/// An error as the client sees it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// For programs, as are OpenAI's own.
    kind: &'static str,
    code: &'static str,
    message: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    retry_after: Option<Duration>,
    attempts: Value,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: if status.is_client_error() {
                "invalid_request_error"
            } else {
                "api_error"
            },
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            attempts: Value::Null,
        }
    }

    /// The request is wrong at `param`.
    pub(super) fn invalid(param: impl Into<Option<String>>, message: impl Into<String>) -> Self {
        Self {
            param: param.into(),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_admin_token", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "admin_is_local", message)
    }

    /// A configuration is wrong at `field`.
    pub(super) fn invalid_config(
        field: impl Into<Option<String>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            param: field.into(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", message)
        }
    }

    /// Too much to do; it will be less in a moment.
    pub(crate) fn gateway_is_full(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_is_full", message)
        }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl ApiError {
    /// `model_field` is what the request calls the model.
    pub(super) fn from_model(error: ModelError, model_field: &str) -> Self {
        let unknown = error.kind() == ModelErrorKind::UnknownModel;
        Self {
            param: unknown.then(|| model_field.to_owned()),
            ..Self::from(error)
        }
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let (status, code) = match error.kind() {
            // What a provider found wrong keeps its status, 400 or 422.
            ModelErrorKind::InvalidRequest => (
                error
                    .status()
                    .filter(StatusCode::is_client_error)
                    .unwrap_or(StatusCode::BAD_REQUEST),
                "invalid_request",
            ),
            ModelErrorKind::UnknownModel => (StatusCode::NOT_FOUND, "model_not_found"),
            // The gateway's own key, or its configuration: nothing that the client can mend.
            ModelErrorKind::Credentials => (StatusCode::BAD_GATEWAY, "provider_credentials"),
            ModelErrorKind::Rejected => (StatusCode::BAD_GATEWAY, "provider_rejected"),
            ModelErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            ModelErrorKind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "provider_overloaded"),
            ModelErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "provider_timeout"),
            ModelErrorKind::Connect => (StatusCode::BAD_GATEWAY, "provider_unreachable"),
            ModelErrorKind::Malformed => (StatusCode::BAD_GATEWAY, "provider_answer_unreadable"),
            ModelErrorKind::CircuitOpen | ModelErrorKind::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "all_circuits_open")
            }
            _ => (StatusCode::BAD_GATEWAY, "provider_failed"),
        };
        Self {
            retry_after: error.retry_after(),
            attempts: json!(error.attempts()),
            ..Self::new(status, code, error.to_string())
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }});
        if self
            .attempts
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            body["metadata"] = json!({"attempts": self.attempts});
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up, and at least one: who comes back then must not be early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.code == "all_circuits_open" {
            // OpenAI's SDKs would otherwise send the same request again, at once.
            let name = HeaderName::from_static("x-should-retry");
            headers.insert(name, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

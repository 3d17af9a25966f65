//! Reading what a provider says went wrong.
//!
//! Shared by all codecs, because the shapes differ in so little: an object `error` with a `message`
//! and a `type` (Anthropic) or a `type` and a `code` (OpenAI and whoever follows it), at times just
//! a string. The status decides where there is one; the words decide for an error that comes under
//! a 200.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::error::{ModelError, ModelErrorKind};
use super::setup::ApiKey;
use crate::classify::retry_after;

/// The error of an answer whose status isn't 2xx.
pub(super) fn from_status(
    kind: ModelErrorKind,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    key: &ApiKey,
) -> ModelError {
    // No JSON, or none with an `error`: a proxy's page. Its text helps nobody in a log line.
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    build(refined(kind, error), status, headers, error, key)
}

/// The error that an answer or an event carries in its `error` under a status of 2xx.
pub(super) fn from_error(
    status: StatusCode,
    headers: &HeaderMap,
    error: &Value,
    key: &ApiKey,
) -> ModelError {
    build(
        refined(kind_by_words(error), error),
        status,
        headers,
        error,
        key,
    )
}

/// An answer that isn't what the API promises.
///
/// Serde's own message may quote the answer, so only the place of the error is kept.
pub(super) fn not_understood(status: StatusCode, error: &serde_json::Error) -> ModelError {
    let problem = match error.classify() {
        serde_json::error::Category::Eof => "the JSON is cut off",
        serde_json::error::Category::Data => "the JSON is not what the API promises",
        _ => "the body is not JSON",
    };
    let message = format!("{problem}, line {} column {}", error.line(), error.column());
    malformed(status, message)
}

/// An answer without something that every answer has.
pub(super) fn malformed(status: StatusCode, message: impl AsRef<str>) -> ModelError {
    ModelError::new(ModelErrorKind::Malformed, message).with_status(status)
}

fn build(
    kind: ModelErrorKind,
    status: StatusCode,
    headers: &HeaderMap,
    error: &Value,
    key: &ApiKey,
) -> ModelError {
    let message = error
        .as_str()
        .or_else(|| text(error, "message"))
        .unwrap_or_default();
    ModelError::new(kind, key.redact(message))
        .with_status(status)
        .with_retry_after(retry_after(headers))
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// The kind that a status gave, put right where the provider's words know better.
fn refined(kind: ModelErrorKind, error: &Value) -> ModelErrorKind {
    use ModelErrorKind::{
        Credentials, InvalidRequest, Overloaded, RateLimited, Server, Unsupported,
    };
    let is = |word| text(error, "type") == Some(word) || text(error, "code") == Some(word);
    match kind {
        Server if is("overloaded_error") => Overloaded,
        // OpenAI says 429 for an empty balance. Waiting doesn't help there: it is a 402.
        RateLimited if is("insufficient_quota") => Credentials,
        // Anthropic says 400 for one, with nothing but the message to tell it by. Taken for the
        // caller's mistake, it would come back to every caller, with no fallback.
        InvalidRequest
            if text(error, "message").is_some_and(|m| m.contains("credit balance is too low")) =>
        {
            Credentials
        }
        InvalidRequest if is("billing_error") => Credentials,
        // A beginning of the answer, which newer models of Anthropic's don't take. Others may.
        InvalidRequest if text(error, "message").is_some_and(|m| m.contains("prefill")) => {
            Unsupported
        }
        kind => kind,
    }
}

/// The kind of an error that has no status of its own.
fn kind_by_words(error: &Value) -> ModelErrorKind {
    use ModelErrorKind::{
        Credentials, InvalidRequest, Overloaded, RateLimited, Rejected, Server, Timeout,
    };
    // Routers put the status of whoever stands behind them into `code`.
    let code = error.get("code").and_then(Value::as_u64);
    let status = code.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    if let Some(kind) = status.and_then(ModelErrorKind::from_status) {
        return kind;
    }
    // The code first: it is the finer of the two.
    let words = [text(error, "code"), text(error, "type")];
    words
        .into_iter()
        .flatten()
        .find_map(|word| {
            Some(match word {
                "invalid_request_error" => InvalidRequest,
                "authentication_error"
                | "permission_error"
                | "billing_error"
                | "invalid_api_key"
                | "insufficient_quota" => Credentials,
                "not_found_error" | "request_too_large" | "model_not_found" => Rejected,
                "rate_limit_error" | "rate_limit_exceeded" => RateLimited,
                "overloaded_error" => Overloaded,
                "timeout_error" => Timeout,
                _ => return None,
            })
        })
        // `api_error`, `server_error`, and whatever else: it said 200 and failed.
        .unwrap_or(Server)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ModelErrorKind::*;

    fn key() -> ApiKey {
        ApiKey::new("secret-key").unwrap()
    }

    fn by_status(status: u16, body: &str) -> ModelError {
        let status = StatusCode::from_u16(status).unwrap();
        let kind = ModelErrorKind::from_status(status).unwrap();
        from_status(kind, status, &HeaderMap::new(), body.as_bytes(), &key())
    }

    #[test]
    fn m4_the_status_decides_and_the_words_refine() {
        let overloaded =
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        let credit = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#;
        let unauthorized = r#"{"error":{"message":"Incorrect API key","type":"invalid_request_error","code":"invalid_api_key"}}"#;
        let billing =
            r#"{"type":"error","error":{"type":"billing_error","message":"Limit reached"}}"#;
        let prefill = r#"{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support assistant message prefill."}}"#;
        let table = [
            (529, overloaded, Overloaded, "Overloaded"),
            (500, overloaded, Overloaded, "Overloaded"),
            (429, quota, Credentials, "You exceeded your current quota"),
            (
                400,
                credit,
                Credentials,
                "Your credit balance is too low to access the Anthropic API.",
            ),
            (400, billing, Credentials, "Limit reached"),
            (
                400,
                prefill,
                Unsupported,
                "This model does not support assistant message prefill.",
            ),
            (401, unauthorized, Credentials, "Incorrect API key"),
            (400, r#"{"error":{"message":"no"}}"#, InvalidRequest, "no"),
            (
                404,
                r#"{"error":"model 'x' not found"}"#,
                Rejected,
                "model 'x' not found",
            ),
            (500, r#"{"message":"plain"}"#, Server, "plain"),
            (502, "<html>Bad Gateway</html>", Server, ""),
            (429, "", RateLimited, ""),
            (500, r#"{"error":{"message":5}}"#, Server, ""),
            (500, r#"{"error":null}"#, Server, ""),
            (500, "[1]", Server, ""),
        ];
        for (status, body, kind, message) in table {
            let error = by_status(status, body);
            assert_eq!(
                (error.kind(), error.message()),
                (kind, message),
                "{status} {body}"
            );
            assert_eq!(error.status().unwrap().as_u16(), status);
        }
    }

    #[test]
    fn m4_under_a_200_the_words_decide() {
        let table = [
            (
                json!({"type": "overloaded_error", "message": "Overloaded"}),
                Overloaded,
            ),
            (json!({"type": "api_error"}), Server),
            (json!({"type": "rate_limit_error"}), RateLimited),
            (json!({"type": "invalid_request_error"}), InvalidRequest),
            (
                json!({"type": "invalid_request_error", "code": "invalid_api_key"}),
                Credentials,
            ),
            (json!({"type": "something_new"}), Server),
            (json!({"code": 502, "message": "behind"}), Server),
            (json!({"code": 429}), RateLimited),
            (json!({"code": 200}), Server),
            (json!({"code": 70_000}), Server),
            (json!("just words"), Server),
            (json!({}), Server),
        ];
        for (error, kind) in table {
            let got = from_error(StatusCode::OK, &HeaderMap::new(), &error, &key());
            assert_eq!(got.kind(), kind, "{error}");
        }
    }

    #[test]
    fn g5_a_key_in_the_message_is_cut() {
        let error = by_status(
            401,
            r#"{"error":{"message":"no such key: secret-key, sk-1234"}}"#,
        );
        assert_eq!(error.message(), "no such key: ***, ***");
    }
}

//! The ways in which a simulated provider can fail.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{Html, IntoResponse, Response},
};
use futures_util::stream;

use super::{Kind, anthropic, ask::Refusal};

/// What a proxy in front of a provider likes to send in its place.
const RUBBISH: &str = "<!doctype html>\n<html><body><h1>It works!</h1></body></html>\n";

/// A way to fail, under the name that `POST /fault/{name}` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    ServerError,
    Unavailable,
    Overloaded,
    RateLimited,
    BadKey,
    NoBalance,
    BadRequest,
    /// `200 OK`, and a body that isn't JSON.
    Rubbish,
    /// `200 OK` and half of the body, then the connection ends.
    Cut,
    /// No answer at all.
    Hang,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::ServerError,
        Self::Unavailable,
        Self::Overloaded,
        Self::RateLimited,
        Self::BadKey,
        Self::NoBalance,
        Self::BadRequest,
        Self::Rubbish,
        Self::Cut,
        Self::Hang,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ServerError => "server-error",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate-limited",
            Self::BadKey => "bad-key",
            Self::NoBalance => "no-balance",
            Self::BadRequest => "bad-request",
            Self::Rubbish => "rubbish",
            Self::Cut => "cut",
            Self::Hang => "hang",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// The fault that is switched on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    pub(super) fault: Fault,
    /// Seconds for a `Retry-After` beside an error status.
    pub(super) retry_after: Option<u64>,
}

impl Active {
    /// What goes over the wire in place of an answer.
    pub(super) fn respond(self, kind: Kind, id: u64) -> Response {
        let (status, message) = match self.fault {
            Fault::Rubbish => return Html(RUBBISH).into_response(),
            Fault::Cut => return cut_off(),
            Fault::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
            // A request that hung gets here when the server shuts down.
            Fault::Unavailable | Fault::Hang => {
                (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable")
            }
            Fault::Overloaded => match kind {
                Kind::Anthropic => (overloaded(), "Overloaded"),
                Kind::DeepSeek => (StatusCode::SERVICE_UNAVAILABLE, "Service is too busy"),
            },
            Fault::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Rate limit reached"),
            Fault::BadKey => (StatusCode::UNAUTHORIZED, "The API key is invalid"),
            Fault::NoBalance => (StatusCode::PAYMENT_REQUIRED, "Insufficient Balance"),
            Fault::BadRequest => (StatusCode::BAD_REQUEST, "The request is invalid"),
        };
        let mut response = kind.refuse(id, &Refusal::new(status, message));
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn overloaded() -> StatusCode {
    StatusCode::from_u16(anthropic::OVERLOADED).expect("529 is within the three digits of a status")
}

/// Promises a whole body in `content-length`, sends half of it, and breaks off.
fn cut_off() -> Response {
    const BODY: &[u8] = br#"{"id":"cut-off","content":[{"type":"text","text":"This answer is never going to be finis"#;
    let body = stream::unfold(0, async |step| match step {
        0 => Some((Ok(Bytes::from_static(BODY)), 1)),
        _ => {
            // hyper writes what it has when the body has nothing more at once; an error that came right away
            // would end the connection before the head and the first half were sent.
            tokio::task::yield_now().await;
            Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), 2))
        }
    });
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, 2 * BODY.len())
        .body(Body::from_stream(body))
        .expect("the head is made of constants")
}

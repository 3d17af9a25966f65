//! Who asks, as far as an answer depends on it: the shape that it has to have, and the id under which both sides
//! know the request.

use std::{
    fmt::Write,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use serde::Serialize;
use tower_breaker::models::{ClientFormat, ModelAttempt};

/// The headers by which OpenAI's and Anthropic's clients know a request.
const REQUEST_IDS: [HeaderName; 2] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("request-id"),
];

/// The longest id that is taken over from a client: logs and answers carry it.
const LONGEST_ID: usize = 128;

/// The longest reason of a failure in a header, in characters. Clients have limits for all headers together.
const LONGEST_REASON: usize = 160;

const PROVIDER: HeaderName = HeaderName::from_static("x-gateway-provider");
const MODEL: HeaderName = HeaderName::from_static("x-gateway-model");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gateway-attempts");
const DEGRADED: HeaderName = HeaderName::from_static("x-gateway-degraded");

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The shape in which it understands answers and errors.
    pub(super) format: ClientFormat,
    request_id: HeaderValue,
}

impl Caller {
    /// The sender of a request to this path with these headers.
    pub(crate) fn new(path: &str, headers: &HeaderMap) -> Self {
        let anthropic =
            path.starts_with("/v1/messages") || headers.contains_key("anthropic-version");
        let own = REQUEST_IDS.iter().find_map(|name| headers.get(name));
        let own = own.filter(|id| {
            id.len() <= LONGEST_ID
                && !id.is_empty()
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        Self {
            format: if anthropic {
                ClientFormat::Anthropic
            } else {
                ClientFormat::OpenAi
            },
            request_id: own.cloned().unwrap_or_else(new_id),
        }
    }

    /// The id of the request, the caller's own if it brought one.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// Puts the request's id into the head of its response.
    pub(super) fn sign(&self, mut response: Response) -> Response {
        for name in REQUEST_IDS {
            response.headers_mut().insert(name, self.request_id.clone());
        }
        response
    }
}

/// An id that no other request has, in this process or, most likely, in any other.
fn new_id() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The standard library's hashers are seeded at random.
    let process = PROCESS.get_or_init(|| RandomState::new().build_hasher().finish());
    // Only a number: nothing is ordered by it.
    let id = format!("req_{process:016x}{:08x}", NEXT.fetch_add(1, Relaxed));
    HeaderValue::try_from(id).expect("letters and digits fit into a header")
}

/// Tells in headers who answered and how it came about: SDKs don't show what the body has besides.
pub(super) fn tell_who_answered(
    headers: &mut HeaderMap,
    provider: &str,
    model: &str,
    degraded: bool,
    attempts: &[ModelAttempt],
) {
    // A name from the configuration may hold what a header can't.
    for (name, value) in [(PROVIDER, provider), (MODEL, model)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    if degraded {
        headers.insert(DEGRADED, HeaderValue::from_static("true"));
    }
    tell_attempts(headers, attempts);
}

/// Tells in a header what became of each model that was considered.
pub(super) fn tell_attempts(headers: &mut HeaderMap, attempts: &[ModelAttempt]) {
    if attempts.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(attempts_as_json(attempts)) {
        headers.insert(ATTEMPTS, value);
    }
}

/// The attempts as a list in JSON, on one line of ASCII, with reasons of bounded length.
pub(super) fn attempts_as_json(attempts: &[ModelAttempt]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Attempt<'a> {
        model: &'a str,
        provider: &'a str,
        outcome: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        latency_ms: u64,
    }
    let attempts: Vec<_> = attempts
        .iter()
        .map(|attempt| Attempt {
            model: &attempt.model,
            provider: &attempt.provider,
            outcome: attempt.outcome.as_str(),
            reason: attempt.reason.as_deref().map(|reason| {
                let end = reason.char_indices().nth(LONGEST_REASON);
                &reason[..end.map_or(reason.len(), |(at, _)| at)]
            }),
            latency_ms: u64::try_from(attempt.latency.as_millis()).unwrap_or(u64::MAX),
        })
        .collect();
    let json = serde_json::to_string(&attempts).expect("text and numbers can be written");
    if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return json;
    }
    let mut ascii = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if (' '..='~').contains(&char) {
            ascii.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

//! gRPC responses by their status, which most of them carry in their trailers.

use std::{fmt::Write, time::Duration};

use http::{HeaderMap, Response, StatusCode};

use super::{Classified, Classify, ClassifyEnd, http::retry_after};
use crate::circuit::Outcome;

pub(crate) const STATUS: &str = "grpc-status";
pub(crate) const MESSAGE: &str = "grpc-message";
/// For how long the server asks not to be tried again, in milliseconds; negative: not at all. (gRPC
/// proposal A6, "client retries".)
pub(crate) const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

const OK: u8 = 0;
const CANCELLED: u8 = 1;
const UNKNOWN: u8 = 2;
pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
pub(crate) const UNAVAILABLE: u8 = 14;
const DATA_LOSS: u8 = 15;
const UNAUTHENTICATED: u8 = 16;

/// Status codes that speak of the server's health are failures, and so are errors and a response
/// that ends with no status; a `grpc-retry-pushback-ms` says for how long.
///
/// | status | counts as | because |
/// |---|---|---|
/// | `UNKNOWN` (2) | failure | what servers answer when a handler has panicked or thrown; an unknown code too |
/// | `DEADLINE_EXCEEDED` (4) | failure | it was too slow |
/// | `RESOURCE_EXHAUSTED` (8) | failure | gRPC's `429`: the server, or our share of it, is overloaded |
/// | `INTERNAL` (13) | failure | gRPC's `500` |
/// | `UNAVAILABLE` (14) | failure | gRPC's `503` |
/// | `DATA_LOSS` (15) | failure | it has lost something |
/// | `CANCELLED` (1) | ignored | the caller's doing, which says nothing about the server |
/// | all others | success | the server understood the call well enough to refuse it |
///
/// These are the codes that OpenTelemetry and linkerd count against a server, with
/// `RESOURCE_EXHAUSTED`, and without `UNIMPLEMENTED` (which is about what was asked for) and
/// `PERMISSION_DENIED`. An HTTP status other than `200`, of a proxy in between, stands for the code
/// that gRPC's `http-grpc-status-mapping` gives it, and a `Retry-After` is heeded there.
///
/// tonic's `Server::timeout` answers `CANCELLED` where others answer `DEADLINE_EXCEEDED`. To see such a
/// server hang, give the circuit a `timeout` that is shorter.
///
/// For codes of your own choice, see tower-http's `GrpcErrorsAsFailures` by way of `TowerHttp`.
///
/// The status stands in the trailers, unless there is nothing else to the response. They are read
/// where the body is watched, as it is with [`.grpc()`](crate::CircuitBreakerLayer::grpc) and
/// [`.body()`](crate::CircuitBreakerLayer::body); elsewhere a response with a body is a success.
#[derive(Debug, Default, Clone, Copy)]
pub struct GrpcClassifier;

impl<B, E> Classify<Response<B>, E> for GrpcClassifier {
    type AtEnd = GrpcAtEnd;

    fn classify(&self, result: Result<&Response<B>, &E>) -> Classified<GrpcAtEnd> {
        let Ok(response) = result else {
            return Classified::Done(Outcome::FAILURE);
        };
        let headers = response.headers();
        if let Some(outcome) = told(headers) {
            return Classified::Done(outcome);
        }
        match response.status() {
            StatusCode::OK => Classified::AtEnd(GrpcAtEnd(())),
            status => Classified::Done(judge(code_for(status), || retry_after(headers))),
        }
    }
}

/// A gRPC response whose trailers decide.
#[derive(Debug)]
pub struct GrpcAtEnd(());

impl<E> ClassifyEnd<E> for GrpcAtEnd {
    fn classify_end(self, end: Result<Option<&HeaderMap>, &E>) -> Outcome {
        let trailers = end.ok().flatten();
        // A response that ends with no status has broken off.
        trailers.and_then(told).unwrap_or(Outcome::FAILURE)
    }
}

/// What a status among these headers says, if there is one.
fn told(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get(STATUS)?.to_str().ok();
    let code = status.and_then(|code| code.parse().ok());
    Some(judge(code.unwrap_or(UNKNOWN), || pushback(headers)))
}

fn judge(code: u8, retry_after: impl FnOnce() -> Option<Duration>) -> Outcome {
    match code {
        CANCELLED => Outcome::Ignored,
        UNKNOWN | DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED | INTERNAL | UNAVAILABLE | DATA_LOSS => {
            Outcome::Failure {
                retry_after: retry_after(),
            }
        }
        OK..=UNAUTHENTICATED => Outcome::Success,
        _ => Outcome::FAILURE,
    }
}

fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(RETRY_PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// The table of gRPC's `doc/http-grpc-status-mapping.md`.
fn code_for(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A message as gRPC encodes it: percent signs and all that is not printable ASCII.
pub(crate) fn encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                let written = write!(encoded, "%{byte:02X}");
                written.expect("a string takes what is written to it");
            }
            printable => encoded.push(char::from(printable)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        headers.iter().map(parse).collect()
    }

    fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Option<Outcome> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = map(headers);
        match GrpcClassifier.classify(Ok::<_, &()>(&response)) {
            Classified::Done(outcome) => Some(outcome),
            Classified::AtEnd(_) => None,
        }
    }

    fn end(trailers: &[(&'static str, &'static str)]) -> Outcome {
        GrpcAtEnd(()).classify_end(Ok::<_, &()>(Some(&map(trailers))))
    }

    #[test]
    fn t7_grpc_codes_by_whose_fault_they_are() {
        for success in ["0", "3", "5", "6", "7", "9", "10", "11", "12", "16"] {
            assert_eq!(end(&[(STATUS, success)]), Outcome::Success, "{success}");
        }
        for failure in [
            "2", "4", "8", "13", "14", "15", "17", "255", "256", "-1", "", "ok",
        ] {
            assert_eq!(end(&[(STATUS, failure)]), Outcome::FAILURE, "{failure}");
        }
        assert_eq!(end(&[(STATUS, "1")]), Outcome::Ignored);
        let error: Result<&Response<()>, _> = Err(&"reset");
        let judged = GrpcClassifier.classify(error);
        assert_eq!(judged.outcome(), Outcome::FAILURE);
    }

    #[test]
    fn t7_grpc_status_in_the_head_or_at_the_end() {
        assert_eq!(head(200, &[]), None, "the trailers decide");
        assert_eq!(head(200, &[(STATUS, "0")]), Some(Outcome::Success));
        assert_eq!(head(200, &[(STATUS, "14")]), Some(Outcome::FAILURE));
        assert_eq!(end(&[]), Outcome::FAILURE);
        let without = GrpcAtEnd(()).classify_end(Ok::<_, &()>(None));
        assert_eq!(without, Outcome::FAILURE);
        assert_eq!(GrpcAtEnd(()).classify_end(Err(&"reset")), Outcome::FAILURE);
    }

    #[test]
    fn t7_grpc_pushback_in_milliseconds() {
        let asking = |wait| end(&[(STATUS, "14"), (RETRY_PUSHBACK, wait)]);
        let retry_after = Some(Duration::from_millis(1500));
        assert_eq!(asking("1500"), Outcome::Failure { retry_after });
        assert_eq!(asking("-1"), Outcome::FAILURE);
        assert_eq!(asking("soon"), Outcome::FAILURE);
        let well = end(&[(STATUS, "0"), (RETRY_PUSHBACK, "1500")]);
        assert_eq!(well, Outcome::Success);
    }

    #[test]
    fn t7_grpc_behind_a_proxy_that_answers_by_itself() {
        for success in [401, 403, 404] {
            assert_eq!(head(success, &[]), Some(Outcome::Success), "{success}");
        }
        for failure in [400, 429, 500, 502, 503, 504, 302, 418] {
            assert_eq!(head(failure, &[]), Some(Outcome::FAILURE), "{failure}");
        }
        assert_eq!(head(503, &[(STATUS, "5")]), Some(Outcome::Success));
        let retry_after = Some(Duration::from_secs(7));
        let asking = head(503, &[("retry-after", "7")]);
        assert_eq!(asking, Some(Outcome::Failure { retry_after }));
    }

    #[test]
    fn t2_grpc_messages_are_percent_encoded() {
        assert_eq!(encode("as it is ~"), "as it is ~");
        assert_eq!(encode("5\u{b5}s, 3%\n"), "5%C2%B5s, 3%25%0A");
    }
}

//! Rejections as responses: `.http()` and `.grpc()`.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    error::Timeout,
    mode::{Mode, sealed},
};
use crate::{
    circuit::{Open, Permit},
    classify::{Classified, grpc},
    rejected::Rejected,
};

/// Calls are answered at once while the circuit is open: `503 Service Unavailable` with
/// `Retry-After`, and `504 Gateway Timeout` where the inner service missed its deadline. The
/// bodies are empty, and the extensions of the `503` hold [`Rejected`].
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpReply;

/// Calls are answered at once while the circuit is open: `grpc-status: 14` (unavailable) with the
/// wait in `grpc-retry-pushback-ms`, and `grpc-status: 4` (deadline exceeded) where the inner
/// service missed its deadline. The responses consist of a head alone, which is what gRPC calls
/// *trailers-only*, and the extensions of the first hold [`Rejected`].
#[derive(Debug, Default, Clone, Copy)]
pub struct GrpcReply;

impl sealed::Sealed for HttpReply {}
impl sealed::Sealed for GrpcReply {}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A response whose body is empty.
trait Reply {
    fn to_open<B: Default>(open: Open) -> Response<B>;
    fn to_timeout<B: Default>(timeout: Timeout) -> Response<B>;
}

impl Reply for HttpReply {
    fn to_open<B: Default>(open: Open) -> Response<B> {
        let mut response = rejected(open);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        if let Some(wait) = open.retry_after {
            let seconds = HeaderValue::from(round_up(wait, 1_000_000_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    fn to_timeout<B: Default>(_: Timeout) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        response
    }
}

impl Reply for GrpcReply {
    fn to_open<B: Default>(open: Open) -> Response<B> {
        let mut response = rejected(open);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC);
        put_status(headers, grpc::UNAVAILABLE, &open.to_string());
        if let Some(wait) = open.retry_after {
            // The header is read as a signed 32-bit number.
            let millis = round_up(wait, 1_000_000).min(i32::MAX as u64);
            headers.insert(grpc::RETRY_PUSHBACK, HeaderValue::from(millis));
        }
        response
    }

    fn to_timeout<B: Default>(timeout: Timeout) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.headers_mut() = status_of(&timeout);
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        response
    }
}

fn rejected<B: Default>(open: Open) -> Response<B> {
    let mut response = Response::new(B::default());
    response.extensions_mut().insert(Rejected {
        retry_after: open.retry_after,
    });
    response
}

/// In whole units, so that who comes back then does not come too early.
fn round_up(wait: Duration, nanos_per_unit: u128) -> u64 {
    let units = wait.as_nanos().div_ceil(nanos_per_unit);
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// The head or the trailers of a call that missed a deadline.
pub(super) fn status_of(timeout: &Timeout) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put_status(&mut headers, grpc::DEADLINE_EXCEEDED, &timeout.to_string());
    headers
}

fn put_status(headers: &mut HeaderMap, code: u8, message: &str) {
    headers.insert(grpc::STATUS, HeaderValue::from(u16::from(code)));
    if let Ok(message) = HeaderValue::try_from(grpc::encode(message)) {
        headers.insert(grpc::MESSAGE, message);
    }
}

/// Both differ in what they answer.
macro_rules! tell_by_response {
    ($mode:ty) => {
        impl<B: Default, E, A> Mode<Response<B>, E, A> for $mode {
            type Response = Response<B>;
            type Error = E;
            const WAITS: bool = false;

            fn inner(error: E) -> E {
                error
            }

            fn open(open: Open) -> Result<Response<B>, E> {
                Ok(Self::to_open(open))
            }

            fn timeout(timeout: Timeout) -> Result<Response<B>, E> {
                Ok(Self::to_timeout(timeout))
            }

            #[inline]
            fn settle(
                &self,
                response: Response<B>,
                judged: Classified<A>,
                permit: &mut Permit,
            ) -> Response<B> {
                permit.end(judged.outcome());
                response
            }
        }
    };
}

tell_by_response!(HttpReply);
tell_by_response!(GrpcReply);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{circuit::CircuitState, service::Deadline};

    fn open(retry_after: Option<Duration>) -> Open {
        let circuit = crate::Circuit::new(crate::CircuitBreakerConfig::default());
        circuit.force_open();
        let open = circuit.try_acquire().unwrap_err();
        assert_eq!(open.state, CircuitState::ForcedOpen);
        Open {
            retry_after,
            ..open
        }
    }

    fn header<'a>(response: &'a Response<()>, name: &str) -> Option<&'a str> {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap())
    }

    #[test]
    fn t2_waits_are_rounded_up_so_that_nobody_comes_too_early() {
        let waits = [
            (Duration::ZERO, "0", "0"),
            (Duration::from_nanos(1), "1", "1"),
            (Duration::from_millis(1500), "2", "1500"),
            (Duration::from_micros(2_000_001), "3", "2001"),
            // The gRPC header has 32 bits.
            (Duration::MAX, "18446744073709551615", "2147483647"),
        ];
        for (wait, seconds, millis) in waits {
            let http: Response<()> = HttpReply::to_open(open(Some(wait)));
            assert_eq!(header(&http, "retry-after"), Some(seconds));
            let grpc: Response<()> = GrpcReply::to_open(open(Some(wait)));
            assert_eq!(header(&grpc, "grpc-retry-pushback-ms"), Some(millis));
            for response in [http, grpc] {
                let rejected = response.extensions().get::<Rejected>().unwrap();
                assert_eq!(rejected.retry_after, Some(wait));
            }
        }
        let http: Response<()> = HttpReply::to_open(open(None));
        assert_eq!(header(&http, "retry-after"), None);
        let grpc: Response<()> = GrpcReply::to_open(open(None));
        assert_eq!(header(&grpc, "grpc-retry-pushback-ms"), None);
    }

    #[test]
    fn t2_grpc_answers_by_a_head_alone() {
        let rejected: Response<()> = GrpcReply::to_open(open(None));
        let late: Response<()> = GrpcReply::to_timeout(Timeout {
            after: Duration::from_micros(7),
            deadline: Deadline::Response,
        });
        let (unavailable, exceeded) = (
            "circuit is open (forced open) until it is reset",
            "no answer within 7%C2%B5s",
        );
        for (response, code, message) in [(rejected, "14", unavailable), (late, "4", exceeded)] {
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(&response, "content-type"), Some("application/grpc"));
            assert_eq!(header(&response, "grpc-status"), Some(code));
            assert_eq!(header(&response, "grpc-message"), Some(message));
        }
    }
}

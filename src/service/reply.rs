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
    fn open<B: Default>(open: Open) -> Response<B>;
    fn timeout<B: Default>(timeout: Timeout) -> Response<B>;
}

impl Reply for HttpReply {
    fn open<B: Default>(open: Open) -> Response<B> {
        let mut response = rejected(open);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        if let Some(wait) = open.retry_after {
            let seconds = HeaderValue::from(round_up(wait, 1_000_000_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    fn timeout<B: Default>(_: Timeout) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        response
    }
}

impl Reply for GrpcReply {
    fn open<B: Default>(open: Open) -> Response<B> {
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

    fn timeout<B: Default>(timeout: Timeout) -> Response<B> {
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
                Ok(<Self as Reply>::open(open))
            }

            fn timeout(timeout: Timeout) -> Result<Response<B>, E> {
                Ok(<Self as Reply>::timeout(timeout))
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

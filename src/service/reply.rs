//! What becomes of rejections: the modes of [`CircuitBreaker`](super::CircuitBreaker).

use super::error::{Error, Timeout};
use crate::circuit::Open;

/// How a service shows that its circuit is open. The modes are [`Wait`], [`FailFast`] and, with
/// the `http` feature, [`HttpReply`].
pub trait Mode<Res, E>: sealed::Sealed {
    /// The error of the service.
    type Error;

    /// Whether `poll_ready` is pending while calls would be rejected.
    const WAITS: bool;

    /// The inner service's own error.
    fn inner(error: E) -> Self::Error;
    /// The answer to a call that was rejected.
    fn open(open: Open) -> Result<Res, Self::Error>;
    /// The answer to a call that missed its deadline.
    fn timeout(timeout: Timeout) -> Result<Res, Self::Error>;
}

mod sealed {
    #[allow(unnameable_types)] // that is its purpose
    pub trait Sealed {}
}

/// `poll_ready` is pending while the circuit is open: for whoever steers by readiness.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wait;

/// Calls fail at once while the circuit is open.
#[derive(Debug, Default, Clone, Copy)]
pub struct FailFast;

impl sealed::Sealed for Wait {}
impl sealed::Sealed for FailFast {}

/// Both tell by the error; they differ in `poll_ready` alone.
macro_rules! tell_by_error {
    ($mode:ty, waits: $waits:literal) => {
        impl<Res, E> Mode<Res, E> for $mode {
            type Error = Error<E>;
            const WAITS: bool = $waits;

            fn inner(error: E) -> Error<E> {
                Error::Inner(error)
            }

            fn open(open: Open) -> Result<Res, Error<E>> {
                Err(Error::Open(open))
            }

            fn timeout(timeout: Timeout) -> Result<Res, Error<E>> {
                Err(Error::Timeout(timeout))
            }
        }
    };
}

tell_by_error!(Wait, waits: true);
tell_by_error!(FailFast, waits: false);

#[cfg(feature = "http")]
pub use self::http_reply::HttpReply;

#[cfg(feature = "http")]
mod http_reply {
    use http::{HeaderValue, Response, StatusCode, header};

    use super::{Mode, Open, Timeout, sealed};
    use crate::rejected::Rejected;

    /// Calls are answered at once while the circuit is open: `503 Service Unavailable` with
    /// `Retry-After`, and `504 Gateway Timeout` where the inner service missed its deadline. The
    /// bodies are empty, and the extensions of the `503` hold [`Rejected`].
    #[derive(Debug, Default, Clone, Copy)]
    pub struct HttpReply;

    impl sealed::Sealed for HttpReply {}

    impl<B: Default, E> Mode<Response<B>, E> for HttpReply {
        type Error = E;
        const WAITS: bool = false;

        fn inner(error: E) -> E {
            error
        }

        fn open(open: Open) -> Result<Response<B>, E> {
            let mut response = Response::new(B::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            if let Some(wait) = open.retry_after {
                // Whole seconds, rounded up: who comes back then must not come too early.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let seconds = HeaderValue::from(seconds);
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            response.extensions_mut().insert(Rejected {
                retry_after: open.retry_after,
            });
            Ok(response)
        }

        fn timeout(_: Timeout) -> Result<Response<B>, E> {
            let mut response = Response::new(B::default());
            *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
            Ok(response)
        }
    }
}

//! What becomes of rejections and of responses: the modes of
//! [`CircuitBreaker`](super::CircuitBreaker).

use std::{convert::Infallible, time::Duration};

use super::error::{Error, Timeout};
use crate::{
    circuit::{Open, Permit},
    classify::Classified,
};

/// How a service shows that its circuit is open, and when it settles a call.
///
/// The modes are [`Wait`] and [`FailFast`], and with the `http` feature
/// [`HttpReply`](super::HttpReply), [`GrpcReply`](super::GrpcReply), and
/// [`SettleAtEnd`](super::SettleAtEnd) with any of those. `A` is what the classifier carries from
/// the head of a response to its end.
pub trait Mode<Res, E, A = Infallible>: Clone + sealed::Sealed {
    /// The response of the service.
    type Response;
    /// The error of the service.
    type Error;

    /// Whether `poll_ready` is pending while calls would be rejected.
    const WAITS: bool;

    /// The inner service's own error.
    fn inner(error: E) -> Self::Error;
    /// The answer to a call that was rejected.
    fn open(open: Open) -> Result<Self::Response, Self::Error>;
    /// The answer to a call that missed its deadline.
    fn timeout(timeout: Timeout) -> Result<Self::Response, Self::Error>;

    /// A call begins.
    #[doc(hidden)]
    #[inline]
    fn begin(&self, permit: &mut Permit) {
        let _ = permit;
    }

    /// What a call may take in all, if that has a deadline of its own.
    #[doc(hidden)]
    #[inline]
    fn total_timeout(&self) -> Option<Duration> {
        None
    }

    /// Settles a call that has been answered, or leaves that to its response.
    #[doc(hidden)]
    fn settle(&self, response: Res, judged: Classified<A>, permit: &mut Permit) -> Self::Response;
}

pub(super) mod sealed {
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
        impl<Res, E, A> Mode<Res, E, A> for $mode {
            type Response = Res;
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

            #[inline(always)]
            fn settle(&self, response: Res, judged: Classified<A>, permit: &mut Permit) -> Res {
                permit.end(judged.outcome());
                response
            }
        }
    };
}

tell_by_error!(Wait, waits: true);
tell_by_error!(FailFast, waits: false);

//! The Tower middleware over a [`Circuit`].
//!
//! A [`CircuitBreaker`] differs from Tower's `LoadShed`, `Timeout` and `ConcurrencyLimit` in that
//! it remembers: they judge one request, it judges a dependency by all of them. It differs from a
//! retry in that it makes fewer calls when things go wrong, not more.
//!
//! The life of a request: `poll_ready` asks the circuit, then the inner service. `call` turns the
//! reservation into a [`Permit`](crate::Permit), which moves into the [`ResponseFuture`] (and on
//! into the body, where that settles the call); a [`Classify`] judges the response, once, and the
//! permit settles it, once.
//!
//! # While the circuit is open
//!
//! The inner service is neither polled nor called. What the caller sees is the mode's choice:
//!
//! | mode | while open | for |
//! |---|---|---|
//! | [`CircuitBreakerLayer::new(cfg)`](CircuitBreakerLayer::new) | `poll_ready` is pending, and woken when a probe may go or somebody changes the circuit | `Balance`, `Buffer`, `LoadShed`, `Fallback`: whoever steers by readiness |
//! | [`.fail_fast()`](CircuitBreakerLayer::fail_fast) | `call` returns [`Error::Open`] at once | clients, servers |
//! | [`.http()`](CircuitBreakerLayer::http) | `call` answers `503` with `Retry-After` at once; `504` on a timeout | axum and other HTTP servers |
//! | [`.grpc()`](CircuitBreakerLayer::grpc) | `call` answers `grpc-status: 14` with `grpc-retry-pushback-ms` at once; `4` on a timeout | tonic, on either side |
//!
//! It is never an error of `poll_ready`: that is final by Tower's contract, so `Buffer` would stay
//! dead after the dependency has recovered, and `Balance` would lose the endpoint. A server waits
//! for readiness once the request is there, so in axum, tonic or hyper the waiting mode goes under
//! a `LoadShed`, or the request waits until the circuit closes.
//!
//! # Readiness
//!
//! An instance that is ready stays ready until it is called, and then the circuit is asked again.
//! A half-open circuit has few permits, so there readiness reserves one; it comes back if the
//! instance is dropped, and lapses if it is not called within `probe_lease`. An instance that
//! became ready only because its call would be rejected does reject it, even if the circuit has
//! closed meanwhile: its inner service was not polled, so it must not be called. Clones start with
//! no readiness.
//!
//! # When a call is settled
//!
//! When its response is there; an HTTP response with its head. That says little about a stream of
//! events, a long download or a gRPC call, so [`.body()`](CircuitBreakerLayer::body) has calls in
//! any of the modes settle at the end of the body, and sets deadlines for it; [`SettleAtEnd`] tells
//! what counts as what. `.grpc()` does so by itself. Whoever doesn't ask for it pays nothing for it.

#[cfg(feature = "http")]
mod body;
mod error;
mod future;
mod layer;
mod mode;
#[cfg(feature = "http")]
mod reply;
mod reservation;

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use self::reservation::Reservation;
#[cfg(feature = "http")]
pub use self::{
    body::{BodyConfig, BodyMode, SettleAtEnd, SettledBody},
    reply::{GrpcReply, HttpReply},
};
pub use self::{
    error::{Deadline, Error, Timeout},
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    mode::{FailFast, Mode, Wait},
};
use crate::{
    circuit::{Circuit, Rejection},
    classify::{Classify, ErrorsAsFailures},
};

/// A service behind a circuit breaker, made by a [`CircuitBreakerLayer`].
///
/// # Panics
///
/// Waiting and deadlines need a Tokio runtime with its timer enabled: `poll_ready` of the waiting
/// mode panics without one when the circuit is open, and the future when its inner future is
/// pending and a `timeout` is configured.
///
/// # Cancel safety
///
/// Dropping the service gives back what `poll_ready` reserved. Dropping the future settles the
/// call as [`OnCancel`](crate::OnCancel) says.
pub struct CircuitBreaker<S, C = ErrorsAsFailures, M = Wait> {
    inner: S,
    reservation: Reservation,
    readiness: Readiness,
    classify: C,
    mode: M,
}

/// What this instance last answered in `poll_ready`.
#[derive(Debug, Clone, Copy)]
enum Readiness {
    /// Nothing, or pending.
    None,
    /// The circuit and the inner service are ready.
    Admitted,
    /// The call will be told this; the inner service was not polled.
    Rejected(Rejection),
}

impl<S, C, M> CircuitBreaker<S, C, M> {
    fn new(inner: S, circuit: Circuit, classify: C, mode: M) -> Self {
        Self {
            inner,
            reservation: Reservation::new(circuit),
            readiness: Readiness::None,
            classify,
            mode,
        }
    }

    /// The circuit that decides.
    pub fn circuit(&self) -> &Circuit {
        self.reservation.circuit()
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, M, Req> Service<Req> for CircuitBreaker<S, C, M>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    M: Mode<S::Response, S::Error, C::AtEnd>,
{
    type Response = M::Response;
    type Error = M::Error;
    type Future = ResponseFuture<S::Future, C, M>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !matches!(self.readiness, Readiness::None) {
            return Poll::Ready(Ok(()));
        }
        if M::WAITS {
            ready!(self.reservation.poll(cx));
        } else if let Err(rejection) = self.reservation.try_now() {
            self.readiness = Readiness::Rejected(rejection);
            return Poll::Ready(Ok(()));
        }
        // What is reserved is kept while the inner service is pending, until it lapses.
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) => {
                self.readiness = Readiness::Admitted;
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.reservation.fail();
                Poll::Ready(Err(M::inner(error)))
            }
        }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let (classify, mode) = (self.classify.clone(), self.mode.clone());
        let readiness = std::mem::replace(&mut self.readiness, Readiness::None);
        if let Readiness::Rejected(rejection) = readiness {
            self.circuit().count_rejection();
            return ResponseFuture::rejected(rejection, classify, mode);
        }
        // Asked again, because the circuit may have opened since `poll_ready`.
        match self.reservation.spend() {
            Ok(mut permit) => {
                mode.begin(&mut permit);
                ResponseFuture::call(|| self.inner.call(request), permit, classify, mode)
            }
            Err(rejection) => ResponseFuture::rejected(rejection, classify, mode),
        }
    }
}

impl<S: Clone, C: Clone, M: Clone> Clone for CircuitBreaker<S, C, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            reservation: self.reservation.clone(),
            // The readiness of a clone's inner service is its own matter.
            readiness: Readiness::None,
            classify: self.classify.clone(),
            mode: self.mode.clone(),
        }
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for CircuitBreaker<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("reservation", &self.reservation)
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

impl Circuit {
    /// Makes a call without Tower: the future is run if the circuit admits it, within the
    /// configured `timeout`, and its errors count as failures.
    ///
    /// ```
    /// use tower_breaker::{Circuit, CircuitBreakerConfig, Error};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let circuit = Circuit::new(CircuitBreakerConfig::default());
    /// match circuit.call(tokio::fs::read_to_string("greeting")).await {
    ///     Ok(greeting) => println!("{greeting}"),
    ///     Err(Error::Open(open)) => println!("not now: {open}"),
    ///     Err(Error::Timeout(timeout)) => println!("too late: {timeout}"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The returned future needs a Tokio runtime with its timer enabled if a `timeout` is
    /// configured and `future` is pending.
    pub fn call<F, T, E>(&self, future: F) -> ResponseFuture<F, ErrorsAsFailures, FailFast>
    where
        F: Future<Output = Result<T, E>>,
    {
        match self.acquire(&mut None) {
            Ok(permit) => ResponseFuture::call(|| future, permit, ErrorsAsFailures, FailFast),
            Err(rejection) => ResponseFuture::rejected(rejection, ErrorsAsFailures, FailFast),
        }
    }
}

//! The first service that is available answers.
//!
//! [`Fallback`] is a chain of services that can answer the same request: a primary and its
//! backups, in order of preference. A call goes to the first that can take it, and on to the next
//! where it fails.
//!
//! How it differs from its neighbours in `tower`: `retry` sends the request to the same service
//! again; `steer` picks a service by the request, and is ready only when all of them are;
//! `balance` spreads load over equals. A fallback has an order, takes the first link that is
//! *ready*, and looks further only where that link fails. So it goes well with
//! circuit breakers: an open circuit is a link that isn't ready, and costs the request nothing.
//!
//! ```
//! use tower::{BoxError, Service, ServiceExt, service_fn};
//! use tower_breaker::fallback::Fallback;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let primary = service_fn(async |_: &'static str| Err::<String, BoxError>("out of order".into()));
//! let backup = service_fn(async |name: &'static str| Ok::<_, BoxError>(format!("hello, {name}")));
//!
//! let mut service = Fallback::new(primary).or(backup);
//! let answer = service.ready().await?.call("world").await?;
//! assert_eq!(answer, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! All links answer with the same type. Beside a circuit breaker with
//! [`.body()`](crate::CircuitBreakerLayer::body) or `.grpc()`, whose responses have bodies of another
//! type, the bodies of the others are mapped into one, or all of them boxed. Errors convert into that
//! of the first link.
//!
//! # Which link
//!
//! `poll_ready` looks at the links in order and settles on the first that is ready. The call goes
//! to that very instance. On the way,
//!
//! * a link whose [`Probe`] says that it is unavailable is skipped. A link that answers for an open
//!   circuit, instead of being Pending while it is open, needs a probe to be skipped: it is always
//!   ready. Without one it is called, and its rejection is a failed attempt like any other;
//! * a link that is Pending is *busy*. It is skipped at once, or waited for as long as
//!   [`patience`](Fallback::patience) says, counted from when it was first found busy. That is
//!   while another link is available, which a later link is unless its probe says no or it was
//!   found busy too: later links aren't polled for this, because that could reserve what nobody
//!   would use. With no other link available, the wait is for whichever is ready first.
//!   A circuit breaker that waits is busy in this sense while its circuit is open; with `patience`,
//!   give its link [`Circuit::probe`](crate::Circuit::probe), so that it is skipped at once;
//! * a link whose `poll_ready` returns an error has failed. It is skipped, and the next request
//!   meets a fresh clone of it. If all links have failed so, `poll_ready` returns the last error.
//!
//! With no link available, `poll_ready` is Pending while any can still become ready, and every one
//! that is Pending wakes it. That includes those that their probes rule out: a circuit breaker that
//! waits is Pending until its circuit lets it go. A timer wakes it for the others, if their probes
//! know the wait. If none is Pending at all, because every link answers for its own circuit,
//! `poll_ready` is Ready and the call returns [`Unavailable`] with the shortest known wait: nobody
//! would wake the task. With [`fail_fast`](Fallback::fail_fast) it does so in either case.
//!
//! What a busy link holds, a place in a semaphore's queue for example, is given back as soon as
//! another link is chosen: the link is replaced with a clone of itself, and clones of a service
//! hold no reservation.
//!
//! # What happens next
//!
//! The [`Policy`] says whether the result is a failure; by default, any error is. After a failure
//! the later links are asked in order, by probe and then by readiness, and the next one that is
//! ready gets the request. A busy one is waited for as long as `patience` says, by default not at
//! all. If none is left, the last result is the answer, be it an error or a response: nothing waits
//! for a circuit with an answer in hand.
//!
//! The request is cloned, and so are the links, only if another link could still need it: not for
//! the last link, nor when all later ones are ruled out by their probes. See
//! [`clone_request`](Fallback::clone_request) for requests that can't be cloned.
//!
//! What became of each link can be read from the error ([`FallbackError::attempts`]), and from
//! responses with [`record`](Fallback::record) or, for HTTP, in their extensions with `.http()`.
//!
//! # Without readiness
//!
//! A call without `poll_ready` before it doesn't panic: its future asks the links in order, as after
//! a failure, and returns [`Unavailable`] if none is ready.
//!
//! # Panics
//!
//! Timers are tokio's. One is set only to wait for a busy link, with `patience` or beside a link
//! whose probe knows its wait; then it takes a tokio runtime with its time driver enabled.

mod attempts;
mod error;
mod future;
mod layer;
mod links;
mod policy;
mod select;
mod service;
mod timer;

#[cfg(feature = "http")]
pub use self::policy::{HttpFailures, InExtensions};
#[cfg(feature = "models")]
pub(crate) use self::select::UNAVAILABLE;
pub use self::{
    attempts::{Attempt, AttemptOutcome, Attempts},
    error::{Failed, FallbackError, Unavailable},
    future::ResponseFuture,
    layer::FallbackLayer,
    links::{Chain, ChainFuture, Link, Links, NoProbe, Probe},
    policy::{AnyError, ByClone, CloneRequest, NoRecord, Policy, Record},
    service::Fallback,
};

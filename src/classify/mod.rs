//! What a response says about the health of its dependency.
//!
//! A circuit counts outcomes, not errors: an HTTP `500` is an `Ok` response of the client, a
//! `404` is a healthy answer, and an error may be the caller's own. A [`Classify`] decides.
//!
//! | classifier | failures |
//! |---|---|
//! | [`ErrorsAsFailures`], the default | every error |
//! | [`HttpClassifier`], that of `.http()` | errors, `5xx`, `408` and `429`; heeds `Retry-After` |
//! | [`GrpcClassifier`], that of `.grpc()` | errors, and statuses that speak of the server's health; heeds `grpc-retry-pushback-ms` |
//! | [`TowerHttp`] | what one of tower-http's classifiers says |
//! | a closure | what you say |
//!
//! ```
//! use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, Outcome};
//!
//! # struct Reply { degraded: bool }
//! let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default())
//!     .classify(|result: Result<&Reply, &std::io::Error>| match result {
//!         Ok(reply) if !reply.degraded => Outcome::Success,
//!         _ => Outcome::FAILURE,
//!     });
//! ```
//!
//! What can only be told at the end of a response's body is judged there, by a [`ClassifyEnd`].

use std::convert::Infallible;

use crate::circuit::Outcome;

#[cfg(feature = "http")]
mod end;
#[cfg(feature = "http")]
pub(crate) mod grpc;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower-http")]
mod tower_http;

#[cfg(feature = "models")]
pub(crate) use self::http::retry_after;
#[cfg(feature = "tower-http")]
pub use self::tower_http::{TowerHttp, TowerHttpAtEnd};
#[cfg(feature = "http")]
pub use self::{
    end::ClassifyEnd,
    grpc::{GrpcAtEnd, GrpcClassifier},
    http::HttpClassifier,
};

/// Decides what a finished call says about its dependency.
///
/// Closures from `Result<&Res, &E>` to an [`Outcome`] are classifiers.
pub trait Classify<Res, E> {
    /// What is carried from the head of a response to its end, where that decides.
    type AtEnd;

    /// Judges the result of a call. If it panics, the call counts as a failure.
    fn classify(&self, result: Result<&Res, &E>) -> Classified<Self::AtEnd>;
}

/// What a [`Classify`] made of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classified<T = Infallible> {
    /// The outcome is known.
    Done(Outcome),
    /// The end of the response's body decides, by way of a `ClassifyEnd`. Where nobody watches the
    /// body, the head was well, and the call counts as a success.
    AtEnd(T),
}

impl<T> Classified<T> {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Done(outcome) => outcome,
            Self::AtEnd(_) => Outcome::Success,
        }
    }
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> Outcome,
{
    type AtEnd = Infallible;

    fn classify(&self, result: Result<&Res, &E>) -> Classified {
        Classified::Done(self(result))
    }
}

/// Every error is a failure, every response a success.
#[derive(Debug, Default, Clone, Copy)]
pub struct ErrorsAsFailures;

impl<Res, E> Classify<Res, E> for ErrorsAsFailures {
    type AtEnd = Infallible;

    fn classify(&self, result: Result<&Res, &E>) -> Classified {
        Classified::Done(match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::FAILURE,
        })
    }
}

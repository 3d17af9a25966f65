//! What a call through a circuit breaker can end in besides its response.

use std::{fmt, time::Duration};

use crate::{BoxError, circuit::Open};

/// A call was rejected, missed its deadline, or failed by itself.
///
/// It converts into [`BoxError`] whenever `E` does, each case boxed as what it is, so that one
/// can downcast to [`Open`] or [`Timeout`] without naming `E`. For that it can't be a
/// [`std::error::Error`] itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// The circuit is open: the inner service was not called.
    Open(Open),
    /// The inner service was called and missed the circuit's `timeout`.
    Timeout(Timeout),
    /// The inner service's own error.
    Inner(E),
}

impl<E> Error<E> {
    /// Whether the call was rejected because the circuit was open.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Whether the call missed the circuit's `timeout`.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// The inner service's own error, if it is that.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Open(_) | Self::Timeout(_) => None,
        }
    }
}

/// So that services with a circuit breaker and services without go into one chain of fallbacks.
impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::Inner(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Timeout(timeout) => timeout.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: Into<BoxError>> From<Error<E>> for BoxError {
    fn from(error: Error<E>) -> Self {
        match error {
            Error::Open(open) => open.into(),
            Error::Timeout(timeout) => timeout.into(),
            Error::Inner(error) => error.into(),
        }
    }
}

/// A call missed one of its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeout {
    /// How long the call had for it.
    pub after: Duration,
    /// Which of the deadlines it was.
    pub deadline: Deadline,
}

/// The deadlines that a call can miss. All but the first are those of a
/// [`BodyConfig`](super::BodyConfig).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// The circuit's `timeout`: from the call to its response.
    Response,
    /// From the head of the response to the first that there is of its body.
    FirstByte,
    /// From one piece of the body to the next.
    Idle,
    /// From the call to the end of the body.
    Total,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after;
        match self.deadline {
            Deadline::Response => write!(f, "no answer within {after:?}"),
            Deadline::FirstByte => write!(f, "nothing of the body within {after:?}"),
            Deadline::Idle => write!(f, "nothing more of the body for {after:?}"),
            Deadline::Total => write!(f, "not at its end within {after:?}"),
        }
    }
}

impl std::error::Error for Timeout {}

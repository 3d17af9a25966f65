//! What a call told about the health of its dependency.

use std::time::Duration;

/// How a call ended, as the circuit sees it.
///
/// It speaks of the dependency's health, not of the caller's luck: a `404` is a success of the
/// service that answered it, and a request that was never meant for it is [`Ignored`](Self::Ignored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The dependency did its work. It ends a run of failures.
    Success,
    /// The dependency failed.
    Failure {
        /// How long the dependency asked to be left alone, say in a `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// The call says nothing about the dependency. It gives its permit back and moves nothing
    /// but its own counter.
    Ignored,
}

impl Outcome {
    /// A failure that came without a wish for when to be called again.
    pub const FAILURE: Self = Self::Failure { retry_after: None };
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Answered,
    TimedOut,
    Cancelled,
}

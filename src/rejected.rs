//! The mark of a response that no service was asked for.

use std::time::Duration;

/// In the extensions of an HTTP response that a circuit breaker gave in place of its service,
/// which it did not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// When to try again, if that is known.
    pub retry_after: Option<Duration>,
}

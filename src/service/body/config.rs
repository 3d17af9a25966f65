//! [`BodyConfig`].

use std::time::Duration;

/// The deadlines of a response's body, and what of it is looked at; for
/// [`CircuitBreakerLayer::body`](crate::CircuitBreakerLayer::body).
///
/// With the body watched, the circuit's `timeout` (default: 45 s) ends at the head of the response;
/// the deadlines here are for the rest, and all of them are off by default. A call that misses one
/// is a failure, counted among the timed out, and its body ends with a [`Timeout`](crate::Timeout)
/// (with [`.grpc()`](crate::CircuitBreakerLayer::grpc), in trailers with `grpc-status: 4`).
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, service::BodyConfig};
///
/// let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default()).http().body(
///     BodyConfig::new()
///         .first_byte_timeout(Duration::from_secs(20))
///         .idle_timeout(Duration::from_secs(5))
///         .total_timeout(Duration::from_secs(300)),
/// );
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct BodyConfig {
    pub(super) first_byte_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) total_timeout: Option<Duration>,
    pub(super) slow_by_end: bool,
}

impl BodyConfig {
    /// No deadlines; whether a call is slow is a matter of its head.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the body may be silent before its first frame, from when it is first asked for it;
    /// default: the [`idle_timeout`](Self::idle_timeout).
    pub fn first_byte_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.first_byte_timeout = timeout.into();
        self
    }

    /// How long the body may be silent, from when it is asked for its next frame; default: for
    /// ever.
    ///
    /// A probe whose body is not silent for so long keeps its half-open turn from ending by
    /// `half_open_timeout`.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// How long a call may take to the end of its body, from the call; default: for ever. It
    /// bounds the time to the head too.
    ///
    /// Where bodies can go on for ever, it also bounds a half-open turn whose probe streams.
    pub fn total_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.total_timeout = timeout.into();
        self
    }

    /// Whether the time that counts for `slow_call_duration` and for latencies is that to the end
    /// of the body; default: false, it is that to the head of the response.
    pub fn slow_call_includes_body(mut self, includes: bool) -> Self {
        self.slow_by_end = includes;
        self
    }
}

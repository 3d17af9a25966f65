//! The names of the states, and of the reasons to leave them.

use std::fmt;

/// The state of a circuit. *Open always means rejecting.*
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
pub enum CircuitState {
    /// Calls go through, and their outcomes are watched.
    Closed,
    /// Calls are rejected until the reset timeout has passed.
    Open,
    /// A few calls go through as probes; they decide whether to close or to re-open.
    HalfOpen,
    /// Calls are rejected until someone resets the circuit.
    ForcedOpen,
    /// Calls go through whatever their outcomes, which are still recorded.
    Disabled,
}

impl CircuitState {
    /// The name that JSON, metrics and logs use: `CLOSED`, `OPEN`, `HALF_OPEN`, `FORCED_OPEN`
    /// or `DISABLED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
            Self::ForcedOpen => "FORCED_OPEN",
            Self::Disabled => "DISABLED",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a circuit opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
#[non_exhaustive]
pub enum TripReason {
    /// `failure_threshold` failures in a row.
    ConsecutiveFailures,
    /// The share of failures in the window reached `error_threshold_percentage`.
    ErrorRate,
    /// The share of slow calls in the window reached `slow_call_percentage`.
    SlowCalls,
    /// The dependency asked to be left alone, and the configuration heeds that at once.
    RetryAfter,
    /// So many probes failed that the rest could no longer close the circuit.
    ProbeFailed,
    /// The probes did not decide within `half_open_timeout`.
    HalfOpenTimeout,
    /// Somebody forced the circuit open.
    Forced,
}

impl TripReason {
    /// The name that JSON and metrics use, such as `CONSECUTIVE_FAILURES`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "CONSECUTIVE_FAILURES",
            Self::ErrorRate => "ERROR_RATE",
            Self::SlowCalls => "SLOW_CALLS",
            Self::RetryAfter => "RETRY_AFTER",
            Self::ProbeFailed => "PROBE_FAILED",
            Self::HalfOpenTimeout => "HALF_OPEN_TIMEOUT",
            Self::Forced => "FORCED",
        }
    }
}

impl fmt::Display for TripReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveFailures => "too many failures in a row",
            Self::ErrorRate => "too high a share of failures",
            Self::SlowCalls => "too high a share of slow calls",
            Self::RetryAfter => "the dependency asked to be left alone",
            Self::ProbeFailed => "a probe failed",
            Self::HalfOpenTimeout => "the probes did not decide in time",
            Self::Forced => "forced open",
        })
    }
}

//! One consistent look at a circuit.

use std::time::{Duration, SystemTime};

use super::state::{CircuitState, TripReason};

/// What a circuit has seen, all taken at one moment.
///
/// Totals are of the circuit's whole life and only go up; rates are the window's. These add up:
/// `total = successful + failed + ignored + in_flight`. Rejected calls stand apart; timed-out
/// ones are among the failed; cancelled ones are among the ignored or the failed.
///
/// As JSON the names are in camel case, times of day are RFC 3339 and durations milliseconds.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct CircuitBreakerMetrics {
    /// Calls that were admitted. Absent with [`Record::Rules`](super::Record::Rules).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub total_requests: Option<u64>,
    /// Calls that succeeded. Absent with [`Record::Rules`](super::Record::Rules).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub successful_requests: Option<u64>,
    /// Calls that failed.
    pub failed_requests: u64,
    /// Calls that said nothing about the dependency.
    pub ignored_requests: u64,
    /// Calls that were refused because the circuit was open.
    pub rejected_requests: u64,
    /// Calls that were dropped before their outcome was known.
    pub cancelled_requests: u64,
    /// Calls that missed their deadline.
    pub timed_out_requests: u64,
    /// Calls that took `slow_call_duration` or longer; absent where that is not configured.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub slow_requests: Option<u64>,
    /// Calls that are admitted and not yet settled. Absent with
    /// [`Record::Rules`](super::Record::Rules).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub in_flight: Option<u64>,
    /// When a call last succeeded.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::optional_date::serialize")
    )]
    pub last_success_time: Option<SystemTime>,
    /// When a call last failed.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::optional_date::serialize")
    )]
    pub last_failure_time: Option<SystemTime>,
    /// The state. A change that is due by time shows once a call has brought it about.
    pub current_state: CircuitState,
    /// Whether a call would be admitted, as [`Circuit::is_available`](super::Circuit::is_available)
    /// says.
    pub available: bool,
    /// When that state began.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::date::serialize")
    )]
    pub state_changed_at: SystemTime,
    /// Failed share of the calls in the window, from 0 to 1; 0 of none. Absent if no window is
    /// kept: with [`Record::Rules`](super::Record::Rules) and no `error_threshold_percentage`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error_rate: Option<f64>,
    /// Slow share of the calls in the window, from 0 to 1; absent where no call can be slow.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub slow_rate: Option<f64>,
    /// While the circuit rejects: when to try again. 0 once a probe is due.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::optional_wait::serialize")
    )]
    pub retry_after: Option<Duration>,
    /// While the circuit is open: when the first probe is due. `retry_after` as a time of day.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::optional_date::serialize")
    )]
    pub next_probe_at: Option<SystemTime>,
    /// How long calls took, from admission to settlement, over the circuit's life. Absent before
    /// the first one has settled, with [`Record::Rules`](super::Record::Rules), and without the
    /// `latency` feature.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub latency: Option<Latency>,
    /// Why the circuit opened; absent once it has closed.
    pub trip_reason: Option<TripReason>,
    /// How often the circuit opened.
    pub opened_total: u64,
    /// How often probes closed it.
    pub recoveries_total: u64,
    /// How often probes failed to, and it opened again.
    pub failed_recoveries_total: u64,
}

/// Percentiles of latencies, at most 3 % too high, and the longest. As JSON in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Latency {
    /// Half of the calls took no longer.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::milliseconds::serialize")
    )]
    pub p50: Duration,
    /// 90 % of the calls took no longer.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::milliseconds::serialize")
    )]
    pub p90: Duration,
    /// 99 % of the calls took no longer.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::milliseconds::serialize")
    )]
    pub p99: Duration,
    /// No call took longer.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::milliseconds::serialize")
    )]
    pub max: Duration,
}

//! Setting the fields, and checking them.

use std::{fmt, time::Duration};

use super::{CircuitBreakerConfig, ConfigError, OnCancel, Record, RetryAfterPolicy};
use crate::circuit::{backoff::ResetBackoff, window::MAX_SIZE};

/// Builds a [`CircuitBreakerConfig`].
///
/// Three rules can open a circuit, and any of them does: a run of failures, the error rate, and
/// the share of slow calls.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerConfigBuilder {
    pub(in crate::circuit) config: CircuitBreakerConfig,
}

impl CircuitBreakerConfigBuilder {
    /// Opens the circuit after this many failures in a row, however long that takes. A success
    /// ends the run, an ignored outcome leaves it alone. Default: 3; `None`: never.
    pub fn failure_threshold(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.config.failure_threshold = failures.into();
        self
    }

    /// Opens the circuit when at least this percentage of the calls in the window failed.
    /// Default: 60; `None`: never.
    pub fn error_threshold_percentage(mut self, percentage: impl Into<Option<u8>>) -> Self {
        self.config.error_threshold_percentage = percentage.into();
        self
    }

    /// How many settled calls the window must hold before a percentage is looked at.
    /// Default: 5.
    pub fn volume_threshold(mut self, calls: u32) -> Self {
        self.config.volume_threshold = calls;
        self
    }

    /// The length of the sliding window over which percentages are taken. It slides in 30
    /// steps. Default: 300 s.
    pub fn monitoring_period(mut self, period: Duration) -> Self {
        self.config.monitoring_period = period;
        self
    }

    /// Takes percentages over the last so many settled calls, in place of a time. The window slides
    /// with each call. From 1 to 1,048,576. Default: `None`, the last
    /// [`monitoring_period`](Self::monitoring_period).
    pub fn window(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.config.window = calls.into();
        self
    }

    /// How long the circuit stays open before the first probe. Default: 120 s.
    pub fn reset_timeout(mut self, timeout: Duration) -> Self {
        self.config.reset_timeout = timeout;
        self
    }

    /// How many probes a half-open circuit lets through. Default: 2.
    pub fn half_open_requests(mut self, probes: u32) -> Self {
        self.config.half_open_requests = probes;
        self
    }

    /// How many of the probes must succeed to close the circuit. It re-opens as soon as that
    /// can't be reached any more. Default: all of them.
    pub fn half_open_success_threshold(mut self, successes: impl Into<Option<u32>>) -> Self {
        self.config.half_open_success_threshold = successes.into();
        self
    }

    /// A half-open circuit that has not decided by then opens again, so that a probe that hangs
    /// can't hold it. Default: 60 s.
    pub fn half_open_timeout(mut self, timeout: Duration) -> Self {
        self.config.half_open_timeout = timeout;
        self
    }

    /// The deadline of one call. A call that misses it counts as a failure. Default: 45 s;
    /// `None`: no deadline.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.timeout = timeout.into();
        self
    }

    /// A call that takes at least so long is slow, whatever its outcome, and counts as slow from that
    /// moment on, while it is still running: with this set, the rules are looked at when a call is
    /// admitted too, so that a dependency that hangs is noticed before its calls end. (To within
    /// 1/510 of this time.) A slow probe is a failed probe. Default: none.
    pub fn slow_call_duration(mut self, duration: impl Into<Option<Duration>>) -> Self {
        self.config.slow_call_duration = duration.into();
        self
    }

    /// Opens the circuit when at least this percentage of the calls in the window were slow.
    /// It needs [`slow_call_duration`](Self::slow_call_duration). Default: none.
    pub fn slow_call_percentage(mut self, percentage: impl Into<Option<u8>>) -> Self {
        self.config.slow_call_percentage = percentage.into();
        self
    }

    /// What a failure's `retry_after` does. Default: [`RetryAfterPolicy::Extend`].
    pub fn retry_after(mut self, policy: RetryAfterPolicy) -> Self {
        self.config.retry_after = policy;
        self
    }

    /// The longest `retry_after` that is heeded; a longer one counts as this. Default: 10 min.
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.config.retry_after_cap = cap;
        self
    }

    /// What becomes of a call that is dropped before its outcome is known. Default:
    /// [`OnCancel::Ignore`].
    pub fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.config.on_cancel = on_cancel;
        self
    }

    /// How long a service that is ready to probe may keep its place before it is called; then
    /// another may have it. Default: 1 s.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.config.probe_lease = lease;
        self
    }

    /// How `reset_timeout` grows while probes keep failing. Default: `None`, not at all.
    pub fn reset_backoff(mut self, backoff: impl Into<Option<ResetBackoff>>) -> Self {
        self.config.reset_backoff = backoff.into();
        self
    }

    /// For so long after its probes have closed it, the circuit admits a share of the calls only,
    /// which rises from nothing to all; the first call is admitted in any case. Default: `None`, all
    /// at once.
    pub fn recovery_ramp(mut self, ramp: impl Into<Option<Duration>>) -> Self {
        self.config.recovery_ramp = ramp.into();
        self
    }

    /// How much is recorded for the metrics. Default: [`Record::All`].
    pub fn record(mut self, record: Record) -> Self {
        self.config.record = record;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    ///
    /// Names the first field that is out of its range.
    pub fn build(self) -> Result<CircuitBreakerConfig, ConfigError> {
        let config = self.config;
        at_least_one("failure_threshold", config.failure_threshold)?;
        percentage(
            "error_threshold_percentage",
            config.error_threshold_percentage,
        )?;
        at_least_one("volume_threshold", Some(config.volume_threshold))?;
        positive("monitoring_period", Some(config.monitoring_period))?;
        if let Some(calls) = config.window {
            let allowed = (1..=MAX_SIZE).contains(&calls);
            ConfigError::unless(allowed, "window", calls, || format!("from 1 to {MAX_SIZE}"))?;
            let volume = config.volume_threshold;
            ConfigError::unless(volume <= calls, "volume_threshold", volume, || {
                format!("from 1 to window, which is {calls}")
            })?;
        }
        positive("reset_timeout", Some(config.reset_timeout))?;
        at_least_one("half_open_requests", Some(config.half_open_requests))?;
        let successes = config.half_open_success_threshold();
        if successes == 0 || successes > config.half_open_requests {
            return Err(ConfigError {
                field: "half_open_success_threshold",
                value: successes.to_string(),
                allowed: format!(
                    "from 1 to half_open_requests, which is {}",
                    config.half_open_requests
                ),
            });
        }
        positive("half_open_timeout", Some(config.half_open_timeout))?;
        positive("timeout", config.timeout)?;
        positive("slow_call_duration", config.slow_call_duration)?;
        percentage("slow_call_percentage", config.slow_call_percentage)?;
        if let (Some(percentage), None) = (config.slow_call_percentage, config.slow_call_duration) {
            return Err(ConfigError {
                field: "slow_call_percentage",
                value: percentage.to_string(),
                allowed: "unset while slow_call_duration is".to_owned(),
            });
        }
        positive("retry_after_cap", Some(config.retry_after_cap))?;
        positive("probe_lease", Some(config.probe_lease))?;
        positive("recovery_ramp", config.recovery_ramp)?;
        if let Some(backoff) = config.reset_backoff {
            backoff.check(config.reset_timeout)?;
        }
        Ok(config)
    }
}

fn at_least_one(field: &'static str, value: Option<u32>) -> Result<(), ConfigError> {
    check(field, value, |value| *value >= 1, "at least 1")
}

fn percentage(field: &'static str, value: Option<u8>) -> Result<(), ConfigError> {
    check(
        field,
        value,
        |value| (1..=100).contains(value),
        "from 1 to 100",
    )
}

fn positive(field: &'static str, value: Option<Duration>) -> Result<(), ConfigError> {
    let value = value.map(Shown);
    check(field, value, |value| !value.0.is_zero(), "longer than 0s")
}

fn check<T: fmt::Display>(
    field: &'static str,
    value: Option<T>,
    allowed: impl Fn(&T) -> bool,
    range: &str,
) -> Result<(), ConfigError> {
    match value {
        Some(value) if !allowed(&value) => Err(ConfigError {
            field,
            value: value.to_string(),
            allowed: range.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A duration, displayed.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

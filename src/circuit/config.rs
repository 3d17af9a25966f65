//! When a circuit opens, for how long, and what closes it again.
//!
//! A [`CircuitBreakerConfig`] is checked once, in [`build`](CircuitBreakerConfigBuilder::build),
//! so that nothing can be wrong with it at call time. The defaults suit a remote model or a
//! similar slow and dear dependency; a fast internal service wants shorter times.

use std::{fmt, time::Duration};

#[cfg(feature = "serde")]
use super::wire;
use super::{backoff::ResetBackoff, window::MAX_SIZE};

/// The configuration of a circuit.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::CircuitBreakerConfig;
///
/// let config = CircuitBreakerConfig::builder()
///     .failure_threshold(5)
///     .reset_timeout(Duration::from_secs(30))
///     .error_threshold_percentage(None)
///     .build()?;
/// assert_eq!(config.failure_threshold(), Some(5));
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
///
/// With the `serde` feature it reads `reset_timeout = "2m"` as well as
/// `{"resetTimeout": 120000}`: both spellings of the names, and durations as text or as whole
/// milliseconds. It is written in the second style. An unknown field is an error.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        remote = "Self",
        default,
        deny_unknown_fields,
        rename_all = "camelCase"
    )
)]
pub struct CircuitBreakerConfig {
    #[cfg_attr(feature = "serde", serde(alias = "failure_threshold"))]
    pub(super) failure_threshold: Option<u32>,
    #[cfg_attr(feature = "serde", serde(alias = "error_threshold_percentage"))]
    pub(super) error_threshold_percentage: Option<u8>,
    #[cfg_attr(feature = "serde", serde(alias = "volume_threshold"))]
    pub(super) volume_threshold: u32,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "monitoring_period", with = "wire::duration")
    )]
    pub(super) monitoring_period: Duration,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "reset_timeout", with = "wire::duration")
    )]
    pub(super) reset_timeout: Duration,
    #[cfg_attr(feature = "serde", serde(alias = "half_open_requests"))]
    pub(super) half_open_requests: u32,
    /// `None`: as many as `half_open_requests`.
    #[cfg_attr(feature = "serde", serde(alias = "half_open_success_threshold"))]
    pub(super) half_open_success_threshold: Option<u32>,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "half_open_timeout", with = "wire::duration")
    )]
    pub(super) half_open_timeout: Duration,
    #[cfg_attr(feature = "serde", serde(with = "wire::optional_duration"))]
    pub(super) timeout: Option<Duration>,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "slow_call_duration", with = "wire::optional_duration")
    )]
    pub(super) slow_call_duration: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(alias = "slow_call_percentage"))]
    pub(super) slow_call_percentage: Option<u8>,
    #[cfg_attr(feature = "serde", serde(alias = "retry_after"))]
    pub(super) retry_after: RetryAfterPolicy,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "retry_after_cap", with = "wire::duration")
    )]
    pub(super) retry_after_cap: Duration,
    #[cfg_attr(feature = "serde", serde(alias = "on_cancel"))]
    pub(super) on_cancel: OnCancel,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "probe_lease", with = "wire::duration")
    )]
    pub(super) probe_lease: Duration,
    pub(super) record: Record,
    /// `None`: the last `monitoring_period`.
    pub(super) window: Option<u32>,
    #[cfg_attr(feature = "serde", serde(alias = "reset_backoff"))]
    pub(super) reset_backoff: Option<ResetBackoff>,
}

/// What a circuit does with a failure that says for how long to stay away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub enum RetryAfterPolicy {
    /// Nothing.
    Ignore,
    /// When the circuit opens, it stays open at least until the time for which any failure since it
    /// closed has asked.
    #[default]
    Extend,
    /// The circuit opens at once, for that time, from half-open too: the dependency asked to be left
    /// alone.
    Open,
}

/// What a call pays for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub enum Record {
    /// Every figure of [`CircuitBreakerMetrics`](super::CircuitBreakerMetrics). It takes two
    /// readings of the clock per call.
    #[default]
    All,
    /// Only what the rules need. Figures that are not kept are absent.
    Rules,
}

/// What becomes of a call that is dropped before its outcome is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub enum OnCancel {
    /// It is ignored. Mind that a dependency that hangs behind a deadline of the *caller's* is
    /// then never seen to fail: each of its calls is dropped before it has an outcome.
    #[default]
    Ignore,
    /// It counts as a failure if it had run at least so long, else it is ignored.
    #[cfg_attr(feature = "serde", serde(with = "wire::duration"))]
    FailAfter(Duration),
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: Some(3),
            error_threshold_percentage: Some(60),
            volume_threshold: 5,
            monitoring_period: Duration::from_secs(300),
            reset_timeout: Duration::from_secs(120),
            half_open_requests: 2,
            half_open_success_threshold: None,
            half_open_timeout: Duration::from_secs(60),
            timeout: Some(Duration::from_secs(45)),
            slow_call_duration: None,
            slow_call_percentage: None,
            retry_after: RetryAfterPolicy::Extend,
            retry_after_cap: Duration::from_secs(600),
            on_cancel: OnCancel::Ignore,
            probe_lease: Duration::from_secs(1),
            record: Record::All,
            window: None,
            reset_backoff: None,
        }
    }
}

impl CircuitBreakerConfig {
    /// Begins with the defaults.
    pub fn builder() -> CircuitBreakerConfigBuilder {
        CircuitBreakerConfigBuilder {
            config: Self::default(),
        }
    }

    /// Begins with this configuration, to change some of it.
    pub fn to_builder(&self) -> CircuitBreakerConfigBuilder {
        CircuitBreakerConfigBuilder {
            config: self.clone(),
        }
    }

    /// See [`CircuitBreakerConfigBuilder::failure_threshold`].
    pub fn failure_threshold(&self) -> Option<u32> {
        self.failure_threshold
    }

    /// See [`CircuitBreakerConfigBuilder::error_threshold_percentage`].
    pub fn error_threshold_percentage(&self) -> Option<u8> {
        self.error_threshold_percentage
    }

    /// See [`CircuitBreakerConfigBuilder::volume_threshold`].
    pub fn volume_threshold(&self) -> u32 {
        self.volume_threshold
    }

    /// See [`CircuitBreakerConfigBuilder::monitoring_period`].
    pub fn monitoring_period(&self) -> Duration {
        self.monitoring_period
    }

    /// See [`CircuitBreakerConfigBuilder::reset_timeout`].
    pub fn reset_timeout(&self) -> Duration {
        self.reset_timeout
    }

    /// See [`CircuitBreakerConfigBuilder::half_open_requests`].
    pub fn half_open_requests(&self) -> u32 {
        self.half_open_requests
    }

    /// See [`CircuitBreakerConfigBuilder::half_open_success_threshold`].
    pub fn half_open_success_threshold(&self) -> u32 {
        self.half_open_success_threshold
            .unwrap_or(self.half_open_requests)
    }

    /// See [`CircuitBreakerConfigBuilder::half_open_timeout`].
    pub fn half_open_timeout(&self) -> Duration {
        self.half_open_timeout
    }

    /// See [`CircuitBreakerConfigBuilder::timeout`].
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// See [`CircuitBreakerConfigBuilder::slow_call_duration`].
    pub fn slow_call_duration(&self) -> Option<Duration> {
        self.slow_call_duration
    }

    /// See [`CircuitBreakerConfigBuilder::slow_call_percentage`].
    pub fn slow_call_percentage(&self) -> Option<u8> {
        self.slow_call_percentage
    }

    /// See [`CircuitBreakerConfigBuilder::retry_after`].
    pub fn retry_after(&self) -> RetryAfterPolicy {
        self.retry_after
    }

    /// See [`CircuitBreakerConfigBuilder::retry_after_cap`].
    pub fn retry_after_cap(&self) -> Duration {
        self.retry_after_cap
    }

    /// See [`CircuitBreakerConfigBuilder::on_cancel`].
    pub fn on_cancel(&self) -> OnCancel {
        self.on_cancel
    }

    /// See [`CircuitBreakerConfigBuilder::probe_lease`].
    pub fn probe_lease(&self) -> Duration {
        self.probe_lease
    }

    /// See [`CircuitBreakerConfigBuilder::window`].
    pub fn window(&self) -> Option<u32> {
        self.window
    }

    /// See [`CircuitBreakerConfigBuilder::reset_backoff`].
    pub fn reset_backoff(&self) -> Option<ResetBackoff> {
        self.reset_backoff
    }

    /// See [`CircuitBreakerConfigBuilder::record`].
    pub fn record(&self) -> Record {
        self.record
    }
}

/// Builds a [`CircuitBreakerConfig`].
///
/// Three rules can open a circuit, and any of them does: a run of failures, the error rate, and
/// the share of slow calls.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerConfigBuilder {
    pub(super) config: CircuitBreakerConfig,
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

    /// The length of the sliding window over which percentages are taken. It slides in 300
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

    /// A call that takes at least so long is slow, whatever its outcome. A slow probe is a failed
    /// probe. Default: none.
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

/// A field of a configuration is out of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    allowed: String,
}

impl ConfigError {
    pub(super) fn unless(
        allowed: bool,
        field: &'static str,
        value: impl ToString,
        range: impl FnOnce() -> String,
    ) -> Result<(), Self> {
        if allowed {
            return Ok(());
        }
        Err(Self {
            field,
            value: value.to_string(),
            allowed: range(),
        })
    }

    /// The field, as the builder's method is called.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that was refused.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values that are allowed, in words.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, but has to be {}",
            self.field, self.value, self.allowed
        )
    }
}

impl std::error::Error for ConfigError {}

//! When a circuit opens, for how long, and what closes it again.
//!
//! A [`CircuitBreakerConfig`] is checked once, in [`build`](CircuitBreakerConfigBuilder::build),
//! so that nothing can be wrong with it at call time. The defaults suit a remote model or a
//! similar slow and dear dependency; a fast internal service wants shorter times.

mod builder;
mod error;

use std::time::Duration;

pub use self::{builder::CircuitBreakerConfigBuilder, error::ConfigError};
use super::backoff::ResetBackoff;
#[cfg(feature = "serde")]
use super::wire;

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
    #[cfg_attr(
        feature = "serde",
        serde(alias = "failure_threshold", deserialize_with = "wire::optional_count")
    )]
    pub(super) failure_threshold: Option<u32>,
    #[cfg_attr(
        feature = "serde",
        serde(
            alias = "error_threshold_percentage",
            deserialize_with = "wire::optional_percentage"
        )
    )]
    pub(super) error_threshold_percentage: Option<u8>,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "volume_threshold", deserialize_with = "wire::count")
    )]
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
    #[cfg_attr(
        feature = "serde",
        serde(alias = "half_open_requests", deserialize_with = "wire::count")
    )]
    pub(super) half_open_requests: u32,
    /// `None`: as many as `half_open_requests`.
    #[cfg_attr(
        feature = "serde",
        serde(
            alias = "half_open_success_threshold",
            deserialize_with = "wire::optional_count"
        )
    )]
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
    #[cfg_attr(
        feature = "serde",
        serde(
            alias = "slow_call_percentage",
            deserialize_with = "wire::optional_percentage"
        )
    )]
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
    #[cfg_attr(feature = "serde", serde(deserialize_with = "wire::optional_count"))]
    pub(super) window: Option<u32>,
    #[cfg_attr(feature = "serde", serde(alias = "reset_backoff"))]
    pub(super) reset_backoff: Option<ResetBackoff>,
    #[cfg_attr(
        feature = "serde",
        serde(alias = "recovery_ramp", with = "wire::optional_duration")
    )]
    pub(super) recovery_ramp: Option<Duration>,
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
    #[cfg_attr(
        feature = "serde",
        serde(alias = "fail_after", with = "wire::duration")
    )]
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
            recovery_ramp: None,
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

    /// See [`CircuitBreakerConfigBuilder::recovery_ramp`].
    pub fn recovery_ramp(&self) -> Option<Duration> {
        self.recovery_ramp
    }

    /// See [`CircuitBreakerConfigBuilder::record`].
    pub fn record(&self) -> Record {
        self.record
    }
}

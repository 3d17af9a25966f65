//! How long to stay open: longer each time, where probes keep failing.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::config::{CircuitBreakerConfig, ConfigError};

/// How `reset_timeout` grows over openings with no closing between them.
///
/// The first opening lasts `reset_timeout`, the n-th `reset_timeout * multiplier^(n - 1)`, up to a
/// cap. Jitter then takes off a random part, so that many clients of one dependency don't come back
/// at the same moment; it never makes a wait longer. (Exponential backoff with jitter, as in Marc
/// Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{CircuitBreakerConfig, ResetBackoff};
///
/// let config = CircuitBreakerConfig::builder()
///     .reset_timeout(Duration::from_secs(5))
///     .reset_backoff(ResetBackoff::new(2.0).cap(Duration::from_secs(300)).jitter(0.2))
///     .build()?;
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "camelCase")
)]
pub struct ResetBackoff {
    multiplier: f64,
    #[cfg_attr(feature = "serde", serde(with = "super::wire::duration"))]
    cap: Duration,
    jitter: f64,
}

impl Default for ResetBackoff {
    /// Doubles up to ten minutes, without jitter.
    fn default() -> Self {
        Self::new(2.0)
    }
}

impl ResetBackoff {
    /// Multiplies each wait by `multiplier`, at least 1, up to ten minutes and without jitter.
    pub fn new(multiplier: f64) -> Self {
        Self {
            multiplier,
            cap: Duration::from_secs(600),
            jitter: 0.0,
        }
    }

    /// The longest wait. Default: 10 min.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// The largest part of a wait that is taken off at random, from 0 to 1. Default: 0.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    pub(super) fn check(&self, reset_timeout: Duration) -> Result<(), ConfigError> {
        let multiplier = self.multiplier.is_finite() && self.multiplier >= 1.0;
        ConfigError::unless(
            multiplier,
            "reset_backoff.multiplier",
            self.multiplier,
            || "at least 1".to_owned(),
        )?;
        let jitter = (0.0..=1.0).contains(&self.jitter);
        ConfigError::unless(jitter, "reset_backoff.jitter", self.jitter, || {
            "from 0 to 1".to_owned()
        })?;
        let cap = self.cap >= reset_timeout;
        ConfigError::unless(cap, "reset_backoff.cap", format!("{:?}", self.cap), || {
            format!("at least reset_timeout, which is {reset_timeout:?}")
        })
    }
}

/// How long a circuit stays open that has opened `before` times since it last closed.
pub(super) fn wait(config: &CircuitBreakerConfig, before: u32) -> Duration {
    let Some(backoff) = config.reset_backoff else {
        return config.reset_timeout;
    };
    // In floating point, where too large is infinite and so the cap.
    let exponent = i32::try_from(before).unwrap_or(i32::MAX);
    let grown = config.reset_timeout.as_secs_f64() * backoff.multiplier.powi(exponent);
    let longest = grown.min(backoff.cap.as_secs_f64());
    let wait = longest * (1.0 - backoff.jitter * random());
    Duration::try_from_secs_f64(wait).unwrap_or(backoff.cap)
}

/// From 0 to 1. Std seeds its hash maps at random, which is as much as jitter asks for.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(());
    // The upper 53 bits, as many as a float holds.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: ResetBackoff) -> Vec<f64> {
        let config = CircuitBreakerConfig::builder()
            .reset_timeout(Duration::from_secs(10))
            .reset_backoff(backoff)
            .build()
            .unwrap();
        let waits = [0, 1, 2, 3, 1000, u32::MAX].map(|before| wait(&config, before));
        waits.map(|wait| wait.as_secs_f64()).to_vec()
    }

    #[test]
    fn b1_the_wait_grows_up_to_its_cap() {
        let backoff = ResetBackoff::new(2.0).cap(Duration::from_secs(60));
        assert_eq!(waits(backoff), [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]);
        assert_eq!(waits(ResetBackoff::new(1.0)), [10.0; 6]);
    }

    #[test]
    fn b1_jitter_takes_off_at_most_its_part() {
        let backoff = ResetBackoff::new(1.0).jitter(0.5);
        let mut seen: Vec<_> = (0..100).flat_map(|_| waits(backoff)).collect();
        assert!(seen.iter().all(|wait| (5.0..=10.0).contains(wait)));
        seen.sort_by(f64::total_cmp);
        assert!(seen[0] < 6.0 && seen[599] > 9.0, "it is spread out");
    }

    #[test]
    fn b1_what_is_out_of_range_is_named() {
        let refused = |backoff| {
            let config = CircuitBreakerConfig::builder()
                .reset_backoff(backoff)
                .build();
            config.unwrap_err().to_string()
        };
        for multiplier in [0.5, f64::NAN, f64::INFINITY] {
            let message = refused(ResetBackoff::new(multiplier));
            assert!(
                message.starts_with("reset_backoff.multiplier is "),
                "{message}"
            );
        }
        assert_eq!(
            refused(ResetBackoff::new(2.0).jitter(1.5)),
            "reset_backoff.jitter is 1.5, but has to be from 0 to 1"
        );
        assert_eq!(
            refused(ResetBackoff::new(2.0).cap(Duration::from_secs(60))),
            "reset_backoff.cap is 60s, but has to be at least reset_timeout, which is 120s"
        );
    }
}

//! What others see.

use std::time::Duration;

use super::{Machine, Phase};
use crate::circuit::{
    clock::nanos,
    hot::Hot,
    state::{CircuitState, TripReason},
    window::{Counts, Sums},
};

/// What the metrics show of the machine.
#[derive(Debug)]
pub(in crate::circuit) struct Snapshot {
    pub(in crate::circuit) available: bool,
    /// When a probe is due, while the circuit is open.
    pub(in crate::circuit) due: Option<u64>,
    /// What the windows hold, and what the window of time has ever counted.
    pub(in crate::circuit) errors: Counts,
    pub(in crate::circuit) slow: Counts,
    pub(in crate::circuit) lifetime: Sums,
    pub(in crate::circuit) opened: u64,
    pub(in crate::circuit) recoveries: u64,
    pub(in crate::circuit) failed_recoveries: u64,
    pub(in crate::circuit) state: CircuitState,
    pub(in crate::circuit) since: u64,
    pub(in crate::circuit) reason: Option<TripReason>,
    pub(in crate::circuit) retry_after: Option<Duration>,
}

impl Machine {
    #[inline(always)]
    pub(in crate::circuit) fn snapshot(&mut self, hot: &Hot, now: u64) -> Snapshot {
        let [errors, slow] = self.counts(hot, now);
        let lifetime = self.lifetime(hot);
        Snapshot {
            available: self.is_available(now),
            due: matches!(self.phase, Phase::Open { .. }).then(|| self.until()),
            errors,
            slow,
            lifetime,
            opened: self.opened,
            recoveries: self.recoveries,
            failed_recoveries: self.failed_recoveries,
            state: self.state(),
            since: self.since,
            reason: self.reason,
            retry_after: self.retry_after(now),
        }
    }

    /// How long a rejected caller should stay away, if that is known. While probes are out their
    /// outcome is due at any moment, so then it is the shorter of what is left of the turn and
    /// `probe_lease`.
    pub(in crate::circuit) fn retry_after(&self, now: u64) -> Option<Duration> {
        let wait = match &self.phase {
            Phase::Open { until } => until.saturating_sub(now),
            Phase::Closed(Some(ramp)) if !ramp.would_admit(now) => ramp.ends - now,
            Phase::HalfOpen(turn) if now >= turn.ends || turn.free(&self.config, now) == 0 => turn
                .ends
                .saturating_sub(now)
                .min(nanos(self.config.probe_lease)),
            Phase::Closed(_) | Phase::HalfOpen(_) | Phase::ForcedOpen | Phase::Disabled => {
                return None;
            }
        };
        Some(Duration::from_nanos(wait))
    }
}

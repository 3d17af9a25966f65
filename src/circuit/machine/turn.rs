//! A half-open turn: so many probes, and who has them.

use crate::circuit::{config::CircuitBreakerConfig, waiters::WaiterId};

/// One half-open turn. `leases + running + successes + failures` never exceeds
/// `half_open_requests`.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) ends: u64,
    /// Permits that ready services keep for calls to come.
    pub(super) leases: Vec<Lease>,
    /// Probes in flight.
    pub(super) running: u32,
    pub(super) successes: u32,
    pub(super) failures: u32,
}

/// A half-open permit that is reserved for a call to come, until it lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(super) id: WaiterId,
    pub(super) until: u64,
}

impl Turn {
    /// Permits to be had at `now`.
    pub(super) fn free(&self, config: &CircuitBreakerConfig, now: u64) -> u32 {
        let leased = self.leases.iter().filter(|lease| now < lease.until).count();
        let taken = self.running + self.successes + self.failures;
        let left = config.half_open_requests.saturating_sub(taken);
        left.saturating_sub(u32::try_from(leased).unwrap_or(u32::MAX))
    }

    /// When, by time alone, a permit may come free.
    pub(super) fn next_change(&self) -> u64 {
        let lapses = self.leases.iter().map(|lease| lease.until);
        lapses.fold(self.ends, u64::min)
    }
}

/// Ends a lease. False if it has lapsed, or is of another time.
pub(super) fn take(leases: &mut Vec<Lease>, lease: Lease) -> bool {
    let held = leases.iter().position(|held| *held == lease);
    held.map(|held| leases.swap_remove(held)).is_some()
}

//! Closed, but not yet to all calls: `recovery_ramp`.
//!
//! The share of calls that is admitted rises from nothing to all in proportion to the time since the
//! circuit closed. Each call that asks adds the share to a credit, and is admitted where that makes
//! one. So the calls that are admitted are spread evenly, as many as the share says; and the first
//! one is always among them, because the circuit closes with a credit of one: where calls are rare
//! the ramp is hardly felt.

use super::turn::{self, Lease};
use crate::circuit::{clock::nanos, config::CircuitBreakerConfig};

/// How often at most one who waits asks during the ramp: half of these are answered with a call, and
/// a minute's ramp has it wake once a second.
const ASKS: u64 = 64;

#[derive(Debug)]
pub(super) struct Ramp {
    begins: u64,
    pub(super) ends: u64,
    /// In parts of one call of which there are as many as nanoseconds in the ramp.
    credit: u64,
    /// What ready services keep for calls to come.
    pub(super) leases: Vec<Lease>,
}

impl Ramp {
    /// The one of a circuit that recovers now, if it is to have one.
    pub(super) fn of(config: &CircuitBreakerConfig, now: u64) -> Option<Self> {
        let mut ramp = Self {
            begins: now,
            ends: now,
            credit: 0,
            leases: Vec::new(),
        };
        ramp.lengthen(nanos(config.recovery_ramp?));
        Some(ramp)
    }

    /// Sets how long it takes in all.
    pub(super) fn lengthen(&mut self, all: u64) {
        self.ends = self.begins.saturating_add(all);
        self.credit = self.all();
    }

    /// What makes one call.
    fn all(&self) -> u64 {
        self.ends - self.begins
    }

    /// The share of calls that is admitted.
    fn share(&self, now: u64) -> u64 {
        now.saturating_sub(self.begins).min(self.all())
    }

    pub(super) fn would_admit(&self, now: u64) -> bool {
        now >= self.ends || self.credit.saturating_add(self.share(now)) >= self.all()
    }

    /// A call asks.
    pub(super) fn admit(&mut self, now: u64) -> bool {
        let credit = self.credit.saturating_add(self.share(now));
        let left = credit.checked_sub(self.all());
        self.credit = left.unwrap_or(credit);
        left.is_some()
    }

    /// When one who waits, instead of being turned away, is to ask once more. Each time counts as a
    /// call that asks, so that whoever waits gets its share as well.
    pub(super) fn asks_again(&self, now: u64) -> u64 {
        let next = now.saturating_add((self.all() / ASKS).max(1));
        next.min(self.ends)
    }

    /// A call that was admitted does not come.
    pub(super) fn give_back(&mut self, lease: Lease) -> bool {
        let taken = turn::take(&mut self.leases, lease);
        if taken {
            self.credit = self.credit.saturating_add(self.all());
        }
        taken
    }
}

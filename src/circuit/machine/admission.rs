//! Who may call: admission, reservation, and what time brings about on the way.

use super::{
    Machine, Phase, Ticket,
    turn::{Lease, Turn},
};
use crate::circuit::{clock::nanos, config::CircuitBreakerConfig, permit::Open, state::TripReason};

/// No call is admitted, and by time alone that changes then.
#[derive(Debug, Clone, Copy)]
pub(in crate::circuit) struct Unavailable {
    pub(in crate::circuit) changes_at: Option<u64>,
}

impl Machine {
    /// Admits a call, which may have reserved a permit before, or counts a rejection.
    pub(in crate::circuit) fn admit(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        lease: Option<Lease>,
    ) -> Result<Ticket, Open> {
        let ticket = self.take_permit(config, now, lease);
        ticket.ok_or_else(|| self.reject(config, now))
    }

    pub(super) fn take_permit(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        lease: Option<Lease>,
    ) -> Option<Ticket> {
        self.expire(config, now);
        let free = self.free_permits(config, now);
        let admitted = match &mut self.phase {
            Phase::Closed | Phase::Disabled => true,
            Phase::Open { .. } | Phase::ForcedOpen => false,
            Phase::HalfOpen(turn) => {
                let spent = lease.is_some_and(|lease| turn.take(lease));
                let admitted = spent || free > 0;
                turn.running += u32::from(admitted);
                admitted
            }
        };
        admitted.then(|| {
            self.totals.in_flight += 1;
            Ticket {
                generation: self.generation,
                started: now,
            }
        })
    }

    /// Counts a rejection, and says for how long.
    pub(in crate::circuit) fn reject(&mut self, config: &CircuitBreakerConfig, now: u64) -> Open {
        self.totals.rejected += 1;
        let wait = self.retry_after(config, now).unwrap_or_default();
        Open {
            retry_after: (!matches!(self.phase, Phase::ForcedOpen)).then_some(wait),
            state: self.state(),
            reason: self.reason,
        }
    }

    /// Asks for a call to come. Where permits are scarce one is reserved, or `held` is kept;
    /// `Err` means that none is to be had.
    pub(in crate::circuit) fn reserve(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        held: Option<Lease>,
    ) -> Result<Option<Lease>, Unavailable> {
        self.expire(config, now);
        let free = self.free_permits(config, now);
        match &mut self.phase {
            Phase::Closed | Phase::Disabled => Ok(None),
            Phase::Open { until } => Err(Unavailable {
                changes_at: Some(*until),
            }),
            Phase::ForcedOpen => Err(Unavailable { changes_at: None }),
            Phase::HalfOpen(turn) => {
                if let Some(held) = held
                    && turn.leases.contains(&held)
                {
                    return Ok(Some(held));
                }
                if free == 0 {
                    return Err(Unavailable {
                        changes_at: Some(turn.next_change()),
                    });
                }
                let lease = Lease {
                    id: self.waiters.next_id(),
                    until: now.saturating_add(nanos(config.probe_lease)),
                };
                turn.leases.push(lease);
                Ok(Some(lease))
            }
        }
    }

    /// Gives back a permit that was reserved and not used.
    pub(in crate::circuit) fn release(&mut self, lease: Lease) {
        if let Phase::HalfOpen(turn) = &mut self.phase
            && turn.take(lease)
        {
            self.wake_all();
        }
    }

    /// Whether a call would be admitted now. It changes nothing.
    pub(in crate::circuit) fn is_available(&self, config: &CircuitBreakerConfig, now: u64) -> bool {
        match &self.phase {
            Phase::Closed | Phase::Disabled => true,
            Phase::Open { until } => now >= *until,
            Phase::ForcedOpen => false,
            // Past its end the turn is over, and only a call can bring that about.
            Phase::HalfOpen(turn) => now >= turn.ends || turn.free(config, now) > 0,
        }
    }

    /// Makes happen what is due by time.
    fn expire(&mut self, config: &CircuitBreakerConfig, now: u64) {
        match &mut self.phase {
            Phase::Open { until } if now >= *until => {
                let turn = Turn {
                    ends: now.saturating_add(nanos(config.half_open_timeout)),
                    leases: Vec::new(),
                    running: 0,
                    successes: 0,
                    failures: 0,
                };
                self.change(Phase::HalfOpen(turn), None, now);
            }
            Phase::HalfOpen(turn) if now >= turn.ends => {
                self.reopen(config, now, TripReason::HalfOpenTimeout);
            }
            Phase::HalfOpen(turn) => {
                // Whoever waits for one of these has a timer for it.
                turn.leases.retain(|lease| now < lease.until);
            }
            Phase::Closed | Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
    }

    fn free_permits(&self, config: &CircuitBreakerConfig, now: u64) -> u32 {
        match &self.phase {
            Phase::HalfOpen(turn) => turn.free(config, now),
            _ => 0,
        }
    }
}

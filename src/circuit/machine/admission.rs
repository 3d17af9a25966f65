//! Who may call: admission, reservation, and what time brings about on the way.

use super::{
    Machine, Phase,
    turn::{self, Lease, Turn},
};
use crate::circuit::{
    clock::{NEVER, nanos},
    hot::Hot,
    permit::Rejection,
    state::TripReason,
    tallies::Tallies,
    word::Word,
};

/// No call is admitted, and by time alone that changes then.
#[derive(Debug, Clone, Copy)]
pub(in crate::circuit) struct Unavailable {
    pub(in crate::circuit) changes_at: Option<u64>,
}

impl Machine {
    /// Admits a call, which may have reserved a permit before, or counts a rejection.
    pub(in crate::circuit) fn admit(
        &mut self,
        hot: &Hot,
        now: u64,
        lease: Option<Lease>,
    ) -> Result<Word, Rejection> {
        let ticket = self.take_permit(hot, now, lease);
        ticket.ok_or_else(|| self.reject(hot, now))
    }

    pub(in crate::circuit) fn take_permit(
        &mut self,
        hot: &Hot,
        now: u64,
        lease: Option<Lease>,
    ) -> Option<Word> {
        self.expire(hot, now);
        let free = self.free_permits(now);
        let spends = |leases: &mut Vec<Lease>| lease.is_some_and(|lease| turn::take(leases, lease));
        let admitted = match &mut self.phase {
            Phase::Closed(None) | Phase::Disabled => true,
            Phase::Closed(Some(ramp)) => spends(&mut ramp.leases) || ramp.admit(now),
            Phase::Open { .. } | Phase::ForcedOpen => false,
            Phase::HalfOpen(turn) => {
                let admitted = spends(&mut turn.leases) || free > 0;
                turn.running += u32::from(admitted);
                admitted
            }
        };
        admitted.then(|| hot.word().carried())
    }

    /// Counts a rejection, and says for how long.
    pub(in crate::circuit) fn reject(&mut self, hot: &Hot, now: u64) -> Rejection {
        Tallies::count(&hot.tallies.rejected);
        self.rejection(hot, now)
    }

    /// What a caller is told that is rejected now.
    pub(in crate::circuit) fn rejection(&self, hot: &Hot, now: u64) -> Rejection {
        let wait = match self.phase {
            Phase::ForcedOpen => NEVER,
            _ => self.retry_after(now).map_or(0, nanos),
        };
        Rejection::new(hot.word(), wait)
    }

    /// Asks for a call to come. Where permits are scarce one is reserved, or `held` is kept;
    /// `Err` means that none is to be had.
    pub(in crate::circuit) fn reserve(
        &mut self,
        hot: &Hot,
        now: u64,
        held: Option<Lease>,
    ) -> Result<Option<Lease>, Unavailable> {
        self.expire(hot, now);
        let free = self.free_permits(now);
        let (waiters, lease) = (&mut self.waiters, nanos(self.config.probe_lease));
        let mut lease_until = |until| Lease {
            id: waiters.next_id(),
            until,
        };
        match &mut self.phase {
            Phase::Closed(None) | Phase::Disabled => Ok(None),
            Phase::Closed(Some(ramp)) => {
                if let Some(held) = held
                    && ramp.leases.contains(&held)
                {
                    return Ok(Some(held));
                }
                if !ramp.admit(now) {
                    return Err(Unavailable {
                        changes_at: Some(ramp.asks_again(now)),
                    });
                }
                // Nobody else goes short, so it need not lapse.
                let lease = lease_until(NEVER);
                ramp.leases.push(lease);
                Ok(Some(lease))
            }
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
                let lease = lease_until(now.saturating_add(lease));
                turn.leases.push(lease);
                Ok(Some(lease))
            }
        }
    }

    /// Gives back a permit that was reserved and not used.
    pub(in crate::circuit) fn release(&mut self, lease: Lease) {
        let came_back = match &mut self.phase {
            Phase::HalfOpen(turn) => turn::take(&mut turn.leases, lease),
            Phase::Closed(Some(ramp)) => ramp.give_back(lease),
            _ => false,
        };
        if came_back {
            self.wake_all();
        }
    }

    /// A probe of the half-open turn `word` will show another sign of life within so long. A turn that
    /// has ended by now is not prolonged.
    #[cfg(feature = "http")]
    pub(in crate::circuit) fn keep_turn(&mut self, now: u64, word: Word, due: u64) {
        if let Phase::HalfOpen(turn) = &mut self.phase
            && self.generation == word.generation()
            && now < turn.ends
        {
            turn.ends = turn.ends.max(now.saturating_add(due));
        }
    }

    /// Whether a call would be admitted now. It changes nothing.
    pub(in crate::circuit) fn is_available(&self, now: u64) -> bool {
        match &self.phase {
            Phase::Closed(None) | Phase::Disabled => true,
            Phase::Closed(Some(ramp)) => ramp.would_admit(now),
            Phase::Open { until } => now >= *until,
            Phase::ForcedOpen => false,
            // Past its end the turn is over, and only a call can bring that about.
            Phase::HalfOpen(turn) => now >= turn.ends || turn.free(&self.config, now) > 0,
        }
    }

    /// Makes happen what is due by time.
    pub(super) fn expire(&mut self, hot: &Hot, now: u64) {
        match &mut self.phase {
            Phase::Open { until } if now >= *until => {
                let turn = Turn {
                    ends: now.saturating_add(nanos(self.config.half_open_timeout)),
                    leases: Vec::new(),
                    running: 0,
                    successes: 0,
                    failures: 0,
                };
                self.change(hot, Phase::HalfOpen(Box::new(turn)), None, now);
            }
            Phase::HalfOpen(turn) if now >= turn.ends => {
                self.reopen(hot, now, TripReason::HalfOpenTimeout);
            }
            Phase::HalfOpen(turn) => {
                // Whoever waits for one of these has a timer for it.
                turn.leases.retain(|lease| now < lease.until);
            }
            Phase::Closed(Some(ramp)) if now >= ramp.ends => {
                self.phase = Phase::Closed(None);
                hot.publish(self.word(), self.until());
                self.wake_all();
            }
            Phase::Closed(_) | Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
    }

    fn free_permits(&self, now: u64) -> u32 {
        match &self.phase {
            Phase::HalfOpen(turn) => turn.free(&self.config, now),
            _ => 0,
        }
    }
}

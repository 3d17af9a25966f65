//! The transitions: a state machine that is told the time and waits for nobody.
//!
//! ```text
//!            a rule trips                  reset_timeout has passed
//!   CLOSED ----------------> OPEN <------------------------------> HALF_OPEN
//!     ^                            enough probes failed, or time out    |
//!     +-----------------------------------------------------------------+
//!                          enough probes succeeded
//! ```
//!
//! Every state is a *generation*, and a call carries the one that admitted it. What settles in a
//! later generation counts in the lifetime totals and moves nothing else. What is due by time
//! happens at the first admission after it is due, so that nothing has to run meanwhile.
//!
//! The machine is plain data. [`Circuit`](super::Circuit) keeps it behind a lock and, once that
//! is released, wakes and tells whomever the machine noted down in `wake` and `transitions`.

use std::{collections::VecDeque, task::Waker, time::Duration};

use super::{
    clock::nanos,
    config::{CircuitBreakerConfig, RetryAfterPolicy},
    outcome::Outcome,
    permit::Open,
    state::{CircuitState, TripReason},
    waiters::{WaiterId, Waiters},
    window::{Counts, TimeWindow},
};

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    generation: u64,
    /// When the present state began.
    since: u64,
    reason: Option<TripReason>,
    /// Failures in a row.
    run: u32,
    window: TimeWindow,
    totals: Totals,
    waiters: Waiters,
    /// Whom to wake, and what to tell, once the lock is released.
    wake: Vec<Waker>,
    transitions: VecDeque<Transition>,
    /// Somebody is delivering `transitions`; whoever adds to them meanwhile need not.
    delivering: bool,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: u64 },
    HalfOpen(Turn),
    ForcedOpen,
    Disabled,
}

/// One half-open turn. `leases + running + successes + failures` never exceeds
/// `half_open_requests`.
#[derive(Debug)]
struct Turn {
    ends: u64,
    /// Permits that ready services keep for calls to come.
    leases: Vec<Lease>,
    /// Probes in flight.
    running: u32,
    successes: u32,
    failures: u32,
}

/// A half-open permit that is reserved for a call to come, until it lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    generation: u64,
    id: WaiterId,
    until: u64,
}

/// An admitted call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) started: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settlement {
    pub(super) outcome: Outcome,
    pub(super) cause: Cause,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Answered,
    TimedOut,
    Cancelled,
}

/// What only ever goes up, but for `in_flight`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    pub(super) successful: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    pub(super) rejected: u64,
    pub(super) cancelled: u64,
    pub(super) timed_out: u64,
    pub(super) slow: u64,
    pub(super) in_flight: u64,
    pub(super) opened: u64,
    pub(super) recoveries: u64,
    pub(super) failed_recoveries: u64,
    pub(super) last_success: Option<u64>,
    pub(super) last_failure: Option<u64>,
}

/// A change of state, as it happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transition {
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) reason: Option<TripReason>,
    pub(super) at: u64,
    pub(super) generation: u64,
}

/// What the metrics show of the machine.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) totals: Totals,
    pub(super) window: Counts,
    pub(super) state: CircuitState,
    pub(super) since: u64,
    pub(super) reason: Option<TripReason>,
    pub(super) retry_after: Option<Duration>,
}

impl Machine {
    pub(super) fn new(config: &CircuitBreakerConfig) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            since: 0,
            reason: None,
            run: 0,
            window: TimeWindow::new(nanos(config.monitoring_period)),
            totals: Totals::default(),
            waiters: Waiters::default(),
            wake: Vec::new(),
            transitions: VecDeque::new(),
            delivering: false,
        }
    }

    // ===== admission =====

    /// Admits a call, which may have reserved a permit before, or counts a rejection.
    pub(super) fn admit(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        lease: Option<Lease>,
    ) -> Result<Ticket, Open> {
        self.expire(config, now);
        let free = self.free_permits(config, now);
        let admitted = match &mut self.phase {
            Phase::Closed | Phase::Disabled => true,
            Phase::Open { .. } | Phase::ForcedOpen => false,
            Phase::HalfOpen(turn) => {
                let spent = lease.is_some_and(|lease| turn.take(lease, self.generation));
                let admitted = spent || free > 0;
                turn.running += u32::from(admitted);
                admitted
            }
        };
        if !admitted {
            return Err(self.reject(config, now));
        }
        self.totals.in_flight += 1;
        Ok(Ticket {
            generation: self.generation,
            started: now,
        })
    }

    /// Counts a rejection, and says for how long.
    pub(super) fn reject(&mut self, config: &CircuitBreakerConfig, now: u64) -> Open {
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
    pub(super) fn reserve(
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
                    generation: self.generation,
                    id: self.waiters.next_id(),
                    until: now.saturating_add(nanos(config.probe_lease)),
                };
                turn.leases.push(lease);
                Ok(Some(lease))
            }
        }
    }

    /// Gives back a permit that was reserved and not used.
    pub(super) fn release(&mut self, lease: Lease) {
        if let Phase::HalfOpen(turn) = &mut self.phase
            && turn.take(lease, self.generation)
        {
            self.wake_all();
        }
    }

    /// Whether a call would be admitted now. It changes nothing.
    pub(super) fn is_available(&self, config: &CircuitBreakerConfig, now: u64) -> bool {
        match &self.phase {
            Phase::Closed | Phase::Disabled => true,
            Phase::Open { until } => now >= *until,
            Phase::ForcedOpen => false,
            Phase::HalfOpen(turn) => now < turn.ends && turn.free(config, now) > 0,
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
                self.reopen(config, now, TripReason::HalfOpenTimeout, None);
            }
            Phase::HalfOpen(turn) => {
                let held = turn.leases.len();
                turn.leases.retain(|lease| now < lease.until);
                if turn.leases.len() < held {
                    self.wake_all();
                }
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

    // ===== settlement =====

    /// Counts how a call ended, and draws the consequences.
    pub(super) fn settle(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        ticket: Ticket,
        settlement: Settlement,
    ) {
        let Settlement { outcome, cause } = settlement;
        let ran = now.saturating_sub(ticket.started);
        let slow = outcome != Outcome::Ignored
            && config
                .slow_call_duration
                .is_some_and(|slow| ran >= nanos(slow));

        let totals = &mut self.totals;
        totals.in_flight -= 1;
        totals.cancelled += u64::from(cause == Cause::Cancelled);
        totals.timed_out += u64::from(cause == Cause::TimedOut);
        totals.slow += u64::from(slow);
        match outcome {
            Outcome::Success => totals.successful += 1,
            Outcome::Failure { .. } => totals.failed += 1,
            Outcome::Ignored => totals.ignored += 1,
        }
        if ticket.generation != self.generation {
            return; // Too late to say anything about the present state.
        }
        match outcome {
            Outcome::Success => totals.last_success = Some(now),
            Outcome::Failure { .. } => totals.last_failure = Some(now),
            Outcome::Ignored => {}
        }
        match &self.phase {
            Phase::Closed => self.settle_closed(config, now, outcome, slow),
            Phase::HalfOpen(_) => self.settle_probe(config, now, outcome, slow),
            Phase::Disabled => self.record(now, outcome, slow),
            // Nothing is admitted in these, so nothing can settle in their generations.
            Phase::Open { .. } | Phase::ForcedOpen => {}
        }
    }

    fn record(&mut self, now: u64, outcome: Outcome, slow: bool) {
        let (success, failure) = match outcome {
            Outcome::Success => (1, 0),
            Outcome::Failure { .. } => (0, 1),
            Outcome::Ignored => return,
        };
        self.run = if success == 1 {
            0
        } else {
            self.run.saturating_add(1)
        };
        let counts = Counts {
            successes: success,
            failures: failure,
            slow: u64::from(slow),
        };
        self.window.record(now, counts);
    }

    fn settle_closed(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        outcome: Outcome,
        slow: bool,
    ) {
        if outcome == Outcome::Ignored {
            return;
        }
        self.record(now, outcome, slow);
        let asked = asked_wait(config, outcome);
        if let Some(reason) = self.broken_rule(config, now) {
            self.trip(config, now, reason, asked);
        } else if config.retry_after == RetryAfterPolicy::Open
            && let Some(asked) = asked
        {
            let until = now.saturating_add(asked);
            self.open(until, TripReason::RetryAfter, now);
        }
    }

    /// The first rule that says open. A run outranks the rates, because it is the plainest news.
    fn broken_rule(&mut self, config: &CircuitBreakerConfig, now: u64) -> Option<TripReason> {
        if config
            .failure_threshold
            .is_some_and(|most| self.run >= most)
        {
            return Some(TripReason::ConsecutiveFailures);
        }
        let counts = self.window.counts(now);
        if counts.settled() < u64::from(config.volume_threshold) {
            return None;
        }
        let reached = |part: u64, percentage: Option<u8>| {
            percentage.is_some_and(|least| {
                u128::from(part) * 100 >= u128::from(least) * u128::from(counts.settled())
            })
        };
        if reached(counts.failures, config.error_threshold_percentage) {
            Some(TripReason::ErrorRate)
        } else if reached(counts.slow, config.slow_call_percentage) {
            Some(TripReason::SlowCalls)
        } else {
            None
        }
    }

    fn settle_probe(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        outcome: Outcome,
        slow: bool,
    ) {
        let Phase::HalfOpen(turn) = &mut self.phase else {
            return;
        };
        turn.running -= 1;
        match outcome {
            Outcome::Ignored => return self.wake_all(),
            Outcome::Success if !slow => turn.successes += 1,
            Outcome::Success | Outcome::Failure { .. } => turn.failures += 1,
        }
        let needed = config.half_open_success_threshold();
        if turn.successes >= needed {
            self.totals.recoveries += 1;
            self.close(now);
        } else if turn.failures > config.half_open_requests - needed {
            self.reopen(
                config,
                now,
                TripReason::ProbeFailed,
                asked_wait(config, outcome),
            );
        }
    }

    // ===== transitions =====

    fn trip(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        reason: TripReason,
        asked: Option<u64>,
    ) {
        let wait = nanos(config.reset_timeout).max(asked.unwrap_or(0));
        self.open(now.saturating_add(wait), reason, now);
    }

    fn reopen(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        reason: TripReason,
        asked: Option<u64>,
    ) {
        self.totals.failed_recoveries += 1;
        self.trip(config, now, reason, asked);
    }

    fn open(&mut self, until: u64, reason: TripReason, now: u64) {
        self.totals.opened += 1;
        self.change(Phase::Open { until }, Some(reason), now);
    }

    fn close(&mut self, now: u64) {
        self.clear();
        self.change(Phase::Closed, None, now);
    }

    fn clear(&mut self) {
        self.window.clear();
        self.run = 0;
    }

    /// Rejects everything until `reset` or `disable`.
    pub(super) fn force_open(&mut self, now: u64) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.totals.opened += 1;
            self.change(Phase::ForcedOpen, Some(TripReason::Forced), now);
        }
    }

    /// Admits everything until `reset` or `force_open`.
    pub(super) fn disable(&mut self, now: u64) {
        if !matches!(self.phase, Phase::Disabled) {
            self.change(Phase::Disabled, None, now);
        }
    }

    /// Closed, with an empty window; a new generation even where it was closed already.
    pub(super) fn reset(&mut self, now: u64) {
        if matches!(self.phase, Phase::Closed) {
            self.clear();
            self.generation += 1;
        } else {
            self.close(now);
        }
    }

    fn change(&mut self, to: Phase, reason: Option<TripReason>, now: u64) {
        let from = self.state();
        self.phase = to;
        self.generation += 1;
        self.since = now;
        // A half-open circuit is still not well, for the reason for which it opened.
        if !matches!(self.phase, Phase::HalfOpen(_)) {
            self.reason = reason;
        }
        self.transitions.push_back(Transition {
            from,
            to: self.state(),
            reason,
            at: now,
            generation: self.generation,
        });
        self.wake_all();
    }

    // ===== what others see =====

    pub(super) fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen(_) => CircuitState::HalfOpen,
            Phase::ForcedOpen => CircuitState::ForcedOpen,
            Phase::Disabled => CircuitState::Disabled,
        }
    }

    pub(super) fn snapshot(&self, config: &CircuitBreakerConfig, now: u64) -> Snapshot {
        Snapshot {
            totals: self.totals,
            window: self.window.peek(now),
            state: self.state(),
            since: self.since,
            reason: self.reason,
            retry_after: self.retry_after(config, now),
        }
    }

    /// How long a rejected caller should stay away, if that is known. While probes are out their
    /// outcome is due at any moment, so then it is the shorter of what is left of the turn and
    /// `probe_lease`.
    pub(super) fn retry_after(&self, config: &CircuitBreakerConfig, now: u64) -> Option<Duration> {
        let wait = match &self.phase {
            Phase::Open { until } => until.saturating_sub(now),
            Phase::HalfOpen(turn) if turn.free(config, now) == 0 => {
                turn.ends.saturating_sub(now).min(nanos(config.probe_lease))
            }
            Phase::Closed | Phase::HalfOpen(_) | Phase::ForcedOpen | Phase::Disabled => {
                return None;
            }
        };
        Some(Duration::from_nanos(wait))
    }

    // ===== waiting and telling =====

    pub(super) fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn wake_all(&mut self) {
        self.waiters.take_all(&mut self.wake);
    }

    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wake)
    }

    /// The next transition to tell. The caller tells it and comes back with `mine` until there is
    /// none; meanwhile everybody else gets nothing, so that they are told in order.
    pub(super) fn next_transition(&mut self, mine: bool) -> Option<Transition> {
        if self.delivering && !mine {
            return None;
        }
        let next = self.transitions.pop_front();
        self.delivering = next.is_some();
        next
    }
}

/// No call is admitted, and by time alone that changes then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unavailable {
    pub(super) changes_at: Option<u64>,
}

impl Turn {
    /// Permits to be had at `now`.
    fn free(&self, config: &CircuitBreakerConfig, now: u64) -> u32 {
        let leased = self.leases.iter().filter(|lease| now < lease.until).count();
        let taken = self.running + self.successes + self.failures;
        let left = config.half_open_requests.saturating_sub(taken);
        left.saturating_sub(u32::try_from(leased).unwrap_or(u32::MAX))
    }

    /// Ends a lease. False if it has lapsed or is of another turn.
    fn take(&mut self, lease: Lease, generation: u64) -> bool {
        let held = self.leases.iter().position(|held| *held == lease);
        match held {
            Some(held) if lease.generation == generation => {
                self.leases.swap_remove(held);
                true
            }
            _ => false,
        }
    }

    /// When, by time alone, a permit may come free.
    fn next_change(&self) -> u64 {
        let lapses = self.leases.iter().map(|lease| lease.until);
        lapses.fold(self.ends, u64::min)
    }
}

/// For how long a failure asks to stay away, as far as the configuration heeds that.
fn asked_wait(config: &CircuitBreakerConfig, outcome: Outcome) -> Option<u64> {
    match outcome {
        Outcome::Failure {
            retry_after: Some(wait),
        } if config.retry_after != RetryAfterPolicy::Ignore && !wait.is_zero() => {
            Some(nanos(wait.min(config.retry_after_cap)))
        }
        _ => None,
    }
}

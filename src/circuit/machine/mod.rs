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

mod admission;
mod settlement;
mod turn;

use std::{collections::VecDeque, task::Waker, time::Duration};

pub(super) use self::settlement::{Cause, Settlement};
pub(crate) use self::turn::Lease;
use self::turn::Turn;
use super::{
    clock::nanos,
    config::CircuitBreakerConfig,
    state::{CircuitState, TripReason},
    waiters::Waiters,
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
    /// Until when failures asked to be left alone, as far as that is heeded.
    asked_until: u64,
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

/// An admitted call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) started: u64,
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
    pub(super) available: bool,
    /// When a probe is due, while the circuit is open.
    pub(super) due: Option<u64>,
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
            asked_until: 0,
            window: TimeWindow::new(nanos(config.monitoring_period)),
            totals: Totals::default(),
            waiters: Waiters::default(),
            wake: Vec::new(),
            transitions: VecDeque::new(),
            delivering: false,
        }
    }

    // ===== transitions =====

    /// Opens for the reset timeout, or for longer if the dependency asked for that.
    fn trip(&mut self, config: &CircuitBreakerConfig, now: u64, reason: TripReason) {
        let until = now.saturating_add(nanos(config.reset_timeout));
        self.open(until.max(self.asked_until), reason, now);
    }

    fn reopen(&mut self, config: &CircuitBreakerConfig, now: u64, reason: TripReason) {
        self.totals.failed_recoveries += 1;
        self.trip(config, now, reason);
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
        self.asked_until = 0;
    }

    /// Rejects everything until `reset` or `disable`.
    pub(super) fn force_open(&mut self, now: u64) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.totals.opened += u64::from(!matches!(self.phase, Phase::Open { .. }));
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
        // The time was read before the lock was had, so it may be a little older than the last
        // change; and changes are told in order.
        let now = now.max(self.since);
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
            available: self.is_available(config, now),
            due: match self.phase {
                Phase::Open { until } => Some(until),
                _ => None,
            },
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
            Phase::HalfOpen(turn) if now >= turn.ends || turn.free(config, now) == 0 => {
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

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
//! The machine is what is rare about a circuit: every change of state and all of a half-open turn
//! happen here, under the lock behind which [`Circuit`](super::Circuit) keeps it. It publishes each
//! generation in [`Hot`], where healthy calls are admitted and settled without it. Once the lock is
//! released, whoever is noted down in `wake` and `transitions` is woken and told.

mod admission;
mod settlement;
mod turn;

use std::{collections::VecDeque, task::Waker, time::Duration};

pub(super) use self::settlement::{Cause, Settlement};
pub(crate) use self::turn::Lease;
use self::turn::Turn;
use super::{
    backoff,
    clock::nanos,
    hot::{Hot, Rate},
    state::{CircuitState, TripReason},
    waiters::Waiters,
    window::{Counts, Ring, Window},
    word::Word,
};

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    generation: u64,
    /// When the present state began.
    since: u64,
    reason: Option<TripReason>,
    /// Until when failures asked to be left alone, as far as that is heeded.
    asked_until: u64,
    /// Openings since it was last closed.
    openings: u32,
    rings: Rings,
    opened: u64,
    recoveries: u64,
    failed_recoveries: u64,
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

/// The parts of the windows that are kept under the lock.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) errors: Option<Ring>,
    pub(super) slow: Option<Ring>,
}

impl Rings {
    pub(super) fn each(&mut self, hot: &Hot, act: impl Fn(&Window, &mut Option<Ring>)) {
        if let Some(rate) = &hot.errors {
            act(&rate.window, &mut self.errors);
        }
        if let Some(rate) = &hot.slow {
            act(&rate.window, &mut self.slow);
        }
    }
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
    /// What the windows hold, and what the window of failures has ever counted.
    pub(super) errors: Counts,
    pub(super) slow: Counts,
    pub(super) lifetime: Option<Counts>,
    pub(super) opened: u64,
    pub(super) recoveries: u64,
    pub(super) failed_recoveries: u64,
    pub(super) state: CircuitState,
    pub(super) since: u64,
    pub(super) reason: Option<TripReason>,
    pub(super) retry_after: Option<Duration>,
}

impl Machine {
    pub(super) fn new(rings: Rings) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            since: 0,
            reason: None,
            asked_until: 0,
            openings: 0,
            rings,
            opened: 0,
            recoveries: 0,
            failed_recoveries: 0,
            waiters: Waiters::default(),
            wake: Vec::new(),
            transitions: VecDeque::new(),
            delivering: false,
        }
    }

    // ===== transitions =====

    /// Opens for the reset timeout, or for longer if the dependency asked for that.
    fn trip(&mut self, hot: &Hot, now: u64, reason: TripReason) {
        let wait = backoff::wait(&hot.config, self.openings);
        let until = now.saturating_add(nanos(wait));
        self.open(hot, until.max(self.asked_until), reason, now);
    }

    fn reopen(&mut self, hot: &Hot, now: u64, reason: TripReason) {
        self.failed_recoveries += 1;
        self.trip(hot, now, reason);
    }

    fn open(&mut self, hot: &Hot, until: u64, reason: TripReason, now: u64) {
        self.opened += 1;
        self.openings = self.openings.saturating_add(1);
        self.change(hot, Phase::Open { until }, Some(reason), now);
    }

    /// Closed, with empty windows.
    fn close(&mut self, hot: &Hot, now: u64) {
        self.asked_until = 0;
        self.openings = 0;
        self.change(hot, Phase::Closed, None, now);
    }

    /// Rejects everything until `reset` or `disable`.
    pub(super) fn force_open(&mut self, hot: &Hot, now: u64) {
        if !matches!(self.phase, Phase::ForcedOpen) {
            self.opened += u64::from(!matches!(self.phase, Phase::Open { .. }));
            self.change(hot, Phase::ForcedOpen, Some(TripReason::Forced), now);
        }
    }

    /// Admits everything until `reset` or `force_open`.
    pub(super) fn disable(&mut self, hot: &Hot, now: u64) {
        if !matches!(self.phase, Phase::Disabled) {
            self.change(hot, Phase::Disabled, None, now);
        }
    }

    /// Closed, with empty windows; a new generation even where it was closed already.
    pub(super) fn reset(&mut self, hot: &Hot, now: u64) {
        self.close(hot, now);
    }

    fn change(&mut self, hot: &Hot, to: Phase, reason: Option<TripReason>, now: u64) {
        // The time was read before the lock was had, so it may be a little older than the last
        // change; and changes are told in order.
        let now = now.max(self.since);
        let from = self.state();
        self.phase = to;
        self.generation += 1;
        // A half-open circuit is still not well, for the reason for which it opened.
        if !matches!(self.phase, Phase::HalfOpen(_)) {
            self.reason = reason;
        }
        let to = self.state();
        let until = match self.phase {
            Phase::Open { until } => until,
            _ => 0,
        };
        let anew = (to == CircuitState::Closed).then_some(&mut self.rings);
        hot.publish(Word::new(to, self.reason, self.generation), until, anew);
        if from != to {
            self.since = now;
            self.transitions.push_back(Transition {
                from,
                to,
                reason,
                at: now,
                generation: self.generation,
            });
            self.wake_all();
        }
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

    pub(super) fn snapshot(&mut self, hot: &Hot, now: u64) -> Snapshot {
        let (errors, slow) = (&mut self.rings.errors, &mut self.rings.slow);
        let lifetime = hot.errors.as_ref();
        let lifetime = lifetime.and_then(|rate| rate.window.lifetime(errors));
        let held = |rate: &Option<Rate>, ring: &mut Option<Ring>| {
            let rate = rate.as_ref();
            rate.map_or(Counts::default(), |rate| rate.window.counts(ring, now))
        };
        let (errors, slow) = (held(&hot.errors, errors), held(&hot.slow, slow));
        Snapshot {
            available: self.is_available(hot, now),
            due: match self.phase {
                Phase::Open { until } => Some(until),
                _ => None,
            },
            errors,
            slow,
            lifetime,
            opened: self.opened,
            recoveries: self.recoveries,
            failed_recoveries: self.failed_recoveries,
            state: self.state(),
            since: self.since,
            reason: self.reason,
            retry_after: self.retry_after(hot, now),
        }
    }

    /// How long a rejected caller should stay away, if that is known. While probes are out their
    /// outcome is due at any moment, so then it is the shorter of what is left of the turn and
    /// `probe_lease`.
    pub(super) fn retry_after(&self, hot: &Hot, now: u64) -> Option<Duration> {
        let wait = match &self.phase {
            Phase::Open { until } => until.saturating_sub(now),
            Phase::HalfOpen(turn) if now >= turn.ends || turn.free(&hot.config, now) == 0 => turn
                .ends
                .saturating_sub(now)
                .min(nanos(hot.config.probe_lease)),
            Phase::Closed | Phase::HalfOpen(_) | Phase::ForcedOpen | Phase::Disabled => {
                return None;
            }
        };
        Some(Duration::from_nanos(wait))
    }

    /// Turns the windows on to `now`.
    pub(super) fn turn(&mut self, hot: &Hot, now: u64) {
        self.rings.each(hot, |window, ring| window.turn(ring, now));
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

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
//! released, whoever waits is woken, and `transitions` are told.

mod admission;
mod ramp;
mod reconfigure;
mod recording;
mod seen;
mod settlement;
mod turn;

use std::{collections::VecDeque, task::Waker};

pub(crate) use self::turn::Lease;
use self::{ramp::Ramp, turn::Turn};
use super::{
    backoff,
    clock::nanos,
    config::CircuitBreakerConfig,
    hot::Hot,
    running::Cohort,
    shape::Shape,
    state::{CircuitState, TripReason},
    waiters::Waiters,
    window::Ring,
    word::Word,
};

#[derive(Debug)]
pub(super) struct Machine {
    config: CircuitBreakerConfig,
    shape: Shape,
    /// The numbers of the last shape that counted, and of the last one that watched.
    last_counting: u8,
    last_watching: u8,
    phase: Phase,
    generation: u64,
    /// When the present state began.
    since: u64,
    reason: Option<TripReason>,
    /// Until when failures asked to be left alone, as far as that is heeded.
    asked_until: u64,
    /// Openings since it was last closed.
    openings: u32,
    /// The part of the window of time that is kept under the lock, if there is that window.
    ring: Option<Box<Ring>>,
    /// The calls that are watched while they run, if any are.
    cohort: Option<Box<Cohort>>,
    opened: u64,
    recoveries: u64,
    failed_recoveries: u64,
    waiters: Waiters,
    /// Once the lock is released: whether to wake them, and what to tell.
    waking: bool,
    transitions: VecDeque<Transition>,
    delivery: Delivery,
}

/// Who tells of `transitions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Whoever adds to them.
    Idle,
    /// Somebody is at it; whoever adds to them meanwhile need not.
    Delivering,
    /// Nobody is to be told any more, but by who is still at it.
    Dismissed,
}

/// What is rare is boxed, so that it costs nothing where it isn't.
#[derive(Debug)]
enum Phase {
    /// To all calls, or not yet.
    Closed(Option<Box<Ramp>>),
    Open {
        until: u64,
    },
    HalfOpen(Box<Turn>),
    ForcedOpen,
    Disabled,
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

impl Machine {
    /// A closed circuit.
    pub(super) fn new(config: CircuitBreakerConfig, hot: &Hot) -> Self {
        let mut machine = Self {
            config,
            shape: Shape::default(),
            last_counting: 0,
            last_watching: 0,
            phase: Phase::Closed(None),
            generation: 0,
            since: 0,
            reason: None,
            asked_until: 0,
            openings: 0,
            ring: None,
            cohort: None,
            opened: 0,
            recoveries: 0,
            failed_recoveries: 0,
            waiters: Waiters::default(),
            waking: false,
            transitions: VecDeque::new(),
            delivery: Delivery::Idle,
        };
        machine.configure(hot, 0, None);
        machine
    }

    pub(super) fn config(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    // ===== transitions =====

    /// Opens for the reset timeout, or for longer if the dependency asked for that.
    fn trip(&mut self, hot: &Hot, now: u64, reason: TripReason) {
        let wait = backoff::wait(&self.config, self.openings);
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

    /// The probes have succeeded.
    fn recover(&mut self, hot: &Hot, now: u64) {
        self.recoveries += 1;
        let ramp = Ramp::of(&self.config, now).map(Box::new);
        self.close(hot, now, ramp);
    }

    /// Closed, with empty windows.
    fn close(&mut self, hot: &Hot, now: u64, ramp: Option<Box<Ramp>>) {
        self.asked_until = 0;
        self.openings = 0;
        self.change(hot, Phase::Closed(ramp), None, now);
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
        self.close(hot, now, None);
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
        if self.word().is_recorded() {
            hot.suspend();
            self.begin(hot, now);
        }
        hot.publish(self.word(), self.until());
        if from != to {
            self.since = now;
            self.transitions.push_back(Transition {
                from,
                to,
                reason,
                at: now,
                generation: self.generation,
            });
        }
        // Even where the state is the same: a reset ends a ramp, for which somebody may wait.
        self.wake_all();
    }

    /// The word for all this.
    fn word(&self) -> Word {
        let word = Word::new(self.state(), self.reason, self.shape, self.generation);
        match self.phase {
            Phase::Closed(Some(_)) => word.ramping(),
            _ => word,
        }
    }

    /// When a probe is due.
    fn until(&self) -> u64 {
        match self.phase {
            Phase::Open { until } => until,
            _ => 0,
        }
    }

    // ===== what others see =====

    pub(super) fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed(_) => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen(_) => CircuitState::HalfOpen,
            Phase::ForcedOpen => CircuitState::ForcedOpen,
            Phase::Disabled => CircuitState::Disabled,
        }
    }

    // ===== waiting and telling =====

    pub(super) fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn wake_all(&mut self) {
        self.waking = true;
    }

    /// Whom to wake.
    pub(super) fn take_wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let woken = std::mem::take(&mut self.waking).then(|| self.waiters.take_all());
        woken.into_iter().flatten()
    }

    /// The next transition to tell. The caller tells it and comes back with `mine` until there is
    /// none; meanwhile everybody else gets nothing, so that they are told in order.
    pub(super) fn next_transition(&mut self, mine: bool) -> Option<Transition> {
        if self.delivery != Delivery::Idle && !mine {
            return None;
        }
        let next = self.transitions.pop_front();
        if self.delivery != Delivery::Dismissed {
            self.delivery = match next {
                Some(_) => Delivery::Delivering,
                None => Delivery::Idle,
            };
        }
        next
    }

    /// Nobody is to be told any more. True if somebody is delivering, and will find that.
    pub(super) fn dismiss(&mut self) -> bool {
        let before = std::mem::replace(&mut self.delivery, Delivery::Dismissed);
        before == Delivery::Delivering
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.delivery == Delivery::Dismissed
    }
}

//! The right to make one call, and the duty to say how it ended.

use std::{fmt, num::NonZero, time::Duration};

use super::{
    clock::{NEVER, nanos},
    hold,
    outcome::{Cause, Outcome},
    shared::Shared,
    state::{CircuitState, TripReason},
    sync::Arc,
    word::Word,
};

/// An admitted call. It is settled exactly once: by one of its methods, or by being dropped,
/// which means that the call was cancelled (see [`OnCancel`](super::OnCancel)).
///
/// A permit belongs to the state in which it was admitted. Settled after a change of state, it
/// counts in the lifetime totals and moves nothing else.
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    /// `None` once settled. It, and not an enum around all of this, tells whether there is
    /// something to settle: a future with three plain words in it is moved at no cost.
    circuit: Option<Arc<Shared>>,
    ticket: Ticket,
}

/// When and in which generation a call was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) word: Word,
    /// `NEVER` where the configuration doesn't need it.
    pub(super) started: u64,
}

impl Permit {
    #[inline]
    pub(super) fn new(circuit: Arc<Shared>, ticket: Ticket) -> Self {
        Self {
            circuit: Some(circuit),
            ticket,
        }
    }

    /// In place of a permit, for a call that was rejected. There is nothing to settle.
    #[inline]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self {
            circuit: None,
            ticket: Ticket::rejected(rejection),
        }
    }

    /// What a call was told that was rejected, once.
    #[cold]
    pub(crate) fn take_rejection(&mut self) -> Option<Open> {
        let ticket = std::mem::replace(&mut self.ticket, Ticket::ENDED);
        ticket.admitted().err().map(Open::from)
    }

    /// The dependency did its work.
    pub fn success(self) {
        self.settle(Outcome::Success);
    }

    /// The dependency failed.
    pub fn failure(self) {
        self.settle(Outcome::FAILURE);
    }

    /// The call says nothing about the dependency.
    pub fn ignore(self) {
        self.settle(Outcome::Ignored);
    }

    /// The call missed its deadline: a failure, counted among the timed out as well.
    pub fn timed_out(mut self) {
        self.end_late();
    }

    /// The call ended like this.
    #[inline]
    pub fn settle(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Like [`settle`](Self::settle); what is left is an empty permit.
    #[inline(always)]
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if let Some(circuit) = self.circuit.take() {
            circuit.settle(self.ticket, outcome);
            hold::keep(circuit);
        }
    }

    /// Like [`timed_out`](Self::timed_out); what is left is an empty permit.
    pub(crate) fn end_late(&mut self) {
        self.finish(Outcome::FAILURE, Cause::TimedOut);
    }

    /// The deadline of the call.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.circuit.as_ref()?.hot.timeout()
    }

    /// How long ago the call was admitted, if the configuration has it read that.
    pub(crate) fn elapsed(&self) -> Duration {
        match (&self.circuit, self.ticket.started) {
            (None, _) | (_, NEVER) => Duration::ZERO,
            (Some(circuit), started) => Duration::from_nanos(circuit.now().saturating_sub(started)),
        }
    }

    fn finish(&mut self, outcome: Outcome, cause: Cause) {
        if let Some(circuit) = self.circuit.take() {
            circuit.settle_otherwise(self.ticket, outcome, cause);
            hold::keep(circuit);
        }
    }

    #[cold]
    fn cancel(&mut self) {
        let Some(circuit) = &self.circuit else { return };
        let outcome = circuit.hot.cancelled(|| nanos(self.elapsed()));
        self.finish(outcome, Cause::Cancelled);
    }
}

/// How long a call took to be answered, though its answer goes on.
#[cfg(feature = "http")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran(u64);

/// For answers that go on.
#[cfg(feature = "http")]
impl Permit {
    /// Nothing to settle.
    pub(crate) fn none() -> Self {
        Self {
            circuit: None,
            ticket: Ticket::ENDED,
        }
    }

    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::none())
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.circuit.is_none()
    }

    /// Has the call know when it began, whatever is recorded of it.
    pub(crate) fn start_clock(&mut self) {
        if let Some(circuit) = &self.circuit
            && self.ticket.started == NEVER
        {
            self.ticket.started = circuit.now();
        }
    }

    /// The answer is there, and what follows is not a part of how long the call took. A call that
    /// is not slow by now will not be; one that is slow is watched on, so that it counts as such.
    pub(crate) fn answered(&mut self) -> Option<Ran> {
        let circuit = self.circuit.as_ref()?;
        if !self.ticket.word.is_timed() {
            return None; // Nobody will ask.
        }
        let ran = circuit.now().saturating_sub(self.ticket.started);
        if !circuit.hot.is_slow(ran) {
            self.ticket.word = circuit.stop_watching(self.ticket);
        }
        Some(Ran(ran))
    }

    /// From here on the call counts as one that took so long.
    pub(crate) fn took(&mut self, ran: Ran) {
        if let Some(circuit) = &self.circuit {
            self.ticket.word = circuit.stop_watching(self.ticket);
            self.ticket.started = circuit.now().saturating_sub(ran.0);
        }
    }

    /// The call was dropped, after it was answered.
    pub(crate) fn cancel_answered(&mut self, ran: Option<Ran>) {
        let Some(circuit) = &self.circuit else { return };
        let outcome = circuit.hot.cancelled(|| nanos(self.elapsed()));
        if let Some(ran) = ran {
            self.took(ran);
        }
        self.finish(outcome, Cause::Cancelled);
    }

    /// A probe has shown a sign of life, and the next is due within so long: its half-open turn
    /// doesn't end before that.
    pub(crate) fn keep_turn(&self, due: Duration) {
        if let Some(circuit) = &self.circuit
            && self.ticket.word.state() == CircuitState::HalfOpen
        {
            let word = self.ticket.word;
            circuit.with(|machine, _, now| machine.keep_turn(now, word, nanos(due)));
        }
    }
}

impl Ticket {
    /// Of a call that is over.
    const ENDED: Self = Self {
        word: Word(0),
        started: NEVER,
    };

    /// Of a call that was rejected.
    #[inline]
    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self {
            word: Word(rejection.word.get()),
            started: rejection.wait,
        }
    }

    /// The ticket itself, unless it is of a call that was rejected.
    #[inline]
    pub(super) fn admitted(self) -> Result<Self, Rejection> {
        if self.word.is_rejecting() {
            return Err(Rejection::new(self.word, self.started));
        }
        Ok(self)
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.circuit.is_some() {
            self.cancel();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("generation", &self.ticket.word.generation())
            .finish_non_exhaustive()
    }
}

/// An [`Open`], small: two words, and no more in an `Option`, so that registers hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// See [`Word::rejecting`].
    word: NonZero<u64>,
    /// Nanoseconds, or `NEVER`.
    pub(super) wait: u64,
}

impl Rejection {
    #[inline]
    pub(super) fn new(word: Word, wait: u64) -> Self {
        Self {
            word: word.rejecting(),
            wait,
        }
    }
}

impl From<Rejection> for Open {
    fn from(rejection: Rejection) -> Self {
        let word = Word(rejection.word.get());
        Self {
            retry_after: match rejection.wait {
                NEVER => None,
                wait => Some(Duration::from_nanos(wait)),
            },
            state: word.state(),
            reason: word.reason(),
        }
    }
}

/// The circuit admits no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Open {
    /// When to try again. `None` if no time will change it, because the circuit was forced open.
    ///
    /// While probes are out their outcome is due at any moment; then this is the shorter of the
    /// rest of the half-open turn and the configured `probe_lease`.
    pub retry_after: Option<Duration>,
    /// The state at the rejection: usually [`CircuitState::Open`], but a half-open circuit
    /// rejects what goes beyond its probes.
    pub state: CircuitState,
    /// Why the circuit opened.
    pub reason: Option<TripReason>,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            CircuitState::HalfOpen => "circuit is half-open and its probes are out",
            CircuitState::Open | CircuitState::ForcedOpen => "circuit is open",
            CircuitState::Closed => "circuit has just closed and does not admit all calls yet",
            CircuitState::Disabled => "circuit was open",
        })?;
        if let Some(reason) = self.reason {
            write!(f, " ({reason})")?;
        }
        match self.retry_after {
            Some(wait) => write!(f, ", try again in {:?}", in_milliseconds(wait)),
            None => f.write_str(" until it is reset"),
        }
    }
}

/// Rounded up, because people read it and nobody should come too early.
fn in_milliseconds(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl std::error::Error for Open {}

//! How calls ended, and what follows from it.

use super::{Machine, Phase};
use crate::circuit::{
    clock::nanos,
    config::RetryAfterPolicy,
    hot::{Hot, Tallies},
    outcome::Outcome,
    state::TripReason,
    word::Word,
};

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::circuit) struct Settlement {
    pub(in crate::circuit) outcome: Outcome,
    pub(in crate::circuit) cause: Cause,
}

impl Settlement {
    pub(in crate::circuit) const FAILURE: Self = Self {
        outcome: Outcome::FAILURE,
        cause: Cause::Answered,
    };
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::circuit) enum Cause {
    Answered,
    TimedOut,
    Cancelled,
}

impl Machine {
    /// Draws the consequences of a settlement that was counted in `word`, a state that admits all:
    /// it broke a rule, or it asks for the dependency to be left alone.
    pub(in crate::circuit) fn conclude(
        &mut self,
        hot: &Hot,
        now: u64,
        word: Word,
        broken: Option<TripReason>,
        outcome: Outcome,
    ) {
        // Somebody else may have drawn them meanwhile.
        if hot.word() != word || !matches!(self.phase, Phase::Closed) {
            return;
        }
        let asked = self.heed(hot, now, outcome);
        if let Some(reason) = broken {
            self.trip(hot, now, reason);
        } else if asked && hot.config.retry_after == RetryAfterPolicy::Open {
            self.open(hot, self.asked_until, TripReason::RetryAfter, now);
        }
    }

    /// Counts how a call ended that was admitted in `word`, a half-open state.
    pub(in crate::circuit) fn settle_probe(
        &mut self,
        hot: &Hot,
        now: u64,
        word: Word,
        ran: u64,
        outcome: Outcome,
    ) {
        let slow = hot.is_slow(ran);
        match outcome {
            Outcome::Ignored => Tallies::count(&hot.tallies.ignored),
            Outcome::Success => hot.settle_late(ran, false),
            Outcome::Failure { .. } => hot.settle_late(ran, true),
        }
        if hot.word() != word {
            return; // Too late to say anything about the present state.
        }
        let Phase::HalfOpen(turn) = &mut self.phase else {
            return;
        };
        turn.running -= 1;
        match outcome {
            Outcome::Ignored => return self.wake_all(),
            Outcome::Success if !slow => turn.successes += 1,
            Outcome::Success | Outcome::Failure { .. } => turn.failures += 1,
        }
        hot.tallies.last(outcome, now);
        let needed = hot.config.half_open_success_threshold();
        let closes = turn.successes >= needed;
        let reopens = turn.failures > hot.config.half_open_requests - needed;
        let asked = self.heed(hot, now, outcome);
        if closes {
            self.recoveries += 1;
            self.close(hot, now);
        } else if reopens || (asked && hot.config.retry_after == RetryAfterPolicy::Open) {
            self.reopen(hot, now, TripReason::ProbeFailed);
        }
    }

    /// Remembers until when a failure asks to be left alone, if that is to be heeded. True if this
    /// one asks.
    fn heed(&mut self, hot: &Hot, now: u64, outcome: Outcome) -> bool {
        let Outcome::Failure {
            retry_after: Some(wait),
        } = outcome
        else {
            return false;
        };
        if hot.config.retry_after == RetryAfterPolicy::Ignore || wait.is_zero() {
            return false;
        }
        let until = now.saturating_add(nanos(wait.min(hot.config.retry_after_cap)));
        self.asked_until = self.asked_until.max(until);
        true
    }
}

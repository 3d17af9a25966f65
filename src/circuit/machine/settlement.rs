//! How calls ended, and what follows from it.

use super::{Machine, Phase};
use crate::circuit::{
    clock::nanos, config::RetryAfterPolicy, hot::Hot, outcome::Outcome, state::TripReason,
    tallies::Tallies, word::Word,
};

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
        if !self.is_of(word) || !matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        let asked = self.heed(now, outcome);
        if let Some(reason) = broken {
            self.trip(hot, now, reason);
        } else if asked && self.config.retry_after == RetryAfterPolicy::Open {
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
        self.count_admission(hot, word, self.word());
        let slow = hot.is_slow(ran);
        match outcome {
            Outcome::Ignored => Tallies::count(&hot.tallies.ignored),
            Outcome::Success => hot.settle_late(ran, false),
            Outcome::Failure { .. } => hot.settle_late(ran, true),
        }
        if !self.is_of(word) {
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
        hot.last(outcome, now);
        let asked = self.heed(now, outcome);
        if !self.decide(hot, now) && asked && self.config.retry_after == RetryAfterPolicy::Open {
            self.reopen(hot, now, TripReason::ProbeFailed);
        }
    }

    /// Ends a half-open turn that its probes have decided. True if there was one.
    pub(super) fn decide(&mut self, hot: &Hot, now: u64) -> bool {
        let Phase::HalfOpen(turn) = &self.phase else {
            return false;
        };
        let needed = self.config.half_open_success_threshold();
        let closes = turn.successes >= needed;
        let reopens = turn.failures > self.config.half_open_requests - needed;
        if closes {
            self.recover(hot, now);
        } else if reopens {
            self.reopen(hot, now, TripReason::ProbeFailed);
        }
        closes || reopens
    }

    /// Counts a call that settles in another generation than it was admitted in.
    pub(in crate::circuit) fn settle_late(&self, hot: &Hot, word: Word, ran: u64, bad: bool) {
        self.count_admission(hot, word, self.word());
        hot.settle_late(ran, bad);
    }

    /// Counts an ignored call that began when admissions were counted otherwise than now.
    pub(in crate::circuit) fn settle_ignored(&self, hot: &Hot, word: Word) {
        self.count_admission(hot, word, self.word());
        Tallies::count(&hot.tallies.ignored);
    }

    /// Counts the admission of a call that began when those were not counted, if they were when it
    /// `settled` and are still. (Whoever began to count since then has it among the settled ones.)
    pub(in crate::circuit) fn count_admission(&self, hot: &Hot, word: Word, settled: Word) {
        let present = self.word();
        if present.is_counted()
            && present.is_counted_like(settled)
            && !present.is_counted_like(word)
        {
            Tallies::count(&hot.admitted);
        }
    }

    /// Looks at the rules because time has passed: calls that are slow by now, and what has left the
    /// windows.
    pub(in crate::circuit) fn look(&mut self, hot: &Hot, now: u64, word: Word) {
        if !self.is_of(word) {
            return;
        }
        let [errors, slow] = self.counts(hot, now);
        let step = self.ring.as_ref().map(|_| hot.time.ends());
        let cohort = self.cohort.as_ref();
        let moment = cohort.map(|cohort| hot.running().present(cohort).ends);
        hot.set_look_at(step.into_iter().chain(moment).min().unwrap_or(0));
        if !matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        if hot.errors.is_broken_by(errors) {
            self.trip(hot, now, TripReason::ErrorRate);
        } else if hot.slow().is_some_and(|rule| rule.rate.is_broken_by(slow)) {
            self.trip(hot, now, TripReason::SlowCalls);
        }
    }

    /// Whether a call with this word was admitted in the present generation.
    fn is_of(&self, word: Word) -> bool {
        self.generation == word.generation()
    }

    /// Remembers until when a failure asks to be left alone, if that is to be heeded. True if this
    /// one asks.
    fn heed(&mut self, now: u64, outcome: Outcome) -> bool {
        let Outcome::Failure {
            retry_after: Some(wait),
        } = outcome
        else {
            return false;
        };
        if self.config.retry_after == RetryAfterPolicy::Ignore || wait.is_zero() {
            return false;
        }
        let until = now.saturating_add(nanos(wait.min(self.config.retry_after_cap)));
        self.asked_until = self.asked_until.max(until);
        true
    }
}

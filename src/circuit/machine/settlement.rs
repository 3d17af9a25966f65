//! How calls ended, and what follows from it: the rules.

use super::{Lease, Machine, Phase, Ticket};
use crate::circuit::{
    clock::nanos,
    config::{CircuitBreakerConfig, RetryAfterPolicy},
    outcome::Outcome,
    state::TripReason,
    window::Counts,
};

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::circuit) struct Settlement {
    pub(in crate::circuit) outcome: Outcome,
    pub(in crate::circuit) cause: Cause,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::circuit) enum Cause {
    Answered,
    TimedOut,
    Cancelled,
}

impl Machine {
    /// Counts how a call ended, and draws the consequences.
    pub(in crate::circuit) fn settle(
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
        let asked = self.heed(config, now, outcome);
        if let Some(reason) = self.broken_rule(config, now) {
            self.trip(config, now, reason);
        } else if asked && config.retry_after == RetryAfterPolicy::Open {
            self.open(self.asked_until, TripReason::RetryAfter, now);
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
        let closes = turn.successes >= needed;
        let reopens = turn.failures > config.half_open_requests - needed;
        let asked = self.heed(config, now, outcome);
        if closes {
            self.totals.recoveries += 1;
            self.close(now);
        } else if reopens || (asked && config.retry_after == RetryAfterPolicy::Open) {
            self.reopen(config, now, TripReason::ProbeFailed);
        }
    }

    /// Remembers until when a failure asks to be left alone, if that is to be heeded. True if this
    /// one asks.
    fn heed(&mut self, config: &CircuitBreakerConfig, now: u64, outcome: Outcome) -> bool {
        let Outcome::Failure {
            retry_after: Some(wait),
        } = outcome
        else {
            return false;
        };
        if config.retry_after == RetryAfterPolicy::Ignore || wait.is_zero() {
            return false;
        }
        let until = now.saturating_add(nanos(wait.min(config.retry_after_cap)));
        self.asked_until = self.asked_until.max(until);
        true
    }

    /// A service that would have been called says that it never will be ready.
    pub(in crate::circuit) fn readiness_failed(
        &mut self,
        config: &CircuitBreakerConfig,
        now: u64,
        lease: Option<Lease>,
    ) {
        // As a call that failed at once, if one would have been admitted.
        match self.take_permit(config, now, lease) {
            Some(ticket) => {
                let settlement = Settlement {
                    outcome: Outcome::FAILURE,
                    cause: Cause::Answered,
                };
                self.settle(config, now, ticket, settlement);
            }
            None => self.totals.failed += 1,
        }
    }
}

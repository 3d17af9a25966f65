//! How a call ended: counted on the fast way where that can be, and else by the lock.

use super::Shared;
use crate::circuit::{
    clock::NEVER,
    hot::{End, Missed},
    machine::Lease,
    outcome::{Cause, Outcome},
    permit::Ticket,
    state::TripReason,
    tallies::Tallies,
    word::Word,
};

impl Shared {
    /// Settles a call that was answered.
    #[inline]
    pub(in crate::circuit) fn settle(&self, ticket: Ticket, outcome: Outcome) {
        match outcome {
            Outcome::Success if self.hot.succeed(ticket.word) => {}
            Outcome::Success => self.succeed(ticket),
            Outcome::Failure { retry_after: None } => self.fail(ticket),
            _ => self.settle_otherwise(ticket, outcome, Cause::Answered),
        }
    }

    // What follows is out of line, and so once in a program instead of once in each kind of future.

    #[inline(never)]
    fn succeed(&self, ticket: Ticket) {
        let word = ticket.word;
        if !word.is_in_time() || !word.is_recorded() {
            return self.succeed_otherwise(ticket);
        }
        let end = End::of(ticket, self.now(), false);
        if !self.hot.succeed_in_time(word, end) {
            return self.record(ticket.word, end, Outcome::Success);
        }
        // In this order, because an atomic addition waits for the stores before it.
        if word.is_counted() {
            self.hot.took(end.ran);
        }
        self.hot.succeeded(word, end.now);
    }

    /// Where there is no window of time.
    #[inline(never)]
    fn succeed_otherwise(&self, ticket: Ticket) {
        if !ticket.word.is_timed_at_its_end() {
            return self.settle_untimed(ticket, Outcome::Success);
        }
        if !ticket.word.is_recorded() {
            return self.settle_probe(ticket, Outcome::Success);
        }
        let end = End::of(ticket, self.now(), false);
        self.record(ticket.word, end, Outcome::Success);
    }

    #[inline(never)]
    fn fail(&self, ticket: Ticket) {
        if !ticket.word.is_timed_at_its_end() {
            return self.settle_untimed(ticket, Outcome::FAILURE);
        }
        if !ticket.word.is_recorded() {
            return self.settle_probe(ticket, Outcome::FAILURE);
        }
        let end = End::of(ticket, self.now(), true);
        self.record(ticket.word, end, Outcome::FAILURE);
    }

    /// Settles a call of which no more is recorded than the rules need, and they need no time.
    #[inline(always)]
    fn settle_untimed(&self, ticket: Ticket, outcome: Outcome) {
        let word = ticket.word;
        if !word.is_recorded() {
            return self.settle_probe(ticket, outcome);
        }
        match self.hot.settle_untimed(word, outcome != Outcome::Success) {
            Ok(None) => {}
            Ok(broken) => self.conclude(word, broken, outcome),
            Err(Missed) => {
                let end = End::of(ticket, NEVER, outcome != Outcome::Success);
                self.settle_anew(word, end, outcome);
            }
        }
    }

    /// Settles any call.
    #[inline(never)]
    pub(in crate::circuit) fn settle_otherwise(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        cause: Cause,
    ) {
        self.settle_fully(ticket, outcome, cause);
    }

    fn settle_fully(&self, ticket: Ticket, outcome: Outcome, cause: Cause) {
        self.hot.tallies.cause(cause);
        if !ticket.word.is_recorded() {
            return self.settle_probe(ticket, outcome);
        }
        if outcome == Outcome::Ignored {
            return self.settle_ignored(ticket);
        }
        let is_timed = ticket.word.is_timed_at_its_end();
        let now = if is_timed { self.now() } else { NEVER };
        let end = End::of(ticket, now, outcome != Outcome::Success);
        self.record(ticket.word, end, outcome);
    }

    #[inline(never)]
    fn record(&self, word: Word, mut end: End, outcome: Outcome) {
        if word.is_counted() {
            self.hot.took(end.ran);
        }
        match self.hot.settle(word, &mut end, |now| self.turn(now)) {
            Ok(None) if !end.bad || outcome == Outcome::FAILURE => {}
            Ok(broken) => self.conclude(word, broken, outcome),
            Err(Missed) => self.settle_anew(word, end, outcome),
        }
    }

    fn settle_ignored(&self, ticket: Ticket) {
        self.hot
            .leave(ticket.word, &mut End::of(ticket, NEVER, false));
        if ticket.word.is_counted_like(self.hot.word()) {
            Tallies::count(&self.hot.tallies.ignored);
        } else {
            self.lock().settle_ignored(&self.hot, ticket.word);
        }
    }

    /// The call was admitted in another generation, and comes too late; or it was reconfigured what
    /// calls are recorded in.
    #[cold]
    fn settle_anew(&self, word: Word, mut end: End, outcome: Outcome) {
        // Before the lock is taken: the clock may be the user's.
        end.set_now(self.now());
        self.hot.leave(word, &mut end);
        loop {
            let present = {
                // Whoever is changing it has done so when the lock is to be had.
                let machine = self.lock();
                let present = self.hot.word().carried();
                if present.generation() != word.generation() {
                    return machine.settle_late(&self.hot, word, end.ran, end.bad);
                }
                present
            };
            if let Ok(broken) = self.hot.settle(present, &mut end, |now| self.turn(now)) {
                let machine = self.lock();
                machine.count_admission(&self.hot, word, present);
                drop(machine);
                return self.conclude(present, broken, outcome);
            }
        }
    }

    #[cold]
    fn conclude(&self, word: Word, broken: Option<TripReason>, outcome: Outcome) {
        self.with(|machine, hot, now| machine.conclude(hot, now, word, broken, outcome));
    }

    #[cold]
    fn settle_probe(&self, ticket: Ticket, outcome: Outcome) {
        self.with(|machine, hot, now| {
            let ran = now.saturating_sub(ticket.started);
            if outcome != Outcome::Ignored && ticket.word.is_counted() {
                hot.took(ran);
            }
            machine.settle_probe(hot, now, ticket.word, ran, outcome);
        });
    }

    /// Has a call no longer watched. The word that it returns is of no shape, so that the call settles
    /// as one from before a reconfiguration does.
    #[cfg(feature = "http")]
    #[cold]
    pub(in crate::circuit) fn stop_watching(&self, ticket: Ticket) -> Word {
        let word = ticket.word;
        if !word.is_watched() || !word.is_recorded() {
            return word;
        }
        self.hot.running().leave(word.cohort(), ticket.started);
        word.unwatched()
    }

    #[cold]
    pub(super) fn turn(&self, now: u64) {
        self.lock().turn(&self.hot, now);
    }

    /// A service that would have been called says that it never will be ready: a call that failed
    /// at once, if one would have been admitted.
    pub(in crate::circuit) fn readiness_failed(&self, lease: Option<Lease>) {
        let admitted = self.with(|machine, hot, now| machine.take_permit(hot, now, lease));
        match admitted {
            Some(word) => {
                let ticket = self.look_and_admit(word, self.started(word), &mut None);
                if let Ok(ticket) = ticket.admitted() {
                    self.settle_fully(ticket, Outcome::FAILURE, Cause::Answered);
                }
            }
            // A failure all the same, of no generation.
            None => {
                if self.hot.word().is_counted() {
                    Tallies::count(&self.hot.admitted);
                }
                self.hot.tallies.settled(true, false, false);
            }
        }
    }
}

impl End {
    /// `now` is `NEVER` where nobody asks.
    #[inline]
    fn of(ticket: Ticket, now: u64, bad: bool) -> Self {
        let mut end = Self {
            started: ticket.started,
            now,
            ran: 0,
            bad,
            has_left: false,
        };
        end.set_now(now);
        end
    }

    #[inline]
    fn set_now(&mut self, now: u64) {
        self.now = now;
        // A call that was not timed when it began took no time, as far as is known.
        self.ran = now.saturating_sub(self.started);
    }
}

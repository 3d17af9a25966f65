//! How a call ended: counted on the fast way where that can be, and else by the lock.

use super::Shared;
use crate::circuit::{
    hot::{End, Missed, NEVER},
    machine::{Lease, Settlement},
    outcome::Outcome,
    permit::Ticket,
    state::TripReason,
    sync::Arc,
    tallies::Tallies,
    word::Word,
};

impl Shared {
    #[inline]
    pub(in crate::circuit) fn settle(this: Arc<Self>, ticket: Ticket, settlement: Settlement) {
        if settlement.outcome != Outcome::Success {
            Self::settle_otherwise(this, ticket, settlement);
        } else if !this.hot.succeed(ticket.word) {
            Self::settle_success(this, ticket);
        }
    }

    // What follows is out of line, and so once in a program instead of once in each kind of future.
    // It takes the handle along, so that there is one place less to drop it.

    #[inline(never)]
    fn settle_success(this: Arc<Self>, ticket: Ticket) {
        let word = ticket.word;
        if !word.records_in_time() {
            Self::settle_otherwise(this, ticket, Settlement::SUCCESS);
        } else if word.is_watched() {
            Self::succeed_watched(this, ticket);
        } else {
            this.succeed_in_time(ticket);
        }
    }

    #[inline(never)]
    fn succeed_watched(this: Arc<Self>, ticket: Ticket) {
        this.unwatch(ticket);
        this.succeed_in_time(ticket);
    }

    #[inline(always)]
    fn succeed_in_time(&self, ticket: Ticket) {
        let word = ticket.word;
        let end = self.end(ticket, word, Outcome::Success);
        match self.hot.succeed_in_time(word, end, || self.turn(end.now)) {
            Ok(None) => {}
            Ok(broken) => self.conclude(word, broken, Outcome::Success),
            Err(Missed) => self.record(ticket, Outcome::Success),
        }
    }

    #[inline(never)]
    fn settle_otherwise(this: Arc<Self>, ticket: Ticket, settlement: Settlement) {
        this.settle_fully(ticket, settlement);
    }

    fn settle_fully(&self, ticket: Ticket, settlement: Settlement) {
        let Settlement { outcome, cause } = settlement;
        self.hot.tallies.cause(cause);
        if !ticket.word.is_recorded() {
            return self.settle_probe(ticket, outcome);
        }
        self.unwatch(ticket);
        if outcome == Outcome::Ignored {
            return self.settle_ignored(ticket);
        }
        self.record(ticket, outcome);
    }

    /// A call no longer runs. Before it enters the window, so that it is never counted twice.
    #[inline]
    fn unwatch(&self, ticket: Ticket) {
        let Ticket { word, started } = ticket;
        if word.is_watched() {
            self.hot.running().leave(word.cohort(), started);
        }
    }

    #[inline(never)]
    fn record(&self, ticket: Ticket, outcome: Outcome) {
        let end = self.end(ticket, ticket.word, outcome);
        if ticket.word.is_counted() {
            self.hot.took(end.ran);
        }
        match self.hot.settle(ticket.word, end, || self.turn(end.now)) {
            Ok(None) if !end.bad || outcome == Outcome::FAILURE => {}
            Ok(broken) => self.conclude(ticket.word, broken, outcome),
            Err(Missed) => self.settle_anew(ticket, outcome),
        }
    }

    #[inline]
    fn end(&self, ticket: Ticket, word: Word, outcome: Outcome) -> End {
        let bad = outcome != Outcome::Success;
        if !word.is_timed_at_its_end() {
            return End {
                now: NEVER,
                ran: 0,
                bad,
            };
        }
        let now = self.now();
        // A call that was not timed when it began took no time, as far as is known.
        let ran = now.saturating_sub(ticket.started);
        End { now, ran, bad }
    }

    fn settle_ignored(&self, ticket: Ticket) {
        Tallies::count(&self.hot.tallies.ignored);
        if !ticket.word.is_counted_like(self.hot.word()) {
            self.lock().count_admission(&self.hot, ticket.word);
        }
    }

    /// The call was admitted in another generation, and comes too late; or it was reconfigured what
    /// calls are recorded in.
    #[cold]
    fn settle_anew(&self, ticket: Ticket, outcome: Outcome) {
        // Before the lock is taken: the clock may be the user's.
        let ran = self.now().saturating_sub(ticket.started);
        loop {
            let present = {
                // Whoever is changing it has done so when the lock is to be had.
                let machine = self.lock();
                let present = self.hot.word().carried();
                if present.generation() != ticket.word.generation() {
                    let bad = outcome != Outcome::Success;
                    return machine.settle_late(&self.hot, ticket.word, ran, bad);
                }
                present
            };
            let end = self.end(ticket, present, outcome);
            if let Ok(broken) = self.hot.settle(present, end, || self.turn(end.now)) {
                self.lock().count_admission(&self.hot, ticket.word);
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
                if let Ok(ticket) = self.look_and_begin(word, &mut None) {
                    self.settle_fully(ticket, Settlement::FAILURE);
                }
            }
            // A failure all the same, of no generation.
            None => {
                if self.hot.word().is_counted() {
                    Tallies::count(&self.hot.tallies.admitted);
                }
                self.hot.tallies.settled(true);
            }
        }
    }
}

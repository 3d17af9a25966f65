//! Who may call: by one look at the word, and else by the lock.

use std::{task::Waker, time::Duration};

use super::{Readiness, Shared};
use crate::circuit::{
    clock::NEVER,
    machine::Lease,
    permit::{Rejection, Ticket},
    tallies::Tallies,
    waiters::WaiterId,
    word::Word,
};

impl Shared {
    #[inline]
    pub(in crate::circuit) fn admit(&self, lease: &mut Option<Lease>) -> Result<Ticket, Rejection> {
        let word = self.hot.word();
        if word.admits_all_unseen() {
            return Ok(Ticket {
                word,
                started: NEVER,
            });
        }
        self.admit_rest(word, lease).admitted()
    }

    /// The ticket may be that of a [rejected](Ticket::rejected) call: so it is returned in two
    /// registers.
    #[inline(never)]
    fn admit_rest(&self, word: Word, lease: &mut Option<Lease>) -> Ticket {
        if !word.admits_all() {
            return self.admit_slowly(word, lease);
        }
        let started = self.started(word);
        if word.is_watched() && started >= self.hot.look_at() {
            return self.look_and_admit(word, started, lease);
        }
        self.begin(word, started)
    }

    #[cold]
    fn admit_slowly(&self, word: Word, lease: &mut Option<Lease>) -> Ticket {
        match self.ask(word, lease) {
            Ok(word) => self.look_and_admit(word, self.started(word), lease),
            Err(rejection) => Ticket::rejected(rejection),
        }
    }

    /// Asks for a call that not everybody may make.
    fn ask(&self, word: Word, lease: &mut Option<Lease>) -> Result<Word, Rejection> {
        let lease = lease.take();
        if let Some(rejection) = self.rejection(word) {
            Tallies::count(&self.hot.tallies.rejected);
            return Err(rejection);
        }
        self.with(|machine, hot, now| machine.admit(hot, now, lease))
    }

    /// Begins a call that was admitted, unless the rules say otherwise by now.
    #[cold]
    pub(super) fn look_and_admit(
        &self,
        mut word: Word,
        started: u64,
        lease: &mut Option<Lease>,
    ) -> Ticket {
        while word.is_watched() && word.is_recorded() && started >= self.hot.look_at() {
            match self.look(word, lease) {
                Ok(present) if present == word => break,
                // Others are watched by now, from a time that may lie before this call began.
                Ok(present) => word = present,
                Err(rejection) => return Ticket::rejected(rejection),
            }
        }
        self.begin(word, started)
    }

    /// Counts a call that is admitted; once, where it is watched.
    #[inline(always)]
    fn begin(&self, word: Word, started: u64) -> Ticket {
        let is_watched = word.is_watched() && word.is_recorded();
        if !(is_watched && self.hot.running().enter(word.cohort())) && word.is_counted() {
            Tallies::count(&self.hot.admitted);
        }
        Ticket { word, started }
    }

    #[inline]
    pub(super) fn started(&self, word: Word) -> u64 {
        if word.is_timed() { self.now() } else { NEVER }
    }

    /// Looks at the rules because time has passed, and admits the call anew if the circuit is no
    /// longer what it was.
    #[cold]
    fn look(&self, word: Word, lease: &mut Option<Lease>) -> Result<Word, Rejection> {
        self.with(|machine, hot, now| machine.look(hot, now, word));
        let present = self.hot.word();
        if present.carried() == word {
            return Ok(word);
        }
        self.ask(present, lease)
    }

    /// The rejection by a circuit that is open and not yet due for a probe, without the lock.
    #[cold]
    fn rejection(&self, word: Word) -> Option<Rejection> {
        if !word.is_open() {
            return None;
        }
        let (now, until) = (self.now(), self.hot.until());
        // `until` is of the generation of `word`, or of a later one, which the lock would tell too.
        (now < until).then(|| Rejection::new(word, until - now))
    }

    #[cold]
    pub(in crate::circuit) fn poll_reserve(
        &self,
        held: Option<Lease>,
        id: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> Readiness {
        // Cloned before the lock is taken, and what it replaces dropped after it.
        let waker = waker.clone();
        let (readiness, _replaced) =
            self.with(|machine, hot, now| match machine.reserve(hot, now, held) {
                Ok(lease) => (Readiness::Ready(lease), None),
                Err(unavailable) => {
                    let wait = unavailable.changes_at.map(|at| at.saturating_sub(now));
                    let waiters = machine.waiters();
                    let id = *id.get_or_insert_with(|| waiters.next_id());
                    let replaced = waiters.register(id, waker);
                    (Readiness::Wait(wait.map(Duration::from_nanos)), replaced)
                }
            });
        readiness
    }

    #[inline]
    pub(in crate::circuit) fn try_reserve(
        &self,
        lease: &mut Option<Lease>,
    ) -> Result<(), Rejection> {
        let word = self.hot.word();
        if word.admits_all() {
            return Ok(());
        }
        match self.rejection(word) {
            Some(rejection) => Err(rejection),
            None => self.reserve(lease),
        }
    }

    #[cold]
    fn reserve(&self, lease: &mut Option<Lease>) -> Result<(), Rejection> {
        let held = lease.take();
        *lease = self.with(|machine, hot, now| {
            let reserved = machine.reserve(hot, now, held);
            reserved.map_err(|_| machine.rejection(hot, now))
        })?;
        Ok(())
    }

    pub(in crate::circuit) fn check(&self) -> Result<(), Option<Duration>> {
        let word = self.hot.word();
        if word.admits_all() {
            return Ok(());
        }
        if let Some(rejection) = self.rejection(word) {
            return Err(Some(Duration::from_nanos(rejection.wait)));
        }
        let (now, machine) = (self.now(), self.lock());
        if machine.is_available(now) {
            Ok(())
        } else {
            Err(machine.retry_after(now))
        }
    }
}

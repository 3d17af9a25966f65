//! A circuit's parts together: the fast way through, and the way round by the lock.

use std::{task::Waker, time::Duration};

use super::{
    clock::{Clock, Timeline},
    config::CircuitBreakerConfig,
    events::{Audience, Event, contain},
    hot::{End, Hot, Missed, NEVER},
    machine::{Lease, Machine, Settlement},
    metrics::{CircuitBreakerMetrics, Latency},
    outcome::Outcome,
    permit::{Rejection, Ticket},
    state::TripReason,
    sync::{
        Arc, AtomicU64, Mutex, MutexGuard,
        Ordering::{Acquire, Relaxed},
    },
    tallies::Tallies,
    waiters::WaiterId,
    window::Kind,
    word::Word,
};

/// In this order, because what is rarely written keeps the beginning of [`Hot`], which every call reads,
/// off the cache line of the `Arc`'s count, which every call writes.
#[repr(C)]
pub(super) struct Shared {
    pub(super) timeline: Timeline,
    pub(super) audience: Audience,
    machine: Mutex<Machine>,
    pub(super) hot: Hot,
}

/// The answer to a service that asks for readiness.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// It may call; in a half-open circuit with this permit.
    Ready(Option<Lease>),
    /// It may not, and its waker is registered. By time alone that can change after so long.
    Wait(Option<Duration>),
}

impl Shared {
    pub(super) fn new(config: CircuitBreakerConfig, clock: Option<Box<dyn Clock>>) -> Self {
        let hot = Hot::new();
        let machine = Machine::new(config, &hot);
        Self {
            timeline: Timeline::new(clock),
            audience: Audience::default(),
            machine: Mutex::new(machine),
            hot,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.timeline.now()
    }

    // ===== admission =====

    #[inline]
    pub(super) fn admit(&self, lease: &mut Option<Lease>) -> Result<Ticket, Rejection> {
        let word = self.hot.word();
        if word.admits_all_unseen() {
            return Ok(Ticket {
                word,
                started: NEVER,
            });
        }
        self.admit_rest(word, lease)
    }

    #[inline(never)]
    fn admit_rest(&self, word: Word, lease: &mut Option<Lease>) -> Result<Ticket, Rejection> {
        // What most calls are, without what the rest has to be ready for.
        if word.admits_all() && !word.is_watched() {
            return Ok(self.begin(word, self.started(word)));
        }
        self.admit_watched(word, lease)
    }

    #[inline(never)]
    fn admit_watched(&self, word: Word, lease: &mut Option<Lease>) -> Result<Ticket, Rejection> {
        let word = if word.admits_all() {
            word
        } else {
            self.admit_slowly(word, lease)?
        };
        self.look_and_begin(word, lease)
    }

    #[cold]
    fn admit_slowly(&self, word: Word, lease: &mut Option<Lease>) -> Result<Word, Rejection> {
        let lease = lease.take();
        if let Some(rejection) = self.rejection(word) {
            Tallies::count(&self.hot.tallies.rejected);
            return Err(rejection);
        }
        self.with(|machine, hot, now| machine.admit(hot, now, lease))
    }

    /// Begins a call that was admitted, unless the rules say otherwise by now.
    fn look_and_begin(
        &self,
        mut word: Word,
        lease: &mut Option<Lease>,
    ) -> Result<Ticket, Rejection> {
        let started = self.started(word);
        if word.is_watched() && word.is_recorded() && started >= self.hot.look_at() {
            word = self.look(word, lease)?;
        }
        Ok(self.begin(word, started))
    }

    #[inline]
    fn started(&self, word: Word) -> u64 {
        if word.is_timed() { self.now() } else { NEVER }
    }

    /// Records what is to be known of a call that was admitted.
    #[inline]
    fn begin(&self, word: Word, started: u64) -> Ticket {
        if word.is_watched() && word.is_recorded() {
            let turn = || self.turn(started);
            self.hot.running().enter(word.cohort(), started, turn);
        }
        if word.is_counted() {
            Tallies::count(&self.hot.tallies.admitted);
        }
        Ticket { word, started }
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
        self.admit_slowly(present, lease)
    }

    /// The rejection by a circuit that is open and not yet due for a probe, without the lock.
    fn rejection(&self, word: Word) -> Option<Rejection> {
        if !word.is_open() {
            return None;
        }
        let (now, until) = (self.now(), self.hot.until());
        // `until` is of the generation of `word`, or of a later one, which the lock would tell too.
        (now < until).then(|| Rejection {
            word,
            wait: until - now,
        })
    }

    #[cold]
    pub(super) fn poll_reserve(
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

    #[cold]
    pub(super) fn try_reserve(&self, held: Option<Lease>) -> Result<Option<Lease>, Rejection> {
        match self.rejection(self.hot.word()) {
            Some(rejection) => Err(rejection),
            None => self.reserve(held),
        }
    }

    #[inline(never)]
    fn reserve(&self, held: Option<Lease>) -> Result<Option<Lease>, Rejection> {
        self.with(|machine, hot, now| {
            let reserved = machine.reserve(hot, now, held);
            reserved.map_err(|_| machine.rejection(hot, now))
        })
    }

    pub(super) fn check(&self) -> Result<(), Option<Duration>> {
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

    // ===== settlement =====

    #[inline]
    pub(super) fn settle(this: Arc<Self>, ticket: Ticket, settlement: Settlement) {
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
    pub(super) fn stop_watching(&self, ticket: Ticket) -> Word {
        let word = ticket.word;
        if !word.is_watched() || !word.is_recorded() {
            return word;
        }
        self.hot.running().leave(word.cohort(), ticket.started);
        word.unwatched()
    }

    #[cold]
    fn turn(&self, now: u64) {
        self.lock().turn(&self.hot, now);
    }

    /// A service that would have been called says that it never will be ready: a call that failed
    /// at once, if one would have been admitted.
    pub(super) fn readiness_failed(&self, lease: Option<Lease>) {
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

    // ===== what others see =====

    pub(super) fn config(&self) -> CircuitBreakerConfig {
        self.lock().config().clone()
    }

    pub(super) fn metrics(&self) -> CircuitBreakerMetrics {
        let now = self.now();
        let hot = &self.hot;
        let (seen, word) = {
            let mut machine = self.lock();
            (machine.snapshot(hot, now), hot.word())
        };
        let date = |at| self.timeline.date(at);
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let moment = |counter| Some(read(counter)).filter(|at| *at != NEVER).map(date);
        let tallies = &hot.tallies;
        let (good, bad) = (read(&tallies.good), read(&tallies.bad));
        let counted = seen.lifetime;
        let failed = counted.bad + bad;
        let ignored = read(&tallies.ignored);
        let successful = word.is_counted().then_some(counted.good + good);
        // After the settled ones, so that it is never less than those. Acquire for that order.
        let admitted = tallies.admitted.load(Acquire);
        let total = word.is_counted().then_some(admitted);
        let in_flight = successful.map(|good| admitted.saturating_sub(good + failed + ignored));
        CircuitBreakerMetrics {
            total_requests: total,
            successful_requests: successful,
            failed_requests: failed,
            ignored_requests: ignored,
            rejected_requests: read(&tallies.rejected),
            cancelled_requests: read(&tallies.cancelled),
            timed_out_requests: read(&tallies.timed_out),
            slow_requests: word.is_watched().then(|| read(&tallies.slow)),
            in_flight,
            last_success_time: moment(&tallies.last_success).filter(|_| word.is_counted()),
            last_failure_time: moment(&tallies.last_failure).filter(|_| word.is_timed_at_its_end()),
            current_state: seen.state,
            available: seen.available,
            state_changed_at: date(seen.since),
            error_rate: (word.errors() != Kind::None).then(|| seen.errors.rate()),
            slow_rate: (word.slow() != Kind::None).then(|| seen.slow.rate()),
            retry_after: seen.retry_after,
            next_probe_at: seen.due.map(date),
            latency: self.latency().filter(|_| word.is_counted()),
            trip_reason: seen.reason,
            opened_total: seen.opened,
            recoveries_total: seen.recoveries,
            failed_recoveries_total: seen.failed_recoveries,
        }
    }

    #[cfg(feature = "latency")]
    fn latency(&self) -> Option<Latency> {
        let latencies = self.hot.latencies.get()?;
        latencies.percentiles()
    }

    #[cfg(not(feature = "latency"))]
    fn latency(&self) -> Option<Latency> {
        None
    }

    // ===== the lock =====

    pub(super) fn deregister(&self, id: WaiterId) {
        let _waker = self.lock().waiters().deregister(id);
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing panics while it is held, so what it guards is whole.
        self.machine
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the machine, then, with the lock released, wakes and tells whom that concerns.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Machine, &Hot, u64) -> T) -> T {
        let now = self.now();
        let (result, wake, mut told) = {
            let mut machine = self.lock();
            let result = change(&mut machine, &self.hot, now);
            (
                result,
                machine.take_wakers(),
                machine.next_transition(false),
            )
        };
        for waker in wake {
            contain(|| waker.wake());
        }
        while let Some(transition) = told {
            self.audience.tell(Event {
                from: transition.from,
                to: transition.to,
                reason: transition.reason,
                at: self.timeline.date(transition.at),
                generation: transition.generation,
            });
            told = self.lock().next_transition(true);
        }
        result
    }
}

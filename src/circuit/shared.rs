//! A circuit's parts together: the fast way through, and the way round by the lock.

use std::{task::Waker, time::Duration};

use super::{
    clock::{Clock, Timeline},
    config::CircuitBreakerConfig,
    events::{Audience, Event, contain},
    hot::{Hot, NEVER, Tallies},
    machine::{Lease, Machine, Settlement},
    metrics::{CircuitBreakerMetrics, Latency},
    outcome::Outcome,
    permit::{Rejection, Ticket},
    state::TripReason,
    sync::{
        Mutex, MutexGuard,
        Ordering::{Acquire, Relaxed},
    },
    waiters::WaiterId,
    word::Word,
};

pub(super) struct Shared {
    pub(super) hot: Hot,
    pub(super) timeline: Timeline,
    machine: Mutex<Machine>,
    pub(super) audience: Audience,
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
        let (hot, rings) = Hot::new(config);
        Self {
            hot,
            timeline: Timeline::new(clock),
            machine: Mutex::new(Machine::new(rings)),
            audience: Audience::default(),
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
        let word = if word.admits_all() {
            word
        } else {
            self.admit_slowly(word, lease)?
        };
        if self.hot.records_all {
            Tallies::count(&self.hot.tallies.admitted);
        }
        let started = if self.hot.reads_start() {
            self.now()
        } else {
            NEVER
        };
        Ok(Ticket { word, started })
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
        if let Some(rejection) = self.rejection(self.hot.word()) {
            return Err(rejection);
        }
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
        if machine.is_available(&self.hot, now) {
            Ok(())
        } else {
            Err(machine.retry_after(&self.hot, now))
        }
    }

    // ===== settlement =====

    #[inline]
    pub(super) fn settle(&self, ticket: Ticket, settlement: Settlement) {
        let Settlement { outcome, cause } = settlement;
        self.hot.tallies.cause(cause);
        if !ticket.word.admits_all() {
            return self.settle_probe(ticket, outcome);
        }
        if outcome == Outcome::Ignored {
            return Tallies::count(&self.hot.tallies.ignored);
        }
        let now = if self.hot.reads_end() {
            self.now()
        } else {
            NEVER
        };
        let ran = now.saturating_sub(ticket.started);
        self.hot.took(ran);
        let bad = outcome != Outcome::Success;
        let turn = || self.turn(now);
        let broken = self.hot.settle(ticket.word, now, ran, bad, turn);
        if broken.is_some() || (bad && outcome != Outcome::FAILURE) {
            self.conclude(ticket.word, broken, outcome);
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
            if outcome != Outcome::Ignored {
                hot.took(ran);
            }
            machine.settle_probe(hot, now, ticket.word, ran, outcome);
        });
    }

    #[cold]
    fn turn(&self, now: u64) {
        self.lock().turn(&self.hot, now);
    }

    /// A service that would have been called says that it never will be ready: a call that failed
    /// at once, if one would have been admitted.
    pub(super) fn readiness_failed(&self, lease: Option<Lease>) {
        let admitted = self.with(|machine, hot, now| machine.take_permit(hot, now, lease));
        if self.hot.records_all {
            Tallies::count(&self.hot.tallies.admitted);
        }
        match admitted {
            Some(word) => {
                let ticket = Ticket {
                    word,
                    started: self.now(),
                };
                self.settle(ticket, Settlement::FAILURE);
            }
            None => self.hot.tallies.settled(true),
        }
    }

    // ===== what others see =====

    pub(super) fn metrics(&self) -> CircuitBreakerMetrics {
        let now = self.now();
        let hot = &self.hot;
        let seen = self.lock().snapshot(hot, now);
        let date = |at| self.timeline.date(at);
        let read = |counter: &super::sync::AtomicU64| counter.load(Relaxed);
        let moment = |counter| Some(read(counter)).filter(|at| *at != NEVER).map(date);
        let tallies = &hot.tallies;
        let (good, bad) = (read(&tallies.good), read(&tallies.bad));
        let counted = seen.lifetime.unwrap_or_default();
        let failed = counted.bad + bad;
        let ignored = read(&tallies.ignored);
        let successful = hot.records_all.then_some(counted.good + good);
        // After the settled ones, so that it is never less than those. Acquire for that order.
        let admitted = tallies.admitted.load(Acquire);
        let total = hot.records_all.then_some(admitted);
        let in_flight = successful.map(|good| admitted.saturating_sub(good + failed + ignored));
        let is_slow = hot.config.slow_call_duration.is_some();
        CircuitBreakerMetrics {
            total_requests: total,
            successful_requests: successful,
            failed_requests: failed,
            ignored_requests: ignored,
            rejected_requests: read(&tallies.rejected),
            cancelled_requests: read(&tallies.cancelled),
            timed_out_requests: read(&tallies.timed_out),
            slow_requests: is_slow.then(|| read(&tallies.slow)),
            in_flight,
            last_success_time: moment(&tallies.last_success).filter(|_| hot.records_all),
            last_failure_time: moment(&tallies.last_failure).filter(|_| hot.reads_end()),
            current_state: seen.state,
            available: seen.available,
            state_changed_at: date(seen.since),
            error_rate: hot.errors.is_some().then(|| seen.errors.rate()),
            slow_rate: hot.slow.is_some().then(|| seen.slow.rate()),
            retry_after: seen.retry_after,
            next_probe_at: seen.due.map(date),
            latency: self.latency(),
            trip_reason: seen.reason,
            opened_total: seen.opened,
            recoveries_total: seen.recoveries,
            failed_recoveries_total: seen.failed_recoveries,
        }
    }

    #[cfg(feature = "latency")]
    fn latency(&self) -> Option<Latency> {
        self.hot.latencies.as_ref()?.percentiles()
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

//! The circuit: a state machine that knows no Tower, no HTTP and no runtime.
//!
//! A [`Circuit`] watches the outcomes of calls to one dependency. While they are well it is
//! *closed* and admits everything. When one of its rules says that the dependency is failing it
//! *opens* and rejects everything, so that callers fail fast and the dependency can recover. After
//! a while it becomes *half-open*: a few calls go through as probes, and their outcomes close it
//! or open it again.
//!
//! [`CircuitBreaker`](crate::CircuitBreaker) puts a circuit in front of a Tower service. Without
//! Tower, ask for a permit and say how the call ended:
//!
//! ```
//! use tower_breaker::{Circuit, CircuitBreakerConfig};
//!
//! let circuit = Circuit::new(CircuitBreakerConfig::default());
//!
//! match circuit.try_acquire() {
//!     Ok(permit) => match std::fs::read("/proc/uptime") {
//!         Ok(_) => permit.success(),
//!         Err(_) => permit.failure(),
//!     },
//!     Err(open) => println!("not now: {open}"),
//! }
//! assert_eq!(circuit.metrics().total_requests, 1);
//! ```
//!
//! # What holds under concurrency
//!
//! Admissions and settlements are put in one order by a lock that is held for a few dozen
//! instructions, and never while user code, a waker or a listener runs. In that order, a circuit
//! opens at the settlement that makes a rule true, every transition happens once and is told
//! once, never more than `half_open_requests` probes are in flight in one half-open turn, and no
//! call is lost or counted twice. [`Circuit::metrics`] is a moment in that order.

mod clock;
mod config;
mod events;
mod machine;
mod metrics;
mod outcome;
mod permit;
mod state;
mod waiters;
mod window;
#[cfg(feature = "serde")]
mod wire;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

#[cfg(feature = "http")]
pub(crate) use self::clock::wall_clock;
use self::{
    clock::Timeline,
    events::{Audience, contain},
    machine::{Machine, Settlement, Ticket},
};
pub use self::{
    clock::{Clock, DefaultClock, ManualClock},
    config::{
        CircuitBreakerConfig, CircuitBreakerConfigBuilder, ConfigError, OnCancel, RetryAfterPolicy,
    },
    events::{Event, Events, Lagged},
    metrics::CircuitBreakerMetrics,
    outcome::Outcome,
    permit::{Open, Permit},
    state::{CircuitState, TripReason},
};
pub(crate) use self::{machine::Lease, waiters::WaiterId};

/// A handle to a circuit. Clones are handles to the same one.
#[derive(Clone)]
pub struct Circuit {
    shared: Arc<Shared>,
}

struct Shared {
    config: CircuitBreakerConfig,
    timeline: Timeline,
    machine: Mutex<Machine>,
    audience: Audience,
}

/// The answer to a service that asks for readiness.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// It may call; in a half-open circuit with this permit.
    Ready(Option<Lease>),
    /// It may not, and its waker is registered. By time alone that can change after so long.
    Wait(Option<Duration>),
}

impl Circuit {
    /// A closed circuit on the [`DefaultClock`].
    pub fn new(config: CircuitBreakerConfig) -> Self {
        Self::with_clock(config, DefaultClock)
    }

    /// A closed circuit on a clock of its own.
    pub fn with_clock(config: CircuitBreakerConfig, clock: impl Clock) -> Self {
        let machine = Mutex::new(Machine::new(&config));
        Self {
            shared: Arc::new(Shared {
                config,
                timeline: Timeline::new(clock),
                machine,
                audience: Audience::default(),
            }),
        }
    }

    /// Admits a call.
    ///
    /// # Errors
    ///
    /// [`Open`] if the circuit is open, or half-open with all its probes out.
    pub fn try_acquire(&self) -> Result<Permit, Open> {
        self.acquire(None)
    }

    /// Closes the circuit and empties its window. Calls in flight no longer bear on it, and
    /// lifetime totals stay. It also ends [`force_open`](Self::force_open) and
    /// [`disable`](Self::disable).
    pub fn reset(&self) {
        self.with(|machine, _, now| machine.reset(now));
    }

    /// Rejects all calls until [`reset`](Self::reset) or [`disable`](Self::disable); no time ends
    /// it.
    pub fn force_open(&self) {
        self.with(|machine, _, now| machine.force_open(now));
    }

    /// Admits all calls, and still records them, until [`reset`](Self::reset) or
    /// [`force_open`](Self::force_open).
    pub fn disable(&self) {
        self.with(|machine, _, now| machine.disable(now));
    }

    /// The state. A change that is due by time shows once a call has brought it about; see
    /// [`is_available`](Self::is_available).
    pub fn state(&self) -> CircuitState {
        self.lock().state()
    }

    /// Whether a call would be admitted now. It reserves nothing, so the next call may find it
    /// otherwise.
    pub fn is_available(&self) -> bool {
        let now = self.now();
        self.lock().is_available(self.settings(), now)
    }

    /// Tells others whether a call would be admitted, and if not, when to try again, if that is
    /// known: for [`Fallback::or_link`](crate::fallback::Fallback::or_link) and its like.
    pub fn probe(
        &self,
    ) -> impl Fn() -> Result<(), Option<Duration>> + Clone + Send + Sync + use<> + 'static {
        let circuit = self.clone();
        move || circuit.check()
    }

    /// What the circuit has seen.
    pub fn metrics(&self) -> CircuitBreakerMetrics {
        let now = self.now();
        let seen = self.lock().snapshot(self.settings(), now);
        let date = |at| self.shared.timeline.date(at);
        let slow = self.settings().slow_call_duration.is_some();
        CircuitBreakerMetrics {
            total_requests: seen.totals.successful
                + seen.totals.failed
                + seen.totals.ignored
                + seen.totals.in_flight,
            successful_requests: seen.totals.successful,
            failed_requests: seen.totals.failed,
            ignored_requests: seen.totals.ignored,
            rejected_requests: seen.totals.rejected,
            cancelled_requests: seen.totals.cancelled,
            timed_out_requests: seen.totals.timed_out,
            slow_requests: slow.then_some(seen.totals.slow),
            in_flight: seen.totals.in_flight,
            last_success_time: seen.totals.last_success.map(date),
            last_failure_time: seen.totals.last_failure.map(date),
            current_state: seen.state,
            available: seen.available,
            state_changed_at: date(seen.since),
            error_rate: seen.window.error_rate(),
            slow_rate: slow.then(|| seen.window.slow_rate()),
            retry_after: seen.retry_after,
            next_probe_at: seen.due.map(date),
            trip_reason: seen.reason,
            opened_total: seen.totals.opened,
            recoveries_total: seen.totals.recoveries,
            failed_recoveries_total: seen.totals.failed_recoveries,
        }
    }

    /// The configuration.
    pub fn config(&self) -> CircuitBreakerConfig {
        self.settings().clone()
    }

    /// Calls `listener` at every change of state, in order, from whatever thread brings it about
    /// and outside every lock. It may call back into the circuit; its panics are caught. It is
    /// kept as long as the circuit, so it should not hold a handle to it.
    pub fn on_state_change(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.shared.audience.listen(listener);
    }

    /// Every change of state from now on, as a stream. A subscriber that falls 64 events behind
    /// loses the oldest and is told how many; it never slows a call.
    pub fn events(&self) -> Events {
        self.shared.audience.subscribe()
    }

    /// What [`probe`](Self::probe) tells.
    pub(crate) fn check(&self) -> Result<(), Option<Duration>> {
        let now = self.now();
        let machine = self.lock();
        if machine.is_available(self.settings(), now) {
            Ok(())
        } else {
            Err(machine.retry_after(self.settings(), now))
        }
    }

    // ===== for the service =====

    /// Admits a call that may have reserved a permit before.
    pub(crate) fn acquire(&self, lease: Option<Lease>) -> Result<Permit, Open> {
        let ticket = self.with(|machine, config, now| machine.admit(config, now, lease))?;
        Ok(Permit::new(self.clone(), ticket))
    }

    /// Counts a service that will never be ready as a failure.
    pub(crate) fn readiness_failed(&self, lease: Option<Lease>) {
        self.with(|machine, config, now| machine.readiness_failed(config, now, lease));
    }

    /// Rejects a call without asking anew.
    pub(crate) fn reject(&self) -> Open {
        self.with(|machine, config, now| machine.reject(config, now))
    }

    /// Asks for readiness, or else has `waker` woken at the next change, under `id`.
    pub(crate) fn poll_reserve(
        &self,
        held: Option<Lease>,
        id: &mut Option<WaiterId>,
        waker: &Waker,
    ) -> Readiness {
        // Cloned before the lock is taken, and what it replaces dropped after it.
        let waker = waker.clone();
        let (readiness, _replaced) =
            self.with(
                |machine, config, now| match machine.reserve(config, now, held) {
                    Ok(lease) => (Readiness::Ready(lease), None),
                    Err(unavailable) => {
                        let wait = unavailable.changes_at.map(|at| at.saturating_sub(now));
                        let waiters = machine.waiters();
                        let id = *id.get_or_insert_with(|| waiters.next_id());
                        let replaced = waiters.register(id, waker);
                        (Readiness::Wait(wait.map(Duration::from_nanos)), replaced)
                    }
                },
            );
        readiness
    }

    /// Like [`poll_reserve`](Self::poll_reserve) for a service that doesn't wait.
    pub(crate) fn try_reserve(&self, held: Option<Lease>) -> Option<Option<Lease>> {
        self.with(|machine, config, now| machine.reserve(config, now, held).ok())
    }

    /// Gives back a permit that was reserved and not used.
    pub(crate) fn release(&self, lease: Lease) {
        self.with(|machine, _, _| machine.release(lease));
    }

    /// Forgets a waiter.
    pub(crate) fn deregister(&self, id: WaiterId) {
        let _waker = self.lock().waiters().deregister(id);
    }

    fn settle(&self, ticket: Ticket, settlement: Settlement) {
        self.with(|machine, config, now| machine.settle(config, now, ticket, settlement));
    }

    pub(crate) fn settings(&self) -> &CircuitBreakerConfig {
        &self.shared.config
    }

    fn now(&self) -> u64 {
        self.shared.timeline.now()
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing panics while it is held, so what it guards is whole.
        self.shared
            .machine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the machine, then, with the lock released, wakes and tells whom that concerns.
    fn with<T>(&self, change: impl FnOnce(&mut Machine, &CircuitBreakerConfig, u64) -> T) -> T {
        let now = self.now();
        let (result, wake, mut told) = {
            let mut machine = self.lock();
            let result = change(&mut machine, self.settings(), now);
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
            self.shared.audience.tell(Event {
                from: transition.from,
                to: transition.to,
                reason: transition.reason,
                at: self.shared.timeline.date(transition.at),
                generation: transition.generation,
            });
            told = self.lock().next_transition(true);
        }
        result
    }
}

impl From<CircuitBreakerConfig> for Circuit {
    fn from(config: CircuitBreakerConfig) -> Self {
        Self::new(config)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

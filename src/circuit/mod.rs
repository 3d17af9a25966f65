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
//! assert_eq!(circuit.metrics().total_requests, Some(1));
//! ```
//!
//! # What holds under concurrency
//!
//! While a circuit is closed its calls take no lock: each is admitted at one read of the state, and
//! settled at one access to the word of each rule. (Both rates share one, in a window of time.)
//! Changes of state and half-open turns happen under a lock that is held for a few dozen
//! instructions, and never while user code, a waker or a listener runs.
//!
//! - A circuit opens in the settlement that makes a rule true: that very call finds it, and has
//!   opened the circuit when it returns. Calls that are admitted or settled meanwhile come before.
//!   (`loom_a_run_of_failures_opens_exactly_once`, `loom_an_error_rate_opens_exactly_once`,
//!   `loom_a_run_is_ended_or_completed_by_what_comes_between`)
//! - Every transition happens once and is told once, in order.
//!   (`loom_manual_control_and_traffic_do_not_lose_each_other`)
//! - Never more than `half_open_requests` probes are in flight in one half-open turn.
//!   (`loom_a_half_open_turn_admits_no_more_than_its_probes`)
//! - No call is lost or counted twice, also while a window turns, and what settles in a later
//!   generation moves no window, run or probe count of it. (`loom_a_window_loses_no_failure_while_it_turns`,
//!   `loom_a_window_loses_no_success_while_it_turns`,
//!   `loom_a_late_result_moves_nothing_of_the_next_generation`,
//!   `loom_a_call_of_the_new_generation_is_not_lost`)
//! - A call that still runs though it is slow by now is counted once: as such, or as settled.
//!   (`loom_a_hanging_call_opens_exactly_once`,
//!   `loom_nobody_is_lost_who_enters_while_it_turns`, `loom_nobody_stays_who_leaves_while_it_turns`,
//!   `loom_a_moment_comes_round_while_two_are_about_it`, `loom_a_call_of_another_cohort_moves_nothing`;
//!   explored as far as threads are interrupted six times,
//!   `loom_a_hanging_call_and_its_settlement_are_never_counted_both`; and four times,
//!   `loom_a_call_runs_no_more_that_ended_with_its_moment`, `..._while_metrics_were_taken`,
//!   `..._while_the_circuit_was_reset`, `..._while_its_window_was_replaced`,
//!   `..._while_others_began_to_be_watched`)
//! - A call whose answer goes on after its head (with
//!   [`.body()`](crate::CircuitBreakerLayer::body)) is counted once, when it has ended; one with a slow
//!   head counts as slow until then, and not twice. A probe that keeps its turn loses no race against
//!   whoever finds the turn at its end.
//!   (`loom_an_answer_that_goes_on_is_counted_once`,
//!   `loom_a_slow_answer_that_goes_on_and_its_settlement_are_never_counted_both`,
//!   `loom_a_turn_is_kept_or_has_ended`)
//! - A call in flight while the circuit is [reconfigured](Circuit::reconfigure) counts by the old
//!   configuration or by the new one.
//!   (`loom_a_call_is_counted_in_one_window_or_the_next`,
//!   `loom_a_call_is_counted_in_one_size_of_window_or_the_next`,
//!   `loom_a_slow_call_is_counted_in_one_size_of_window_or_the_next`,
//!   `loom_a_call_is_counted_where_all_is_recorded_or_only_what_the_rules_need`,
//!   `loom_an_ignored_call_is_admitted_once_though_all_is_recorded_from_now_on`,
//!   `loom_a_failure_is_admitted_once_though_all_is_recorded_from_now_on`,
//!   `loom_no_total_goes_down_when_another_window_begins`)
//! - The totals add up whenever they are looked at, and never show more calls than there are.
//!   (`loom_a_call_that_settles_while_metrics_are_taken_was_admitted`)
//! - Whoever waits for readiness is woken by whatever it may wait for. (`loom_no_wake_up_is_lost_to_a_reset`,
//!   `..._to_a_disabling`, `..._to_a_forced_opening`, `..._to_a_reconfiguration`,
//!   `..._to_a_probe_that_gives_its_place_back`, `..._to_a_probe_that_closes_the_circuit`,
//!   `..._to_a_probe_that_opens_it_again`)
//!
//! What is not guaranteed:
//!
//! - The rules are independent, so two settlements at the same time may take effect in one order for
//!   the run of failures and in the other for a rate.
//! - A slow call that is just settling may be missing for a moment from what others see. Where it
//!   makes the difference, it opens the circuit itself, a moment later.
//! - With rates over windows of calls, a call that settles while the circuit is reconfigured may be
//!   counted among the failed or good ones, and be missing from the share of slow ones.
//! - [`Circuit::metrics`] is consistent but for calls that settle while it is taken: what such a call
//!   counts in more than one figure may show in one of them first.
//!
//! The names are those of the models in `src/circuit/models.rs`, in `running.rs` and in
//! `window/count/loom_tests.rs`, which explore every interleaving of a few calls, but where it says
//! otherwise.

mod backoff;
mod clock;
mod config;
mod events;
mod hold;
mod hot;
mod instant;
#[cfg(feature = "latency")]
mod latency;
mod machine;
mod metrics;
mod outcome;
mod permit;
mod run;
mod running;
mod shape;
mod shared;
mod state;
mod sync;
mod tallies;
mod waiters;
mod window;
#[cfg(feature = "serde")]
mod wire;
mod word;

#[cfg(all(test, tower_breaker_loom))]
mod models;
#[cfg(all(test, not(tower_breaker_loom)))]
mod tests;

use std::{fmt, time::Duration};

#[cfg(feature = "coarse")]
pub use self::clock::CoarseClock;
#[cfg(feature = "quanta")]
pub use self::clock::QuantaClock;
pub use self::{
    backoff::ResetBackoff,
    clock::{Clock, DefaultClock, ManualClock},
    config::{
        CircuitBreakerConfig, CircuitBreakerConfigBuilder, ConfigError, OnCancel, Record,
        RetryAfterPolicy,
    },
    events::{Event, Events, Lagged},
    metrics::{CircuitBreakerMetrics, Latency},
    outcome::Outcome,
    permit::{Open, Permit},
    state::{CircuitState, TripReason},
};
#[cfg(feature = "http")]
pub(crate) use self::{
    clock::{timer_now, wall_clock},
    permit::Ran,
};
use self::{hold::Handle, shared::Shared, sync::Arc};
pub(crate) use self::{machine::Lease, permit::Rejection, shared::Readiness, waiters::WaiterId};

/// A handle to a circuit. Clones are handles to the same one.
#[derive(Clone)]
pub struct Circuit {
    shared: Arc<Handle>,
}

impl Circuit {
    /// A closed circuit on the [`DefaultClock`].
    pub fn new(config: CircuitBreakerConfig) -> Self {
        Self {
            shared: Arc::new(Handle::new(Shared::new(config, None))),
        }
    }

    /// A closed circuit on a clock of its own.
    pub fn with_clock(config: CircuitBreakerConfig, clock: impl Clock) -> Self {
        Self {
            shared: Arc::new(Handle::new(Shared::new(config, Some(Box::new(clock))))),
        }
    }

    /// Admits a call.
    ///
    /// # Errors
    ///
    /// [`Open`] if the circuit is open, or half-open with all its probes out.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Open> {
        self.acquire(&mut None).map_err(Open::from)
    }

    /// Closes the circuit and empties its window. Calls in flight no longer bear on it, and
    /// lifetime totals stay. It also ends [`force_open`](Self::force_open) and
    /// [`disable`](Self::disable).
    pub fn reset(&self) {
        self.shared
            .with(|machine, hot, now| machine.reset(hot, now));
    }

    /// Rejects all calls until [`reset`](Self::reset) or [`disable`](Self::disable); no time ends
    /// it.
    pub fn force_open(&self) {
        self.shared
            .with(|machine, hot, now| machine.force_open(hot, now));
    }

    /// Admits all calls, and still records them, until [`reset`](Self::reset) or
    /// [`force_open`](Self::force_open).
    pub fn disable(&self) {
        self.shared
            .with(|machine, hot, now| machine.disable(hot, now));
    }

    /// Goes on with another configuration, in place and at once: calls in flight settle by it, and
    /// whoever waits looks again.
    ///
    /// What the windows hold stays, unless they are to be over another time or number of calls; then
    /// they begin anew. (Calls that settled while none could be slow count as not slow in a window of
    /// time; a window of calls begins to look for slow ones with none.) The run of failures, the state
    /// and the totals stay in any case. An open circuit waits as long as it would with the new
    /// `reset_timeout` and `reset_backoff`, counted from when it opened. Calls in flight while
    /// `slow_call_duration` or `record` is changed count as slow only when they have settled.
    ///
    /// While [`Record::Rules`] holds, totals that it does not keep stand still. When [`Record::All`]
    /// comes back, `total_requests` goes on from the calls that have settled, and those in flight join it
    /// as they settle; one that begins or settles in that very moment may be missing from it, or, where
    /// [`Record::All`] went and came back meanwhile, be in it twice.
    pub fn reconfigure(&self, config: CircuitBreakerConfig) {
        self.shared
            .with(|machine, hot, now| machine.reconfigure(hot, now, config));
    }

    /// The state. A change that is due by time shows once a call has brought it about; see
    /// [`is_available`](Self::is_available).
    pub fn state(&self) -> CircuitState {
        self.shared.hot.word().state()
    }

    /// Whether a call would be admitted now. It reserves nothing, so the next call may find it
    /// otherwise.
    pub fn is_available(&self) -> bool {
        self.check().is_ok()
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
        self.shared.metrics()
    }

    /// The configuration.
    pub fn config(&self) -> CircuitBreakerConfig {
        self.shared.config()
    }

    /// Calls `listener` at every change of state, in order, from whatever thread brings it about
    /// and outside every lock. It may call back into the circuit; its panics are caught. It is
    /// kept as long as there is a handle to the circuit, or a service over it, so it should not hold
    /// one. (A call in flight is none.)
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
        self.shared.check()
    }

    // ===== for the registry =====

    /// `None` while it is in use: by another handle, a service, or, as far as calls in flight are known,
    /// a call. Else whether no call in the windows failed or was slow.
    pub(crate) fn rests_well(&mut self) -> Option<bool> {
        // Unlike the bare count, this also sees whatever the last other holder did.
        Arc::get_mut(&mut self.shared)?.rests_well()
    }

    // ===== for the service =====

    /// Whether all calls are admitted, without reservations.
    #[inline]
    pub(crate) fn admits_all(&self) -> bool {
        self.shared.hot.word().admits_all()
    }

    /// Admits a call, which spends what it has reserved if there is need for that.
    #[inline]
    pub(crate) fn acquire(&self, lease: &mut Option<Lease>) -> Result<Permit, Rejection> {
        let ticket = self.shared.admit(lease)?;
        Ok(Permit::new(hold::take(&self.shared), ticket))
    }

    /// Counts a call that is rejected without being asked for anew.
    pub(crate) fn count_rejection(&self) {
        tallies::Tallies::count(&self.shared.hot.tallies.rejected);
    }

    /// Rejects a call without asking anew.
    #[cfg(feature = "models")]
    pub(crate) fn reject(&self) -> Open {
        let rejection = self
            .shared
            .with(|machine, hot, now| machine.reject(hot, now));
        rejection.into()
    }

    /// Asks for readiness, or else has `waker` woken at the next change, under `id`.
    pub(crate) fn poll_reserve(
        &self,
        held: Option<Lease>,
        id: &mut Option<WaiterId>,
        waker: &std::task::Waker,
    ) -> Readiness {
        self.shared.poll_reserve(held, id, waker)
    }

    /// Like [`poll_reserve`](Self::poll_reserve) for a service that doesn't wait.
    #[inline]
    pub(crate) fn try_reserve(&self, lease: &mut Option<Lease>) -> Result<(), Rejection> {
        self.shared.try_reserve(lease)
    }

    /// Gives back a permit that was reserved and not used.
    pub(crate) fn release(&self, lease: Lease) {
        self.shared.with(|machine, _, _| machine.release(lease));
    }

    /// Counts a service that will never be ready as a failure.
    pub(crate) fn readiness_failed(&self, lease: Option<Lease>) {
        self.shared.readiness_failed(lease);
    }

    /// Forgets a waiter.
    pub(crate) fn deregister(&self, id: WaiterId) {
        self.shared.deregister(id);
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

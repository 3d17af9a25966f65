//! Loom models: every interleaving of a few calls, checked.
//!
//! ```text
//! RUSTFLAGS="--cfg tower_breaker_loom" cargo test --release --lib --no-default-features --features tokio,http loom_
//! ```

use std::{
    sync::atomic::{AtomicUsize, Ordering as StdOrdering},
    task::{Wake, Waker},
    time::Duration,
};

use loom::{model::Builder, thread};

use super::{
    config::CircuitBreakerConfigBuilder,
    shared::Readiness,
    window::{Present, Settled, Sums, TimeWindow},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

/// In full: most models are small enough for that.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_up_to(None, model);
}

/// As far as threads are interrupted so often.
fn explore_up_to(interruptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = interruptions;
    builder.check(model);
}

fn config() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .record(Record::Rules)
}

fn circuit(config: CircuitBreakerConfigBuilder) -> (Circuit, ManualClock) {
    let clock = ManualClock::new();
    let config = config.build().expect("these are within their ranges");
    (Circuit::with_clock(config, clock.clone()), clock)
}

fn call(circuit: &Circuit, outcome: Outcome) {
    if let Ok(permit) = circuit.try_acquire() {
        permit.settle(outcome);
    }
}

/// Runs both at once, then returns.
fn both(circuit: &Circuit, one: impl FnOnce(Circuit) + 'static, other: impl FnOnce(Circuit)) {
    let theirs = circuit.clone();
    let handle = thread::spawn(move || one(theirs));
    other(circuit.clone());
    handle.join().expect("it does not panic");
}

#[test]
fn loom_a_run_of_failures_opens_exactly_once() {
    explore(|| {
        let (circuit, _) = circuit(config().failure_threshold(2));
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::FAILURE),
            |circuit| call(&circuit, Outcome::FAILURE),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Open);
        assert_eq!((metrics.opened_total, metrics.failed_requests), (1, 2));
    });
}

#[test]
fn loom_a_run_is_ended_or_completed_by_what_comes_between() {
    explore(|| {
        let (circuit, _) = circuit(config().failure_threshold(2));
        call(&circuit, Outcome::FAILURE);
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::FAILURE),
            |circuit| call(&circuit, Outcome::Success),
        );
        // Success first: a run of one is left, and one more failure completes it.
        if circuit.state() == CircuitState::Closed {
            call(&circuit, Outcome::FAILURE);
        }
        assert_eq!(circuit.metrics().opened_total, 1);
    });
}

#[test]
fn loom_an_error_rate_opens_exactly_once() {
    explore(|| {
        let rate = config().error_threshold_percentage(100).volume_threshold(2);
        let (circuit, _) = circuit(rate);
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::FAILURE),
            |circuit| call(&circuit, Outcome::FAILURE),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Open);
        assert_eq!((metrics.opened_total, metrics.failed_requests), (1, 2));
    });
}

#[test]
fn loom_an_error_rate_over_calls_opens_exactly_once() {
    explore(|| {
        let rate = config()
            .error_threshold_percentage(100)
            .volume_threshold(2)
            .window(2);
        let (circuit, _) = circuit(rate);
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::FAILURE),
            |circuit| call(&circuit, Outcome::FAILURE),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Open);
        assert_eq!((metrics.opened_total, metrics.failed_requests), (1, 2));
    });
}

#[test]
fn loom_a_late_result_is_not_in_the_next_generations_window_of_calls() {
    explore(|| {
        let rules = config()
            .error_threshold_percentage(100)
            .volume_threshold(1)
            .window(1);
        let (circuit, _) = circuit(rules);
        let late = circuit.try_acquire().expect("it is closed");
        both(&circuit, |circuit| circuit.reset(), |_| late.failure());
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Closed);
        assert_eq!(
            (metrics.failed_requests, metrics.error_rate),
            (1, Some(0.0))
        );
    });
}

#[test]
fn loom_a_half_open_turn_admits_no_more_than_its_probes() {
    explore(|| {
        let (circuit, clock) = circuit(config().failure_threshold(1).half_open_requests(1));
        call(&circuit, Outcome::FAILURE);
        clock.advance(120 * SECOND);
        let theirs = circuit.clone();
        let handle = thread::spawn(move || theirs.try_acquire());
        let probes = [circuit.try_acquire(), handle.join().unwrap()];
        assert_eq!(probes.iter().flatten().count(), 1);
    });
}

#[test]
fn loom_a_late_result_moves_nothing_of_the_next_generation() {
    explore(|| {
        let rules = config()
            .failure_threshold(1)
            .error_threshold_percentage(100)
            .volume_threshold(1);
        let (circuit, _) = circuit(rules);
        let late = circuit.try_acquire().expect("it is closed");
        both(
            &circuit,
            |circuit| circuit.reset(),
            |_| late.failure(), // opens what is then reset, or comes too late
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Closed);
        assert_eq!(
            (metrics.failed_requests, metrics.error_rate),
            (1, Some(0.0))
        );
        assert!(metrics.opened_total <= 1);
    });
}

#[test]
fn loom_a_call_of_the_new_generation_is_not_lost() {
    explore(|| {
        let rules = config().error_threshold_percentage(100).volume_threshold(1);
        let (circuit, _) = circuit(rules);
        circuit.force_open();
        both(
            &circuit,
            |circuit| circuit.reset(),
            |circuit| call(&circuit, Outcome::FAILURE),
        );
        let metrics = circuit.metrics();
        // Rejected before the reset, or else it opened the circuit, alone as it was.
        let expected = match metrics.failed_requests {
            0 => (CircuitState::Closed, 1),
            _ => (CircuitState::Open, 0),
        };
        assert_eq!((metrics.current_state, metrics.rejected_requests), expected);
    });
}

#[test]
fn loom_manual_control_and_traffic_do_not_lose_each_other() {
    explore(|| {
        let (circuit, _) = circuit(config().failure_threshold(1));
        both(
            &circuit,
            |circuit| circuit.force_open(),
            |circuit| call(&circuit, Outcome::FAILURE),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::ForcedOpen);
        assert_eq!(metrics.failed_requests + metrics.rejected_requests, 1);
    });
}

/// Slow after a second; with a clock that stands at two.
fn with_one_that_hangs(config: CircuitBreakerConfigBuilder) -> (Circuit, Permit) {
    let slow = config.slow_call_duration(SECOND).slow_call_percentage(100);
    let (circuit, clock) = circuit(slow);
    let hanging = circuit.try_acquire().expect("it is closed");
    clock.advance(2 * SECOND);
    (circuit, hanging)
}

#[test]
fn loom_a_hanging_call_opens_exactly_once() {
    explore(|| {
        let (circuit, _hanging) = with_one_that_hangs(config().volume_threshold(1));
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::Ignored),
            |circuit| call(&circuit, Outcome::Ignored),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.opened_total, 1);
        assert_eq!(metrics.trip_reason, Some(TripReason::SlowCalls));
        // One finds it, and is turned away; the other one as well, unless it came before.
        assert!(metrics.rejected_requests >= 1);
    });
}

#[test]
fn loom_a_hanging_call_and_its_settlement_are_never_counted_both() {
    explore_up_to(Some(6), || {
        // One slow call is not enough.
        let (circuit, hanging) = with_one_that_hangs(config().volume_threshold(2));
        both(
            &circuit,
            |circuit| circuit.try_acquire().expect("it is closed").ignore(),
            |_| hanging.success(),
        );
        let metrics = circuit.metrics();
        assert_eq!((metrics.opened_total, metrics.slow_rate), (0, Some(1.0)));
    });
}

/// Calls are slow after two moments of four nanoseconds.
fn watched() -> CircuitBreakerConfigBuilder {
    let slow = config().slow_call_duration(Duration::from_nanos(8));
    slow.slow_call_percentage(100).volume_threshold(100)
}

fn next_moment(clock: &ManualClock) {
    clock.advance(Duration::from_nanos(4));
}

/// A call ends while something happens; after that it runs no more, and another one that hangs is found
/// to. It may begin in that time too, and so be brief.
fn nobody_runs_who_has_ended(meanwhile: fn(&Circuit, &ManualClock)) {
    for has_begun in [true, false] {
        explore_up_to(Some(4), move || {
            let (circuit, clock) = circuit(watched());
            let begin = |circuit: &Circuit| circuit.try_acquire().expect("it is closed");
            let begun = has_begun.then(|| begin(&circuit));
            both(
                &circuit,
                move |circuit| begun.unwrap_or_else(|| begin(&circuit)).success(),
                |circuit| meanwhile(&circuit, &clock),
            );
            clock.advance(SECOND);
            let _hanging = begin(&circuit);
            clock.advance(SECOND);
            circuit.metrics();
            let hot = &circuit.shared.hot;
            assert_eq!(hot.running().overdue(hot.word().cohort()), 1);
        });
    }
}

#[test]
fn loom_a_call_runs_no_more_that_ended_with_its_moment() {
    nobody_runs_who_has_ended(|circuit, clock| {
        next_moment(clock);
        call(circuit, Outcome::Success);
    });
}

#[test]
fn loom_a_call_runs_no_more_that_ended_while_metrics_were_taken() {
    nobody_runs_who_has_ended(|circuit, clock| {
        next_moment(clock);
        circuit.metrics();
    });
}

#[test]
fn loom_a_call_runs_no_more_that_ended_while_the_circuit_was_reset() {
    nobody_runs_who_has_ended(|circuit, _| circuit.reset());
}

#[test]
fn loom_a_call_runs_no_more_that_ended_while_its_window_was_replaced() {
    nobody_runs_who_has_ended(|circuit, _| {
        let other = watched().monitoring_period(SECOND * 3_600);
        circuit.reconfigure(other.build().expect("these are within their ranges"));
    });
}

#[test]
fn loom_a_call_runs_no_more_that_ended_while_others_began_to_be_watched() {
    nobody_runs_who_has_ended(|circuit, _| {
        let other = watched().slow_call_duration(Duration::from_nanos(16));
        circuit.reconfigure(other.build().expect("these are within their ranges"));
    });
}

#[cfg(feature = "http")]
#[test]
fn loom_a_slow_answer_that_goes_on_and_its_settlement_are_never_counted_both() {
    explore(|| {
        let (circuit, mut hanging) = with_one_that_hangs(config().volume_threshold(2));
        let ran = hanging.answered().expect("it is timed");
        both(
            &circuit,
            |circuit| circuit.try_acquire().expect("it is closed").ignore(),
            |_| {
                hanging.took(ran);
                hanging.success();
            },
        );
        let metrics = circuit.metrics();
        assert_eq!((metrics.opened_total, metrics.slow_rate), (0, Some(1.0)));
    });
}

#[cfg(feature = "http")]
#[test]
fn loom_an_answer_that_goes_on_is_counted_once() {
    explore(|| {
        let rules = config().error_threshold_percentage(100).volume_threshold(2);
        let (circuit, _) = circuit(rules.slow_call_duration(SECOND));
        let mut streaming = circuit.try_acquire().expect("it is closed");
        let ran = streaming.answered().expect("it is timed");
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::FAILURE),
            |_| {
                streaming.took(ran);
                streaming.failure();
            },
        );
        let metrics = circuit.metrics();
        assert_eq!((metrics.opened_total, metrics.failed_requests), (1, 2));
    });
}

#[cfg(feature = "http")]
#[test]
fn loom_a_turn_is_kept_or_has_ended() {
    explore(|| {
        let (circuit, clock) = circuit(config().failure_threshold(1).half_open_requests(1));
        call(&circuit, Outcome::FAILURE);
        clock.advance(circuit.config().reset_timeout());
        let probe = circuit.try_acquire().expect("it is due");
        clock.advance(circuit.config().half_open_timeout() - SECOND);
        both(
            &circuit,
            |circuit| drop(circuit.try_acquire()),
            |_| {
                probe.keep_turn(10 * SECOND);
                clock.advance(5 * SECOND);
                probe.success();
            },
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Closed);
        assert_eq!(
            (metrics.failed_recoveries_total, metrics.recoveries_total),
            (0, 1)
        );
    });
}

/// The circuit of `rules` is reconfigured while a failure settles that was admitted before. In
/// either order it is the one call of its window.
fn reconfigured_while_a_failure_settles(
    rules: fn() -> CircuitBreakerConfigBuilder,
    change: fn(CircuitBreakerConfigBuilder) -> CircuitBreakerConfigBuilder,
) {
    explore(move || {
        let one = || rules().error_threshold_percentage(100).volume_threshold(1);
        let (circuit, _) = circuit(one());
        let changed = change(one())
            .build()
            .expect("these are within their ranges");
        let permit = circuit.try_acquire().expect("it is closed");
        both(
            &circuit,
            move |circuit| circuit.reconfigure(changed),
            |_| permit.failure(),
        );
        let metrics = circuit.metrics();
        assert_eq!((metrics.opened_total, metrics.failed_requests), (1, 1));
    });
}

#[test]
fn loom_a_call_is_counted_in_one_window_or_the_next() {
    reconfigured_while_a_failure_settles(config, |config| config.window(2));
}

#[test]
fn loom_a_call_is_counted_in_one_size_of_window_or_the_next() {
    reconfigured_while_a_failure_settles(|| config().window(1), |config| config.window(2));
}

#[test]
fn loom_a_slow_call_is_counted_in_one_size_of_window_or_the_next() {
    let slow = |calls| {
        let window = config().window(calls).volume_threshold(1);
        window.slow_call_duration(SECOND).slow_call_percentage(100)
    };
    explore(move || {
        let (circuit, clock) = circuit(slow(1));
        let changed = slow(2).build().expect("these are within their ranges");
        let permit = circuit.try_acquire().expect("it is closed");
        clock.advance(SECOND);
        both(
            &circuit,
            move |circuit| circuit.reconfigure(changed),
            |_| permit.success(),
        );
        let metrics = circuit.metrics();
        assert_eq!((metrics.opened_total, metrics.slow_requests), (1, Some(1)));
    });
}

#[test]
fn loom_a_call_is_counted_where_all_is_recorded_or_only_what_the_rules_need() {
    reconfigured_while_a_failure_settles(config, |config| config.record(Record::All));
}

/// One call does not open it.
fn over_calls(window: u32) -> CircuitBreakerConfigBuilder {
    let rate = config().error_threshold_percentage(100);
    rate.volume_threshold(2).window(window)
}

/// Admitted when nobody counted that, a call settles when somebody begins to; so it does in another
/// window. It may be missing from the total, as the documentation says, and is not in it twice.
fn admitted_once(settle: fn(Permit)) {
    explore(move || {
        let [others, all] = [over_calls(3), over_calls(3).record(Record::All)];
        let [others, all] = [others, all].map(|config| config.build().unwrap());
        let (circuit, _) = circuit(over_calls(2));
        let permit = circuit.try_acquire().expect("it is closed");
        circuit.reconfigure(others);
        both(
            &circuit,
            move |circuit| circuit.reconfigure(all),
            move |_| settle(permit),
        );
        let metrics = circuit.metrics();
        assert_eq!(metrics.in_flight, Some(0));
        assert!(metrics.total_requests <= Some(1));
    });
}

#[test]
fn loom_an_ignored_call_is_admitted_once_though_all_is_recorded_from_now_on() {
    admitted_once(Permit::ignore);
}

#[test]
fn loom_a_failure_is_admitted_once_though_all_is_recorded_from_now_on() {
    admitted_once(Permit::failure);
}

#[test]
fn loom_no_total_goes_down_when_another_window_begins() {
    explore(|| {
        let slow = |window| {
            over_calls(2)
                .window(window)
                .record(Record::All)
                .slow_call_duration(SECOND)
        };
        let (circuit, clock) = circuit(slow(None));
        let changed = slow(Some(2)).build();
        let changed = changed.expect("these are within their ranges");
        let permit = circuit.try_acquire().expect("it is closed");
        clock.advance(SECOND);
        permit.failure();
        both(
            &circuit,
            move |circuit| circuit.reconfigure(changed),
            |circuit| {
                let metrics = circuit.metrics();
                assert_eq!(metrics.total_requests, Some(1));
                assert_eq!(metrics.successful_requests, Some(0));
                assert_eq!(
                    (metrics.failed_requests, metrics.slow_requests),
                    (1, Some(1))
                );
            },
        );
    });
}

#[test]
fn loom_a_call_that_settles_while_metrics_are_taken_was_admitted() {
    explore(|| {
        let watched = config().record(Record::All).slow_call_duration(SECOND);
        let (circuit, _) = circuit(watched);
        both(
            &circuit,
            |circuit| call(&circuit, Outcome::Success),
            |circuit| {
                let metrics = circuit.metrics();
                assert!(metrics.total_requests >= metrics.successful_requests);
                assert!(metrics.total_requests <= Some(1));
            },
        );
    });
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, StdOrdering::Relaxed);
    }
}

/// Waits on one thread while another brings about what it waits for: a probe's place, of which the
/// half-open circuit has but one, and that is taken.
fn no_wake_up_is_lost(change: fn(Circuit, Permit)) {
    explore(move || {
        let (circuit, clock) = circuit(config().failure_threshold(1).half_open_requests(1));
        call(&circuit, Outcome::FAILURE);
        clock.advance(120 * SECOND);
        let probe = circuit.try_acquire().expect("a probe is due");
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        both(
            &circuit,
            move |circuit| change(circuit, probe),
            move |circuit| {
                let mut id = None;
                if let Readiness::Wait(_) = circuit.poll_reserve(None, &mut id, &waker)
                    && circuit.state() == CircuitState::HalfOpen
                {
                    // Whoever was told to wait has been, or will be, woken.
                    while woken.0.load(StdOrdering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                }
            },
        );
    });
}

#[test]
fn loom_no_wake_up_is_lost_to_a_reset() {
    no_wake_up_is_lost(|circuit, _probe| circuit.reset());
}

#[test]
fn loom_no_wake_up_is_lost_to_a_disabling() {
    no_wake_up_is_lost(|circuit, _probe| circuit.disable());
}

#[test]
fn loom_no_wake_up_is_lost_to_a_forced_opening() {
    no_wake_up_is_lost(|circuit, _probe| circuit.force_open());
}

#[test]
fn loom_no_wake_up_is_lost_to_a_reconfiguration() {
    no_wake_up_is_lost(|circuit, _probe| {
        let more = config().failure_threshold(1).half_open_requests(2).build();
        circuit.reconfigure(more.expect("these are within their ranges"));
    });
}

#[test]
fn loom_no_wake_up_is_lost_to_a_probe_that_gives_its_place_back() {
    no_wake_up_is_lost(|_, probe| probe.ignore());
}

#[test]
fn loom_no_wake_up_is_lost_to_a_probe_that_closes_the_circuit() {
    no_wake_up_is_lost(|_, probe| probe.success());
}

#[test]
fn loom_no_wake_up_is_lost_to_a_probe_that_opens_it_again() {
    no_wake_up_is_lost(|_, probe| probe.failure());
}

/// A window on its own, with the lock that its ring is under.
struct Turned {
    window: TimeWindow,
    ring: sync::Mutex<window::Ring>,
}

impl Turned {
    /// What the call saw, unless it was one good call among others.
    fn record(&self, bad: bool, now: u64) -> Option<Sums> {
        if !bad && self.window.record_among_good(now, now, || true) {
            return None;
        }
        let turn = || self.turn(&mut self.ring.lock().unwrap(), now);
        let call = Settled::new(bad, bad);
        let sums = self.window.record(call, now, |_| true, || true, turn);
        Some(sums.expect("the generation is the present one"))
    }

    fn turn(&self, ring: &mut window::Ring, now: u64) {
        if self.window.is_due(now) {
            self.window.turn(ring, now, |_| Present::ALWAYS);
        }
    }
}

fn a_window_loses_nothing_while_it_turns(bad: bool) {
    explore(move || {
        let window = TimeWindow::new();
        // Of steps of one nanosecond.
        let ring = window.begin(30, 0, |_| Present::ALWAYS);
        let turned = Arc::new(Turned {
            window,
            ring: sync::Mutex::new(ring),
        });
        turned.record(bad, 0);
        let theirs = turned.clone();
        // One turns the window to the next step; the other read the clock before that. (Were it the
        // other way round, loom would not try what a first look in the midst of a turn sees.)
        let handle = thread::spawn(move || theirs.record(bad, 0));
        let mine = turned.record(bad, 1);
        let their = handle.join().unwrap();
        if bad {
            let mut seen = [mine, their].map(|sums| sums.expect("it is bad").settled);
            seen.sort_unstable();
            assert_eq!(seen, [2, 3], "each sees its predecessors, and itself");
        }
        let mut ring = turned.ring.lock().unwrap();
        turned.turn(&mut ring, 1);
        let held = turned.window.sums();
        let bad = if bad { 3 } else { 0 };
        assert_eq!((held.settled, held.failed, held.slow), (3, bad, bad));
        assert_eq!(turned.window.lifetime(&ring), held);
    });
}

#[test]
fn loom_a_window_loses_no_failure_while_it_turns() {
    a_window_loses_nothing_while_it_turns(true);
}

#[test]
fn loom_a_window_loses_no_success_while_it_turns() {
    a_window_loses_nothing_while_it_turns(false);
}

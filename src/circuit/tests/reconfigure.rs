//! B8: `reconfigure`.

use super::*;

fn reconfigure(
    circuit: &Circuit,
    change: impl FnOnce(CircuitBreakerConfigBuilder) -> CircuitBreakerConfigBuilder,
) {
    let config = change(circuit.config().to_builder()).build().unwrap();
    circuit.reconfigure(config.clone());
    assert_eq!(circuit.config(), config);
}

#[test]
fn b8_a_new_threshold_takes_effect_at_the_next_settlement() {
    let (circuit, _) = circuit(
        config()
            .failure_threshold(10)
            .error_threshold_percentage(None),
    );
    settle(&circuit, "ffff");
    reconfigure(&circuit, |config| config.failure_threshold(5));
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b8_the_window_stays_where_its_shape_does() {
    for window in [None, Some(10)] {
        let rate = config().failure_threshold(None).window(window);
        let (circuit, _) = circuit(rate.error_threshold_percentage(None));
        settle(&circuit, "sssff");
        reconfigure(&circuit, |config| {
            config.error_threshold_percentage(50).volume_threshold(6)
        });
        assert_eq!(circuit.metrics().error_rate, Some(0.4));
        settle(&circuit, "f");
        let metrics = circuit.metrics();
        assert_eq!(metrics.current_state, CircuitState::Open);
        assert_eq!(metrics.trip_reason, Some(TripReason::ErrorRate));
    }
}

#[test]
fn b8_another_window_begins_anew_and_no_total_is_lost() {
    let shapes: [fn(CircuitBreakerConfigBuilder) -> CircuitBreakerConfigBuilder; 5] = [
        |config| config.window(20),
        |config| config.window(10),
        |config| config.window(20),
        |config| config.window(None),
        |config| config.monitoring_period(60 * SECOND),
    ];
    let (circuit, _) = circuit(
        config()
            .failure_threshold(None)
            .error_threshold_percentage(None),
    );
    for (before, shape) in shapes.into_iter().enumerate() {
        let running = circuit.try_acquire().unwrap();
        settle(&circuit, "sfi");
        reconfigure(&circuit, shape);
        let before = before as u64;
        let metrics = circuit.metrics();
        assert_eq!(metrics.error_rate, Some(0.0));
        assert_eq!(metrics.successful_requests, Some(before + 1));
        assert_eq!(metrics.failed_requests, 2 * before + 1);
        assert_eq!(metrics.in_flight, Some(1));
        // It was admitted before, and is of the same generation: it counts in the new window.
        running.failure();
        let metrics = circuit.metrics();
        assert_eq!(metrics.error_rate, Some(1.0));
        assert_eq!(metrics.failed_requests, 2 * before + 2);
        assert_eq!(metrics.in_flight, Some(0));
    }
}

#[test]
fn b9_what_adds_up_does_so_again_when_everything_is_recorded() {
    let never = || config().failure_threshold(None);
    adds_up_again(never().error_threshold_percentage(None).window(10));
    // A window of time that the rules need goes on counting.
    adds_up_again(never().volume_threshold(1_000_000));
    // Calls that are watched are counted as they begin to be.
    adds_up_again(
        never()
            .volume_threshold(1_000_000)
            .slow_call_duration(SECOND),
    );
}

fn adds_up_again(config: CircuitBreakerConfigBuilder) {
    let (circuit, _) = circuit(config);
    let adds_up = |in_flight| {
        let metrics = circuit.metrics();
        let settled = metrics.failed_requests + metrics.ignored_requests;
        let settled = settled + metrics.successful_requests.unwrap();
        assert_eq!(metrics.in_flight, Some(in_flight));
        assert_eq!(metrics.total_requests, Some(settled + in_flight));
    };
    for _ in 0..10 {
        let before = circuit.try_acquire().unwrap();
        settle(&circuit, "ssfi");
        reconfigure(&circuit, |config| config.record(Record::Rules));
        assert_eq!(circuit.metrics().total_requests, None);
        let between = circuit.try_acquire().unwrap();
        let ignored = circuit.try_acquire().unwrap();
        settle(&circuit, "sfffii");
        reconfigure(&circuit, |config| config.record(Record::All));
        adds_up(0);
        let after = circuit.try_acquire().unwrap();
        adds_up(1);
        between.success();
        before.failure();
        ignored.ignore();
        adds_up(1);
        after.success();
        adds_up(0);
        // Late ones as well.
        reconfigure(&circuit, |config| config.record(Record::Rules));
        let late = circuit.try_acquire().unwrap();
        reconfigure(&circuit, |config| config.record(Record::All));
        circuit.reset();
        late.success();
        adds_up(0);
    }
}

#[test]
fn b8_an_open_circuit_waits_by_the_new_reset_timeout() {
    let (circuit, clock) = circuit(config().failure_threshold(1));
    settle(&circuit, "f");
    clock.advance(20 * SECOND);
    reconfigure(&circuit, |config| config.reset_timeout(30 * SECOND));
    assert_eq!(circuit.metrics().retry_after, Some(10 * SECOND));
    reconfigure(&circuit, |config| config.volume_threshold(7));
    assert_eq!(circuit.metrics().retry_after, Some(10 * SECOND));
    reconfigure(&circuit, |config| config.reset_timeout(15 * SECOND));
    assert!(circuit.try_acquire().is_ok());
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
}

#[test]
fn b8_an_open_circuit_waits_by_the_new_backoff() {
    let (circuit, _) = due(config());
    settle(&circuit, "f");
    assert_eq!(circuit.metrics().retry_after, Some(120 * SECOND));
    let backoff = ResetBackoff::new(3.0).cap(1000 * SECOND);
    reconfigure(&circuit, |config| config.reset_backoff(backoff));
    assert_eq!(circuit.metrics().retry_after, Some(360 * SECOND));
    reconfigure(&circuit, |config| config.reset_backoff(backoff.jitter(1.0)));
    let jittered = circuit.metrics().retry_after;
    // What says nothing of the wait doesn't draw it anew.
    reconfigure(&circuit, |config| config.volume_threshold(7));
    assert_eq!(circuit.metrics().retry_after, jittered);
}

#[test]
fn b8_what_the_dependency_asked_for_stands() {
    let open = |policy| {
        let (circuit, _) = circuit(config().failure_threshold(1).retry_after(policy));
        circuit.try_acquire().unwrap().settle(busy(200));
        reconfigure(&circuit, |config| config.reset_timeout(SECOND));
        circuit.metrics().retry_after
    };
    assert_eq!(open(RetryAfterPolicy::Extend), Some(200 * SECOND));
    assert_eq!(open(RetryAfterPolicy::Open), Some(200 * SECOND));
    assert_eq!(open(RetryAfterPolicy::Ignore), Some(SECOND));

    // Opened for that reason alone, it waits no longer than asked.
    let (circuit, _) = circuit(config().retry_after(RetryAfterPolicy::Open));
    circuit.try_acquire().unwrap().settle(busy(7));
    reconfigure(&circuit, |config| config.reset_timeout(30 * SECOND));
    assert_eq!(circuit.metrics().retry_after, Some(7 * SECOND));
}

#[test]
fn b8_a_half_open_turn_goes_on_by_the_new_numbers() {
    let (circuit, clock) = due(config().half_open_requests(3));
    let running = circuit.try_acquire().unwrap();
    settle(&circuit, "s");
    reconfigure(&circuit, |config| config.half_open_requests(2));
    assert!(circuit.try_acquire().is_err(), "two are taken");
    reconfigure(&circuit, |config| {
        config.half_open_requests(3).half_open_timeout(5 * SECOND)
    });
    clock.advance(5 * SECOND);
    assert!(circuit.try_acquire().is_err(), "the turn is over");
    running.success();

    let (circuit, _) = due(config().half_open_requests(3));
    settle(&circuit, "s");
    reconfigure(&circuit, |config| config.half_open_success_threshold(1));
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(circuit.metrics().recoveries_total, 1);
}

#[test]
fn b8_a_reconfiguration_of_the_windows_frees_the_permit_of_a_probe_all_the_same() {
    let (circuit, _) = due(config().half_open_requests(1));
    let probe = circuit.try_acquire().unwrap();
    reconfigure(&circuit, |config| {
        config.window(50).slow_call_duration(SECOND)
    });
    probe.ignore();
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[test]
fn b8_a_ramp_can_be_shortened_and_ended() {
    let (circuit, clock) = due(config().half_open_requests(1).recovery_ramp(100 * SECOND));
    settle(&circuit, "ss");
    clock.advance(10 * SECOND);
    assert!(!circuit.is_available());
    reconfigure(&circuit, |config| config.recovery_ramp(10 * SECOND));
    assert!(circuit.is_available());
    settle(&circuit, "ssss");

    let (circuit, _) = due(config().half_open_requests(1).recovery_ramp(100 * SECOND));
    settle(&circuit, "ss");
    reconfigure(&circuit, |config| config.recovery_ramp(None));
    settle(&circuit, "ssss");
}

#[test]
fn b8_running_calls_stay_watched_unless_what_is_slow_changes() {
    let slow = config()
        .slow_call_duration(10 * SECOND)
        .failure_threshold(None);
    let (circuit, clock) = circuit(slow);
    let running = circuit.try_acquire().unwrap();
    reconfigure(&circuit, |config| config.window(50).volume_threshold(9));
    clock.advance(10 * SECOND);
    assert_eq!(circuit.metrics().slow_rate, Some(1.0));
    reconfigure(&circuit, |config| config.slow_call_duration(5 * SECOND));
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));
    running.success();
    assert_eq!(
        circuit.metrics().slow_rate,
        Some(1.0),
        "it counts when it has settled"
    );
}

#[test]
fn b8_a_deadline_and_what_a_drop_means_change_for_calls_in_flight() {
    let (circuit, clock) = circuit(config().failure_threshold(1));
    let permit = circuit.try_acquire().unwrap();
    reconfigure(&circuit, |config| {
        config
            .timeout(9 * SECOND)
            .on_cancel(OnCancel::FailAfter(5 * SECOND))
    });
    assert_eq!(permit.timeout(), Some(9 * SECOND));
    clock.advance(5 * SECOND);
    drop(permit);
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b8_whoever_waits_is_woken_by_a_reconfiguration() {
    let (circuit, _) = circuit(config().failure_threshold(1));
    settle(&circuit, "f");
    let woken = Arc::new(AtomicU64::new(0));
    struct Count(Arc<AtomicU64>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let waker = Arc::new(Count(woken.clone())).into();
    let waits = circuit.poll_reserve(None, &mut None, &waker);
    assert!(matches!(waits, Readiness::Wait(_)));
    reconfigure(&circuit, |config| config.reset_timeout(SECOND));
    assert_eq!(woken.load(Ordering::Relaxed), 1);
}

#[test]
fn b8_an_open_circuit_admits_nobody_while_it_is_reconfigured() {
    let (circuit, _) = circuit(config().failure_threshold(1));
    settle(&circuit, "f");
    std::thread::scope(|scope| {
        let reconfiguring = scope.spawn(|| {
            for window in [None, Some(100)].into_iter().cycle().take(20_000) {
                reconfigure(&circuit, |config| config.window(window));
            }
        });
        while !reconfiguring.is_finished() {
            assert_eq!(circuit.state(), CircuitState::Open);
            assert!(circuit.try_acquire().is_err());
        }
    });
}

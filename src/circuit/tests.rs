//! The rules of the state machine, by their names in the contract.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};

use super::*;

mod hold;
mod model;
mod ramp;
mod reconfigure;
mod running;
mod seen;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder()
}

/// A circuit on a clock that only the test moves.
fn circuit(config: CircuitBreakerConfigBuilder) -> (Circuit, ManualClock) {
    let clock = ManualClock::new();
    (
        Circuit::with_clock(config.build().unwrap(), clock.clone()),
        clock,
    )
}

fn settle(circuit: &Circuit, outcomes: &str) {
    for outcome in outcomes.chars() {
        let permit = circuit.try_acquire().expect("the circuit should admit");
        match outcome {
            's' => permit.success(),
            'f' => permit.failure(),
            'i' => permit.ignore(),
            'c' => drop(permit),
            _ => panic!("unknown outcome {outcome}"),
        }
    }
}

fn busy(retry_after: u64) -> Outcome {
    Outcome::Failure {
        retry_after: Some(Duration::from_secs(retry_after)),
    }
}

/// What a service that holds this is given.
fn reserve(circuit: &Circuit, mut lease: Option<Lease>) -> Result<Option<Lease>, Rejection> {
    circuit.try_reserve(&mut lease)?;
    Ok(lease)
}

/// An open circuit whose first probe is due.
fn due(config: CircuitBreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (circuit, clock) = circuit(config.failure_threshold(1));
    settle(&circuit, "f");
    clock.advance(circuit.config().reset_timeout());
    (circuit, clock)
}

// ===== B1: configuration =====

#[test]
fn b1_the_defaults_are_those_of_the_design() {
    let config = config().build().unwrap();
    assert_eq!(config, CircuitBreakerConfig::default());
    assert_eq!(config.failure_threshold(), Some(3));
    assert_eq!(config.error_threshold_percentage(), Some(60));
    assert_eq!(config.volume_threshold(), 5);
    assert_eq!(config.monitoring_period(), 300 * SECOND);
    assert_eq!(config.reset_timeout(), 120 * SECOND);
    assert_eq!(config.half_open_requests(), 2);
    assert_eq!(config.half_open_success_threshold(), 2);
    assert_eq!(config.half_open_timeout(), 60 * SECOND);
    assert_eq!(config.timeout(), Some(45 * SECOND));
    assert_eq!(config.retry_after(), RetryAfterPolicy::Extend);
    assert_eq!(config.retry_after_cap(), 600 * SECOND);
    assert_eq!(config.on_cancel(), OnCancel::Ignore);
    assert_eq!(config.probe_lease(), SECOND);
}

#[test]
fn b1_what_is_out_of_range_is_named_with_its_value_and_range() {
    let zero = Duration::ZERO;
    for (builder, message) in [
        (
            config().failure_threshold(0),
            "failure_threshold is 0, but has to be at least 1",
        ),
        (
            config().error_threshold_percentage(101),
            "error_threshold_percentage is 101, but has to be from 1 to 100",
        ),
        (
            config().error_threshold_percentage(0),
            "error_threshold_percentage is 0, but has to be from 1 to 100",
        ),
        (
            config().volume_threshold(0),
            "volume_threshold is 0, but has to be at least 1",
        ),
        (
            config().monitoring_period(zero),
            "monitoring_period is 0ns, but has to be longer than 0s",
        ),
        (
            config().reset_timeout(zero),
            "reset_timeout is 0ns, but has to be longer than 0s",
        ),
        (
            config().half_open_requests(0),
            "half_open_requests is 0, but has to be at least 1",
        ),
        (
            config().half_open_success_threshold(3),
            "half_open_success_threshold is 3, but has to be from 1 to half_open_requests, which is 2",
        ),
        (
            config().half_open_timeout(zero),
            "half_open_timeout is 0ns, but has to be longer than 0s",
        ),
        (
            config().timeout(zero),
            "timeout is 0ns, but has to be longer than 0s",
        ),
        (
            config().slow_call_percentage(50),
            "slow_call_percentage is 50, but has to be unset while slow_call_duration is",
        ),
        (
            config().window(0),
            "window is 0, but has to be from 1 to 1048576",
        ),
        (
            config().window(4),
            "volume_threshold is 5, but has to be from 1 to window, which is 4",
        ),
        (
            config().probe_lease(zero),
            "probe_lease is 0ns, but has to be longer than 0s",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), message);
    }
}

#[cfg(feature = "serde")]
mod serde_forms {
    use super::*;
    use serde_json::json;

    fn read(json: serde_json::Value) -> Result<CircuitBreakerConfig, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn b1_the_original_design_reads_as_the_defaults() {
        let design = json!({
            "failureThreshold": 3, "resetTimeout": 120000, "monitoringPeriod": 300000,
            "halfOpenRequests": 2, "timeout": 45000, "volumeThreshold": 5,
            "errorThresholdPercentage": 60,
        });
        assert_eq!(read(design).unwrap(), CircuitBreakerConfig::default());
        assert_eq!(read(json!({})).unwrap(), CircuitBreakerConfig::default());
    }

    #[test]
    fn b1_rust_style_reads_too() {
        let config = read(json!({
            "failure_threshold": null, "reset_timeout": "2m 30s", "slow_call_duration": "300ms",
            "retry_after": "open", "on_cancel": {"fail_after": "10s"}, "timeout": null,
        }))
        .unwrap();
        assert_eq!(config.failure_threshold(), None);
        assert_eq!(config.reset_timeout(), 150 * SECOND);
        assert_eq!(config.slow_call_duration(), Some(SECOND * 3 / 10));
        assert_eq!(config.retry_after(), RetryAfterPolicy::Open);
        assert_eq!(config.on_cancel(), OnCancel::FailAfter(10 * SECOND));
        assert_eq!(config.timeout(), None);
    }

    #[test]
    fn b1_what_is_written_reads_the_same() {
        let config = config()
            .failure_threshold(u32::MAX)
            .reset_timeout(Duration::from_micros(1500))
            .on_cancel(OnCancel::FailAfter(SECOND))
            .slow_call_duration(SECOND)
            .slow_call_percentage(80)
            .half_open_success_threshold(1)
            .timeout(None)
            .build()
            .unwrap();
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["monitoringPeriod"], 300_000);
        assert_eq!(written["resetTimeout"], "1ms 500us");
        assert_eq!(read(written).unwrap(), config);
    }

    #[test]
    fn b1_unknown_fields_and_bad_values_are_errors() {
        let error = read(json!({"resetTimeuot": 5})).unwrap_err();
        assert!(error.contains("unknown field `resetTimeuot`"), "{error}");
        let error = read(json!({"halfOpenRequests": 0})).unwrap_err();
        assert!(error.contains("half_open_requests is 0"), "{error}");
        let error = read(json!({"resetTimeout": "soon"})).unwrap_err();
        assert!(error.contains("a duration: whole milliseconds"), "{error}");
        for (json, range) in [
            (json!({"failureThreshold": -1}), "of at least 1"),
            (
                json!({"volumeThreshold": 5_000_000_000_u64}),
                "of at least 1",
            ),
            (json!({"errorThresholdPercentage": 300}), "from 1 to 100"),
            (json!({"slowCallPercentage": 2.5}), "from 1 to 100"),
        ] {
            let error = read(json).unwrap_err();
            let range = format!("expected a whole number {range}");
            assert!(error.ends_with(&range), "{error}");
        }
    }

    #[test]
    fn b9_metrics_as_json() {
        let (circuit, clock) = circuit(config().failure_threshold(1));
        settle(&circuit, "sf");
        clock.advance(20 * SECOND);
        let json = serde_json::to_value(circuit.metrics()).unwrap();
        assert_eq!(json["currentState"], "OPEN");
        assert_eq!(json["totalRequests"], 2);
        assert_eq!(json["tripReason"], "CONSECUTIVE_FAILURES");
        assert_eq!(json["retryAfter"], 100_000);
        clock.advance(Duration::from_micros(1));
        let json = serde_json::to_value(circuit.metrics()).unwrap();
        assert_eq!(
            json["retryAfter"], 100_000,
            "whole milliseconds, rounded up"
        );
        assert_eq!(json["errorRate"], 0.5);
        assert!(json.get("slowRequests").is_none());
        let time = json["lastFailureTime"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(json["lastFailureTime"], json["stateChangedAt"]);
    }
}

// ===== B2: any rule trips =====

#[test]
fn b2_a_run_of_failures_trips_at_its_last() {
    let (circuit, clock) = circuit(config());
    settle(&circuit, "ff");
    clock.advance(10_000 * SECOND); // B1: time does not age the run
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "if");
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(
        circuit.metrics().trip_reason,
        Some(TripReason::ConsecutiveFailures)
    );
}

#[test]
fn b2_a_success_ends_the_run() {
    let (circuit, _clock) = circuit(config().error_threshold_percentage(None));
    settle(&circuit, "ffsffsff");
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b2_the_error_rate_trips_at_least_at_its_percentage() {
    let (circuit, _clock) = circuit(config().failure_threshold(None));
    settle(&circuit, "ssff"); // 50 % of 4
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "f"); // 60 % of 5
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(circuit.metrics().trip_reason, Some(TripReason::ErrorRate));
}

#[test]
fn b2_a_success_can_bring_the_volume_up() {
    let (circuit, _clock) = circuit(config().failure_threshold(None));
    settle(&circuit, "ffff");
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b2_what_left_the_window_no_longer_counts() {
    let (circuit, clock) = circuit(config().failure_threshold(None));
    settle(&circuit, "ffff");
    clock.advance(300 * SECOND);
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(circuit.metrics().error_rate, Some(1.0));
    clock.advance(300 * SECOND);
    assert_eq!(circuit.metrics().error_rate, Some(0.0)); // B9: 0 when it is empty
}

#[test]
fn b2_a_window_of_calls_slides_with_each() {
    let (circuit, clock) = circuit(config().failure_threshold(None).window(5));
    settle(&circuit, "ffsss"); // 2 of 5
    clock.advance(10_000 * SECOND); // time does not age it
    assert_eq!(circuit.metrics().error_rate, Some(0.4));
    settle(&circuit, "s"); // the first failure has gone
    assert_eq!(circuit.metrics().error_rate, Some(0.2));
    settle(&circuit, "sff");
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "f"); // 3 of 5
    assert_eq!(circuit.state(), CircuitState::Open);
    let metrics = circuit.metrics();
    assert_eq!(
        (metrics.successful_requests, metrics.failed_requests),
        (Some(5), 5)
    );
}

#[test]
fn b2_slow_calls_trip_whatever_their_outcome() {
    let slow = config()
        .slow_call_duration(SECOND)
        .slow_call_percentage(50)
        .volume_threshold(2);
    let (circuit, clock) = circuit(slow);
    let permit = circuit.try_acquire().unwrap();
    clock.advance(SECOND);
    permit.success();
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "s");
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Open);
    assert_eq!(metrics.trip_reason, Some(TripReason::SlowCalls));
    assert_eq!(
        (metrics.slow_requests, metrics.slow_rate),
        (Some(1), Some(0.5))
    );
}

// ===== B3, B4: outcomes and generations =====

#[test]
fn b3_ignored_moves_only_its_own_counter() {
    let (circuit, _clock) = circuit(config());
    settle(&circuit, "ffiiii");
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Closed);
    assert_eq!((metrics.ignored_requests, metrics.failed_requests), (4, 2));
    assert_eq!(metrics.error_rate, Some(1.0));
}

#[test]
fn b4_what_settles_late_counts_in_the_totals_alone() {
    let (circuit, clock) = circuit(config());
    let late: Vec<_> = (0..6).map(|_| circuit.try_acquire().unwrap()).collect();
    settle(&circuit, "fff");
    assert_eq!(circuit.state(), CircuitState::Open);
    clock.advance(120 * SECOND);
    let probe = circuit.try_acquire().unwrap();
    // Neither failures nor successes of before bear on the half-open turn.
    for (i, permit) in late.into_iter().enumerate() {
        if i % 2 == 0 {
            permit.failure()
        } else {
            permit.success()
        }
    }
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::HalfOpen);
    assert_eq!(
        (metrics.failed_requests, metrics.successful_requests),
        (6, Some(3))
    );
    assert_eq!(metrics.last_success_time, None);
    let second = circuit.try_acquire().unwrap();
    assert!(circuit.try_acquire().is_err(), "both places are taken");
    probe.success();
    second.success();
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(
        circuit.metrics().error_rate,
        Some(0.0),
        "the window begins anew"
    );
}

#[test]
fn b4_reset_of_a_closed_circuit_begins_a_generation() {
    let (circuit, _clock) = circuit(config().failure_threshold(1));
    let permit = circuit.try_acquire().unwrap();
    circuit.reset();
    permit.failure();
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(circuit.metrics().failed_requests, 1);
}

// ===== B5: half-open =====

#[test]
fn b5_no_more_probes_than_allowed_and_all_must_succeed() {
    let (circuit, _clock) = due(config());
    let probes = [
        circuit.try_acquire().unwrap(),
        circuit.try_acquire().unwrap(),
    ];
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.state, CircuitState::HalfOpen);
    assert_eq!(rejection.retry_after, Some(SECOND)); // the lease, shorter than the turn
    let [first, second] = probes;
    first.success();
    assert!(
        circuit.try_acquire().is_err(),
        "a success does not free a place"
    );
    second.success();
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(circuit.metrics().recoveries_total, 1);
}

#[test]
fn b5_a_failed_probe_opens_again() {
    let (circuit, clock) = due(config());
    settle(&circuit, "f");
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Open);
    assert_eq!(metrics.trip_reason, Some(TripReason::ProbeFailed));
    assert_eq!(
        (metrics.opened_total, metrics.failed_recoveries_total),
        (2, 1)
    );
    clock.advance(119 * SECOND);
    assert!(circuit.try_acquire().is_err());
    clock.advance(SECOND);
    settle(&circuit, "ss");
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[test]
fn b5_ignored_and_cancelled_probes_give_their_place_back() {
    let (circuit, _clock) = due(config());
    settle(&circuit, "iiccic");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    settle(&circuit, "ss");
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[test]
fn b5_three_of_five_close_and_three_failures_open() {
    let three_of_five = || {
        config()
            .half_open_requests(5)
            .half_open_success_threshold(3)
    };
    let (circuit, _clock) = due(three_of_five());
    settle(&circuit, "sffs");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Closed);

    let (circuit, _clock) = due(three_of_five());
    settle(&circuit, "sff");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b5_a_slow_probe_is_a_failed_one() {
    let (circuit, clock) = due(config().slow_call_duration(SECOND));
    let probe = circuit.try_acquire().unwrap();
    clock.advance(SECOND);
    probe.success();
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(circuit.metrics().successful_requests, Some(1));
}

#[test]
fn b5_a_probe_decides_though_nothing_else_of_a_success_is_recorded() {
    let nothing = config()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .retry_after(RetryAfterPolicy::Open)
        .record(Record::Rules);
    let (circuit, clock) = circuit(nothing);
    circuit.try_acquire().unwrap().settle(busy(7));
    clock.advance(7 * SECOND);
    settle(&circuit, "ss");
    assert_eq!(circuit.metrics().recoveries_total, 1);
}

#[test]
fn b5_an_unused_reservation_lapses() {
    let (circuit, clock) = due(config().half_open_requests(1));
    let lease = reserve(&circuit, None).unwrap();
    assert!(lease.is_some());
    assert!(reserve(&circuit, None).is_err());
    assert!(!circuit.is_available());
    clock.advance(SECOND);
    assert!(circuit.is_available());
    let other = reserve(&circuit, None).unwrap();
    assert!(
        circuit.acquire(&mut lease.clone()).is_err(),
        "its place has gone to another"
    );
    circuit.acquire(&mut other.clone()).unwrap().success();
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[test]
fn b5_a_lapsed_reservation_takes_a_free_place() {
    let (circuit, clock) = due(config().half_open_requests(1));
    let lease = reserve(&circuit, None).unwrap();
    clock.advance(SECOND);
    assert!(circuit.acquire(&mut lease.clone()).is_ok());
}

#[test]
fn b5_a_reservation_is_kept_when_asked_again() {
    let (circuit, clock) = due(config().half_open_requests(1));
    let lease = reserve(&circuit, None).unwrap();
    clock.advance(SECOND / 2);
    assert_eq!(
        reserve(&circuit, lease),
        Ok(lease),
        "it is not prolonged either"
    );
    let lease = lease.unwrap();
    circuit.release(lease);
    assert!(circuit.is_available());
}

#[test]
fn b5_half_open_ends_by_itself() {
    let (circuit, clock) = due(config());
    let _hangs = circuit.try_acquire().unwrap();
    clock.advance(60 * SECOND);
    // B14
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    assert_eq!(circuit.metrics().retry_after, Some(Duration::ZERO));
    assert!(circuit.is_available());
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.reason, Some(TripReason::HalfOpenTimeout));
    assert_eq!(rejection.retry_after, Some(120 * SECOND));
    assert_eq!(circuit.metrics().failed_recoveries_total, 1);
}

// ===== B1: retry_after =====

#[test]
fn b1_retry_after_extends_an_opening() {
    let (circuit, _clock) = circuit(config());
    settle(&circuit, "ff");
    circuit.try_acquire().unwrap().settle(busy(200));
    assert_eq!(circuit.metrics().retry_after, Some(200 * SECOND));
}

#[test]
fn b1_retry_after_neither_opens_nor_shortens_under_extend() {
    let (circuit, _clock) = circuit(config());
    circuit.try_acquire().unwrap().settle(busy(30));
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "f");
    circuit.try_acquire().unwrap().settle(busy(1));
    assert_eq!(circuit.metrics().retry_after, Some(120 * SECOND));
}

#[test]
fn b1_retry_after_opens_at_once_under_open_up_to_the_cap() {
    let open = || config().retry_after(RetryAfterPolicy::Open);
    let (first, _clock) = circuit(open());
    first.try_acquire().unwrap().settle(busy(7));
    assert_eq!(first.metrics().retry_after, Some(7 * SECOND));
    assert_eq!(first.metrics().trip_reason, Some(TripReason::RetryAfter));

    let (second, _clock) = circuit(open());
    second.try_acquire().unwrap().settle(busy(100_000));
    assert_eq!(second.metrics().retry_after, Some(600 * SECOND));

    let (third, _clock) = circuit(open());
    third.try_acquire().unwrap().settle(busy(0));
    assert_eq!(third.state(), CircuitState::Closed);
}

#[test]
fn b1_retry_after_of_any_failure_of_the_run_is_remembered() {
    let (circuit, clock) = circuit(config());
    circuit.try_acquire().unwrap().settle(busy(300));
    clock.advance(10 * SECOND);
    settle(&circuit, "ff");
    assert_eq!(circuit.metrics().retry_after, Some(290 * SECOND));
}

#[test]
fn b1_retry_after_of_a_probe_that_does_not_decide_opens_under_open() {
    let (circuit, _clock) = due(config()
        .half_open_requests(5)
        .half_open_success_threshold(3)
        .retry_after(RetryAfterPolicy::Open));
    circuit.try_acquire().unwrap().settle(busy(300));
    assert_eq!(circuit.metrics().retry_after, Some(300 * SECOND));
}

#[test]
fn b1_retry_after_can_be_ignored() {
    let (circuit, _clock) = circuit(config().retry_after(RetryAfterPolicy::Ignore));
    for _ in 0..3 {
        circuit.try_acquire().unwrap().settle(busy(500));
    }
    assert_eq!(circuit.metrics().retry_after, Some(120 * SECOND));
}

// ===== B7: cancellation =====

#[test]
fn b7_a_cancelled_call_is_ignored_by_default() {
    let (circuit, clock) = circuit(config());
    let permit = circuit.try_acquire().unwrap();
    clock.advance(1000 * SECOND);
    drop(permit);
    settle(&circuit, "ccc");
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Closed);
    assert_eq!(
        (metrics.cancelled_requests, metrics.ignored_requests),
        (4, 4)
    );
}

#[test]
fn b7_a_call_cancelled_after_long_can_count_as_a_failure() {
    let (circuit, clock) = circuit(config().on_cancel(OnCancel::FailAfter(SECOND)));
    let early = circuit.try_acquire().unwrap();
    let late = [(); 3].map(|()| circuit.try_acquire().unwrap());
    clock.advance(SECOND - Duration::from_nanos(1));
    drop(early);
    clock.advance(Duration::from_nanos(1));
    drop(late);
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Open);
    assert_eq!(metrics.cancelled_requests, 4);
    assert_eq!((metrics.ignored_requests, metrics.failed_requests), (1, 3));
}

// ===== B8: manual control =====

#[test]
fn b8_force_open_is_sticky() {
    let (circuit, clock) = circuit(config());
    circuit.force_open();
    clock.advance(100_000 * SECOND);
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.retry_after, None);
    assert_eq!(
        rejection.to_string(),
        "circuit is open (forced open) until it is reset"
    );
    assert_eq!(circuit.state(), CircuitState::ForcedOpen);
    circuit.reset();
    settle(&circuit, "s");
}

#[test]
fn b8_a_disabled_circuit_admits_all_and_still_records() {
    let (circuit, _clock) = circuit(config());
    circuit.disable();
    settle(&circuit, "ffffffffff");
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Disabled);
    assert_eq!(
        (metrics.failed_requests, metrics.error_rate),
        (10, Some(1.0))
    );
    circuit.reset();
    assert_eq!(circuit.metrics().error_rate, Some(0.0));
    assert_eq!(circuit.metrics().failed_requests, 10);
}

#[test]
fn b8_reset_closes_and_clears_the_run() {
    let (circuit, _clock) = circuit(config());
    settle(&circuit, "fff");
    circuit.reset();
    settle(&circuit, "ff");
    assert_eq!(circuit.state(), CircuitState::Closed);
}

// ===== B9: metrics =====

#[test]
fn b9_the_totals_add_up() {
    let (circuit, _clock) = circuit(config());
    let running = circuit.try_acquire().unwrap();
    settle(&circuit, "ssffic");
    circuit.try_acquire().unwrap().timed_out();
    assert!(circuit.try_acquire().is_err());
    assert!(circuit.try_acquire().is_err());
    let metrics = circuit.metrics();
    assert_eq!(metrics.total_requests, Some(8));
    assert_eq!(metrics.successful_requests, Some(2));
    assert_eq!(metrics.failed_requests, 3);
    assert_eq!(metrics.ignored_requests, 2);
    assert_eq!(metrics.in_flight, Some(1));
    assert_eq!(metrics.rejected_requests, 2);
    assert_eq!(metrics.timed_out_requests, 1);
    assert_eq!(metrics.cancelled_requests, 1);
    assert_eq!(metrics.opened_total, 1);
    drop(running);
    assert_eq!(circuit.metrics().in_flight, Some(0));
}

#[test]
fn b9_threads_lose_no_call() {
    let (circuit, _clock) = circuit(config().half_open_requests(8));
    circuit.disable();
    let per_thread = 2_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..per_thread {
                    settle(&circuit, ["s", "f", "i", "c"][i % 4]);
                }
            });
        }
    });
    let metrics = circuit.metrics();
    assert_eq!(metrics.total_requests, Some(4 * per_thread as u64));
    assert_eq!(metrics.successful_requests, Some(per_thread as u64));
    assert_eq!(metrics.failed_requests, per_thread as u64);
    assert_eq!(metrics.ignored_requests, 2 * per_thread as u64);
    assert_eq!(metrics.cancelled_requests, per_thread as u64);
}

#[test]
fn b6_threads_and_resets_lose_no_call() {
    // Rules that never say open, so that every call is admitted: the sums must come out exactly.
    let (circuit, clock) = circuit(
        config()
            .failure_threshold(1_000_000)
            .error_threshold_percentage(100)
            .slow_call_duration(SECOND),
    );
    let per_thread = 5_000;
    std::thread::scope(|scope| {
        for outcomes in ["sf", "si", "sc", "fs"] {
            let circuit = &circuit;
            scope.spawn(move || {
                for _ in 0..per_thread {
                    settle(circuit, outcomes);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                circuit.reset(); // what is in flight then settles late
                clock.advance(SECOND); // and the windows turn
                let seen = circuit.metrics();
                assert!(seen.error_rate.unwrap() <= 1.0);
                let settled = seen.failed_requests + seen.ignored_requests;
                let settled = settled + seen.successful_requests.unwrap();
                let total = settled + seen.in_flight.unwrap();
                assert_eq!(seen.total_requests, Some(total));
            }
        });
    });
    let metrics = circuit.metrics();
    assert_eq!(metrics.opened_total, 0);
    assert_eq!(metrics.total_requests, Some(8 * per_thread));
    assert_eq!(metrics.successful_requests, Some(4 * per_thread));
    assert_eq!(metrics.failed_requests, 2 * per_thread);
    assert_eq!(metrics.ignored_requests, 2 * per_thread);
    assert_eq!(metrics.in_flight, Some(0));
}

#[cfg(feature = "latency")]
#[test]
fn b9_latencies_are_those_of_settled_calls() {
    let (circuit, clock) = circuit(config());
    assert_eq!(circuit.metrics().latency, None);
    for seconds in [1, 2, 3, 40] {
        let permit = circuit.try_acquire().unwrap();
        clock.advance(seconds * SECOND);
        match seconds {
            40 => permit.ignore(),
            3 => permit.failure(),
            _ => permit.success(),
        }
    }
    let latency = circuit.metrics().latency.unwrap();
    assert_eq!(latency.max, 3 * SECOND);
    assert!(latency.p50 >= 2 * SECOND && latency.p50 <= SECOND * 206 / 100);
    assert_eq!(latency.p99, latency.max);
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_value(circuit.metrics()).unwrap();
        assert_eq!(json["latency"]["max"], 3000.0);
    }
}

#[cfg(feature = "latency")]
#[test]
fn b9_latencies_of_probes_are_among_them() {
    let (circuit, clock) = due(config());
    for (seconds, outcome, longest) in [(5, Outcome::Ignored, 0), (2, Outcome::Success, 2)] {
        let probe = circuit.try_acquire().unwrap();
        clock.advance(seconds * SECOND);
        probe.settle(outcome);
        assert_eq!(circuit.metrics().latency.unwrap().max, longest * SECOND);
    }
}

#[test]
fn b9_rules_record_only_what_the_rules_need() {
    let run = config()
        .error_threshold_percentage(None)
        .record(Record::Rules);
    let (circuit, _clock) = circuit(run);
    settle(&circuit, "sssfif");
    let metrics = circuit.metrics();
    assert_eq!(metrics.total_requests, None);
    assert_eq!(metrics.successful_requests, None);
    assert_eq!(metrics.in_flight, None);
    assert_eq!(metrics.error_rate, None);
    assert_eq!(metrics.last_success_time, None);
    assert_eq!((metrics.failed_requests, metrics.ignored_requests), (2, 1));
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Open);
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_value(circuit.metrics()).unwrap();
        assert!(json.get("totalRequests").is_none(), "absent, not zero");
    }
}

// ===== B10: events =====

#[test]
fn b10_listeners_hear_every_change_once_and_in_order() {
    let (circuit, clock) = circuit(config().failure_threshold(1));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    circuit.on_state_change(move |event| listener.lock().unwrap().push(*event));
    settle(&circuit, "f");
    clock.advance(120 * SECOND);
    settle(&circuit, "ss");
    circuit.force_open();
    circuit.force_open();
    circuit.disable();
    circuit.reset();
    circuit.reset();
    let heard = heard.lock().unwrap();
    let told: Vec<_> = heard.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "CLOSED -> OPEN (too many failures in a row)",
            "OPEN -> HALF_OPEN",
            "HALF_OPEN -> CLOSED",
            "CLOSED -> FORCED_OPEN (forced open)",
            "FORCED_OPEN -> DISABLED",
            "DISABLED -> CLOSED",
        ]
    );
    assert!(heard.is_sorted_by(|a, b| a.generation < b.generation && a.at <= b.at));
}

#[test]
fn b10_a_listener_may_call_back_and_may_panic() {
    let (circuit, _clock) = circuit(config().failure_threshold(1));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let handle = circuit.clone();
    circuit.on_state_change(move |event| {
        if event.to == CircuitState::Open {
            handle.reset(); // told after this returns
            assert_eq!(handle.state(), CircuitState::Closed);
        }
    });
    circuit.on_state_change(|_| panic!("expected: a listener panics"));
    let listener = heard.clone();
    circuit.on_state_change(move |event| listener.lock().unwrap().push(event.to));
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Closed);
    let heard = heard.lock().unwrap();
    assert_eq!(*heard, [CircuitState::Open, CircuitState::Closed]);
}

#[test]
fn b10_a_panic_that_throws_a_bomb_silences_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("expected: what was thrown panics in turn");
            }
        }
    }
    let (circuit, _clock) = circuit(config());
    let heard = Arc::new(AtomicU64::new(0));
    let counted = heard.clone();
    circuit.on_state_change(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::panic::panic_any(Bomb);
    });
    circuit.force_open();
    circuit.reset();
    assert_eq!(heard.load(Ordering::Relaxed), 2);
}

#[test]
fn b10_times_do_not_run_backwards_when_a_thread_was_late() {
    let (circuit, clock) = circuit(config());
    let mut events = circuit.events();
    clock.advance(10 * SECOND);
    circuit.force_open();
    clock.set(0);
    circuit.reset();
    let mut next = || events.next().now_or_never().unwrap().unwrap().unwrap();
    let (first, second) = (next(), next());
    assert!(first.at <= second.at && first.generation < second.generation);
}

#[test]
fn b10_a_slow_subscriber_loses_the_oldest_and_is_told() {
    let (circuit, _clock) = circuit(config());
    let mut events = circuit.events();
    assert!(events.next().now_or_never().is_none());
    for _ in 0..50 {
        circuit.force_open();
        circuit.reset();
    }
    assert_eq!(events.next().now_or_never(), Some(Some(Err(Lagged(36)))));
    let first = events.next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(first.generation, 37);
    drop(circuit);
    assert_eq!(events.by_ref().take(100).count().now_or_never(), Some(63));
}

// ===== B11: time =====

#[test]
fn b11_a_clock_that_jumps_or_stands_still_harms_nothing() {
    let (circuit, clock) = circuit(config().failure_threshold(1).slow_call_duration(SECOND));
    clock.advance(1000 * SECOND);
    let permit = circuit.try_acquire().unwrap();
    clock.set(0);
    permit.failure();
    assert_eq!(circuit.metrics().slow_requests, Some(0));
    clock.set(u64::MAX / 2);
    settle(&circuit, "s");
    assert_eq!(circuit.metrics().retry_after, None);
    clock.set(u64::MAX);
    assert!(
        circuit.try_acquire().is_err(),
        "the half-open turn is long over"
    );
    clock.set(1);
    assert!(circuit.metrics().state_changed_at > std::time::UNIX_EPOCH);
    assert!(circuit.try_acquire().is_err());
    circuit.reset();
    settle(&circuit, "s");
}

#[test]
fn b11_a_time_too_long_to_be_counted_never_ends() {
    let seconds = (1 << 34) - 1;
    let longest = Duration::new(seconds, 999_999_999);
    assert_eq!(clock::nanos(longest), seconds * 1_000_000_000 + 999_999_999);
    assert_eq!(
        clock::nanos(longest + Duration::from_nanos(1)),
        clock::NEVER
    );
    assert_eq!(clock::nanos(Duration::MAX), clock::NEVER);

    let (circuit, clock) = circuit(config().failure_threshold(1).reset_timeout(Duration::MAX));
    settle(&circuit, "f");
    clock.set(u64::MAX);
    assert!(circuit.try_acquire().is_err(), "no clock reads that late");
}

/// Whether its seconds are those of std's clock, to within a step of so many nanoseconds.
#[cfg(any(feature = "coarse", feature = "quanta"))]
fn keeps_time(clock: impl Clock, step: u64) {
    let (outer, wanted) = (DefaultClock.now(), 10_000_000 + step);
    // One reading inside the other, so that whatever stops this thread makes the outer one longer.
    let inner = clock.now();
    while clock.now() - inner < wanted {
        let passed = DefaultClock.now() - outer;
        assert!(passed < 10_000_000_000, "its seconds are too long");
    }
    assert!(
        DefaultClock.now() - outer > 9_000_000,
        "its seconds are too short"
    );
}

/// A clock that looks at its circuit, and waits for ever if it is asked under the circuit's lock.
#[derive(Debug, Default)]
struct Nosy(Arc<OnceLock<Circuit>>);

impl Clock for Nosy {
    fn now(&self) -> u64 {
        self.0.get().map(Circuit::config);
        0
    }
}

#[test]
fn b8_no_lock_is_held_while_a_clock_of_the_users_runs() {
    let handle = Arc::default();
    let config = config().failure_threshold(1).build().unwrap();
    let circuit = Circuit::with_clock(config, Nosy(Arc::clone(&handle)));
    handle.set(circuit.clone()).unwrap();
    let mut late = [(); 4].map(|()| circuit.try_acquire().unwrap()).into_iter();
    settle(&circuit, "sf");
    assert!(circuit.try_acquire().is_err());
    for outcome in [Outcome::Success, Outcome::FAILURE, Outcome::Ignored] {
        late.next().unwrap().settle(outcome);
    }
    drop(late);
    circuit.reset();
    assert_eq!(circuit.metrics().in_flight, Some(0));
}

#[cfg(feature = "quanta")]
#[test]
fn b11_the_quanta_clock_goes_forward_in_nanoseconds() {
    keeps_time(QuantaClock::new(), 0);
}

#[cfg(feature = "coarse")]
#[test]
fn b11_the_coarse_clock_goes_forward_in_nanoseconds() {
    keeps_time(CoarseClock, 20_000_000);
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn b11_the_default_clock_follows_paused_time() {
    let circuit = Circuit::new(config().failure_threshold(1).build().unwrap());
    settle(&circuit, "f");
    tokio::time::advance(120 * SECOND - Duration::from_millis(1)).await;
    assert!(!circuit.is_available());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(circuit.is_available());
}

// ===== B14: what time does by itself =====

#[test]
fn b14_looking_changes_nothing() {
    let (circuit, _clock) = due(config());
    let before = circuit.metrics();
    assert_eq!(before.current_state, CircuitState::Open);
    assert_eq!(before.retry_after, Some(Duration::ZERO));
    assert!(circuit.is_available());
    assert_eq!(circuit.probe()(), Ok(()));
    assert_eq!(circuit.metrics(), before);
    let _probe = circuit.try_acquire().unwrap();
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
}

#[test]
fn b14_a_probe_of_availability_tells_the_wait() {
    let (circuit, clock) = circuit(config());
    let probe = circuit.probe();
    assert_eq!(probe(), Ok(()));
    settle(&circuit, "fff");
    clock.advance(20 * SECOND);
    assert_eq!(probe(), Err(Some(100 * SECOND)));
    circuit.force_open();
    assert_eq!(probe(), Err(None));
}

/// Does it on another thread, which must not need the circuit's lock for it.
fn without_the_lock(circuit: &Circuit, act: impl FnOnce(&Circuit) + Send + 'static) {
    let theirs = circuit.clone();
    circuit.shared.with(|_, _, _| {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            act(&theirs);
            tell.send(()).unwrap();
        });
        let patience = Duration::from_secs(30);
        told.recv_timeout(patience)
            .expect("nobody waits for the lock");
    });
}

#[test]
fn p_a_call_takes_no_lock_while_closed() {
    let everything = config().slow_call_duration(SECOND).slow_call_percentage(50);
    for config in [config(), config().window(100), everything] {
        let (circuit, _) = circuit(config);
        settle(&circuit, "s"); // the first call of a step of time turns the windows on
        without_the_lock(&circuit, |circuit| settle(circuit, "sfsics"));
    }
}

#[test]
fn p_a_rejection_takes_no_lock_while_open() {
    let (circuit, clock) = circuit(config());
    settle(&circuit, "fff");
    clock.advance(20 * SECOND);
    without_the_lock(&circuit, |circuit| {
        let open = circuit.try_acquire().unwrap_err();
        assert_eq!(open.retry_after, Some(100 * SECOND));
        assert!(reserve(circuit, None).is_err());
        assert!(!circuit.is_available());
    });
}

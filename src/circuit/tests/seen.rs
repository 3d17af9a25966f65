//! What others see: metrics, their JSON, and the window behind the rates.

use std::task::{Wake, Waker};

use super::*;
use crate::circuit::shared::Readiness;

#[test]
fn b9_totals_only_go_up_whatever_is_done() {
    let (circuit, clock) = circuit(config());
    let mut last = circuit.metrics();
    let control: [fn(&Circuit); 5] = [
        |circuit| settle(circuit, "sfisf"),
        Circuit::reset,
        Circuit::force_open,
        Circuit::disable,
        |circuit| {
            let window = config().window(10).build().unwrap();
            circuit.reconfigure(window);
        },
    ];
    for act in control {
        act(&circuit);
        circuit.reset();
        settle(&circuit, "sfcsf");
        clock.advance(400 * SECOND);
        let now = circuit.metrics();
        for (total, before, after) in [
            ("total", last.total_requests, now.total_requests),
            (
                "successful",
                last.successful_requests,
                now.successful_requests,
            ),
            (
                "failed",
                Some(last.failed_requests),
                Some(now.failed_requests),
            ),
            (
                "ignored",
                Some(last.ignored_requests),
                Some(now.ignored_requests),
            ),
            (
                "cancelled",
                Some(last.cancelled_requests),
                Some(now.cancelled_requests),
            ),
        ] {
            assert!(before < after, "{total}: {before:?}, then {after:?}");
        }
        last = now;
    }
    assert_eq!(last.total_requests, Some(30));
}

#[test]
fn b9_rates_are_the_windows_and_0_of_nothing() {
    let (circuit, clock) = circuit(config().failure_threshold(None).volume_threshold(100));
    assert_eq!(circuit.metrics().error_rate, Some(0.0));
    settle(&circuit, "f");
    clock.advance(200 * SECOND);
    settle(&circuit, "sss");
    assert_eq!(circuit.metrics().error_rate, Some(0.25));
    clock.advance(100 * SECOND);
    assert_eq!(circuit.metrics().error_rate, Some(0.0));
    clock.advance(300 * SECOND);
    assert_eq!(circuit.metrics().error_rate, Some(0.0));
    assert_eq!(circuit.metrics().failed_requests, 1);
}

#[test]
fn b6_the_window_slides_in_steps_of_a_thirtieth_at_most() {
    let (circuit, clock) = circuit(
        config()
            .failure_threshold(None)
            .error_threshold_percentage(None),
    );
    for _ in 0..300 {
        clock.advance(SECOND);
        settle(&circuit, "f");
    }
    // One a second: what left the window beyond the period is at most a step of ten.
    for _ in 0..1_000 {
        clock.advance(SECOND);
        settle(&circuit, "s");
        let metrics = circuit.metrics();
        let settled = metrics.failed_requests + metrics.successful_requests.unwrap();
        let failures = 600_u64.saturating_sub(settled) as f64;
        let rate = metrics.error_rate.unwrap();
        let (least, most) = ((failures - 10.0).max(0.0) / 300.0, failures / 290.0);
        assert!((least..=most).contains(&rate), "{rate} at {settled}");
    }
}

/// Asks the circuit for everything there is, as whoever is woken may.
struct Nosy(Circuit, AtomicU64);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        let circuit = &self.0;
        let _ = (circuit.metrics(), circuit.config(), circuit.is_available());
        let _ = circuit.try_acquire();
        circuit.disable();
    }
}

#[test]
fn b8_whoever_is_woken_may_call_back() {
    let (circuit, _clock) = circuit(config());
    circuit.force_open();
    let nosy = Arc::new(Nosy(circuit.clone(), AtomicU64::new(0)));
    let waker = Waker::from(nosy.clone());
    let waits = circuit.poll_reserve(None, &mut None, &waker);
    assert!(matches!(waits, Readiness::Wait(None)));
    circuit.reset();
    assert_eq!(nosy.1.load(Ordering::Relaxed), 1);
    assert_eq!(circuit.state(), CircuitState::Disabled);
}

#[test]
fn t5_a_rejection_is_told_once_and_only_to_who_was_rejected() {
    let (circuit, _clock) = circuit(config());
    let mut permit = circuit.acquire(&mut None).unwrap();
    permit.end(Outcome::Success);
    assert_eq!(permit.take_rejection(), None);

    circuit.force_open();
    let rejection = circuit.acquire(&mut None).unwrap_err();
    let mut rejected = Permit::rejected(rejection);
    assert_eq!(rejected.take_rejection(), Some(Open::from(rejection)));
    assert_eq!(rejected.take_rejection(), None);
}

const REASONS: [TripReason; 7] = [
    TripReason::ConsecutiveFailures,
    TripReason::ErrorRate,
    TripReason::SlowCalls,
    TripReason::RetryAfter,
    TripReason::ProbeFailed,
    TripReason::HalfOpenTimeout,
    TripReason::Forced,
];

#[test]
fn b2_reasons_read_well_and_differ() {
    let mut seen = std::collections::BTreeSet::new();
    for reason in REASONS {
        let words = reason.to_string();
        assert!(words.starts_with(char::is_lowercase) && !words.ends_with('.'));
        assert!(seen.insert(words) && seen.insert(reason.as_str().to_owned()));
    }
}

#[test]
fn b1_an_error_names_field_value_and_range() {
    let error = config().half_open_requests(0).build().unwrap_err();
    assert_eq!(error.field(), "half_open_requests");
    assert_eq!(error.value(), "0");
    let whole = format!("half_open_requests is 0, but has to be {}", error.allowed());
    assert_eq!(error.to_string(), whole);
}

#[test]
fn b10_events_and_losses_read_well() {
    let (circuit, _clock) = circuit(config());
    let mut events = circuit.events();
    settle(&circuit, "fff");
    let event = events.next().now_or_never().flatten().unwrap().unwrap();
    assert_eq!(
        event.to_string(),
        "CLOSED -> OPEN (too many failures in a row)"
    );
    circuit.reset();
    let event = events.next().now_or_never().flatten().unwrap().unwrap();
    assert_eq!(event.to_string(), "OPEN -> CLOSED");
    assert_eq!(Lagged(3).to_string(), "3 events were lost");
}

#[cfg(feature = "serde")]
mod json {
    use super::*;

    fn state(circuit: &Circuit) -> serde_json::Value {
        serde_json::to_value(circuit.metrics()).unwrap()["currentState"].clone()
    }

    #[test]
    fn b9_reasons_have_their_names() {
        for reason in REASONS {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn b9_states_have_their_names() {
        let (circuit, clock) = circuit(config());
        assert_eq!(state(&circuit), "CLOSED");
        settle(&circuit, "fff");
        assert_eq!(state(&circuit), "OPEN");
        clock.advance(120 * SECOND);
        let _probe = circuit.try_acquire().unwrap();
        assert_eq!(state(&circuit), "HALF_OPEN");
        circuit.force_open();
        assert_eq!(state(&circuit), "FORCED_OPEN");
        circuit.disable();
        assert_eq!(state(&circuit), "DISABLED");
    }

    #[test]
    fn b9_every_figure_has_its_name() {
        let slow = config().slow_call_duration(SECOND).slow_call_percentage(90);
        let (circuit, clock) = circuit(slow.failure_threshold(2));
        settle(&circuit, "sff");
        clock.advance(SECOND);
        let json = serde_json::to_value(circuit.metrics()).unwrap();
        for name in [
            "totalRequests",
            "successfulRequests",
            "failedRequests",
            "ignoredRequests",
            "rejectedRequests",
            "cancelledRequests",
            "timedOutRequests",
            "slowRequests",
            "inFlight",
            "lastFailureTime",
            "lastSuccessTime",
            "currentState",
            "stateChangedAt",
            "errorRate",
            "slowRate",
            "retryAfter",
            "tripReason",
            "openedTotal",
            "recoveriesTotal",
            "failedRecoveriesTotal",
        ] {
            assert!(json.get(name).is_some(), "{name} in {json}");
        }
        if cfg!(feature = "latency") {
            for name in ["p50", "p90", "p99", "max"] {
                assert!(json["latency"][name].is_number(), "{name} in {json}");
            }
        }
    }
}

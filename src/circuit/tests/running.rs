//! B13: calls that are still running, and already slow.

use proptest::prelude::*;

use super::*;

/// Slow after 10 s; open when half of at least four calls are.
fn slow() -> CircuitBreakerConfigBuilder {
    config()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .volume_threshold(4)
        .slow_call_duration(10 * SECOND)
        .slow_call_percentage(50)
        .timeout(None)
}

fn acquire(circuit: &Circuit, calls: usize) -> Vec<Permit> {
    let permit = |_| circuit.try_acquire().expect("the circuit should admit");
    (0..calls).map(permit).collect()
}

#[test]
fn b13_a_dependency_that_hangs_is_noticed_at_an_admission() {
    let (circuit, clock) = circuit(slow());
    let hanging = acquire(&circuit, 4);
    clock.advance(10 * SECOND - Duration::from_nanos(1));
    acquire(&circuit, 1).pop().unwrap().ignore();
    assert_eq!(circuit.state(), CircuitState::Closed);

    clock.advance(Duration::from_nanos(1));
    let open = circuit.try_acquire().unwrap_err();
    assert_eq!(open.reason, Some(TripReason::SlowCalls));
    assert_eq!(open.retry_after, Some(120 * SECOND));
    let metrics = circuit.metrics();
    assert_eq!(metrics.current_state, CircuitState::Open);
    assert_eq!((metrics.rejected_requests, metrics.in_flight), (1, Some(4)));
    drop(hanging);
}

#[test]
fn b13_a_call_is_overdue_to_within_a_step_too_early() {
    let (circuit, clock) = circuit(slow().volume_threshold(1));
    // 1/126 of the ten seconds, rounded up to a power of two.
    let width = Duration::from_nanos(1 << 27);
    assert!(width < 10 * SECOND / 63);
    clock.advance(width - Duration::from_nanos(1));
    let _hanging = acquire(&circuit, 1);
    clock.advance(10 * SECOND - width);
    assert!(circuit.try_acquire().is_ok());
    clock.advance(width);
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn b14_reading_shows_the_slow_ones_and_opens_nothing() {
    let (circuit, clock) = circuit(slow());
    let _hanging = acquire(&circuit, 4);
    clock.advance(20 * SECOND);
    let metrics = circuit.metrics();
    assert_eq!(metrics.slow_rate, Some(1.0));
    assert_eq!(
        metrics.slow_requests,
        Some(0),
        "a total of what has settled"
    );
    assert_eq!(metrics.current_state, CircuitState::Closed);
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn b13_running_calls_are_in_numerator_denominator_and_volume() {
    let (circuit, clock) = circuit(slow());
    let hanging = acquire(&circuit, 1);
    clock.advance(10 * SECOND);
    settle(&circuit, "ss");
    assert_eq!(circuit.metrics().slow_rate, Some(1.0 / 3.0));
    drop(hanging);
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));

    // One that is slow and two that were not, and now a fourth: half of four are slow.
    let _hanging = acquire(&circuit, 2);
    clock.advance(10 * SECOND);
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn b13_a_settlement_replaces_the_entry_of_its_call() {
    let (circuit, clock) = circuit(slow());
    settle(&circuit, "sss");
    let hanging = acquire(&circuit, 2);
    clock.advance(10 * SECOND);
    assert_eq!(circuit.metrics().slow_rate, Some(2.0 / 5.0));
    for permit in hanging {
        permit.success();
        assert_eq!(circuit.metrics().slow_rate, Some(2.0 / 5.0));
    }
    assert_eq!(circuit.metrics().slow_requests, Some(2));
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[test]
fn b13_a_settlement_counts_the_others_that_still_run() {
    for config in [slow(), slow().window(10)] {
        let (circuit, clock) = circuit(config);
        let hanging = acquire(&circuit, 3);
        settle(&circuit, "ss");
        clock.advance(10 * SECOND);
        // The first of three slow ones of five to settle finds them.
        hanging.into_iter().next().unwrap().success();
        assert_eq!(circuit.state(), CircuitState::Open);
    }
}

#[test]
fn b13_a_good_call_that_settles_finds_those_that_still_run() {
    // It brings up the volume.
    let (circuit, clock) = circuit(slow());
    let _hanging = acquire(&circuit, 2);
    clock.advance(10 * SECOND);
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Closed);
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b13_a_good_call_can_be_the_first_to_see_that_others_are_slow() {
    // No step of the window ends at that moment.
    let (circuit, clock) = circuit(slow().monitoring_period(3_000 * SECOND));
    let _hanging = acquire(&circuit, 3);
    clock.advance(5 * SECOND);
    let quick = acquire(&circuit, 1).pop().unwrap();
    clock.advance(5 * SECOND);
    quick.success();
    assert_eq!(circuit.state(), CircuitState::Open);
}

#[test]
fn b13_calls_that_began_apart_are_told_apart_whatever_is_slow() {
    let nanos = Duration::from_nanos;
    for slow_after in 2..400 {
        for apart in [slow_after / 63 + 1, slow_after - 1] {
            let (circuit, clock) = circuit(slow().slow_call_duration(nanos(slow_after)));
            let first = acquire(&circuit, 1);
            clock.advance(nanos(apart));
            let _second = acquire(&circuit, 1);
            clock.advance(nanos(slow_after - apart));
            assert_eq!(circuit.metrics().slow_rate, Some(1.0));
            drop(first);
            let left = circuit.metrics().slow_rate;
            assert_eq!(left, Some(0.0), "{apart} of {slow_after} ns");
        }
    }
}

#[test]
fn b4_running_calls_of_an_earlier_generation_do_not_count() {
    let (circuit, clock) = circuit(slow());
    let hanging = acquire(&circuit, 4);
    clock.advance(5 * SECOND);
    circuit.reset();
    clock.advance(10 * SECOND);
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));
    let newer = acquire(&circuit, 4);
    drop(hanging);
    clock.advance(10 * SECOND);
    assert_eq!(circuit.metrics().slow_rate, Some(1.0));
    drop(newer);
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));
}

#[test]
fn b13_running_calls_are_found_however_often_the_circuit_has_changed() {
    let (circuit, clock) = circuit(slow());
    // More generations than the number of a cohort has bits for.
    for _ in 0..1 << 16 {
        circuit.reset();
    }
    let _hanging = acquire(&circuit, 4);
    clock.advance(10 * SECOND);
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn b13_an_admission_sees_what_has_left_the_windows() {
    let (circuit, clock) = circuit(
        slow()
            .error_threshold_percentage(50)
            .volume_threshold(1)
            .monitoring_period(30 * SECOND),
    );
    settle(&circuit, "ss");
    clock.advance(15 * SECOND);
    settle(&circuit, "f");
    clock.advance(15 * SECOND);
    // Only the failure is left.
    assert_eq!(circuit.state(), CircuitState::Closed);
    let open = circuit.try_acquire().unwrap_err();
    assert_eq!(open.reason, Some(TripReason::ErrorRate));
}

#[test]
fn b13_any_pause_and_any_duration_will_do() {
    for slow_after in [
        Duration::from_nanos(1),
        Duration::from_micros(1),
        Duration::MAX,
    ] {
        let (circuit, clock) = circuit(slow().slow_call_duration(slow_after).volume_threshold(9));
        for pause in [1, 100, 1_000_000, u64::MAX / 4] {
            let _hanging = acquire(&circuit, 1);
            clock.advance(Duration::from_nanos(pause));
            settle(&circuit, "s");
        }
        assert!(circuit.metrics().slow_rate.is_some());
    }
}

#[test]
fn b11_a_clock_that_is_set_back_holds_no_call() {
    let (circuit, clock) = circuit(slow().volume_threshold(100));
    // From less than a round of the buckets to more than their number of rounds can tell.
    for ahead in [SECOND, 100 * SECOND, 100_000_000 * SECOND] {
        clock.advance(ahead);
        settle(&circuit, "s");
        clock.set(0);
        let early = acquire(&circuit, 3);
        drop(early);
        assert_eq!(circuit.metrics().slow_rate, Some(0.0));
        circuit.reset();
    }
}

#[test]
fn b11_hanging_calls_are_found_again_some_time_after_the_clock_was_set_back() {
    let (circuit, clock) = circuit(slow().volume_threshold(80_000));
    clock.advance(100 * SECOND);
    settle(&circuit, "s");
    clock.set(0);
    // As many as tell that from calls which are about to be counted.
    for _ in 0..70_000 {
        settle(&circuit, "s");
    }
    let hanging = acquire(&circuit, 3_000);
    clock.advance(10 * SECOND);
    let metrics = circuit.metrics();
    assert_eq!(metrics.slow_rate, Some(3_000.0 / 73_001.0));
    assert_eq!(
        (metrics.total_requests, metrics.in_flight),
        (Some(73_001), Some(3_000))
    );
    drop(hanging);
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));
}

#[test]
fn b11_a_jump_to_the_end_of_time_harms_nothing() {
    for slow_after in [1, 126, 1_000].map(Duration::from_nanos) {
        for end in [u64::MAX - 130, u64::MAX] {
            let config = slow().volume_threshold(100).slow_call_duration(slow_after);
            let (circuit, clock) = circuit(config.monitoring_period(slow_after));
            let hanging = acquire(&circuit, 1);
            clock.set(end);
            settle(&circuit, "sf");
            drop(hanging);
            assert_eq!(circuit.metrics().in_flight, Some(0));
        }
    }
}

/// A clock that has its circuit reset where an admission reads it for the second time, by somebody
/// who has read it a second before.
#[derive(Debug, Clone, Default)]
struct Interrupted {
    time: ManualClock,
    reads: Arc<AtomicU64>,
    circuit: Arc<OnceLock<Circuit>>,
}

impl Clock for Interrupted {
    fn now(&self) -> u64 {
        let now = self.time.now();
        if let Some(circuit) = self.circuit.get()
            && self.reads.fetch_add(1, Ordering::Relaxed) == 1
        {
            self.time.set(now - clock::nanos(SECOND));
            circuit.reset();
            self.time.set(now);
        }
        now
    }
}

#[test]
fn b13_a_call_that_begins_while_the_circuit_is_reset_is_not_missed_when_it_has_settled() {
    let clock = Interrupted::default();
    let circuit = Circuit::with_clock(slow().build().unwrap(), clock.clone());
    clock.time.advance(100 * SECOND);
    clock.circuit.set(circuit.clone()).unwrap();
    settle(&circuit, "s");
    assert!(clock.reads.load(Ordering::Relaxed) > 2);
    clock.time.advance(9 * SECOND + SECOND / 2);
    assert_eq!(circuit.metrics().slow_rate, Some(0.0));
}

#[cfg(feature = "http")]
#[test]
fn b13_an_answer_that_goes_on_settles_where_nothing_but_slow_calls_is_counted() {
    for config in [slow(), slow().window(10)] {
        for outcome in [Outcome::Success, Outcome::FAILURE, busy(1)] {
            let (circuit, clock) = circuit(config.clone().record(Record::Rules));
            let mut streaming = circuit.try_acquire().unwrap();
            let ran = streaming.answered().unwrap();
            clock.advance(20 * SECOND);
            streaming.took(ran);
            streaming.settle(outcome);
            settle(&circuit, "ss");
            // It is the third of four.
            let _hanging = acquire(&circuit, 1);
            clock.advance(10 * SECOND);
            assert_eq!(circuit.metrics().slow_rate, Some(0.25));
        }
    }
}

#[test]
fn b13_calls_that_are_brief_do_not_hang() {
    let (circuit, clock) = circuit(slow().volume_threshold(100_000));
    // More than the window's word holds, in one moment and the next, between calls that do hang.
    let first = acquire(&circuit, 1);
    settle(&circuit, &"s".repeat(10_000));
    let second = acquire(&circuit, 1);
    clock.advance(SECOND);
    settle(&circuit, &"ff".repeat(1_000));
    let third = acquire(&circuit, 1);
    settle(&circuit, &"is".repeat(10));

    let slow_rate = |slow: u32, settled: u32| Some(f64::from(slow) / f64::from(settled));
    for waited in [10, 20] {
        clock.advance(10 * SECOND);
        let metrics = circuit.metrics();
        assert_eq!(metrics.slow_rate, slow_rate(3, 12_013), "after {waited} s");
        assert_eq!(metrics.in_flight, Some(3));
    }
    for hanging in [first, second, third] {
        hanging.into_iter().for_each(Permit::success);
    }
    let metrics = circuit.metrics();
    assert_eq!(metrics.slow_rate, slow_rate(3, 12_013));
    assert_eq!(
        (metrics.slow_requests, metrics.in_flight),
        (Some(3), Some(0))
    );
}

proptest! {
    /// However the clock jumps: once all calls have settled and time has passed, none is taken to run,
    /// and none that hangs then is missed.
    #[test]
    fn b11_what_began_and_what_left_balance_whatever_the_clock_does(
        steps in prop::collection::vec((0..5_usize, any::<prop::sample::Index>(), 0_u32..36), 1..60),
    ) {
        let (circuit, clock) = circuit(slow().volume_threshold(1_000));
        clock.advance(100 * SECOND);
        let mut running = Vec::new();
        for (step, index, magnitude) in steps {
            match step {
                0 | 1 => running.extend(acquire(&circuit, 1 + step)),
                2 if !running.is_empty() => running.remove(index.index(running.len())).success(),
                3 => clock.set(clock.now().saturating_sub(1 << magnitude)),
                _ => clock.advance(Duration::from_nanos(1 << magnitude)),
            }
        }
        running.into_iter().for_each(Permit::success);
        prop_assert_eq!(circuit.metrics().in_flight, Some(0));

        // Past whatever it once was, and past what the window holds.
        for _ in 0..2 {
            clock.advance(10_000 * SECOND);
            prop_assert_eq!(circuit.metrics().slow_rate, Some(0.0));
        }
        let _hanging = acquire(&circuit, 3);
        clock.advance(10 * SECOND);
        settle(&circuit, "s");
        prop_assert_eq!(circuit.metrics().slow_rate, Some(0.75));
    }
}

#[test]
fn b13_some_are_said_to_hang_only_while_some_do() {
    let running = crate::circuit::running::Running::new();
    let mut cohort = running.begin(1, 126, 0);
    assert!(!running.present(&cohort).is_overdue);
    assert!(running.enter(1));
    assert!(!running.present(&cohort).is_overdue);
    running.turn(&mut cohort, 126);
    assert!(running.present(&cohort).is_overdue);
    running.leave(1, 0);
    assert!(!running.present(&cohort).is_overdue);
}

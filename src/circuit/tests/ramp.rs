//! B1: `recovery_ramp`.

use super::*;

/// A circuit whose one probe has just succeeded.
fn recovered(ramp: Duration) -> (Circuit, ManualClock) {
    let (circuit, clock) = due(config().half_open_requests(1).recovery_ramp(ramp));
    settle(&circuit, "s");
    assert_eq!(circuit.state(), CircuitState::Closed);
    (circuit, clock)
}

/// How many of a hundred calls are admitted.
fn admitted(circuit: &Circuit) -> usize {
    let calls = (0..100).map(|_| circuit.try_acquire());
    calls.filter_map(Result::ok).map(Permit::success).count()
}

#[test]
fn b1_the_ramp_admits_a_share_that_rises_to_all() {
    let (circuit, clock) = recovered(100 * SECOND);
    assert_eq!(admitted(&circuit), 1, "the first in any case");
    let mut passed = 0;
    for percent in [10, 25, 50, 75, 99] {
        clock.advance((percent - passed) * SECOND);
        passed = percent;
        let admitted = admitted(&circuit);
        assert!(
            admitted.abs_diff(percent as usize) <= 1,
            "{admitted} at {percent} %"
        );
    }
    clock.advance(SECOND);
    assert_eq!(admitted(&circuit), 100);
    assert_eq!(circuit.metrics().opened_total, 1);
}

#[test]
fn b1_who_is_turned_away_by_the_ramp_is_told_so() {
    let (circuit, clock) = recovered(100 * SECOND);
    settle(&circuit, "s");
    clock.advance(10 * SECOND);
    assert!(!circuit.is_available());
    let open = circuit.try_acquire().unwrap_err();
    assert_eq!(open.state, CircuitState::Closed);
    assert_eq!(open.retry_after, Some(90 * SECOND));
    assert_eq!(
        open.to_string(),
        "circuit has just closed and does not admit all calls yet, try again in 90s"
    );
    // T5: so is who awaits its response.
    let rejection = circuit.acquire(&mut None).unwrap_err();
    let told = Permit::rejected(rejection).take_rejection();
    assert_eq!(told, Some(open));
    assert_eq!(circuit.metrics().rejected_requests, 2);
    // What is due by time is so for whoever only looks, too.
    clock.advance(90 * SECOND);
    assert!(circuit.is_available());
}

#[test]
fn b1_during_the_ramp_the_rules_hold() {
    let (circuit, clock) = recovered(100 * SECOND);
    clock.advance(99 * SECOND);
    settle(&circuit, "f");
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(circuit.metrics().opened_total, 2);
}

#[test]
fn t4_a_place_in_the_ramp_is_kept_for_the_call_and_comes_back_from_a_drop() {
    let (circuit, _) = recovered(100 * SECOND);
    let first = reserve(&circuit, None).unwrap();
    assert!(first.is_some());
    assert!(reserve(&circuit, None).is_err());
    assert_eq!(reserve(&circuit, first).unwrap(), first, "it stays ready");
    circuit.release(first.unwrap());
    let second = reserve(&circuit, None).unwrap();
    assert!(circuit.acquire(&mut { second }).is_ok());
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn b8_a_reset_ends_the_ramp() {
    let (circuit, _) = recovered(100 * SECOND);
    circuit.reset();
    assert_eq!(admitted(&circuit), 100);
}

#[test]
fn p_a_call_takes_no_lock_once_the_ramp_is_over() {
    let (circuit, clock) = recovered(100 * SECOND);
    clock.advance(100 * SECOND);
    settle(&circuit, "s"); // what is due by time happens at this one
    without_the_lock(&circuit, |circuit| settle(circuit, "sss"));
}

//! A circuit's figures as counters, gauges and a histogram.

use std::sync::{Arc, Mutex, PoisonError};

use ::metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::observe::{FAILURE, IGNORED, SUCCESS};
use crate::circuit::{Circuit, CircuitState, Event};

const STATUS: &str = "circuit_breaker.status";
const TRANSITIONS: &str = "circuit_breaker.transitions";
const CALLS: &str = "circuit_breaker.calls";
const REJECTIONS: &str = "circuit_breaker.rejections";
const TIMEOUTS: &str = "circuit_breaker.timeouts";
const CANCELLATIONS: &str = "circuit_breaker.cancellations";
const SLOW_CALLS: &str = "circuit_breaker.slow_calls";
const ACTIVE_CALLS: &str = "circuit_breaker.active_calls";
const ERROR_RATE: &str = "circuit_breaker.error_rate";
const SLOW_RATE: &str = "circuit_breaker.slow_rate";
const RETRY_AFTER: &str = "circuit_breaker.retry_after";
const DURATION: &str = "circuit_breaker.call.duration";

const NAME: &str = "circuit_breaker.name";
const STATE: &str = "circuit_breaker.state";
const PREVIOUS_STATE: &str = "circuit_breaker.previous_state";
const REASON: &str = "circuit_breaker.reason";
const OUTCOME: &str = "circuit_breaker.outcome";

const STATES: [CircuitState; 5] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::Disabled,
];

/// Keeps a gauge for each state of the circuit, and counts the changes from now on, under this name.
///
/// It describes all metrics to the recorder, so install that first. It adds a
/// [listener](Circuit::on_state_change), so it is for once in a circuit's life. The other figures
/// are told by [`publish`]; the [module](super) lists them all.
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn metrics(circuit: &Circuit, name: impl Into<String>) {
    describe();
    let name: Arc<str> = name.into().into();
    // The first state is told by us and the later ones by the listener. The lock keeps a change
    // that comes between from being overwritten.
    let turn = Arc::new(Mutex::new(()));
    let listener = (Arc::clone(&name), Arc::clone(&turn));
    circuit.on_state_change(move |event| {
        let (name, turn) = &listener;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        tell_state(name, event.to);
        count_transition(name, event);
    });
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    tell_state(&name, circuit.state());
}

fn tell_state(name: &Arc<str>, present: CircuitState) {
    for state in STATES {
        let gauge = gauge!(STATUS, NAME => Arc::clone(name), STATE => state.as_str());
        gauge.set(if state == present { 1.0 } else { 0.0 });
    }
}

fn count_transition(name: &Arc<str>, event: &Event) {
    let mut labels = vec![
        Label::new(NAME, Arc::clone(name)),
        Label::new(PREVIOUS_STATE, event.from.as_str()),
        Label::new(STATE, event.to.as_str()),
    ];
    let reason = event.reason.map(|reason| reason.as_str());
    labels.extend(reason.map(|reason| Label::new(REASON, reason)));
    counter!(TRANSITIONS, labels).increment(1);
}

/// Tells the circuit's present figures, under this name: its totals, what is under way, the rates of
/// its windows.
///
/// It takes one snapshot, which costs the calls nothing. Call it before each scrape, or every so many
/// seconds where metrics are pushed.
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn publish(circuit: &Circuit, name: impl Into<String>) {
    let seen = circuit.metrics();
    let name: Arc<str> = name.into().into();

    let outcomes = [
        (SUCCESS, seen.successful_requests),
        (FAILURE, Some(seen.failed_requests)),
        (IGNORED, Some(seen.ignored_requests)),
    ];
    for (outcome, total) in outcomes {
        if let Some(total) = total {
            counter!(CALLS, NAME => Arc::clone(&name), OUTCOME => outcome).absolute(total);
        }
    }
    let totals = [
        (REJECTIONS, Some(seen.rejected_requests)),
        (TIMEOUTS, Some(seen.timed_out_requests)),
        (CANCELLATIONS, Some(seen.cancelled_requests)),
        (SLOW_CALLS, seen.slow_requests),
    ];
    for (metric, total) in totals {
        if let Some(total) = total {
            counter!(metric, NAME => Arc::clone(&name)).absolute(total);
        }
    }
    let wait = seen.retry_after.unwrap_or_default();
    let levels = [
        (ACTIVE_CALLS, seen.in_flight.map(|calls| calls as f64)),
        (ERROR_RATE, seen.error_rate),
        (SLOW_RATE, seen.slow_rate),
        (RETRY_AFTER, Some(wait.as_secs_f64())),
    ];
    for (metric, level) in levels {
        if let Some(level) = level {
            gauge!(metric, NAME => Arc::clone(&name)).set(level);
        }
    }
}

/// A call to the dependency took so many nanoseconds.
pub(super) fn record_duration(name: &Arc<str>, outcome: &'static str, nanos: u64) {
    let seconds = std::time::Duration::from_nanos(nanos);
    histogram!(DURATION, NAME => Arc::clone(name), OUTCOME => outcome).record(seconds);
}

fn describe() {
    let counters = [
        (TRANSITIONS, "Changes of the circuit's state"),
        (CALLS, "Calls that have settled"),
        (REJECTIONS, "Calls that the circuit refused"),
        (TIMEOUTS, "Calls that missed their deadline"),
        (
            CANCELLATIONS,
            "Calls dropped before their outcome was known",
        ),
        (SLOW_CALLS, "Calls that were slow"),
    ];
    for (metric, text) in counters {
        describe_counter!(metric, Unit::Count, text);
    }
    describe_gauge!(
        STATUS,
        "1 for the circuit's present state, 0 for each other"
    );
    describe_gauge!(ACTIVE_CALLS, Unit::Count, "Calls that are under way");
    describe_gauge!(
        ERROR_RATE,
        "Failed share of the calls in the window, 0 to 1"
    );
    describe_gauge!(SLOW_RATE, "Slow share of the calls in the window, 0 to 1");
    describe_gauge!(
        RETRY_AFTER,
        Unit::Seconds,
        "Time until the circuit lets a probe through"
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "How long calls to the dependency took"
    );
}

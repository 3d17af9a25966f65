//! Events for changes of state, and the span around a call.

use ::tracing::{Span, field::Empty, info, info_span, warn};

use crate::circuit::{Circuit, CircuitState, TripReason};

/// Logs each change of the circuit's state from now on, under this name.
///
/// It adds a [listener](Circuit::on_state_change), so it is for once in a circuit's life. The
/// [module](super) tells the fields.
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub fn trace(circuit: &Circuit, name: impl Into<String>) {
    let name = name.into();
    circuit.on_state_change(move |event| {
        // The level is part of what a macro makes static, so there is one for each.
        macro_rules! tell {
            ($level:ident) => {
                $level!(
                    name: "circuit_breaker.state_change",
                    target: "tower_breaker",
                    {
                        circuit_breaker.name = name,
                        circuit_breaker.state = event.to.as_str(),
                        circuit_breaker.previous_state = event.from.as_str(),
                        circuit_breaker.reason = event.reason.map(TripReason::as_str),
                        circuit_breaker.generation = event.generation,
                    },
                    "{event}"
                )
            };
        }
        match event.to {
            CircuitState::Open | CircuitState::ForcedOpen => tell!(warn),
            CircuitState::Closed | CircuitState::HalfOpen | CircuitState::Disabled => tell!(info),
        }
    });
}

/// The span around a call.
pub(super) fn span(name: &str) -> Span {
    info_span!(
        target: "tower_breaker",
        "circuit_breaker.call",
        circuit_breaker.name = name,
        circuit_breaker.outcome = Empty,
        otel.status_code = Empty,
    )
}

/// Puts into it how the call ended.
pub(super) fn end(span: &Span, outcome: &'static str) {
    span.record("circuit_breaker.outcome", outcome);
    if outcome == super::observe::FAILURE {
        span.record("otel.status_code", "ERROR");
    }
}

//! What a circuit does, told to [`tracing`](https://docs.rs/tracing) and to
//! [`metrics`](https://docs.rs/metrics).
//!
//! A [`Circuit`](crate::Circuit) knows neither. What is here listens to its
//! [events](crate::Circuit::on_state_change) and reads its [snapshot](crate::Circuit::metrics), so
//! a call costs the same with it and without; only [`ObserveLayer`] is in the way of calls, where
//! it is asked for. Each of the two has a feature of its own.
//!
//! ```
//! # #[cfg(all(feature = "tracing", feature = "metrics"))] {
//! use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, telemetry};
//!
//! let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
//! let circuit = layer.circuit();
//!
//! // Log each change of its state.
//! telemetry::trace(circuit, "payments");
//! // Keep a gauge for each state, and count the changes.
//! telemetry::metrics(circuit, "payments");
//! // Tell the other figures: before each scrape, or every so many seconds.
//! telemetry::publish(circuit, "payments");
//!
//! // A span and a duration for each call that reaches the dependency, so it goes inside.
//! let service = tower::ServiceBuilder::new()
//!     .layer(layer)
//!     .layer(telemetry::ObserveLayer::new("payments"))
//!     .service_fn(async |_: ()| Ok::<_, std::io::Error>("paid"));
//! # }
//! ```
//!
//! In a [`Registry`](crate::Registry), [`trace`] and [`metrics()`](self::metrics()) go into the
//! closure of [`from_fn`](crate::Registry::from_fn), and [`publish`] over its
//! [`iter`](crate::Registry::iter). Each name is a time series of its own, so keys that come from
//! outside are better not used as names.
//!
//! # Metrics
//!
//! Every metric has the attribute `circuit_breaker.name`. Counters only go up, as the circuit's own
//! totals do.
//!
//! | metric | kind | unit | further attributes | told by |
//! |---|---|---|---|---|
//! | `circuit_breaker.status` | gauge: 1 for the present state, 0 for each other | | `circuit_breaker.state` | [`metrics()`](self::metrics()) |
//! | `circuit_breaker.transitions` | counter | | `circuit_breaker.state`, `circuit_breaker.previous_state`, and `circuit_breaker.reason` where it opened | [`metrics()`](self::metrics()) |
//! | `circuit_breaker.calls` | counter: settled calls | | `circuit_breaker.outcome`: `success`, `failure`, `ignored` | [`publish`] |
//! | `circuit_breaker.rejections` | counter | | | [`publish`] |
//! | `circuit_breaker.timeouts` | counter: some of the failed | | | [`publish`] |
//! | `circuit_breaker.cancellations` | counter: some of the ignored or the failed | | | [`publish`] |
//! | `circuit_breaker.slow_calls` | counter; absent where no call can be slow | | | [`publish`] |
//! | `circuit_breaker.active_calls` | gauge | | | [`publish`] |
//! | `circuit_breaker.error_rate` | gauge: the window's, 0 to 1 | | | [`publish`] |
//! | `circuit_breaker.slow_rate` | gauge: the window's, 0 to 1; absent where no call can be slow | | | [`publish`] |
//! | `circuit_breaker.retry_after` | gauge: 0 unless it is open | s | | [`publish`] |
//! | `circuit_breaker.call.duration` | histogram | s | `circuit_breaker.outcome`: as above, and `cancelled` | [`ObserveLayer`] |
//!
//! States and reasons have the names that they have everywhere:
//! [`CircuitState::as_str`](crate::CircuitState::as_str),
//! [`TripReason::as_str`](crate::TripReason::as_str). With [`Record::Rules`](crate::Record::Rules)
//! the figures that the circuit doesn't keep are absent.
//!
//! OpenTelemetry has no conventions for circuit breakers yet (issue 2355 of its repository asks
//! for them). The names follow its general ones: a state as a `status` metric with a series for each
//! state, durations in seconds, `active_` for what is under way, dots between namespaces, no
//! `_total`. Exporters for Prometheus make underscores of the dots.
//!
//! # Events and spans
//!
//! Both have the target `tower_breaker` and the field `circuit_breaker.name`.
//!
//! | | level | further fields | told by |
//! |---|---|---|---|
//! | event `circuit_breaker.state_change` | `WARN` where it opens, `INFO` else | `circuit_breaker.state`, `circuit_breaker.previous_state`, `circuit_breaker.generation`, and `circuit_breaker.reason` where it opened | [`trace`] |
//! | span `circuit_breaker.call` | `INFO` | `circuit_breaker.outcome`, and `otel.status_code`, `ERROR` where that is `failure` | [`ObserveLayer`] |

#[cfg(feature = "metrics")]
mod metrics;
mod observe;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use self::metrics::{metrics, publish};
pub use self::observe::{Observe, ObserveLayer, ResponseFuture};
#[cfg(feature = "tracing")]
pub use self::tracing::trace;

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
//! // A span and a duration for each call that reaches the dependency: it goes inside.
//! let service = tower::ServiceBuilder::new()
//!     .layer(layer)
//!     .layer(telemetry::ObserveLayer::new("payments"))
//!     .service_fn(async |_: ()| Ok::<_, std::io::Error>("paid"));
//! # }
//! ```
//!
//! In a [`Registry`](crate::Registry) each circuit is told of from when it is made:
//!
//! ```
//! # #[cfg(all(feature = "tracing", feature = "metrics"))]
//! # fn main() -> Result<(), tower_breaker::RegistryFull> {
//! use std::num::NonZeroUsize;
//! use tower_breaker::{Circuit, CircuitBreakerConfig, Registry, telemetry};
//!
//! const SHARDS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
//!
//! let make = |shard: &String| {
//!     let circuit = Circuit::new(CircuitBreakerConfig::default());
//!     telemetry::trace(&circuit, shard);
//!     telemetry::metrics(&circuit, shard);
//!     circuit
//! };
//! let shards = Registry::from_fn(make, SHARDS);
//! shards.get("shard-7")?;
//!
//! // Before each scrape:
//! for (shard, circuit) in shards.iter() {
//!     telemetry::publish(&circuit, shard);
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "tracing", feature = "metrics")))] fn main() {}
//! ```
//!
//! Each name is a set of time series that a recorder keeps for good, so names are better not made of
//! keys that come from outside. A circuit that takes the name of an evicted one counts from zero, and
//! counters only go up: they stand still until it has caught up.
//!
//! # Metrics
//!
//! The names of all attributes begin with `circuit_breaker.` too, and every metric has
//! `circuit_breaker.name`. Counters only go up, as the circuit's own totals do.
//!
//! From [`metrics()`](self::metrics()), as it happens:
//!
//! | metric | kind | attributes beside the name |
//! |---|---|---|
//! | `circuit_breaker.status` | gauge: 1 for the present state, 0 for each other | `state` |
//! | `circuit_breaker.transitions` | counter | `state`, `previous_state`; `reason` where it opened |
//!
//! From [`publish`], when it is called:
//!
//! | metric | kind | attributes beside the name |
//! |---|---|---|
//! | `circuit_breaker.calls` | counter: calls that have settled | `outcome`: `success`, `failure` or `ignored` |
//! | `circuit_breaker.rejections` | counter: calls that were refused | |
//! | `circuit_breaker.timeouts` | counter: some of the failed | |
//! | `circuit_breaker.cancellations` | counter: some of the ignored or the failed | |
//! | `circuit_breaker.slow_calls` | counter; absent where no call can be slow | |
//! | `circuit_breaker.active_calls` | gauge: calls under way | |
//! | `circuit_breaker.error_rate` | gauge: failed share of the window, 0 to 1 | |
//! | `circuit_breaker.slow_rate` | gauge: slow share, likewise; absent where no call can be slow | |
//! | `circuit_breaker.retry_after` | gauge, in seconds: the wait for a probe; 0 unless it rejects | |
//!
//! From [`ObserveLayer`], at the end of each call:
//!
//! | metric | kind | attributes beside the name |
//! |---|---|---|
//! | `circuit_breaker.call.duration` | histogram, in seconds | `outcome`: as above, or `cancelled` |
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
//! Both have the target `tower_breaker` and the field `circuit_breaker.name`. Their other fields begin
//! with `circuit_breaker.` too, where they have no dot of their own.
//!
//! | from | | level | fields |
//! |---|---|---|---|
//! | [`trace`] | event `circuit_breaker.state_change` | `WARN` where it opens, or else `INFO` | `state`, `previous_state`, `generation`; `reason` where it opened |
//! | [`ObserveLayer`] | span `circuit_breaker.call` | `INFO` | `outcome`; `otel.status_code`, which is `ERROR` for a failure |

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

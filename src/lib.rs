//! A circuit breaker for Tower, a fallback over several services, and a manager for language models
//! that stand in for one another.
//!
//! A circuit breaker watches the calls to one dependency. While they go well, the circuit is
//! *closed* and lets everything through. When the dependency fails, it *opens*: calls are turned
//! away at once, so that callers don't wait for what would fail anyway, and the dependency gets
//! the rest to recover. After a while it is *half-open*: a few calls go through as probes, and
//! close it or open it again.
//!
#![doc = include_str!("../assets/states.svg")]
//!
//! # Quick start
//!
//! ```
//! use std::{io, time::Duration};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer, Error};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let config = CircuitBreakerConfig::builder()
//!     .failure_threshold(5) // opens after five failures in a row,
//!     .reset_timeout(Duration::from_secs(30)) // tries again half a minute later,
//!     .timeout(Duration::from_secs(2)) // and counts a call that takes longer as a failure
//!     .build()?;
//! let breaker = CircuitBreakerLayer::new(config).fail_fast();
//! let circuit = breaker.circuit().clone();
//!
//! let mut greeter = ServiceBuilder::new()
//!     .layer(breaker)
//!     .service_fn(async |name: &'static str| Ok::<_, io::Error>(format!("hello, {name}")));
//!
//! match greeter.ready().await?.call("world").await {
//!     Ok(greeting) => println!("{greeting}"),
//!     Err(Error::Open(open)) => println!("not now: {open}"),
//!     Err(Error::Timeout(timeout)) => println!("too late: {timeout}"),
//!     Err(Error::Inner(error)) => println!("it failed: {error}"),
//! }
//! assert_eq!(circuit.metrics().successful_requests, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! The circuit belongs to the layer: its clones, and all services that they make, share one. The
//! defaults suit a slow, remote dependency; [`CircuitBreakerConfigBuilder`] tells each.
//!
//! # Modes
//!
//! | mode | while the circuit is open | for |
//! |---|---|---|
//! | [`CircuitBreakerLayer::new`] | `poll_ready` is pending, and wakes when a probe may go | `Balance`, `Buffer`, `LoadShed`, [`Fallback`]: whoever steers by readiness |
//! | [`.fail_fast()`](CircuitBreakerLayer::fail_fast) | `call` returns [`Error::Open`] at once | clients, servers |
//! | [`.http()`](CircuitBreakerLayer::http) | `call` answers `503` with `Retry-After` at once, and `504` on a timeout | axum and other HTTP servers |
//! | [`.grpc()`](CircuitBreakerLayer::grpc) | `call` answers `grpc-status: 14` with the wait at once, and `4` on a timeout | tonic |
//!
//! With [`.body()`](CircuitBreakerLayer::body) after any of them, the call of an HTTP service is
//! settled at the end of its body: a stream that breaks after its `200` is a failure.
//!
//! The [`service`] module says why, and what that means for a server.
//!
//! # Where to go next
//!
//! - [`docs`]: how to put it together. Which mode, which order of layers, and the usual mistakes.
//! - [`circuit`]: the state machine by itself, which works without Tower too. [`Circuit`] is the
//!   handle for metrics, events and manual control.
//! - [`service`]: the middleware, its readiness and its errors.
//! - [`classify`]: what counts as a failure.
//! - [`registry`]: a circuit for each key, and not too many of them.
//! - [`fallback`]: a chain of services; the first that is available answers.
//! - [`models`]: language models that fall back on one another.
//! - The repository's `examples`: `client`, `axum`, `tonic` and `fallback` are short, `gateway` is a
//!   whole server.
//!
//! # Features
//!
//! All but `quanta`, `coarse`, `tower-http`, `tracing`, `metrics` and `full` are on by default;
//! `default-features = false` leaves the breaker itself.
//!
//! | feature | brings |
//! |---|---|
//! | `tokio` | a [`DefaultClock`] that follows tokio's paused time; without it, std's clock |
//! | `http` | [`.http()`](CircuitBreakerLayer::http), [`.grpc()`](CircuitBreakerLayer::grpc), [`.body()`](CircuitBreakerLayer::body), their classifiers, and a policy for [`Fallback`] over HTTP |
//! | `tower-http` | tower-http's classifiers as ours: [`classify::TowerHttp`]; needs `http` |
//! | `fallback` | the [`fallback`] module |
//! | `latency` | latency percentiles among the metrics |
//! | `serde` | [`CircuitBreakerConfig`] read and written, metrics and events written |
//! | `models` | the [`models`] module; needs `fallback`, `http` and `serde` |
//! | `client` | a ready-made HTTPS client for it; needs `models` |
//! | `quanta` | [`QuantaClock`], which costs about half of the default clock |
//! | `coarse` | [`CoarseClock`], which costs even less and moves in steps of some milliseconds |
//! | `tracing` | [`telemetry`]: changes of state as events, calls as spans |
//! | `metrics` | [`telemetry`]: counters, gauges and a histogram |
//! | `full` | everything |
//!
//! Waiting and deadlines always need a tokio runtime with its timer enabled.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod circuit;
pub mod classify;
pub mod docs;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "models")]
pub mod models;
pub mod registry;
#[cfg(feature = "http")]
mod rejected;
pub mod service;
#[cfg(any(feature = "tracing", feature = "metrics"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "tracing", feature = "metrics"))))]
pub mod telemetry;

#[cfg(feature = "coarse")]
#[doc(inline)]
pub use self::circuit::CoarseClock;
#[cfg(feature = "quanta")]
#[doc(inline)]
pub use self::circuit::QuantaClock;
#[cfg(feature = "fallback")]
#[doc(inline)]
pub use self::fallback::{Fallback, FallbackError, FallbackLayer};
#[doc(inline)]
pub use self::{
    circuit::{
        Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerMetrics,
        CircuitState, Clock, ConfigError, DefaultClock, Event, Events, Lagged, Latency,
        ManualClock, OnCancel, Open, Outcome, Permit, Record, ResetBackoff, RetryAfterPolicy,
        TripReason,
    },
    classify::{Classified, Classify, ErrorsAsFailures},
    registry::{Registry, RegistryFull},
    service::{CircuitBreaker, CircuitBreakerLayer, Error, Timeout},
};
#[cfg(feature = "http")]
#[doc(inline)]
pub use self::{
    classify::{GrpcClassifier, HttpClassifier},
    rejected::Rejected,
    service::BodyConfig,
};

/// An error of any type, as Tower has it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Has the README's code compiled and run.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;

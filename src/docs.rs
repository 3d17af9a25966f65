//! How to put it together: which mode, which order of layers, and what goes wrong otherwise.
//!
//! There is no code here, only this page. The other modules say what each piece does; this one is
//! about what stands beside what. In the examples as in
//! [`ServiceBuilder`](https://docs.rs/tower/latest/tower/struct.ServiceBuilder.html), the layer that
//! is written first is the outermost: it sees the request first and the response last.
//!
//! # A request's way
//!
#![doc = include_str!("../assets/request.svg")]
//!
//! The circuit is asked twice, because it may have opened between readiness and the call. What it
//! admits gets a [`Permit`](crate::Permit), and settles exactly once, whatever happens to it: an
//! answer, an error, the deadline, a panic, or nobody caring any more. So the two questions of this
//! page are what the circuit *sees* of a call, and what the caller sees of an open circuit. The
//! order of the layers answers the first, the mode the second.
//!
//! # Which mode
//!
//! | what is in front of the breaker | mode | while the circuit is open |
//! |---|---|---|
//! | a caller that handles errors | [`.fail_fast()`](crate::CircuitBreakerLayer::fail_fast) | [`Error::Open`](crate::Error::Open) at once, with the time to wait |
//! | an HTTP server: axum, hyper | [`.http()`](crate::CircuitBreakerLayer::http) | `503` with `Retry-After` at once |
//! | a gRPC server: tonic | [`.grpc()`](crate::CircuitBreakerLayer::grpc) | status 14, unavailable, at once |
//! | `Balance` | [waiting](crate::CircuitBreakerLayer::new) | that endpoint isn't ready; the others get its share |
//! | `Buffer` | waiting | requests queue, as many as the buffer holds |
//! | `LoadShed` | waiting | `Overloaded` at once |
//! | [`Fallback`](crate::Fallback) | waiting, or any other with a [probe](crate::Circuit::probe) | the next link gets the request |
//! | no Tower at all | [`Circuit::call`](crate::Circuit::call) | [`Error::Open`](crate::Error::Open) at once |
//!
//! The waiting mode is the right one wherever somebody *chooses* by readiness, and the wrong one
//! where somebody merely waits for it. A server does the latter: it has the request in hand when it
//! asks for readiness, so an open circuit would hang the client for as long as it is open. Either the
//! server gets a mode that answers, or a `LoadShed` goes between.
//!
//! ## A balancer
//!
//! Each endpoint has a layer of its own, because the circuit is the layer's: a bad endpoint would
//! shut out the good ones that share it.
//!
//! ```
//! use tower::{
//!     Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList,
//!     load::{CompleteOnResponse, PendingRequests},
//! };
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let connect = |answer: &'static str| {
//!     tower::service_fn(move |_: ()| async move { Ok::<_, BoxError>(answer) })
//! };
//! let breakers = [(); 2].map(|()| CircuitBreakerLayer::new(CircuitBreakerConfig::default()));
//! let endpoints = [
//!     breakers[0].layer(connect("first")),
//!     breakers[1].layer(connect("second")),
//! ];
//! let loads = endpoints.map(|one| PendingRequests::new(one, CompleteOnResponse::default()));
//! let mut balance = Balance::new(ServiceList::new(loads));
//!
//! breakers[0].circuit().force_open();
//! for _ in 0..10 {
//!     assert_eq!(balance.ready().await?.call(()).await?, "second");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With every circuit open, the balancer waits for the first that lets a probe through. Put a
//! `LoadShed` outside it if that is too long.
//!
//! ## A server
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use axum::{Router, error_handling::HandleErrorLayer, http::StatusCode, routing::get};
//! use tower::ServiceBuilder;
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer};
//!
//! let config = CircuitBreakerConfig::default();
//!
//! // It answers by itself, so axum needs to know nothing of it.
//! let answers: Router = Router::new()
//!     .route("/orders", get(async || "3 orders"))
//!     .layer(CircuitBreakerLayer::new(config.clone()).http());
//!
//! // Or the circuit waits, load shedding turns that into an error, and the error into an answer.
//! let sheds: Router = Router::new()
//!     .route("/orders", get(async || "3 orders"))
//!     .layer(
//!         ServiceBuilder::new()
//!             .layer(HandleErrorLayer::new(async |_: BoxError| StatusCode::SERVICE_UNAVAILABLE))
//!             .load_shed()
//!             .layer(CircuitBreakerLayer::new(config)),
//!     );
//! # }
//! ```
//!
//! A breaker in a server guards what is *behind* the route: its database, say. It goes on the routes
//! that need it, one layer for each dependency. Around everything, one broken dependency would take
//! the healthy routes along.
//!
//! # Which order
//!
//! | layer | outside the breaker | inside the breaker |
//! |---|---|---|
//! | `Retry` | each attempt is asked of the circuit and counts. **It must not retry `Open`** | the circuit sees only the last of several attempts, and opens so much later |
//! | `Timeout` | the circuit sees a call that was dropped. **It needs [`on_cancel`](crate::CircuitBreakerConfigBuilder::on_cancel)** | its error is a failure, as with the breaker's own [`timeout`](crate::CircuitBreakerConfigBuilder::timeout), which makes it superfluous |
//! | `ConcurrencyLimit`, `RateLimit` | a slot may be held while waiting for the circuit; fine with a limit for each dependency, not with one that several share | **the right place**: an open circuit takes no slot. A probe that waits for one longer than [`probe_lease`](crate::CircuitBreakerConfigBuilder::probe_lease) goes back in line |
//! | `LoadShed` | **the right place** for the waiting mode | its `Overloaded` is a failure of the dependency in the circuit's eyes, which it isn't: have it [classified](crate::classify) as [`Ignored`](crate::Outcome::Ignored) |
//! | `Buffer` | requests wait there for the circuit | the time in its queue belongs to the call: to its deadline and its latency |
//! | `Balance` | **the right place**: a circuit for each endpoint | one circuit for all of them, which opens when *most* fail |
//! | [`Fallback`](crate::Fallback) | **the right place**: a circuit for each link | a failure is one only if no link has an answer |
//! | traces and metrics | they see rejections, and what the caller waited | they see the dependency alone: the place for [`ObserveLayer`](crate::telemetry::ObserveLayer) |
//!
//! So a client for one dependency, from the outside: what the caller is told, retries, the breaker,
//! limits, the connection.
//!
//! ## Retries
//!
//! A retry answers a failure with one more call, a circuit breaker with fewer. They go together if
//! the retry is outside, gives up at a rejection, and has few attempts: three of them and a
//! [`failure_threshold`](crate::CircuitBreakerConfigBuilder::failure_threshold) of three open the
//! circuit with a single request. The mode is one that fails fast; in the waiting mode the
//! second attempt would wait for the circuit to close.
//!
//! ```
//! use std::{future::{Ready, ready}, io};
//! use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy};
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer, Error};
//!
//! /// So many more attempts.
//! #[derive(Clone)]
//! struct Attempts(usize);
//!
//! impl<Res, E> Policy<&'static str, Res, Error<E>> for Attempts {
//!     type Future = Ready<()>;
//!
//!     fn retry(&mut self, _: &mut &'static str, result: &mut Result<Res, Error<E>>) -> Option<Ready<()>> {
//!         match result {
//!             // The circuit is open, and the next attempt would find it so.
//!             Err(Error::Open(_)) | Ok(_) => None,
//!             Err(_) => {
//!                 self.0 = self.0.checked_sub(1)?;
//!                 Some(ready(()))
//!             }
//!         }
//!     }
//!
//!     fn clone_request(&mut self, request: &&'static str) -> Option<&'static str> {
//!         Some(request)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let config = CircuitBreakerConfig::builder().failure_threshold(2).build()?;
//! let breaker = CircuitBreakerLayer::new(config).fail_fast();
//! let circuit = breaker.circuit().clone();
//! let mut service = ServiceBuilder::new()
//!     .retry(Attempts(9))
//!     .layer(breaker)
//!     .service_fn(async |_: &'static str| Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut)));
//!
//! let result = service.ready().await?.call("hello").await;
//! assert!(matches!(result, Err(Error::Open(_))));
//! // Two attempts failed, and the third found the circuit open. There was no fourth.
//! assert_eq!(circuit.metrics().failed_requests, 2);
//! assert_eq!(circuit.metrics().rejected_requests, 1);
//! # Ok(())
//! # }
//! ```
//!
//! ## Timeouts
//!
//! A dependency that hangs is the case that breakers are for, and the one that is easiest to miss:
//! if the caller gives up first, the breaker is left with a call that was dropped. That may mean
//! anything, a closed browser window for one, so by default it means nothing. **Behind the caller's
//! own timeout a hung dependency never opens the circuit**, unless one of these holds:
//!
//! - the breaker's own [`timeout`](crate::CircuitBreakerConfigBuilder::timeout) is the shorter one.
//!   This is the simplest, and needs no other layer;
//! - [`on_cancel`](crate::CircuitBreakerConfigBuilder::on_cancel) has calls count that had run for
//!   a while when they were dropped;
//! - [`slow_call_duration`](crate::CircuitBreakerConfigBuilder::slow_call_duration) is set, and calls
//!   count while they are still running.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, OnCancel};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_breaker::BoxError> {
//! # #[cfg(feature = "tokio")] {
//! let config = CircuitBreakerConfig::builder();
//! let deaf = config.clone().build()?;
//! let listens = config.on_cancel(OnCancel::FailAfter(Duration::from_millis(900))).build()?;
//!
//! for (config, state) in [(deaf, CircuitState::Closed), (listens, CircuitState::Open)] {
//!     let breaker = CircuitBreakerLayer::new(config).fail_fast();
//!     let mut service = ServiceBuilder::new()
//!         .timeout(Duration::from_secs(1))
//!         .layer(breaker.clone())
//!         .service_fn(|_: ()| std::future::pending::<Result<(), tower_breaker::BoxError>>());
//!     for _ in 0..3 {
//!         assert!(service.ready().await?.call(()).await.is_err());
//!     }
//!     assert_eq!(breaker.circuit().state(), state);
//! }
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! A timeout in hyper, in axum's `TimeoutLayer` or in a browser is outside in this sense, and so is
//! a `select!` around the call.
//!
//! ## Queues
//!
//! A [`Buffer`](https://docs.rs/tower/latest/tower/buffer/index.html) makes any service `Clone`, and
//! holds requests back while a waiting circuit is open. It lives on after the circuit has closed:
//! `poll_ready` of a breaker never fails because of an open circuit, which would be the end of its
//! worker. What the buffer doesn't have is an idea of when to stop, so it gets a timeout or a
//! `LoadShed` outside, and few places.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
//! let circuit = breaker.circuit().clone();
//! let mut service = ServiceBuilder::new()
//!     .load_shed() // when the buffer is full
//!     .buffer(16) // where requests wait while the circuit is open
//!     .layer(breaker)
//!     .concurrency_limit(4) // of calls to the dependency
//!     .service_fn(async |_: ()| Ok::<_, BoxError>("done"));
//!
//! circuit.force_open();
//! let waiting = tokio::spawn(service.ready().await?.call(()));
//! tokio::task::yield_now().await;
//! circuit.reset();
//! assert_eq!(waiting.await??, "done");
//! # Ok(())
//! # }
//! ```
//!
//! ## Fallbacks
//!
//! Each link has its own breaker. In the waiting mode a link needs no more than that to be passed
//! over while its circuit is open, without an attempt and without a copy of the request. In a mode
//! that answers it is always ready, so it brings its circuit's probe:
//!
//! ```
//! # #[cfg(feature = "fallback")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_breaker::BoxError> {
//! use tower::{Layer, Service, ServiceExt};
//! use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer, Fallback};
//!
//! # fn site(name: &'static str) -> impl Service<(), Response = &'static str, Error = BoxError> + Clone {
//! #     tower::service_fn(move |()| std::future::ready(Ok(name)))
//! # }
//! let waits = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
//! let fails = CircuitBreakerLayer::new(CircuitBreakerConfig::default()).fail_fast();
//!
//! let mut chain = Fallback::new(waits.layer(site("primary")))
//!     .or_link(fails.layer(site("second")), fails.circuit().probe())
//!     .or_degraded(site("cache"));
//!
//! for (answer, next) in [("primary", waits.circuit()), ("second", fails.circuit()), ("cache", waits.circuit())] {
//!     assert_eq!(chain.ready().await?.call(()).await?, answer);
//!     next.force_open();
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "fallback"))] fn main() {}
//! ```
//!
//! With every circuit open such a chain is Pending until one of its circuits lets a call through.
//! A server wants an answer at once: [`Fallback::fail_fast`](crate::Fallback::fail_fast) gives an
//! error with the shortest wait, or the last link is one that can always answer.
//!
//! # Pitfalls
//!
//! **A circuit per request.** A circuit belongs to its [layer](crate::CircuitBreakerLayer). A layer
//! that is made where a request is handled, or inside a closure that makes services, starts each time
//! with a closed circuit and never trips. Make the layer once and clone it; or, for dependencies that
//! are known only at run time, keep circuits in a [`Registry`](crate::Registry) and put them under
//! services with [`from_circuit`](crate::CircuitBreakerLayer::from_circuit).
//!
//! **A circuit for two dependencies.** Clones of a layer are one circuit, also around different
//! services. Two hosts that fail apart need two layers.
//!
//! **Failures that are the caller's.** By default any error counts. A `400` that a client library
//! turns into an error says nothing about the server, nor does an `Overloaded` from a load shedder of
//! one's own. A [classifier](crate::classify) makes them [`Ignored`](crate::Outcome::Ignored), and
//! `5xx` responses, which are no errors to Tower, failures.
//!
//! **Success by the head.** A streamed response has answered `200` before it breaks. Unless
//! the layer has its [`.body()`](crate::CircuitBreakerLayer::body) the call has settled by then, and
//! the time to the head is all that counts. `.grpc()` brings it along.
//!
//! **No deadline at all.** The default [`timeout`](crate::CircuitBreakerConfigBuilder::timeout) of 45
//! seconds suits slow remote services. With `None`, and no slow calls configured, calls that hang
//! are neither failures nor successes.
//!
//! **A probe that nobody makes.** A service that has become ready in a half-open circuit holds one of
//! its few permits. Who asks for readiness and then doesn't call gives it back by dropping the
//! service, or else after [`probe_lease`](crate::CircuitBreakerConfigBuilder::probe_lease).
//!
//! **Waiting for the state to change.** What is due by time happens when a call comes, not before: a
//! circuit that nobody calls stays `OPEN` past its reset timeout. To know whether a call would be
//! admitted, ask [`is_available`](crate::Circuit::is_available); health checks that call the
//! dependency through the breaker would use up its probes.
//!
//! **Tests that sleep.** The default clock follows tokio's paused time with the `tokio` feature;
//! [`ManualClock`](crate::ManualClock) moves when it is told to. The processor's and the coarse clock
//! follow neither.

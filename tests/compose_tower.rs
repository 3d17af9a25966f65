//! Tower's own middleware over a circuit breaker: what steers by readiness stays usable when a
//! circuit has opened and recovered (T2).
#![cfg(feature = "tokio")]
#![allow(
    clippy::disallowed_methods,
    reason = "how much of the paused time has passed is part of what is tested"
)]

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    load_shed::error::Overloaded,
};
use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, CircuitState};

const RESET: Duration = Duration::from_secs(120);

fn layer() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(CircuitBreakerConfig::default())
}

/// A dependency that can be broken and repaired, and counts the calls that reach it.
#[derive(Debug, Clone, Default)]
struct Dependency {
    name: &'static str,
    broken: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Dependency {
    fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Service<()> for Dependency {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Ready<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(if self.broken.load(Ordering::Relaxed) {
            Err("broken".into())
        } else {
            Ok(self.name)
        })
    }
}

async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<(), Response = &'static str>,
    S::Error: Into<BoxError>,
{
    let service = service.ready().await.map_err(Into::into)?;
    service.call(()).await.map_err(Into::into)
}

#[tokio::test(start_paused = true)]
async fn t2_a_buffer_holds_requests_back_and_lives_on() {
    let layer = layer();
    let dependency = Dependency::named("a");
    let mut buffer = Buffer::new(layer.layer(dependency.clone()), 8);
    dependency.set_broken(true);
    for _ in 0..3 {
        assert_eq!(call(&mut buffer).await.unwrap_err().to_string(), "broken");
    }
    assert_eq!(layer.circuit().state(), CircuitState::Open);
    dependency.set_broken(false);

    // Paused time moves on by itself to the next timer: the one that the worker waits for.
    let opened = tokio::time::Instant::now();
    assert_eq!(call(&mut buffer).await.unwrap(), "a");
    assert_eq!(opened.elapsed(), RESET);
    assert_eq!(call(&mut buffer).await.unwrap(), "a");
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
    assert_eq!(dependency.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn t2_load_shed_rejects_at_once_and_lives_on() {
    let layer = layer();
    let dependency = Dependency::named("a");
    let mut shed = ServiceBuilder::new()
        .load_shed()
        .layer(layer.clone())
        .service(dependency.clone());
    dependency.set_broken(true);
    for _ in 0..3 {
        assert!(!call(&mut shed).await.unwrap_err().is::<Overloaded>());
    }
    let opened = tokio::time::Instant::now();
    assert!(call(&mut shed).await.unwrap_err().is::<Overloaded>());
    assert_eq!(opened.elapsed(), Duration::ZERO);
    assert_eq!(dependency.calls(), 3);

    dependency.set_broken(false);
    tokio::time::advance(RESET).await;
    for _ in 0..3 {
        assert_eq!(call(&mut shed).await.unwrap(), "a");
    }
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t2_balance_steers_round_an_open_circuit_and_comes_back() {
    let (first, second) = (Dependency::named("first"), Dependency::named("second"));
    let (layer_1, layer_2) = (layer(), layer());
    let endpoints = [(&layer_1, &first), (&layer_2, &second)].map(|(layer, dependency)| {
        PendingRequests::new(
            layer.layer(dependency.clone()),
            CompleteOnResponse::default(),
        )
    });
    let mut balance = Balance::new(ServiceList::new(endpoints));
    first.set_broken(true);
    let mut failures = 0;
    for _ in 0..100 {
        failures += usize::from(call(&mut balance).await.is_err());
    }
    assert_eq!(failures, 3, "the rest went to the second endpoint");
    assert_eq!(first.calls(), 3);
    assert_eq!(layer_1.circuit().state(), CircuitState::Open);

    first.set_broken(false);
    tokio::time::advance(RESET).await;
    for _ in 0..100 {
        call(&mut balance).await.unwrap();
    }
    assert_eq!(layer_1.circuit().state(), CircuitState::Closed);
    assert!(first.calls() > 10, "it takes its share again");
    assert_eq!(first.calls() + second.calls(), 200);
}

#[tokio::test(start_paused = true)]
async fn t2_balance_with_every_circuit_open_waits_for_the_first_probe() {
    let dependencies = [Dependency::named("a"), Dependency::named("b")];
    let layers = [layer(), layer()];
    let endpoints = [0, 1].map(|i: usize| {
        PendingRequests::new(
            layers[i].layer(dependencies[i].clone()),
            CompleteOnResponse::default(),
        )
    });
    let mut balance = Balance::new(ServiceList::new(endpoints));
    for dependency in &dependencies {
        dependency.set_broken(true);
    }
    while layers.iter().any(|layer| layer.circuit().is_available()) {
        call(&mut balance).await.unwrap_err();
    }
    let mut waiting = task::spawn(balance.ready());
    assert_pending!(waiting.poll());
    for dependency in &dependencies {
        dependency.set_broken(false);
    }
    tokio::time::advance(RESET).await;
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
}

#[tokio::test(start_paused = true)]
async fn t4_a_concurrency_limit_inside_is_never_called_unpolled() {
    let layer = layer().fail_fast();
    let dependency = Dependency::named("a");
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .concurrency_limit(1)
        .service(dependency.clone());
    let mut rejected = service.clone();
    layer.circuit().force_open();
    assert_ready_ok!(task::spawn(rejected.ready()).poll());
    layer.circuit().reset();
    // It was told ready because it would reject, so it rejects; it would panic otherwise.
    assert!(rejected.call(()).await.unwrap_err().is_open());
    assert_eq!(call(&mut rejected).await.unwrap(), "a");
    assert_eq!(call(&mut service).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn t2_a_timeout_outside_needs_on_cancel_a_timeout_inside_does_not() {
    let hang = tower::service_fn(|()| std::future::pending::<Result<&'static str, BoxError>>());
    let second = Duration::from_secs(1);

    let layer_outside = layer();
    let mut outside = ServiceBuilder::new()
        .timeout(second)
        .layer(layer_outside.clone())
        .service(hang);
    let layer_inside = layer();
    let mut inside = ServiceBuilder::new()
        .layer(layer_inside.clone())
        .timeout(second)
        .service(hang);
    for _ in 0..3 {
        call(&mut outside).await.unwrap_err();
        call(&mut inside).await.unwrap_err();
    }
    assert_eq!(layer_outside.circuit().state(), CircuitState::Closed);
    assert_eq!(layer_outside.circuit().metrics().cancelled_requests, 3);
    assert_eq!(layer_inside.circuit().state(), CircuitState::Open);
}

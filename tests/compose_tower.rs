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
    limit::GlobalConcurrencyLimitLayer,
    load::{CompleteOnResponse, PendingRequests},
    load_shed::error::Overloaded,
    retry::{Policy, RetryLayer},
};
use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, Error, Outcome};

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

/// Tries again, ten times at most.
#[derive(Debug, Clone)]
struct TenTimes {
    left: u32,
    /// What is not tried again.
    unless: fn(&Error<BoxError>) -> bool,
}

impl TenTimes {
    fn unless(unless: fn(&Error<BoxError>) -> bool) -> RetryLayer<Self> {
        RetryLayer::new(Self { left: 10, unless })
    }
}

impl Policy<(), &'static str, Error<BoxError>> for TenTimes {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        (): &mut (),
        result: &mut Result<&'static str, Error<BoxError>>,
    ) -> Option<Ready<()>> {
        let error = result.as_ref().err()?;
        self.left = self.left.checked_sub(1)?;
        (!(self.unless)(error)).then(|| ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

#[tokio::test(start_paused = true)]
async fn t2_a_retry_outside_must_not_retry_open() {
    for (unless, rejected) in [
        (Error::is_open as fn(&Error<BoxError>) -> bool, 1),
        (|_: &Error<BoxError>| false, 8), // in vain, all of them
    ] {
        let (layer, dependency) = (layer().fail_fast(), Dependency::named("a"));
        let mut service = ServiceBuilder::new()
            .layer(TenTimes::unless(unless))
            .layer(layer.clone())
            .service(dependency.clone());
        dependency.set_broken(true);
        call(&mut service).await.unwrap_err();
        assert_eq!(dependency.calls(), 3);
        assert_eq!(layer.circuit().metrics().rejected_requests, rejected);
    }
}

#[tokio::test(start_paused = true)]
async fn t2_a_retry_outside_waits_where_the_circuit_is_waited_for() {
    let (layer, dependency) = (layer(), Dependency::named("a"));
    let mut service = ServiceBuilder::new()
        .layer(TenTimes::unless(Error::is_open))
        .layer(layer.clone())
        .service(dependency.clone());
    dependency.set_broken(true);
    let begun = tokio::time::Instant::now();
    call(&mut service).await.unwrap_err();
    // Three tries open it, and then each probe fails: a retry wants a deadline of its own.
    assert_eq!(begun.elapsed(), RESET * 8);
    assert_eq!(dependency.calls(), 11);
}

#[tokio::test(start_paused = true)]
async fn t2_a_retry_inside_is_one_call() {
    let (layer, dependency) = (layer().fail_fast(), Dependency::named("a"));
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .map_err(BoxError::from)
        .layer(TenTimes::unless(Error::is_open))
        .map_err(Error::Inner)
        .service(dependency.clone());
    dependency.set_broken(true);
    call(&mut service).await.unwrap_err();
    assert_eq!(dependency.calls(), 11);
    let metrics = layer.circuit().metrics();
    assert_eq!(metrics.failed_requests, 1);
    assert_eq!(metrics.current_state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t2_who_waits_for_the_circuit_holds_a_limit_outside_but_none_inside() {
    for limit_is_outside in [true, false] {
        let (layer, limit) = (layer(), GlobalConcurrencyLimitLayer::new(1));
        let mut other = limit.layer(Dependency::named("other"));
        layer.circuit().force_open();
        let waits = Dependency::named("waits");
        let mut waits = if limit_is_outside {
            let stack = ServiceBuilder::new().layer(limit).layer(layer.clone());
            tower::util::BoxService::new(stack.service(waits).map_err(BoxError::from))
        } else {
            let stack = ServiceBuilder::new().layer(layer.clone()).layer(limit);
            tower::util::BoxService::new(stack.service(waits).map_err(BoxError::from))
        };
        assert_pending!(task::spawn(waits.ready()).poll());
        let others = task::spawn(other.ready()).poll().is_ready();
        assert_eq!(others, !limit_is_outside);
        drop(other);
        layer.circuit().reset();
        assert_eq!(call(&mut waits).await.unwrap(), "waits");
    }
}

#[tokio::test(start_paused = true)]
async fn t7_load_shed_inside_counts_against_the_dependency_unless_it_is_ignored() {
    let counting = layer().fail_fast();
    let ignoring = layer()
        .fail_fast()
        .classify(|result: Result<&&'static str, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(error) if error.is::<Overloaded>() => Outcome::Ignored,
            Err(_) => Outcome::FAILURE,
        });
    let busy = || {
        let hang = tower::service_fn(|()| std::future::pending::<Result<&'static str, BoxError>>());
        ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(1)
            .service(hang)
    };
    let mut counted = counting.layer(busy());
    let mut ignored = ignoring.layer(busy());
    let (_one, _other) = (
        counted.ready().await.unwrap().call(()),
        ignored.ready().await.unwrap().call(()),
    );
    for _ in 0..3 {
        call(&mut counted).await.unwrap_err();
        call(&mut ignored).await.unwrap_err();
    }
    assert_eq!(counting.circuit().state(), CircuitState::Open);
    assert_eq!(ignoring.circuit().state(), CircuitState::Closed);
    assert_eq!(ignoring.circuit().metrics().ignored_requests, 3);
}

#[tokio::test(start_paused = true)]
async fn t2_a_buffer_inside_is_a_dependency_like_another() {
    let (layer, dependency) = (layer().fail_fast(), Dependency::named("a"));
    let buffered = Buffer::new(dependency.clone(), 8);
    let mut service = layer.layer(buffered);
    let mut clone = service.clone();
    dependency.set_broken(true);
    for _ in 0..3 {
        call(&mut service).await.unwrap_err();
    }
    assert!(
        clone
            .ready()
            .await
            .unwrap()
            .call(())
            .await
            .unwrap_err()
            .is_open()
    );
    assert_eq!(dependency.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn t2_outside_a_balance_a_broken_endpoint_closes_off_the_healthy_ones() {
    let (first, second) = (Dependency::named("first"), Dependency::named("second"));
    let endpoints = [&first, &second]
        .map(|endpoint| PendingRequests::new(endpoint.clone(), CompleteOnResponse::default()));
    let first_failure = CircuitBreakerConfig::builder().failure_threshold(1);
    let layer = CircuitBreakerLayer::new(first_failure.build().unwrap()).fail_fast();
    let mut service = layer.layer(Balance::new(ServiceList::new(endpoints)));
    first.set_broken(true);
    while call(&mut service).await.is_ok() {}
    // Inside, as in the test above, it would have been the first one's circuit alone.
    assert!(
        service
            .ready()
            .await
            .unwrap()
            .call(())
            .await
            .unwrap_err()
            .is_open()
    );
}

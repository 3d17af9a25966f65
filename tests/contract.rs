//! Tower's contract, kept by every mode: who is polled, who is called, and who is woken.
//!
//! Circuit breakers for Tower have got this wrong before. That ours doesn't is shown for each of the
//! ways we know of:
//!
//! | wrong | shown by |
//! |---|---|
//! | an open circuit is an error of `poll_ready` | `t2_open_is_pending_and_the_inner_service_untouched`, and what lives on in `compose_tower.rs` |
//! | a manual close wakes nobody | `t3_manual_changes_wake_every_waiter` |
//! | each service has a circuit of its own | `t1_all_services_of_a_layer_share_its_circuit` |
//! | an inner service is called that was not polled | `t4_a_rejected_instance_rejects_though_the_circuit_has_closed` |
//! | futures are boxed | `allocations.rs` |
//! | every call takes a lock | `p_a_call_takes_no_lock_while_closed`, in `src/circuit/tests.rs` |
//! | a window of calls begins anew instead of sliding | `b2_a_window_of_calls_slides_with_each`, in `src/circuit/tests.rs` |
#![cfg(feature = "tokio")]

use std::{
    future::{Future, pending, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerLayer, CircuitState,
    Error, OnCancel, Open, Outcome, Timeout,
};
use tower_test::{assert_request_eq, mock};

const RESET: Duration = Duration::from_secs(120);

fn config() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder().failure_threshold(1)
}

fn layer() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(config().build().unwrap())
}

fn trip(layer: &CircuitBreakerLayer<impl Sized, impl Sized>) {
    layer.circuit().try_acquire().unwrap().failure();
    assert_eq!(layer.circuit().state(), CircuitState::Open);
}

/// Answers with its request; counts how it is used; panics if it is called without having been
/// ready, as `ConcurrencyLimit` does.
#[derive(Debug, Default)]
struct Strict {
    polled: Arc<AtomicUsize>,
    called: Arc<AtomicUsize>,
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            polled: self.polled.clone(),
            called: self.called.clone(),
            ready: false,
        }
    }
}

impl Service<&'static str> for Strict {
    type Response = &'static str;
    type Error = &'static str;
    type Future = std::future::Ready<Result<&'static str, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        assert!(self.ready, "called without having been ready");
        self.ready = false;
        self.called.fetch_add(1, Ordering::Relaxed);
        ready(Ok(request))
    }
}

impl Strict {
    fn uses(&self) -> (usize, usize) {
        (
            self.polled.load(Ordering::Relaxed),
            self.called.load(Ordering::Relaxed),
        )
    }
}

// ===== T1: one circuit per layer =====

#[tokio::test(start_paused = true)]
async fn t1_all_services_of_a_layer_share_its_circuit() {
    let layer = layer().fail_fast();
    let failing = tower::service_fn(|()| ready(Err::<(), _>("broken")));
    let mut first = layer.layer(failing);
    let mut second = layer.clone().layer(failing);
    let mut third = second.clone();
    first.ready().await.unwrap().call(()).await.unwrap_err();
    for service in [&mut second, &mut third] {
        let error = service.ready().await.unwrap().call(()).await.unwrap_err();
        assert!(error.is_open());
    }
    assert_eq!(layer.circuit().metrics().rejected_requests, 2);
}

// ===== T2, T3: waiting =====

#[tokio::test(start_paused = true)]
async fn t2_open_is_pending_and_the_inner_service_untouched() {
    let layer = layer();
    let inner = Strict::default();
    let mut service = mock::Spawn::new(layer.layer(inner.clone()));
    trip(&layer);
    assert_pending!(service.poll_ready());
    tokio::time::advance(RESET - Duration::from_millis(1)).await;
    assert!(!service.is_woken());
    assert_pending!(service.poll_ready());
    assert_eq!(inner.uses(), (0, 0));
}

/// Never ready, and not to be called.
#[derive(Clone, Default)]
struct Never {
    polled: Arc<AtomicUsize>,
}

impl Service<()> for Never {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        panic!("called without having been ready");
    }
}

#[tokio::test(start_paused = true)]
async fn t2_open_does_not_ask_an_inner_service_that_is_never_ready() {
    let layer = layer();
    let never = Never::default();
    let mut waiting = mock::Spawn::new(layer.layer(never.clone()));
    let mut failing = mock::Spawn::new(layer.clone().fail_fast().layer(never.clone()));
    trip(&layer);
    assert_pending!(waiting.poll_ready());
    assert_ready_ok!(failing.poll_ready());
    assert!(failing.call(()).await.unwrap_err().is_open());
    assert_eq!(never.polled.load(Ordering::Relaxed), 0);
    layer.circuit().reset();
    assert_pending!(waiting.poll_ready());
    assert_pending!(failing.poll_ready());
    assert_eq!(never.polled.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn t3_a_waiter_is_woken_when_a_probe_is_due() {
    let layer = layer();
    let mut service = mock::Spawn::new(layer.layer(Strict::default()));
    trip(&layer);
    assert_pending!(service.poll_ready());
    tokio::time::advance(RESET).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    assert_eq!(service.call("hello").await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn t3_manual_changes_wake_every_waiter() {
    let layer = layer();
    let mut waiters = [(); 100].map(|()| mock::Spawn::new(layer.layer(Strict::default())));
    let circuit = layer.circuit();
    type Change<'a> = &'a dyn Fn();
    let changes: [(Change<'_>, Change<'_>); 4] = [
        (&|| circuit.force_open(), &|| circuit.reset()),
        (&|| circuit.force_open(), &|| circuit.disable()),
        (&|| trip(&layer), &|| circuit.reset()),
        (&|| trip(&layer), &|| circuit.disable()),
    ];
    for (open, close) in changes {
        circuit.reset();
        open();
        for waiter in &mut waiters {
            assert_pending!(waiter.poll_ready());
        }
        tokio::time::advance(RESET - Duration::from_millis(1)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_woken()));
        close();
        for waiter in &mut waiters {
            assert!(waiter.is_woken());
            assert_ready_ok!(waiter.poll_ready());
            // As ready as that, it would not wait again.
            *waiter = mock::Spawn::new(layer.layer(Strict::default()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t3_a_circuit_that_is_forced_open_wakes_nobody_by_time() {
    let layer = layer();
    layer.circuit().force_open();
    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(waiting.poll_ready());
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert!(!waiting.is_woken());
}

#[tokio::test(start_paused = true)]
async fn t3_another_configuration_wakes_who_waits() {
    let layer = layer();
    trip(&layer);
    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(waiting.poll_ready());
    let sooner = config().reset_timeout(Duration::from_secs(10));
    layer.circuit().reconfigure(sooner.build().unwrap());
    assert!(waiting.is_woken());
    assert_pending!(waiting.poll_ready());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn t3_of_many_waiters_only_the_probes_get_ready_and_none_is_lost() {
    let layer = layer();
    let mut waiters = [(); 100].map(|()| mock::Spawn::new(layer.layer(Strict::default())));
    trip(&layer);
    for waiter in &mut waiters {
        assert_pending!(waiter.poll_ready());
    }
    tokio::time::advance(RESET).await;
    let mut ready = Vec::new();
    for (i, waiter) in waiters.iter_mut().enumerate() {
        assert!(waiter.is_woken());
        if waiter.poll_ready().is_ready() {
            ready.push(i);
        }
    }
    assert_eq!(ready, [0, 1]);
    assert_eq!(waiters[0].call("probe").await.unwrap(), "probe");
    assert_eq!(waiters[1].call("probe").await.unwrap(), "probe");
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
    for waiter in &mut waiters[2..] {
        assert!(waiter.is_woken());
        assert_ready_ok!(waiter.poll_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn t3_with_one_place_left_the_second_is_pending_not_an_error() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let mut first = mock::Spawn::new(layer.layer(Strict::default()));
    let mut second = mock::Spawn::new(layer.layer(Strict::default()));
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());
    drop(first); // T3: a dropped ready service gives its place back
    assert!(second.is_woken());
    assert_ready_ok!(second.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn t4_a_dropped_clone_takes_nothing_with_it() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let mut first = mock::Spawn::new(layer.layer(Strict::default()));
    assert_ready_ok!(first.poll_ready());
    let mut clone = mock::Spawn::new(first.get_ref().clone());
    assert_pending!(clone.poll_ready()); // the one place is the first's
    drop(clone);
    assert_eq!(first.call("probe").await, Ok("probe"));
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t2_an_inner_readiness_error_gives_its_place_back() {
    let config = config()
        .half_open_success_threshold(1)
        .half_open_requests(2);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let (inner, mut handle) = mock::pair::<(), ()>();
    handle.send_error("gone");
    let mut failing = mock::Spawn::new(layer.layer(inner));
    assert_ready_err!(failing.poll_ready());
    assert_eq!(layer.circuit().metrics().in_flight, Some(0));
    // One of two has failed, so one may still succeed.
    let mut probe = mock::Spawn::new(layer.layer(Strict::default()));
    assert_ready_ok!(probe.poll_ready());
    drop(failing);
    assert_eq!(probe.call("probe").await, Ok("probe"));
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn b5_a_place_whose_service_is_busy_lapses_too() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    let (inner, mut handle) = mock::pair::<&str, &str>();
    handle.allow(0);
    trip(&layer);
    tokio::time::advance(RESET).await;
    let mut busy = mock::Spawn::new(layer.layer(inner));
    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(busy.poll_ready());
    assert_pending!(waiting.poll_ready());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
    assert_eq!(waiting.call("probe").await, Ok("probe"));
    handle.allow(1);
    assert_ready_ok!(busy.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn b5_a_ready_service_that_nobody_calls_does_not_starve_recovery() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let mut idle = mock::Spawn::new(layer.layer(Strict::default()));
    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_ready_ok!(idle.poll_ready());
    assert_pending!(waiting.poll_ready());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
    // Ready stays ready, but the place has gone.
    assert_ready_ok!(idle.poll_ready());
    assert!(idle.call("late").await.unwrap_err().is_open());
    assert_eq!(waiting.call("probe").await.unwrap(), "probe");
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t3_a_probe_that_hangs_does_not_hold_the_waiters() {
    let layer = CircuitBreakerLayer::new(
        config()
            .half_open_requests(1)
            .timeout(None)
            .build()
            .unwrap(),
    );
    trip(&layer);
    tokio::time::advance(RESET).await;
    let hang = tower::service_fn(|()| pending::<Result<(), BoxError>>());
    let mut hanging = mock::Spawn::new(layer.layer(hang));
    assert_ready_ok!(hanging.poll_ready());
    let mut probe = task::spawn(hanging.call(()));
    assert_pending!(probe.poll());

    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(waiting.poll_ready());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(waiting.is_woken());
    assert_pending!(waiting.poll_ready()); // B14: this re-opens it
    assert_eq!(layer.circuit().state(), CircuitState::Open);
    tokio::time::advance(RESET).await;
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn t3_a_dropped_waiter_leaves_nothing_behind() {
    let layer = layer();
    trip(&layer);
    let mut gone = mock::Spawn::new(layer.layer(Strict::default()));
    let mut stays = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(gone.poll_ready());
    assert_pending!(stays.poll_ready());
    drop(gone);
    layer.circuit().reset();
    assert!(stays.is_woken());

    let waker = Arc::new(CountWakes::default());
    let mut gone = layer.layer(Strict::default());
    layer.circuit().force_open();
    let poll = gone.poll_ready(&mut Context::from_waker(&waker.clone().into()));
    assert_pending!(poll);
    assert!(Arc::strong_count(&waker) > 1, "its waker is registered");
    drop(gone);
    assert_eq!(Arc::strong_count(&waker), 1);
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct PanicsOnWake;

impl Wake for PanicsOnWake {
    fn wake(self: Arc<Self>) {
        panic!("expected: a waker panics");
    }
}

#[tokio::test(start_paused = true)]
async fn t3_a_waker_that_panics_costs_nobody_else_a_wake_up_or_an_event() {
    let layer = layer();
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    layer.circuit().on_state_change(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    layer.circuit().force_open();
    let mut panics = layer.layer(Strict::default());
    let poll = panics.poll_ready(&mut Context::from_waker(&Arc::new(PanicsOnWake).into()));
    assert_pending!(poll);
    let mut stays = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(stays.poll_ready());
    layer.circuit().reset();
    assert!(stays.is_woken());
    layer.circuit().force_open();
    assert_eq!(heard.load(Ordering::Relaxed), 3);
}

// ===== T2: failing fast =====

#[tokio::test(start_paused = true)]
async fn t2_fail_fast_is_ready_and_rejects() {
    let layer = layer().fail_fast();
    let inner = Strict::default();
    let mut service = mock::Spawn::new(layer.layer(inner.clone()));
    trip(&layer);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_ready_ok!(service.poll_ready());
    match service.call("hello").await {
        Err(Error::Open(open)) => assert_eq!(open.retry_after, Some(Duration::from_secs(100))),
        other => panic!("{other:?}"),
    }
    assert_eq!(inner.uses(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn t2_fail_fast_probes_and_recovers() {
    let layer = layer().fail_fast();
    let mut service = layer.layer(Strict::default());
    trip(&layer);
    tokio::time::advance(RESET).await;
    for _ in 0..2 {
        assert_eq!(service.ready().await.unwrap().call("hi").await, Ok("hi"));
    }
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

// ===== T4: the instance =====

#[tokio::test(start_paused = true)]
async fn t4_a_rejected_instance_rejects_though_the_circuit_has_closed() {
    let layer = layer().fail_fast();
    let inner = Strict::default();
    let mut service = mock::Spawn::new(layer.layer(inner.clone()));
    trip(&layer);
    assert_ready_ok!(service.poll_ready());
    layer.circuit().reset();
    assert_ready_ok!(service.poll_ready()); // ready stays ready
    assert!(service.call("hello").await.unwrap_err().is_open());
    assert_eq!(inner.uses(), (0, 0));
    assert_ready_ok!(service.poll_ready());
    assert_eq!(service.call("hello").await, Ok("hello"));
}

#[tokio::test(start_paused = true)]
async fn t4_a_ready_instance_asks_again_when_called() {
    let layer = layer();
    let inner = Strict::default();
    let mut service = mock::Spawn::new(layer.layer(inner.clone()));
    assert_ready_ok!(service.poll_ready());
    trip(&layer);
    assert_ready_ok!(service.poll_ready());
    assert!(service.call("hello").await.unwrap_err().is_open());
    assert_eq!(inner.uses().1, 0);
}

#[tokio::test(start_paused = true)]
async fn t2_a_call_without_readiness_while_open_touches_nothing() {
    let layer = layer();
    let inner = Strict::default();
    let mut service = layer.layer(inner.clone());
    trip(&layer);
    assert!(service.call("hello").await.unwrap_err().is_open());
    assert_eq!(inner.uses(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn t4_clones_start_without_readiness() {
    let layer = layer();
    let inner = Strict::default();
    let mut service = mock::Spawn::new(layer.layer(inner.clone()));
    assert_ready_ok!(service.poll_ready());
    let mut clone = mock::Spawn::new(service.get_ref().clone());
    assert_ready_ok!(clone.poll_ready());
    assert_eq!(inner.uses().0, 2, "the clone polled its own inner service");
    assert_eq!(clone.call("clone").await, Ok("clone"));
    assert_eq!(service.call("original").await, Ok("original"));
}

#[tokio::test(start_paused = true)]
async fn t2_an_inner_readiness_error_passes_through_as_a_failure() {
    let layer = layer();
    let (inner, mut handle) = mock::pair::<(), ()>();
    let mut service = mock::Spawn::new(layer.layer(inner));
    handle.send_error("gone");
    let error: BoxError = assert_ready_err!(service.poll_ready()).into();
    assert_eq!(error.to_string(), "gone");
    assert_eq!(layer.circuit().metrics().failed_requests, 1);
    assert_eq!(layer.circuit().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn t2_an_inner_readiness_error_is_no_rejected_call_though_the_circuit_has_opened() {
    let layer = layer();
    let (inner, mut handle) = mock::pair::<(), ()>();
    handle.allow(0);
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_pending!(service.poll_ready());
    let trips = Arc::new(layer.circuit().clone());
    handle.send_error("gone");
    trips.force_open();
    trips.disable();
    assert_ready_err!(service.poll_ready());
    let metrics = layer.circuit().metrics();
    assert_eq!((metrics.failed_requests, metrics.rejected_requests), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn t2_a_pending_inner_service_is_asked_again_only_while_closed() {
    let layer = layer();
    let (inner, mut handle) = mock::pair::<&str, &str>();
    handle.allow(0);
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_pending!(service.poll_ready());
    trip(&layer);
    handle.allow(1);
    assert!(service.is_woken());
    assert_pending!(service.poll_ready()); // the circuit comes first
    layer.circuit().reset();
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

// ===== T5, T6, B7: the future =====

#[tokio::test(start_paused = true)]
async fn t5_a_call_that_misses_its_deadline_is_a_failure() {
    let layer = layer();
    let (inner, mut handle) = mock::pair::<&str, &str>();
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    let _unanswered = assert_request_eq!(handle, "hello");
    tokio::time::advance(Duration::from_secs(45) - Duration::from_millis(1)).await;
    assert_pending!(response.poll());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(response.is_woken());
    match assert_ready!(response.poll()) {
        Err(Error::Timeout(timeout)) => assert_eq!(timeout.after, Duration::from_secs(45)),
        other => panic!("{other:?}"),
    }
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.timed_out_requests),
        (1, 1)
    );
    assert_eq!(metrics.current_state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn t5_an_answer_that_is_there_beats_the_deadline() {
    let layer = layer();
    let (inner, mut handle) = mock::pair::<&str, &str>();
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_request_eq!(handle, "hello").send_response("late, but here");
    assert_eq!(assert_ready_ok!(response.poll()), "late, but here");
}

#[tokio::test(start_paused = true)]
async fn t5_the_deadline_runs_from_the_call_not_from_the_first_poll() {
    let layer = layer();
    let mut service = layer.layer(tower::service_fn(|()| pending::<Result<(), BoxError>>()));
    let response = service.ready().await.unwrap().call(());
    tokio::time::advance(Duration::from_secs(45)).await;
    assert!(assert_ready_err!(task::spawn(response).poll()).is_timeout());
}

#[tokio::test(start_paused = true)]
async fn b7_a_dropped_future_frees_its_probe() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let hang = tower::service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = layer.layer(hang);
    let probe = service.ready().await.unwrap().call(());
    let mut waiting = mock::Spawn::new(layer.layer(Strict::default()));
    assert_pending!(waiting.poll_ready());
    drop(probe);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll_ready());
    assert_eq!(layer.circuit().metrics().cancelled_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn b7_behind_the_callers_own_timeout_on_cancel_sees_the_hang() {
    let second = Duration::from_secs(1);
    let config = config().on_cancel(OnCancel::FailAfter(second));
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let hang = tower::service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = layer.layer(hang);
    let call = service.ready().await.unwrap().call(());
    assert!(tokio::time::timeout(second, call).await.is_err());
    assert_eq!(layer.circuit().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn b7_a_panic_is_a_failure_and_goes_on() {
    let layer = CircuitBreakerLayer::new(config().half_open_requests(1).build().unwrap());
    trip(&layer);
    tokio::time::advance(RESET).await;
    let service = tower::service_fn(|()| async {
        if true {
            panic!("expected: the dependency panics");
        }
        Ok::<_, BoxError>(())
    });
    let call = layer.layer(service).oneshot(());
    let panicked = tokio::spawn(call).await.unwrap_err();
    assert!(panicked.is_panic());
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.cancelled_requests),
        (2, 0)
    );
    assert_eq!(metrics.in_flight, Some(0));
    assert_eq!(metrics.current_state, CircuitState::Open);
}

#[test]
fn b7_a_panic_in_call_is_a_failure_too() {
    let layer = layer();
    let mut service = layer.layer(tower::service_fn(|fails: bool| {
        assert!(!fails, "expected: the dependency panics");
        ready(Ok::<_, BoxError>(()))
    }));
    let call = std::panic::AssertUnwindSafe(|| service.call(true));
    assert!(std::panic::catch_unwind(call).is_err());
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.cancelled_requests),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn b7_a_panic_over_a_result_is_a_failure_too() {
    let layer = layer().classify(|_: Result<&(), &BoxError>| -> Outcome {
        panic!("expected: the result is not what the classifier thought")
    });
    let call = layer
        .layer(tower::service_fn(|()| ready(Ok::<_, BoxError>(()))))
        .oneshot(());
    assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.cancelled_requests),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn b7_being_dropped_by_a_panic_of_ones_caller_is_a_cancellation() {
    let layer = layer();
    let hang = tower::service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = layer.layer(hang);
    let call = service.ready().await.unwrap().call(());
    let caller = tokio::spawn(async move {
        let _call = call;
        panic!("expected: the caller panics");
    });
    assert!(caller.await.unwrap_err().is_panic());
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.cancelled_requests),
        (0, 1)
    );
}

#[test]
fn t6_errors_convert_to_what_they_are() {
    let open = {
        let layer = layer();
        trip(&layer);
        layer.circuit().try_acquire().unwrap_err()
    };
    let boxed = BoxError::from(Error::<BoxError>::Open(open));
    assert_eq!(boxed.downcast_ref::<Open>(), Some(&open));
    let boxed = BoxError::from(Error::Inner(std::io::Error::other("disk")));
    assert!(boxed.is::<std::io::Error>());
    let text = Error::<&str>::Open(open).to_string();
    assert_eq!(
        text,
        "circuit is open (too many failures in a row), try again in 120s"
    );
}

#[tokio::test(start_paused = true)]
async fn t6_an_error_tells_which_it_is() {
    let circuit = Circuit::new(config().failure_threshold(3).build().unwrap());
    let inner = circuit.call(ready(Err::<(), _>("no"))).await.unwrap_err();
    let late = pending::<Result<(), &str>>();
    let late = circuit.call(late).await.unwrap_err();
    circuit.force_open();
    let open = circuit.call(ready(Ok::<(), &str>(()))).await.unwrap_err();
    for (error, is_open, is_timeout, own) in [
        (inner, false, false, Some("no")),
        (late, false, true, None),
        (open, true, false, None),
    ] {
        assert_eq!((error.is_open(), error.is_timeout()), (is_open, is_timeout));
        assert_eq!(error.into_inner(), own);
    }
}

#[tokio::test(start_paused = true)]
async fn t6_a_breaker_over_a_timeout_fits_into_a_buffer() {
    let layer = layer();
    let hang = tower::service_fn(|()| pending::<Result<(), BoxError>>());
    let service = layer.layer(tower::timeout::Timeout::new(hang, Duration::from_secs(1)));
    let mut buffered = tower::buffer::Buffer::new(service, 8);
    let error = buffered.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());

    let breaker_times_out = CircuitBreakerLayer::new(config().build().unwrap()).layer(hang);
    let mut buffered = tower::buffer::Buffer::new(breaker_times_out, 8);
    let error = buffered.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(error.is::<Timeout>());
}

// ===== T7: classification =====

#[tokio::test(start_paused = true)]
async fn t7_a_closure_decides_with_one_annotation() {
    let layer = layer()
        .fail_fast()
        .classify(|result: Result<&u16, &BoxError>| match result {
            Ok(status) if *status < 500 => Outcome::Success,
            Ok(_) => Outcome::FAILURE,
            Err(_) => Outcome::Ignored,
        });
    let echo = tower::service_fn(|status: Option<u16>| ready(status.ok_or(BoxError::from("none"))));
    let mut service = layer.layer(echo);
    for request in [Some(200), None, Some(404)] {
        let _ = service.ready().await.unwrap().call(request).await;
    }
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
    assert_eq!(
        service
            .ready()
            .await
            .unwrap()
            .call(Some(500))
            .await
            .unwrap(),
        500
    );
    let metrics = layer.circuit().metrics();
    assert_eq!(metrics.current_state, CircuitState::Open);
    assert_eq!(
        (metrics.successful_requests, metrics.ignored_requests),
        (Some(2), 1)
    );
}

// ===== B12: without Tower =====

#[tokio::test(start_paused = true)]
async fn b12_a_future_through_the_circuit() {
    let layer = layer();
    let circuit = layer.circuit().clone();
    assert_eq!(circuit.call(ready(Ok::<_, &str>(1))).await, Ok(1));
    let slow = circuit.call(pending::<Result<(), &str>>()).await;
    assert!(slow.unwrap_err().is_timeout());
    assert!(
        circuit
            .call(ready(Ok::<_, &str>(1)))
            .await
            .unwrap_err()
            .is_open()
    );
    circuit.reset();
    assert_eq!(
        circuit.call(ready(Err::<(), _>("broken"))).await,
        Err(Error::Inner("broken"))
    );
    assert_eq!(circuit.state(), CircuitState::Open);
}

// ===== what the types promise =====

#[test]
fn t5_nothing_is_asked_for_that_is_not_used() {
    /// Neither `Clone` nor `Send`, and its requests and responses are borrowed and nothing else.
    struct Plain<'a>(std::rc::Rc<std::cell::Cell<u32>>, &'a str);
    struct Request<'a>(&'a str);
    struct Answer<'a>(&'a str);

    impl<'a> Service<Request<'a>> for Plain<'a> {
        type Response = Answer<'a>;
        type Error = std::fmt::Error;
        type Future = std::future::Ready<Result<Answer<'a>, std::fmt::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::fmt::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<'a>) -> Self::Future {
            self.0.set(self.0.get() + 1);
            ready(Ok(Answer(if request.0.is_empty() {
                self.1
            } else {
                request.0
            })))
        }
    }

    let (greeting, count) = (String::from("hello"), std::rc::Rc::default());
    let mut service = layer().layer(Plain(std::rc::Rc::clone(&count), &greeting));
    let mut call = |request| {
        let ready = service.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
        assert_ready_ok!(ready);
        assert_ready_ok!(task::spawn(service.call(request)).poll()).0
    };
    assert_eq!(call(Request("")), "hello");
    assert_eq!(call(Request("hi")), "hi");
    assert_eq!(count.get(), 2);
}

#[test]
fn t5_services_and_futures_are_as_free_as_what_they_wrap() {
    fn free<T: Send + Sync>(_: &T) {}
    fn cloned<T: Clone>(_: &T) {}
    let layer = layer();
    let mut service = layer.layer(tower::service_fn(|request| ready(Ok(request))));
    free(&layer);
    free(&service);
    cloned(&service);
    let future = service.call("hello");
    free(&future);
    fn output<F: Future<Output = Result<&'static str, Error<&'static str>>>>(_: F) {}
    output(pin!(future));
    // Nothing is asked of the inner service but what is used.
    struct NotClone;
    let _ = layer.layer(NotClone).into_inner();
}

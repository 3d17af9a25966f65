//! `Fallback` over the real things (F1 to F7): circuit breakers in each mode, plain services, a
//! `Buffer`, and another `Fallback`.
#![cfg(all(feature = "fallback", feature = "tokio"))]

use std::{
    future::{Ready, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, buffer::Buffer};
use tower_breaker::{
    BoxError, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, Error,
    Fallback, FallbackError, FallbackLayer, Open,
    fallback::{
        AnyError,
        AttemptOutcome::{self, Answered, Failed, Skipped},
        Attempts, ByClone, Chain, Link, NoRecord, ResponseFuture, Unavailable,
    },
};

const RESET: Duration = Duration::from_secs(120);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Opens at the first failure.
fn breaker() -> CircuitBreakerLayer {
    breaker_with(RESET)
}

fn breaker_with(reset_timeout: Duration) -> CircuitBreakerLayer {
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(1)
        .half_open_requests(1)
        .reset_timeout(reset_timeout);
    CircuitBreakerLayer::new(config.build().unwrap())
}

/// A request that counts its clones.
#[derive(Debug, Default)]
struct Req(Arc<AtomicUsize>);

impl Clone for Req {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

/// What answered, and how it came about.
type Answer = (&'static str, Attempts);

/// A dependency that can be broken and repaired, and counts the calls that reach it.
#[derive(Debug, Clone)]
struct Dependency {
    name: &'static str,
    broken: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Dependency {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            broken: Arc::default(),
            calls: Arc::default(),
        }
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Service<Req> for Dependency {
    type Response = Answer;
    type Error = BoxError;
    type Future = Ready<Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(if self.broken.load(Ordering::Relaxed) {
            Err("broken".into())
        } else {
            Ok((self.name, Attempts::default()))
        })
    }
}

fn keep(attempts: &Attempts, answer: &mut Answer) {
    answer.1 = attempts.clone();
}

fn told(attempts: &Attempts) -> Vec<(usize, AttemptOutcome)> {
    attempts.iter().map(|a| (a.link, a.outcome)).collect()
}

/// Two of them, the first with its circuit opened.
fn pair(a: &CircuitBreakerLayer, b: &CircuitBreakerLayer) -> [Dependency; 2] {
    a.circuit().try_acquire().unwrap().failure();
    assert_eq!(a.circuit().state(), CircuitState::Open);
    assert_eq!(b.circuit().state(), CircuitState::Closed);
    [Dependency::new("a"), Dependency::new("b")]
}

#[tokio::test(start_paused = true)]
async fn f2_a_breaker_that_waits_is_skipped_while_its_circuit_is_open() {
    let (layer_a, layer_b) = (breaker(), breaker());
    let [a, b] = pair(&layer_a, &layer_b);
    let mut chain = Fallback::new(layer_a.layer(a.clone()))
        .or(layer_b.layer(b.clone()))
        .record(keep);
    let request = Req::default();
    let clones = request.0.clone();
    let (name, attempts) = chain.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((name, clones.load(Ordering::Relaxed)), ("b", 0));
    assert_eq!(told(&attempts), [(0, Skipped), (1, Answered)]);
    assert_eq!(a.calls(), 0);
    assert_eq!(layer_a.circuit().metrics().total_requests, Some(1));

    tokio::time::advance(RESET).await;
    let answer = chain.ready().await.unwrap().call(Req::default()).await;
    assert_eq!(answer.unwrap().0, "a");
    assert_eq!(layer_a.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn f2_a_breaker_that_fails_fast_is_skipped_by_its_probe() {
    let (layer_a, layer_b) = (breaker().fail_fast(), breaker().fail_fast());
    let [a, b] = [Dependency::new("a"), Dependency::new("b")];
    let mut chain = Fallback::new_link(layer_a.layer(a.clone()), layer_a.circuit().probe())
        .or_link(layer_b.layer(b.clone()), layer_b.circuit().probe())
        .patience(secs(9))
        .record(keep);
    a.set_broken(true);
    let (name, attempts) = call(&mut chain).await.unwrap();
    assert_eq!(
        (name, told(&attempts)),
        ("b", vec![(0, Failed), (1, Answered)])
    );

    let request = Req::default();
    let clones = request.0.clone();
    let (name, attempts) = chain.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((name, clones.load(Ordering::Relaxed)), ("b", 0));
    assert_eq!(told(&attempts), [(0, Skipped), (1, Answered)]);
    assert_eq!(a.calls(), 1);
    assert_eq!(layer_a.circuit().metrics().rejected_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn f1_without_a_probe_a_rejection_is_a_failed_attempt() {
    let layer = breaker().fail_fast();
    let a = Dependency::new("a");
    let mut chain = Fallback::new(layer.layer(a.clone()))
        .or(Dependency::new("b"))
        .record(keep);
    layer.circuit().force_open();
    let (name, attempts) = call(&mut chain).await.unwrap();
    assert_eq!(name, "b");
    assert_eq!(attempts[0].outcome, Failed);
    let reason = attempts[0].reason.as_deref().unwrap();
    assert!(reason.starts_with("circuit is open"), "{reason}");
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn f2_patience_is_not_for_an_open_circuit_with_a_probe() {
    let (layer_a, layer_b) = (breaker(), breaker());
    let [a, b] = pair(&layer_a, &layer_b);
    let mut chain = Fallback::new_link(layer_a.layer(a), layer_a.circuit().probe())
        .or(layer_b.layer(b))
        .patience(secs(9));
    assert_ready_ok!(task::spawn(chain.ready()).poll());
}

/// Both circuits open; then `change` closes the second one.
async fn waits_for_all_of<P>(mut chain: P, layers: [&CircuitBreakerLayer; 2])
where
    P: Service<Req, Response = Answer, Error: std::fmt::Debug> + std::fmt::Debug,
{
    for layer in layers {
        layer.circuit().force_open();
    }
    for (reset, name) in [(1, "b"), (0, "a")] {
        let mut ready = task::spawn(chain.ready());
        assert_pending!(ready.poll());
        // No time ends this, so it is their own wakers that count.
        tokio::time::advance(secs(3600)).await;
        assert!(!ready.is_woken());
        layers[reset].circuit().reset();
        assert!(ready.is_woken());
        let service = assert_ready_ok!(ready.poll());
        assert_eq!(service.call(Req::default()).await.unwrap().0, name);
        layers[reset].circuit().force_open();
    }
}

#[tokio::test(start_paused = true)]
async fn f5_the_wakers_of_all_breakers_that_wait_are_registered() {
    let (layer_a, layer_b) = (breaker(), breaker());
    let [a, b] = [Dependency::new("a"), Dependency::new("b")];
    let (a, b) = (layer_a.layer(a), layer_b.layer(b));
    let probes = || (layer_a.circuit().probe(), layer_b.circuit().probe());
    let layers = [&layer_a, &layer_b];

    waits_for_all_of(Fallback::new(a.clone()).or(b.clone()), layers).await;
    waits_for_all_of(Fallback::chain([a.clone(), b.clone()]), layers).await;
    let (_, probe) = probes();
    waits_for_all_of(Fallback::new(a.clone()).or_link(b.clone(), probe), layers).await;
    let (probe, _) = probes();
    waits_for_all_of(Fallback::new_link(a.clone(), probe).or(b.clone()), layers).await;
    let (first, second) = probes();
    waits_for_all_of(Fallback::new_link(a, first).or_link(b, second), layers).await;
}

#[tokio::test(start_paused = true)]
async fn f5_time_wakes_a_chain_at_the_first_probe() {
    let (layer_a, layer_b) = (breaker(), breaker_with(secs(30)));
    let [a, b] = pair(&layer_a, &layer_b);
    layer_b.circuit().try_acquire().unwrap().failure();
    let mut chain = Fallback::new(layer_a.layer(a)).or(layer_b.layer(b));
    let mut ready = task::spawn(chain.ready());
    assert_pending!(ready.poll());
    tokio::time::advance(secs(29)).await;
    assert!(!ready.is_woken());
    tokio::time::advance(secs(1)).await;
    assert!(ready.is_woken());
    let service = assert_ready_ok!(ready.poll());
    assert_eq!(service.call(Req::default()).await.unwrap().0, "b");
}

#[tokio::test(start_paused = true)]
async fn f5_the_fail_fast_form_tells_the_shortest_wait_in_either_mode() {
    let (layer_a, layer_b) = (breaker(), breaker_with(secs(30)));
    let [a, b] = pair(&layer_a, &layer_b);
    layer_b.circuit().try_acquire().unwrap().failure();
    let (probe_a, probe_b) = (layer_a.circuit().probe(), layer_b.circuit().probe());

    let mut waiting = Fallback::new_link(layer_a.layer(a.clone()), probe_a.clone())
        .or_link(layer_b.layer(b.clone()), probe_b.clone())
        .fail_fast();
    shortest_is(call(&mut waiting).await, secs(30));

    // Links that fail fast themselves have nobody to wait for, in either form.
    let (a, b) = (
        layer_a.clone().fail_fast().layer(a),
        layer_b.clone().fail_fast().layer(b),
    );
    let failing = Fallback::new_link(a, probe_a).or_link(b, probe_b);
    tokio::time::advance(secs(10)).await;
    shortest_is(call(&mut failing.clone()).await, secs(20));
    shortest_is(call(&mut failing.fail_fast()).await, secs(20));
    // Nothing was called, and nothing counts as rejected.
    assert_eq!(layer_a.circuit().metrics().rejected_requests, 0);
}

#[track_caller]
fn shortest_is<E>(result: Result<Answer, FallbackError<E>>, wait: Duration)
where
    E: std::fmt::Debug + Into<BoxError>,
{
    let error = result.unwrap_err();
    assert_eq!(error.retry_after(), Some(wait));
    assert_eq!(told(error.attempts()), [(0, Skipped), (1, Skipped)]);
    let boxed: BoxError = error.into();
    let unavailable = boxed.downcast_ref::<Unavailable>().unwrap();
    assert_eq!(unavailable.retry_after, Some(wait));
}

#[tokio::test(start_paused = true)]
async fn f7_a_half_open_permit_is_spent_or_given_back() {
    let (layer_a, layer_b) = (breaker(), breaker());
    let [a, b] = pair(&layer_a, &layer_b);
    tokio::time::advance(RESET).await;
    let chain = Fallback::new(layer_a.layer(a.clone())).or(layer_b.layer(b));
    // The one probe is reserved by the first, so the second goes to the backup.
    let (mut first, mut second) = (chain.clone(), chain.clone());
    assert_ready_ok!(task::spawn(first.ready()).poll());
    assert_ready_ok!(task::spawn(second.ready()).poll());
    assert_eq!(second.call(Req::default()).await.unwrap().0, "b");
    // Dropped, it gives the permit back.
    drop(first);
    assert_ready_ok!(task::spawn(second.ready()).poll());
    assert_eq!(second.call(Req::default()).await.unwrap().0, "a");
    assert_eq!(a.calls(), 1);
    assert_eq!(layer_a.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn f1_errors_of_breakers_and_plain_services_are_one_type() {
    let layer = breaker().fail_fast();
    let a = Dependency::new("a");
    a.set_broken(true);
    // The breaker's error converts into the plain service's.
    let mut chain = Fallback::new(a.clone()).or(layer.layer(a.clone()));
    let error: BoxError = call(&mut chain).await.unwrap_err().into();
    assert_eq!(error.source().unwrap().to_string(), "broken");
    let error: BoxError = call(&mut chain).await.unwrap_err().into();
    assert!(error.source().unwrap().is::<Open>());
    // The plain service's goes into the breaker's.
    layer.circuit().reset();
    let mut chain = Fallback::new(layer.layer(a.clone())).or(a);
    let error = call(&mut chain).await.unwrap_err();
    assert!(matches!(error.error(), Some(Error::Inner(_))));
}

#[tokio::test(start_paused = true)]
async fn f1_a_layer_over_a_layer() {
    let layer = breaker();
    let [a, b] = [Dependency::new("a"), Dependency::new("b")];
    let mut service = tower::ServiceBuilder::new()
        .layer(FallbackLayer::new(b))
        .layer(layer.clone())
        .service(a);
    assert_eq!(call(&mut service).await.unwrap().0, "a");
    layer.circuit().force_open();
    assert_eq!(call(&mut service).await.unwrap().0, "b");
}

#[tokio::test(start_paused = true)]
async fn f1_over_a_buffer() {
    let (layer_a, layer_b) = (breaker(), breaker());
    let [a, b] = pair(&layer_a, &layer_b);
    let mut chain = Fallback::new(Buffer::new(layer_a.layer(a.clone()), 1))
        .or(Buffer::new(layer_b.layer(b.clone()), 1));
    // A buffer takes a request while it has room, and this one's worker holds it back until its
    // circuit closes. So that one takes up the room:
    let held = chain.ready().await.unwrap().call(Req::default());
    let held = tokio::spawn(held);
    tokio::task::yield_now().await;
    let second = tokio::spawn(chain.ready().await.unwrap().call(Req::default()));
    tokio::task::yield_now().await;
    // and what comes then goes round it.
    assert_eq!(call(&mut chain).await.unwrap().0, "b");
    layer_a.circuit().reset();
    assert_eq!(held.await.unwrap().unwrap().0, "a");
    assert_eq!(second.await.unwrap().unwrap().0, "a");
    // A buffered dependency that fails is a failed attempt.
    a.set_broken(true);
    assert_eq!(call(&mut chain).await.unwrap().0, "b");
}

#[tokio::test(start_paused = true)]
async fn f1_over_another_fallback() {
    let layers = [breaker(), breaker(), breaker()];
    let dependencies = ["a", "b", "c"].map(Dependency::new);
    let [a, b, c] = [0, 1, 2].map(|i| layers[i].layer(dependencies[i].clone()));
    let inner = Fallback::new(a).or(b);
    let mut outer = Fallback::new(inner).or(c).record(keep);
    for name in ["a", "b", "c"] {
        let (answered, attempts) = call(&mut outer).await.unwrap();
        assert_eq!(answered, name);
        // An inner chain is one link, and skipped as a whole.
        let expected = match name {
            "c" => vec![(0, Skipped), (1, Answered)],
            _ => vec![(0, Answered)],
        };
        assert_eq!(told(&attempts), expected);
        if let Some(i) = ["a", "b"].iter().position(|n| *n == name) {
            layers[i].circuit().force_open();
        }
    }
    // All of them Pending, and whichever recovers wakes it.
    layers[2].circuit().force_open();
    for (layer, name) in layers.iter().zip(["a", "b", "c"]).rev() {
        let mut ready = task::spawn(outer.ready());
        assert_pending!(ready.poll());
        layer.circuit().reset();
        assert!(ready.is_woken());
        let service = assert_ready_ok!(ready.poll());
        assert_eq!(service.call(Req::default()).await.unwrap().0, name);
        layer.circuit().force_open();
    }
}

async fn call<S>(service: &mut S) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
{
    service.ready().await?.call(Req::default()).await
}

#[test]
fn f1_f7_a_call_boxes_nothing_and_needs_no_runtime() {
    fn poll<S: Service<Req>>(service: &mut S) -> Result<S::Response, S::Error> {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let answer = pin!(service.call(Req::default())).poll(&mut cx);
        let Poll::Ready(answer) = answer else {
            panic!("it answers at once");
        };
        answer
    }
    let (layer_a, layer_b) = (breaker(), breaker());
    let (a, b) = (Dependency::new("a"), Dependency::new("b"));
    let mut service = Fallback::new(layer_a.layer(a))
        .or(layer_b.layer(b.clone()))
        .or_degraded(b);
    poll(&mut service).unwrap();
    let request = allocation_counter::measure(|| drop(Req::default())).count_total;
    let all = allocation_counter::measure(|| drop(poll(&mut service))).count_total;
    assert_eq!(all, request, "the request's own counter is all there is");
}

#[test]
fn f1_every_type_has_a_name() {
    // So a chain can stand in a struct, and its future in another future, with no box.
    type Breaker = CircuitBreaker<Dependency>;
    type Links = Chain<Chain<Link<Breaker>, Link<Dependency>>, Link<Dependency>>;
    struct Holds {
        service: Fallback<Links>,
        future: Option<ResponseFuture<Links, Req, AnyError, NoRecord, ByClone>>,
    }
    let dependency = Dependency::new("a");
    let mut holds = Holds {
        service: Fallback::new(breaker().layer(dependency.clone()))
            .or(dependency.clone())
            .or_degraded(dependency),
        future: None,
    };
    holds.future = Some(holds.service.call(Req::default()));
}

#[test]
fn f1_clone_send_and_sync_as_the_links_are() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug>() {}
    fn send<T: Send + Sync>() {}
    type Links = Chain<Link<CircuitBreaker<Dependency>>, Link<Dependency>>;
    check::<Fallback<Links>>();
    check::<Fallback<Vec<Link<Dependency>>>>();
    check::<FallbackLayer<Link<Dependency>>>();
    check::<Attempts>();
    send::<<Fallback<Links> as Service<Req>>::Future>();
    send::<FallbackError<BoxError>>();
    // The bounds are the links' own: this one is neither, and a chain all the same.
    type Local = std::rc::Rc<Dependency>;
    fn exists<T>() {}
    exists::<Fallback<Link<Local>>>();
}

#[cfg(feature = "http")]
mod http {
    use ::http::{Request, Response, StatusCode};
    use tower_breaker::Rejected;

    use super::*;

    type Body = String;

    fn site(
        name: &'static str,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone
    {
        tower::service_fn(move |_: Request<Body>| {
            ready(Ok::<_, BoxError>(Response::new(name.to_owned())))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn f3_the_http_mode_is_known_by_its_answers() {
        let layer = breaker().http();
        let mut chain = Fallback::new(layer.layer(site("a"))).or(site("b")).http();
        layer.circuit().force_open();
        let response = chain.ready().await.unwrap().call(Request::default());
        let response = response.await.unwrap();
        assert_eq!(response.body(), "b");
        let attempts = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(told(attempts), [(0, Failed), (1, Answered)]);
        let reason = attempts[0].reason.as_deref();
        assert_eq!(reason, Some("rejected by an open circuit"));

        // As the last link its own answer stands.
        let mut chain = Fallback::new(layer.layer(site("a"))).http();
        let response = chain.ready().await.unwrap().call(Request::default());
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.extensions().get::<Rejected>().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn f2_the_http_mode_is_skipped_by_its_probe() {
        let layer = breaker().http();
        let probe = layer.circuit().probe();
        let mut chain = Fallback::new_link(layer.layer(site("a")), probe)
            .or(site("b"))
            .http();
        layer.circuit().force_open();
        let response = chain.ready().await.unwrap().call(Request::default());
        let response = response.await.unwrap();
        let attempts = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(told(attempts), [(0, Skipped), (1, Answered)]);
        assert_eq!(layer.circuit().metrics().rejected_requests, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn f3_the_grpc_mode_is_known_by_its_answers_and_skipped_by_its_probe() {
        let (a, b) = (breaker().grpc(), breaker().grpc());
        let probe = a.circuit().probe();
        let known = Fallback::new(a.layer(site("a"))).or(b.layer(site("b")));
        let skipped = Fallback::new_link(a.layer(site("a")), probe).or(b.layer(site("b")));
        a.circuit().force_open();

        let response = known.http().oneshot(Request::default()).await.unwrap();
        let attempts = response.extensions().get::<Attempts>().unwrap();
        // The rejection's status is 200, as all of gRPC.
        assert_eq!(told(attempts), [(0, Failed), (1, Answered)]);
        let reason = attempts[0].reason.as_deref();
        assert_eq!(reason, Some("rejected by an open circuit"));

        let response = skipped.http().oneshot(Request::default()).await.unwrap();
        let attempts = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(told(attempts), [(0, Skipped), (1, Answered)]);
    }

    #[tokio::test(start_paused = true)]
    async fn f6_the_mark_of_a_degraded_answer_outlives_a_fallback_around_it() {
        let broken = tower::service_fn(|_: Request<Body>| {
            ready(Err::<Response<Body>, BoxError>("broken".into()))
        });
        let inner = Fallback::new(broken).or_degraded(site("cache")).http();
        let mut outer = Fallback::new(inner.map_err(BoxError::from)).http();
        let response = outer.ready().await.unwrap().call(Request::default());
        let response = response.await.unwrap();
        let attempts = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(told(attempts), [(0, Answered)]);
        assert!(attempts.degraded());
    }
}

//! `Fallback`, rule by rule (F1 to F7), with mocks and paused time.
#![cfg(feature = "fallback")]

use std::{
    cell::Cell,
    future::{Ready, ready},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_breaker::{
    BoxError,
    fallback::{
        Attempt,
        AttemptOutcome::{self, Answered, Failed, Skipped},
        Attempts, Fallback, FallbackError, FallbackLayer, Link, Unavailable,
    },
};
use tower_test::mock::{self, Handle, Mock, SendResponse, Spawn};

type Backend = Mock<Req, &'static str>;
type Driver = Handle<Req, &'static str>;
type Wait = Result<(), Option<Duration>>;

/// A request that knows how often it was cloned.
#[derive(Debug)]
struct Req(&'static str, Arc<AtomicUsize>);

impl Req {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let clones = Arc::new(AtomicUsize::new(0));
        (Self("hi", clones.clone()), clones)
    }
}

impl Clone for Req {
    fn clone(&self) -> Self {
        self.1.fetch_add(1, Ordering::Relaxed);
        Self(self.0, self.1.clone())
    }
}

fn req() -> Req {
    Req::new().0
}

fn backend() -> (Backend, Driver) {
    mock::pair()
}

fn busy_backend() -> (Backend, Driver) {
    let (service, mut handle) = mock::pair();
    handle.allow(0);
    (service, handle)
}

/// A probe and the switch that it reads.
fn switch(wait: Wait) -> (impl Fn() -> Wait + Clone + Send + Sync, Arc<Mutex<Wait>>) {
    let switch = Arc::new(Mutex::new(wait));
    let read = switch.clone();
    (move || *read.lock().unwrap(), switch)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The request that a link got, or a panic if it got none.
#[track_caller]
fn got(handle: &mut Driver) -> SendResponse<&'static str> {
    let (request, reply) = assert_ready!(handle.poll_request()).expect("the services are alive");
    assert_eq!(request.0, "hi");
    reply
}

#[track_caller]
fn got_none(handle: &mut Driver) {
    assert_pending!(handle.poll_request());
}

fn told(attempts: &Attempts) -> Vec<(usize, AttemptOutcome, Option<&str>)> {
    fn told(attempt: &Attempt) -> (usize, AttemptOutcome, Option<&str>) {
        (attempt.link, attempt.outcome, attempt.reason.as_deref())
    }
    attempts.iter().map(told).collect()
}

thread_local! {
    static KEPT: Cell<Attempts> = Cell::default();
}

/// A record hook that keeps the attempts for the test, which has a thread of its own.
fn keep(attempts: &Attempts, _: &mut &'static str) {
    KEPT.set(attempts.clone());
}

// F1: links and how they are put together.

#[tokio::test(start_paused = true)]
async fn f1_three_links_are_asked_in_order() {
    let ((a, mut ha), (b, mut hb), (c, mut hc)) = (backend(), backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).or(c));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    assert_pending!(answer.poll());
    got_none(&mut hb);
    got(&mut ha).send_error("a is down");
    assert_pending!(answer.poll());
    got_none(&mut hc);
    got(&mut hb).send_error("b is down");
    assert_pending!(answer.poll());
    got(&mut hc).send_response("c");
    assert_eq!(assert_ready_ok!(answer.poll()), "c");
    got_none(&mut ha);
    got_none(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f1_a_chain_from_an_iterator_behaves_the_same() {
    let (services, mut handles): (Vec<_>, Vec<_>) = (0..3).map(|_| backend()).unzip();
    let mut service = Spawn::new(Fallback::chain(services));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    for handle in &mut handles[..2] {
        assert_pending!(answer.poll());
        got(handle).send_error("down");
    }
    assert_pending!(answer.poll());
    got(&mut handles[2]).send_response("last");
    assert_eq!(assert_ready_ok!(answer.poll()), "last");
}

#[tokio::test(start_paused = true)]
async fn f1_links_known_at_run_time_may_have_probes() {
    let (switches, probes): (Vec<_>, Vec<_>) = [Err(None), Ok(())]
        .into_iter()
        .map(|wait: Wait| {
            let switch = Arc::new(Mutex::new(wait));
            let read = switch.clone();
            (switch, move || *read.lock().unwrap())
        })
        .unzip();
    let (services, mut handles): (Vec<_>, Vec<_>) = (0..2).map(|_| backend()).unzip();
    let links = services.into_iter().zip(probes);
    let mut service = Spawn::new(Fallback::chain_links(
        links.map(|(service, probe)| Link::new(service).probe(probe)),
    ));
    for link in [1, 0] {
        assert_ready_ok!(service.poll_ready());
        let mut answer = task::spawn(service.call(req()));
        got(&mut handles[link]).send_response("here");
        assert_ready_ok!(answer.poll());
        *switches[0].lock().unwrap() = Ok(());
    }
}

#[tokio::test(start_paused = true)]
async fn f1_an_empty_chain_is_unavailable() {
    let mut service = Spawn::new(Fallback::chain(Vec::<Backend>::new()));
    assert_ready_ok!(service.poll_ready());
    let error = assert_ready_err!(task::spawn(service.call(req())).poll());
    assert!(matches!(error, FallbackError::Unavailable(_)));
    // And without readiness.
    assert_ready_err!(task::spawn(service.call(req())).poll());
}

#[tokio::test(start_paused = true)]
async fn f1_later_errors_convert_into_the_first_links() {
    let (primary, mut handle) = backend();
    let backup = tower::service_fn(|_: Req| async { Err::<&str, _>(std::fmt::Error) });
    let mut service = Fallback::new(primary).or(backup);
    let call = service.ready().await.unwrap().call(req());
    got(&mut handle).send_error("down");
    let error: BoxError = call.await.unwrap_err().into_error().unwrap();
    assert!(error.is::<std::fmt::Error>());
}

#[tokio::test(start_paused = true)]
async fn f1_the_layer_gives_a_service_its_backup() {
    let ((a, mut ha), (b, mut hb), (up, switch)) = (backend(), backend(), switch(Ok(())));
    let layer = FallbackLayer::new(b).probe(up).patience(secs(1));
    let mut service = Spawn::new(layer.layer(a));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b");

    *switch.lock().unwrap() = Err(None);
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got_none(&mut ha);
    got(&mut hb);

    // Patience came along too: a busy primary is waited for.
    *switch.lock().unwrap() = Ok(());
    ha.allow(0);
    assert_pending!(service.poll_ready());
}

#[test]
fn f1_clone_send_and_sync_as_the_links_are() {
    fn check<T: Clone + Send + Sync>(_: &T) {}
    fn future<F: Future + Send>(_: &F) {}
    let ((a, _ha), (b, _hb), (up, _switch)) = (backend(), backend(), switch(Ok(())));
    let mut service = Fallback::new_link(a.clone(), up).or(b.clone());
    check(&service);
    future(&service.call(req()));
    check(&Fallback::chain([a]));
    check(&FallbackLayer::new(b));
    check(&Attempts::default());
    // A link that is none of these makes a chain that isn't, and that still compiles.
    let local = std::rc::Rc::new(Cell::new(0));
    let _ = Fallback::new(tower::service_fn(move |_: Req| {
        local.set(1);
        ready(Ok::<_, BoxError>("here"))
    }));
}

// F2: which links are skipped, and which are waited for.

#[tokio::test(start_paused = true)]
async fn f2_a_link_whose_probe_says_no_costs_nothing() {
    let ((a, mut ha), (b, mut hb)) = (backend(), backend());
    let (down, _switch) = switch(Err(Some(secs(9))));
    let mut service = Spawn::new(Fallback::new_link(a, down).or(b).record(keep));
    // Were it polled, this error would be taken.
    ha.send_error("polled");
    assert_ready_ok!(service.poll_ready());
    let (request, clones) = Req::new();
    let mut answer = task::spawn(service.call(request));
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b");
    assert_eq!(clones.load(Ordering::Relaxed), 0);
    got_none(&mut ha);
    let kept = KEPT.take();
    assert_eq!(
        told(&kept),
        [(0, Skipped, Some("unavailable")), (1, Answered, None)]
    );
}

#[tokio::test(start_paused = true)]
async fn f2_a_busy_link_is_skipped_at_once_by_default() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).record(keep));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got_none(&mut ha);
    got(&mut hb).send_response("b");
    assert_ready_ok!(answer.poll());
    assert_eq!(told(&KEPT.take())[0], (0, Skipped, Some("busy")));
}

#[tokio::test(start_paused = true)]
async fn f2_a_busy_link_is_waited_for_with_patience() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).patience(secs(2)).record(keep));
    assert_pending!(service.poll_ready());
    tokio::time::advance(Duration::from_millis(1900)).await;
    // Polling again doesn't start the wait anew.
    assert_pending!(service.poll_ready());
    assert!(!service.is_woken());
    tokio::time::advance(Duration::from_millis(101)).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got_none(&mut ha);
    got(&mut hb).send_response("b");
    assert_ready_ok!(answer.poll());
    let kept = KEPT.take();
    assert_eq!(told(&kept)[0], (0, Skipped, Some("busy")));
    assert_eq!(kept[0].latency, Duration::from_millis(2001));

    // The next request has its own patience.
    assert_pending!(service.poll_ready());
    ha.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
    got_none(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f2_patience_is_only_for_when_another_is_available() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), busy_backend());
    let (down, switch) = switch(Err(None));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, down).patience(secs(2)));
    assert_pending!(service.poll_ready());
    tokio::time::advance(secs(60)).await;
    // Nobody else is available, so the wait goes on, and no timer ends it.
    assert!(!service.is_woken());
    // Once there is, its patience has run out already.
    *switch.lock().unwrap() = Ok(());
    hb.allow(1);
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got_none(&mut ha);
    got(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f2_when_all_are_busy_the_first_to_be_ready_is_taken() {
    for (patience, first) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
        let mut pairs = [busy_backend(), busy_backend()];
        let [(a, _), (b, _)] = &pairs;
        let fallback = Fallback::new(a.clone()).or(b.clone());
        let mut service = Spawn::new(fallback.patience(secs(patience)));
        assert_pending!(service.poll_ready());
        if patience > 0 {
            tokio::time::advance(secs(patience)).await;
            assert!(service.is_woken());
            assert_pending!(service.poll_ready());
        }
        assert!(!service.is_woken());
        pairs[first].1.allow(1);
        assert!(service.is_woken());
        assert_ready_ok!(service.poll_ready());
        let _answer = service.call(req());
        got(&mut pairs[first].1);
    }
}

#[tokio::test(start_paused = true)]
async fn f2_endless_patience_is_no_overflow() {
    let ((a, mut ha), (b, _hb)) = (busy_backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).patience(Duration::MAX));
    assert_pending!(service.poll_ready());
    ha.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn f2_a_link_with_a_readiness_error_is_skipped() {
    let ((a, mut ha), (b, mut hb)) = (backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).record(keep));
    ha.send_error("gone");
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut hb).send_response("b");
    assert_ready_ok!(answer.poll());
    assert_eq!(
        told(&KEPT.take()),
        [(0, Failed, Some("gone")), (1, Answered, None)]
    );
    // A fresh clone serves the next request.
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f2_when_no_link_can_ever_be_ready_the_last_error_returns() {
    let ((a, mut ha), (b, mut hb)) = (backend(), busy_backend());
    let mut service = Spawn::new(Fallback::new(a).or(b));
    ha.send_error("a is gone");
    assert_pending!(service.poll_ready());
    hb.send_error("b is gone");
    assert!(service.is_woken());
    let error = assert_ready_err!(service.poll_ready());
    assert_eq!(error.error().unwrap().to_string(), "b is gone");
    let (a, b) = (Some("a is gone"), Some("b is gone"));
    assert_eq!(told(error.attempts()), [(0, Failed, a), (1, Failed, b)]);
}

#[tokio::test(start_paused = true)]
async fn f2_patience_starts_when_the_link_is_found_busy_not_when_another_turns_up() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let (down, switch) = switch(Err(None));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, down).patience(secs(2)));
    assert_pending!(service.poll_ready());
    tokio::time::advance(secs(1)).await;
    *switch.lock().unwrap() = Ok(());
    // The other one is available now, so there is something to be patient about: a second more.
    assert_pending!(service.poll_ready());
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got_none(&mut ha);
    got(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f2_a_later_link_that_was_found_busy_is_not_what_patience_waits_beside() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), busy_backend());
    let (down, switch) = switch(Err(None));
    let mut service = Spawn::new(Fallback::new_link(a, down).or(b).patience(secs(2)));
    assert_pending!(service.poll_ready());
    *switch.lock().unwrap() = Ok(());
    hb.allow(1);
    // Both were busy, so far as anyone knew: the first that is ready is taken.
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got_none(&mut ha);
    got(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f2_no_timer_outlives_its_reason() {
    let ((a, mut ha), (b, _hb)) = (busy_backend(), backend());
    let (probe, switch) = switch(Ok(()));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, probe).patience(secs(2)));
    // Chosen in time.
    assert_pending!(service.poll_ready());
    ha.allow(1);
    assert_ready_ok!(service.poll_ready());
    tokio::time::advance(secs(9)).await;
    assert!(!service.is_woken());
    drop(service.call(req()));
    // The other link is ruled out, for no known time.
    ha.allow(0);
    assert_pending!(service.poll_ready());
    *switch.lock().unwrap() = Err(None);
    assert_pending!(service.poll_ready());
    tokio::time::advance(secs(9)).await;
    assert!(!service.is_woken());
}

/// A service whose `poll_ready` fails the first time, which is final for the instance.
#[derive(Default)]
struct Broken {
    failed: bool,
    clones: Arc<AtomicUsize>,
}

impl Clone for Broken {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::Relaxed);
        Self {
            failed: false,
            clones: self.clones.clone(),
        }
    }
}

impl Service<Req> for Broken {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Ready<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        assert!(!self.failed, "polled after its error");
        self.failed = true;
        Poll::Ready(Err("broken".into()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        panic!("called")
    }
}

#[tokio::test(start_paused = true)]
async fn f2_an_instance_is_not_polled_after_its_readiness_error() {
    let (b, mut hb) = busy_backend();
    let mut service = Spawn::new(Fallback::new(Broken::default()).or(b));
    assert_pending!(service.poll_ready());
    assert_pending!(service.poll_ready());
    hb.allow(9);
    for _ in 0..2 {
        assert_ready_ok!(service.poll_ready());
        drop(service.call(req()));
        got(&mut hb);
    }
}

// F3: after a failed attempt.

#[tokio::test(start_paused = true)]
async fn f3_a_request_is_cloned_only_if_another_link_could_need_it() {
    let ((a, mut ha), (b, mut hb), (c, mut hc)) = (backend(), backend(), backend());
    let (up, switch) = switch(Ok(()));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, up.clone()).or_link(c, up));

    // Two links could need it, then one, then none.
    let (request, clones) = Req::new();
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(request));
    assert_eq!(clones.load(Ordering::Relaxed), 1);
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    assert_eq!(clones.load(Ordering::Relaxed), 2);
    got(&mut hb).send_error("down");
    assert_pending!(answer.poll());
    assert_eq!(clones.load(Ordering::Relaxed), 2);
    got(&mut hc).send_response("c");
    assert_ready_ok!(answer.poll());

    // All later ones are ruled out.
    *switch.lock().unwrap() = Err(None);
    let (request, clones) = Req::new();
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(request));
    got(&mut ha).send_error("down");
    *switch.lock().unwrap() = Ok(());
    let error = assert_ready_err!(answer.poll());
    assert_eq!(clones.load(Ordering::Relaxed), 0);
    assert_eq!(error.attempts().len(), 3);
    assert_eq!(told(error.attempts())[2], (2, Skipped, Some("unavailable")));
}

#[tokio::test(start_paused = true)]
async fn f3_a_hook_that_returns_none_ends_the_chain() {
    let ((a, mut ha), (b, mut hb), (c, mut hc)) = (backend(), backend(), backend());
    let left = AtomicUsize::new(1);
    let once = Arc::new(move |req: &Req| {
        let take = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        take.ok().map(|_| req.clone())
    });
    let mut service = Spawn::new(
        Fallback::new(a)
            .or(b)
            .or(c)
            .clone_request(move |req: &Req| once(req)),
    );
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("a is down");
    assert_pending!(answer.poll());
    got(&mut hb).send_error("b is down");
    let error = assert_ready_err!(answer.poll());
    got_none(&mut hc);
    assert_eq!(
        told(error.attempts()),
        [
            (0, Failed, Some("a is down")),
            (1, Failed, Some("b is down")),
            (2, Skipped, Some("the request can't be cloned")),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn f3_a_predicate_decides_what_fails() {
    let ((a, mut ha), (b, mut hb)) = (backend(), backend());
    let policy = |result: Result<&&'static str, &BoxError>| match result {
        Ok(response) => *response == "sorry",
        Err(error) => error.to_string() != "final",
    };
    let mut service = Spawn::new(Fallback::new(a).or(b).policy(policy));

    // A response that fails, and one in its place.
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_response("sorry");
    assert_pending!(answer.poll());
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b");

    // An error that the policy doesn't fall back on.
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("final");
    let error = assert_ready_err!(answer.poll());
    let why = "the error is not one to fall back on";
    assert_eq!(told(error.attempts()), [(0, Failed, Some(why))]);
    got_none(&mut hb);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after it was ready")]
async fn f3_a_future_polled_again_does_not_send_the_request_again() {
    let (a, mut ha) = backend();
    let mut service = Spawn::new(Fallback::new(a));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_response("a");
    assert_ready_ok!(answer.poll());
    let _ = answer.poll();
}

#[tokio::test(start_paused = true)]
#[allow(
    clippy::disallowed_methods,
    reason = "the probe tells its wait from the paused time"
)]
async fn f2_patience_with_a_busy_link_does_not_sleep_through_the_recovery_of_a_better_one() {
    let up_at = tokio::time::Instant::now() + secs(1);
    let recovers = move || match up_at.checked_duration_since(tokio::time::Instant::now()) {
        Some(wait) if !wait.is_zero() => Err(Some(wait)),
        _ => Ok(()),
    };
    let ((a, mut ha), (b, _hb), (c, mut hc)) = (backend(), busy_backend(), backend());
    let chain = Fallback::new_link(a, recovers)
        .or(b)
        .or(c)
        .patience(secs(10));
    let mut service = Spawn::new(chain);
    assert_pending!(service.poll_ready());
    tokio::time::advance(secs(1)).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
    got_none(&mut hc);
}

#[tokio::test(start_paused = true)]
async fn f3_with_no_link_left_a_failed_response_is_the_answer() {
    let ((a, mut ha), (b, mut hb)) = (backend(), backend());
    let policy =
        |result: Result<&&'static str, &BoxError>| result.map_or(true, |text| *text == "sorry");
    let mut service = Spawn::new(Fallback::new(a).or(b).policy(policy));
    hb.allow(0);
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_response("sorry");
    assert_eq!(assert_ready_ok!(answer.poll()), "sorry");
}

#[tokio::test(start_paused = true)]
async fn f3_a_busy_later_link_is_waited_for_only_with_patience() {
    let ((a, mut ha), (b, mut hb), (c, mut hc)) = (backend(), busy_backend(), backend());
    let fallback = Fallback::new(a).or(b).or(c);

    let mut service = Spawn::new(fallback.clone());
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    got(&mut hc).send_response("c");
    assert_eq!(assert_ready_ok!(answer.poll()), "c");

    let mut service = Spawn::new(fallback.patience(secs(2)));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    got_none(&mut hc);
    tokio::time::advance(Duration::from_millis(2001)).await;
    assert!(answer.is_woken());
    assert_pending!(answer.poll());
    got_none(&mut hb);
    got(&mut hc).send_error("c is down");
    let error = assert_ready_err!(answer.poll());
    assert_eq!(told(error.attempts())[1], (1, Skipped, Some("busy")));

    // It is called if it gets ready in that time.
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    hb.allow(1);
    assert!(answer.is_woken());
    assert_pending!(answer.poll());
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b");
}

#[tokio::test(start_paused = true)]
async fn f3_nothing_waits_for_an_open_circuit_with_an_answer_in_hand() {
    let ((a, mut ha), (b, mut hb)) = (backend(), busy_backend());
    let (up, switch) = switch(Ok(()));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, up).patience(Duration::MAX));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    *switch.lock().unwrap() = Err(Some(secs(9)));
    let error = assert_ready_err!(answer.poll());
    assert_eq!(error.error().unwrap().to_string(), "down");
    got_none(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f3_a_failed_response_is_let_go_before_the_next_call() {
    let failed = Arc::new(());
    let held = Arc::downgrade(&failed);
    let primary = tower::service_fn(move |_: Req| ready(Ok::<_, BoxError>(Some(failed.clone()))));
    let backup = tower::service_fn(|_: Req| std::future::pending::<Result<_, BoxError>>());
    let policy = |result: Result<&Option<Arc<()>>, &BoxError>| result.is_ok();
    let mut service = Spawn::new(Fallback::new(primary).or(backup).policy(policy));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    assert_pending!(answer.poll());
    // The primary itself has the only one.
    assert_eq!(held.strong_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn f3_each_busy_later_link_has_its_own_patience() {
    let ((a, mut ha), (b, _hb), (c, mut hc)) = (backend(), busy_backend(), busy_backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).or(c).patience(secs(2)));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    for _ in 0..2 {
        assert_pending!(answer.poll());
        tokio::time::advance(Duration::from_millis(2001)).await;
        assert!(answer.is_woken());
    }
    let error = assert_ready_err!(answer.poll());
    let waited = Duration::from_millis(2001);
    assert!(error.attempts()[1..].iter().all(|a| a.latency == waited));
    got_none(&mut hc);
}

// F4: the last error, and the record of all attempts.

#[tokio::test(start_paused = true)]
async fn f4_the_last_error_wins_and_every_attempt_is_kept() {
    let ((a, mut ha), (b, _hb), (c, mut hc)) = (backend(), busy_backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b).or(c));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    tokio::time::advance(secs(3)).await;
    got(&mut ha).send_error("a is down");
    assert_pending!(answer.poll());
    tokio::time::advance(secs(4)).await;
    got(&mut hc).send_error("c is down");
    let error = assert_ready_err!(answer.poll());

    let (a, b, c) = (Some("a is down"), Some("busy"), Some("c is down"));
    assert_eq!(
        told(error.attempts()),
        [(0, Failed, a), (1, Skipped, b), (2, Failed, c)]
    );
    let latencies: Vec<_> = error.attempts().iter().map(|a| a.latency).collect();
    assert_eq!(latencies, [secs(3), secs(0), secs(4)]);
    assert_eq!(error.retry_after(), None);

    // The error stands in the chain of sources, and is not repeated in the text.
    assert_eq!(error.to_string(), "the last link to be asked failed");
    let boxed = BoxError::from(error);
    assert_eq!(boxed.to_string(), "the last link to be asked failed");
    assert_eq!(boxed.source().unwrap().to_string(), "c is down");
    let failed = boxed.downcast_ref::<tower_breaker::fallback::Failed>();
    assert_eq!(failed.unwrap().attempts.len(), 3);
}

#[test]
fn f4_outcomes_have_the_names_that_logs_use() {
    let names =
        [Skipped, Failed, Answered].map(|outcome| (outcome.as_str(), format!("{outcome:>9}")));
    let expected = ["skipped", "failed", "answered"].map(|name| (name, format!("{name:>9}")));
    assert_eq!(names, expected);
}

#[tokio::test(start_paused = true)]
async fn f4_a_readiness_error_after_a_failure_is_the_last_error() {
    let (a, mut ha) = backend();
    let mut service = Spawn::new(Fallback::new(a).or(Broken::default()));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    let error = assert_ready_err!(answer.poll());
    assert_eq!(error.error().unwrap().to_string(), "broken");
    assert_eq!(told(error.attempts())[1], (1, Failed, Some("broken")));
}

#[tokio::test(start_paused = true)]
async fn f4_an_error_that_is_no_std_error_converts_too() {
    #[derive(Debug)]
    struct NoStdError;
    impl std::fmt::Display for NoStdError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("none")
        }
    }
    impl From<NoStdError> for BoxError {
        fn from(_: NoStdError) -> Self {
            Box::new(std::fmt::Error)
        }
    }
    let service = tower::service_fn(|_: Req| ready(Err::<(), _>(NoStdError)));
    let error: BoxError = Fallback::new(service)
        .oneshot(req())
        .await
        .unwrap_err()
        .into();
    assert!(error.source().unwrap().is::<std::fmt::Error>());
    // So a fallback goes wherever Tower wants a `BoxError`.
    let limited = tower::timeout::Timeout::new(Fallback::new(service), secs(1));
    limited.oneshot(req()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn f4_a_record_hook_sees_each_response_once() {
    let ((a, mut ha), (b, mut hb)) = (backend(), backend());
    let record = |attempts: &Attempts, response: &mut &'static str| {
        assert_eq!(*response, "b");
        *response = if attempts.len() == 2 {
            "b, recorded"
        } else {
            "recorded twice"
        };
    };
    let mut service = Spawn::new(Fallback::new(a).or(b).record(record));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    tokio::time::advance(secs(1)).await;
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b, recorded");
}

#[cfg(feature = "http")]
mod http {
    use super::*;
    use ::http::{Request, Response, StatusCode};
    use tower_breaker::Rejected;

    #[tokio::test(start_paused = true)]
    async fn f3_f4_http_knows_what_fails_and_tells_it_in_the_extensions() {
        let status = |status| Response::builder().status(status).body("").unwrap();
        let mut rejected = status(200);
        rejected.extensions_mut().insert(Rejected::default());
        let cases = [
            (status(200), None),
            (status(404), None),
            (status(429), Some("429 Too Many Requests")),
            (status(500), Some("500 Internal Server Error")),
            (status(503), Some("503 Service Unavailable")),
            (rejected, Some("rejected by an open circuit")),
        ];
        for (first, reason) in cases {
            let expected = if reason.is_none() {
                first.status()
            } else {
                StatusCode::CREATED
            };
            let primary =
                tower::service_fn(move |_: Request<()>| ready(Ok::<_, BoxError>(first.clone())));
            let backup = tower::service_fn(move |_| ready(Ok::<_, BoxError>(status(201))));
            let service = Fallback::new(primary).or(backup).http();
            let response = service.oneshot(Request::new(())).await.unwrap();
            assert_eq!(response.status(), expected);
            let attempts = response.extensions().get::<Attempts>().unwrap();
            match reason {
                None => assert_eq!(told(attempts), [(0, Answered, None)]),
                Some(_) => {
                    assert_eq!(told(attempts), [(0, Failed, reason), (1, Answered, None)]);
                }
            }
        }
    }
}

// F5: nobody is available.

#[tokio::test(start_paused = true)]
async fn f5_with_all_ruled_out_the_call_tells_the_shortest_wait() {
    let ((a, mut ha), (b, _hb), (c, _hc)) = (backend(), backend(), backend());
    let (nine, first) = switch(Err(Some(secs(9))));
    let (four, _second) = switch(Err(Some(secs(4))));
    let (unknown, _third) = switch(Err(None));
    let chain = Fallback::new_link(a, nine)
        .or_link(b, four)
        .or_link(c, unknown);
    let mut service = Spawn::new(chain);
    assert_ready_ok!(service.poll_ready());
    // What was found stands until the call, whatever changes: nothing was polled.
    *first.lock().unwrap() = Ok(());
    assert_ready_ok!(service.poll_ready());
    let error = assert_ready_err!(task::spawn(service.call(req())).poll());
    assert_eq!(error.retry_after(), Some(secs(4)));
    assert_eq!(error.to_string(), "no link is available, retry in 4s");
    let skipped = error.attempts().iter().all(|a| a.outcome == Skipped);
    assert!(skipped && error.attempts().len() == 3);
    let boxed = BoxError::from(error);
    let unavailable = boxed.downcast_ref::<Unavailable>().unwrap();
    assert_eq!(unavailable.retry_after, Some(secs(4)));
    got_none(&mut ha);
    // The next request looks again.
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f5_pending_while_a_busy_link_can_still_become_ready() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let (down, switch) = switch(Err(Some(secs(4))));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, down));

    // The busy link wakes it.
    assert_pending!(service.poll_ready());
    ha.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    drop(service.call(req()));
    got(&mut ha);

    // A timer wakes it for the one that is ruled out, and not before.
    ha.allow(0);
    assert_pending!(service.poll_ready());
    tokio::time::advance(Duration::from_millis(3900)).await;
    assert!(!service.is_woken());
    *switch.lock().unwrap() = Ok(());
    tokio::time::advance(Duration::from_millis(101)).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut hb);
}

#[tokio::test(start_paused = true)]
async fn f5_a_wait_of_zero_does_not_spin() {
    let ((a, _ha), (b, _hb)) = (busy_backend(), backend());
    let (down, _switch) = switch(Err(Some(Duration::ZERO)));
    let mut service = Fallback::new(a).or_link(b, down);
    let mut polls = 0;
    let poll = std::future::poll_fn(|cx| {
        polls += 1;
        service.poll_ready(cx).map(drop)
    });
    tokio::time::timeout(secs(1), poll).await.unwrap_err();
    assert!((50..=101).contains(&polls), "{polls} polls in a second");
}

#[tokio::test(start_paused = true)]
async fn f5_a_failed_link_beside_one_ruled_out_is_not_the_end() {
    let ((a, mut ha), (b, _hb)) = (backend(), backend());
    let (down, _switch) = switch(Err(Some(secs(4))));
    let mut service = Spawn::new(Fallback::new(a).or_link(b, down));
    ha.send_error("gone");
    // An error here would be final; link 1 can recover.
    assert_ready_ok!(service.poll_ready());
    let error = assert_ready_err!(task::spawn(service.call(req())).poll());
    assert_eq!(error.retry_after(), Some(secs(4)));
    assert_eq!(told(error.attempts())[0], (0, Failed, Some("gone")));
}

#[tokio::test(start_paused = true)]
async fn f5_a_link_that_waits_is_waited_for_though_its_probe_says_no() {
    let ((a, mut ha), (b, _hb)) = (busy_backend(), busy_backend());
    let (down, switch_a) = switch(Err(None));
    let (down_too, _switch) = switch(Err(None));
    let mut service = Spawn::new(Fallback::new_link(a, down).or_link(b, down_too));
    assert_pending!(service.poll_ready());
    // Without a known wait no timer wakes it, so it is the link itself.
    *switch_a.lock().unwrap() = Ok(());
    ha.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f5_a_link_that_becomes_available_while_it_is_asked_is_taken() {
    let (a, mut ha) = backend();
    let asked = Arc::new(AtomicUsize::new(0));
    let due = move || match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Err(Some(Duration::ZERO)),
        _ => Ok(()),
    };
    let mut service = Spawn::new(Fallback::new_link(a, due));
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f5_the_fail_fast_form_never_waits_without_another_link() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), busy_backend());
    let (down, switch) = switch(Err(Some(secs(4))));
    let chain = Fallback::new(a).or_link(b, down).patience(secs(2));
    let mut service = Spawn::new(chain.fail_fast());
    assert_ready_ok!(service.poll_ready());
    let error = assert_ready_err!(task::spawn(service.call(req())).poll());
    assert_eq!(error.retry_after(), Some(secs(4)));
    assert_eq!(
        told(error.attempts()),
        [
            (0, Skipped, Some("busy")),
            (1, Skipped, Some("unavailable"))
        ]
    );

    // Beside one that is available, patience is as ever.
    *switch.lock().unwrap() = Ok(());
    hb.allow(1);
    assert_pending!(service.poll_ready());
    ha.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f5_the_layer_has_the_fail_fast_form_too() {
    let ((a, _ha), (b, _hb)) = (busy_backend(), busy_backend());
    let mut service = Spawn::new(FallbackLayer::new(b).fail_fast().layer(a));
    assert_ready_ok!(service.poll_ready());
    let error = assert_ready_err!(task::spawn(service.call(req())).poll());
    assert!(matches!(error, FallbackError::Unavailable(_)));
}

// F6: degraded answers.

#[tokio::test(start_paused = true)]
async fn f6_a_degraded_answer_is_marked() {
    let (a, mut ha) = backend();
    let canned = tower::service_fn(|_: Req| ready(Ok::<_, BoxError>("canned")));
    let mut service = Spawn::new(Fallback::new(a).or_degraded(canned).record(keep));
    for (fails, degraded) in [(false, false), (true, true)] {
        assert_ready_ok!(service.poll_ready());
        let mut answer = task::spawn(service.call(req()));
        match fails {
            true => got(&mut ha).send_error("down"),
            false => got(&mut ha).send_response("a"),
        }
        assert_ready_ok!(answer.poll());
        assert_eq!(KEPT.take().degraded(), degraded);
    }
}

#[tokio::test(start_paused = true)]
async fn f6_the_mark_is_that_of_the_last_link_that_was_called() {
    let ((a, mut ha), (b, _hb)) = (backend(), busy_backend());
    let fails = |result: Result<&&'static str, &BoxError>| result.is_ok();
    let canned = tower::service_fn(|_: Req| ready(Ok::<_, BoxError>("canned")));
    let chain = Fallback::new(a).or_degraded(canned).or(b);
    let mut service = Spawn::new(chain.policy(fails).record(keep));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_response("a");
    assert_eq!(assert_ready_ok!(answer.poll()), "canned");
    let kept = KEPT.take();
    assert_eq!(kept[2].outcome, Skipped);
    assert!(kept.degraded());
}

#[tokio::test(start_paused = true)]
async fn f6_a_link_keeps_its_mark_beside_a_probe() {
    let canned = tower::service_fn(|_: Req| ready(Ok::<_, BoxError>("canned")));
    let link = Link::new(canned).degraded().probe(|| Ok(()));
    let service = Fallback::chain_links([link]).record(keep);
    service.oneshot(req()).await.unwrap();
    assert!(KEPT.take().degraded());

    let layer = FallbackLayer::from_link(Link::new(canned).degraded()).record(keep);
    let (a, mut ha) = backend();
    let answer = layer.layer(a).oneshot(req());
    let down = async { ha.next_request().await.unwrap().1.send_error("down") };
    tokio::join!(answer, down).0.unwrap();
    assert!(KEPT.take().degraded());
}

// F7: instances and reservations.

#[tokio::test(start_paused = true)]
async fn f7_ready_stays_ready_and_the_call_goes_to_that_instance() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let mut service = Spawn::new(Fallback::new(a).or(b));
    assert_ready_ok!(service.poll_ready());
    // The primary is back, but link 1 was chosen. A mock panics if another instance is called.
    ha.allow(1);
    assert_ready_ok!(service.poll_ready());
    let _answer = service.call(req());
    got(&mut hb);
    got_none(&mut ha);
    // A clone chooses for itself.
    hb.allow(0);
    let mut other = service.clone();
    assert_ready_ok!(other.poll_ready());
    let _answer = other.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f7_a_call_without_readiness_asks_the_links_itself() {
    let ((a, mut ha), (b, mut hb)) = (busy_backend(), backend());
    let mut fallback = Fallback::new(a).or(b);
    let mut answer = task::spawn(fallback.call(req()));
    assert_pending!(answer.poll());
    got_none(&mut ha);
    got(&mut hb).send_response("b");
    assert_eq!(assert_ready_ok!(answer.poll()), "b");

    hb.allow(0);
    let error = assert_ready_err!(task::spawn(fallback.call(req())).poll());
    assert!(matches!(error, FallbackError::Unavailable(_)));
    assert_eq!(error.attempts().len(), 2);
}

/// How many calls a limited link still has room for, to whoever asks now.
fn room<S: Service<Req> + Clone>(service: &S) -> bool {
    task::spawn(()).enter(|cx, _| service.clone().poll_ready(cx).is_ready())
}

#[tokio::test(start_paused = true)]
async fn f7_a_busy_link_that_is_skipped_holds_no_place_in_its_queue() {
    let (b, _hb) = backend();
    let (a, _ha) = backend();
    let limited = ConcurrencyLimit::new(a, 1);
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let mut service = Spawn::new(Fallback::new(limited.clone()).or(b));
    assert_ready_ok!(service.poll_ready());
    // The permit comes back while the service stands there, ready with its other link.
    drop(holder);
    assert!(room(&limited));
}

#[tokio::test(start_paused = true)]
async fn f7_later_links_give_back_what_they_got_while_all_were_busy() {
    let ((a, mut ha), (b, _hb)) = (busy_backend(), backend());
    let limited = ConcurrencyLimit::new(b, 1);
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let mut service = Spawn::new(Fallback::new(a).or(limited.clone()));
    assert_pending!(service.poll_ready());
    drop(holder);
    // Link 1's permit is now its own, but link 0 is ready too and comes first.
    assert!(!room(&limited));
    ha.allow(1);
    assert_ready_ok!(service.poll_ready());
    assert!(room(&limited));
    let _answer = service.call(req());
    got(&mut ha);
}

#[tokio::test(start_paused = true)]
async fn f7_no_later_link_is_reserved_while_patience_runs() {
    let ((a, _ha), (b, _hb)) = (busy_backend(), backend());
    let limited = ConcurrencyLimit::new(b, 1);
    let mut service = Spawn::new(Fallback::new(a).or(limited.clone()).patience(secs(2)));
    assert_pending!(service.poll_ready());
    assert!(room(&limited));
}

#[tokio::test(start_paused = true)]
async fn f7_a_link_that_turns_unavailable_gives_its_place_back() {
    let ((a, _ha), (b, _hb)) = (backend(), backend());
    let limited = ConcurrencyLimit::new(a, 1);
    let (up, switch) = switch(Ok(()));
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let chain = Fallback::new_link(limited.clone(), up).or(b);
    let mut service = Spawn::new(chain.patience(secs(2)));
    assert_pending!(service.poll_ready());
    *switch.lock().unwrap() = Err(None);
    assert_ready_ok!(service.poll_ready());
    drop(holder);
    assert!(room(&limited));
}

#[tokio::test(start_paused = true)]
async fn f7_a_link_that_is_ruled_out_keeps_no_reservation_that_it_gets() {
    let ((a, _ha), (b, _hb)) = (backend(), busy_backend());
    let limited = ConcurrencyLimit::new(a, 1);
    let (down, _switch) = switch(Err(None));
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let mut service = Spawn::new(Fallback::new_link(limited.clone(), down).or(b));
    assert_pending!(service.poll_ready());
    drop(holder);
    assert!(service.is_woken());
    assert_pending!(service.poll_ready());
    assert!(room(&limited));
}

#[tokio::test(start_paused = true)]
async fn f7_the_fail_fast_form_gives_back_what_busy_links_hold() {
    let (a, _ha) = backend();
    let limited = ConcurrencyLimit::new(a, 1);
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let mut service = Spawn::new(Fallback::new(limited.clone()).fail_fast());
    assert_ready_ok!(service.poll_ready());
    drop(holder);
    assert!(room(&limited));
}

#[tokio::test(start_paused = true)]
async fn f7_a_link_skipped_after_a_failure_holds_no_place_during_the_next_call() {
    let ((a, mut ha), (b, _hb), (c, mut hc)) = (backend(), backend(), backend());
    let limited = ConcurrencyLimit::new(b, 1);
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    let mut service = Spawn::new(Fallback::new(a).or(limited.clone()).or(c).or(Never));
    assert_ready_ok!(service.poll_ready());
    let mut answer = task::spawn(service.call(req()));
    got(&mut ha).send_error("down");
    assert_pending!(answer.poll());
    let _running = got(&mut hc);
    drop(holder);
    assert!(room(&limited));
}

/// A service that must not be asked.
#[derive(Clone)]
struct Never;

impl Service<Req> for Never {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Ready<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        panic!("asked for readiness")
    }

    fn call(&mut self, _: Req) -> Self::Future {
        panic!("called")
    }
}

#[test]
fn f7_links_after_the_chosen_one_are_not_asked() {
    // Outside any runtime: the healthy path sets no timer.
    let mut cx = Context::from_waker(Waker::noop());
    let here = tower::service_fn(|_: Req| ready(Ok::<_, BoxError>("here")));
    let mut service = Fallback::new(here).or(Never);
    assert_ready_ok!(service.poll_ready(&mut cx));
    let answer = pin!(service.call(req())).poll(&mut cx);
    assert_eq!(assert_ready_ok!(answer), "here");
}

//! Calls that settle at the end of their bodies (T8), in paused time.
#![cfg(all(feature = "tokio", feature = "http"))]
#![allow(
    clippy::disallowed_methods,
    reason = "how much of the paused time has passed is part of what is tested"
)]

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, task};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{
    CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerLayer, CircuitBreakerMetrics,
    CircuitState, Classified, Classify, Error, GrpcClassifier, HttpClassifier, OnCancel, Outcome,
    Record, Timeout,
    classify::{ClassifyEnd, GrpcAtEnd},
    service::{BodyConfig, Deadline, FailFast, SettleAtEnd, SettledBody},
};

#[path = "support/script.rs"]
#[allow(
    unreachable_pub,
    reason = "it is not a crate that anyone else could reach into"
)]
mod script;

use script::{
    Broken, Script,
    Step::{self, Data, Fail, Hang, Panic, Wait},
    trailers,
};

const SECOND: Duration = Duration::from_secs(1);
const RESET: Duration = Duration::from_secs(120);

fn config() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder().failure_threshold(1)
}

type AtEnd<C> = CircuitBreakerLayer<C, SettleAtEnd<FailFast>>;

/// Fails fast, and settles at the end.
fn layer(body: BodyConfig) -> AtEnd<HttpClassifier> {
    layer_of(config(), body)
}

fn layer_of(config: CircuitBreakerConfigBuilder, body: BodyConfig) -> AtEnd<HttpClassifier> {
    CircuitBreakerLayer::new(config.build().unwrap())
        .fail_fast()
        .classify(HttpClassifier)
        .body(body)
}

fn grpc() -> AtEnd<GrpcClassifier> {
    CircuitBreakerLayer::new(config().build().unwrap())
        .fail_fast()
        .classify(GrpcClassifier)
        .body(BodyConfig::new())
}

fn ok(body: Script) -> Response<Script> {
    Response::new(body)
}

/// A call that is answered at once.
async fn call<C>(
    layer: &AtEnd<C>,
    response: Response<Script>,
) -> Response<SettledBody<Script, C::AtEnd>>
where
    C: Classify<Response<Script>, Infallible> + Clone,
    C::AtEnd: ClassifyEnd<Broken>,
{
    let mut response = Some(response);
    let answer = tower::service_fn(move |()| {
        let response = response.take();
        async move { Ok::<_, Infallible>(response.expect("one call")) }
    });
    let mut service = layer.layer(answer);
    service.ready().await.unwrap().call(()).await.unwrap()
}

/// The body of such a call.
async fn body(layer: &AtEnd<HttpClassifier>, body: Script) -> SettledBody<Script> {
    call(layer, ok(body)).await.into_body()
}

/// Settled calls: successful, failed, ignored, cancelled.
fn seen(layer: &CircuitBreakerLayer<impl Sized, impl Sized>) -> [u64; 4] {
    let CircuitBreakerMetrics {
        successful_requests,
        failed_requests,
        ignored_requests,
        cancelled_requests,
        ..
    } = layer.circuit().metrics();
    let successful = successful_requests.unwrap();
    [
        successful,
        failed_requests,
        ignored_requests,
        cancelled_requests,
    ]
}

const NONE: [u64; 4] = [0; 4];
const SUCCESS: [u64; 4] = [1, 0, 0, 0];
const FAILURE: [u64; 4] = [0, 1, 0, 0];
const CANCELLED: [u64; 4] = [0, 0, 1, 1];

// ===== when it is settled, and as what =====

#[tokio::test(start_paused = true)]
async fn t8_a_call_is_settled_when_its_body_has_ended() {
    let layer = layer(BodyConfig::new());
    let script = Script::unknowing([Data("a"), Data("b")]);
    let mut body = Box::pin(body(&layer, script).await);
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
        assert_eq!(seen(&layer), NONE);
    }
    assert_eq!(layer.circuit().metrics().in_flight, Some(1));
    assert!(body.frame().await.is_none());
    assert_eq!(seen(&layer), SUCCESS);
    assert_eq!(layer.circuit().metrics().in_flight, Some(0));
    drop(body);
    assert_eq!(seen(&layer), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_without_the_option_the_head_decides() {
    let layer = CircuitBreakerLayer::new(config().build().unwrap()).fail_fast();
    let answer = tower::service_fn(|()| async { Ok::<_, Infallible>(ok(Script::new([Fail]))) });
    let response = layer.layer(answer).oneshot(()).await.unwrap();
    assert_eq!(seen(&layer), SUCCESS);
    let _its_own: Script = response.into_body();
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_error_is_a_failure_and_passes_through() {
    let layer = layer(BodyConfig::new());
    let script = Script::new([Data("a"), Fail, Data("as if nothing had happened")]);
    let mut body = Box::pin(body(&layer, script).await);
    body.frame().await.unwrap().unwrap();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error, Error::Inner(Broken));
    assert!(BoxError::from(error).is::<Broken>());
    assert_eq!(layer.circuit().state(), CircuitState::Open);
    assert!(body.frame().await.is_none(), "it is over");
    drop(body);
    assert_eq!(seen(&layer), FAILURE);
}

#[tokio::test(start_paused = true)]
async fn t8_a_failure_by_its_head_is_settled_there() {
    let layer = layer(BodyConfig::new());
    let mut response = ok(Script::new([Data("sorry"), Hang]));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let mut body = Box::pin(call(&layer, response).await.into_body());
    assert_eq!(seen(&layer), FAILURE);
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(seen(&layer), FAILURE);
}

#[tokio::test(start_paused = true)]
async fn t8_an_empty_body_settles_at_once() {
    let layer = layer(BodyConfig::new());
    let body = body(&layer, Script::new([])).await;
    assert_eq!(seen(&layer), SUCCESS);
    drop(body);
    assert_eq!(seen(&layer), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_nobody_asks_for_anything_is_a_success() {
    // As servers treat what answers `HEAD`, and clients whom the status is enough.
    let layer = layer(BodyConfig::new());
    drop(body(&layer, Script::unknowing([Data("unread")])).await);
    assert_eq!(seen(&layer), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_was_read_to_its_last_byte_has_ended() {
    let knowing = layer(BodyConfig::new());
    let mut body = Box::pin(body(&knowing, Script::new([Data("all")])).await);
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&knowing), SUCCESS);

    let by_length = layer(BodyConfig::new());
    let mut response = ok(Script::unknowing([Data("al"), Data("l")]));
    response.headers_mut().insert("content-length", 3.into());
    let mut body = Box::pin(call(&by_length, response).await.into_body());
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&by_length), NONE);
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&by_length), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_is_dropped_half_way_is_a_cancellation() {
    let layer = layer(BodyConfig::new());
    let mut body = Box::pin(body(&layer, Script::new([Data("half"), Data("way")])).await);
    body.frame().await.unwrap().unwrap();
    advance(60 * SECOND).await;
    drop(body);
    assert_eq!(seen(&layer), CANCELLED);
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_is_dropped_half_way_follows_on_cancel() {
    for (ran, expected) in [(9, CANCELLED), (10, [0, 1, 0, 1])] {
        let config = config().on_cancel(OnCancel::FailAfter(10 * SECOND));
        let layer = layer_of(config, BodyConfig::new());
        let mut body = Box::pin(body(&layer, Script::new([Data("half"), Hang])).await);
        body.frame().await.unwrap().unwrap();
        assert_pending!(task::spawn(body.frame()).poll());
        advance(ran * SECOND).await;
        drop(body);
        assert_eq!(seen(&layer), expected, "after {ran} s");
    }
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_panics_is_a_failure_and_goes_on_unwinding() {
    let layer = layer(BodyConfig::new());
    let body = body(&layer, Script::new([Panic])).await;
    let panicked = tokio::spawn(body.collect()).await.unwrap_err();
    assert!(panicked.is_panic());
    assert_eq!(seen(&layer), FAILURE);
}

#[tokio::test(start_paused = true)]
async fn b7_a_panic_over_the_end_of_a_body_is_a_failure_too() {
    #[derive(Clone)]
    struct Panics;
    impl Classify<Response<Script>, Infallible> for Panics {
        type AtEnd = Self;
        fn classify(&self, _: Result<&Response<Script>, &Infallible>) -> Classified<Self> {
            Classified::AtEnd(Self)
        }
    }
    impl ClassifyEnd<Broken> for Panics {
        fn classify_end(self, _: Result<Option<&HeaderMap>, &Broken>) -> Outcome {
            panic!("expected: the end is not what the classifier thought")
        }
    }
    let layer = layer(BodyConfig::new()).classify(Panics);
    let answer = call(&layer, ok(Script::unknowing([Data("a")]))).await;
    let panicked = tokio::spawn(answer.into_body().collect());
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(seen(&layer), FAILURE);
}

#[tokio::test(start_paused = true)]
async fn b4_a_body_that_ends_in_another_generation_moves_nothing() {
    let layer = layer(BodyConfig::new());
    let late = body(&layer, Script::new([Wait(SECOND), Fail])).await;
    layer.circuit().reset();
    late.collect().await.unwrap_err();
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
    assert_eq!(seen(&layer), FAILURE);
}

// ===== what passes through =====

#[tokio::test(start_paused = true)]
async fn t8_frames_trailers_sizes_and_ends_are_intact() {
    let layer = layer(BodyConfig::new());
    let script = || Script::new([Data("hello, "), Data("world"), trailers("sum", "12")]);
    let mut ours = pin!(body(&layer, script()).await);
    let mut inner = pin!(script());
    loop {
        let sizes = |hint: http_body::SizeHint| (hint.lower(), hint.upper());
        assert_eq!(sizes(ours.size_hint()), sizes(inner.size_hint()));
        assert_eq!(ours.is_end_stream(), inner.is_end_stream());
        let (frame, expected) = (ours.frame().await, inner.frame().await);
        let (Some(frame), Some(expected)) = (frame, expected) else {
            break;
        };
        let (frame, expected) = (frame.unwrap(), expected.unwrap());
        assert_eq!(frame.data_ref(), expected.data_ref());
        assert_eq!(frame.trailers_ref(), expected.trailers_ref());
    }
    assert!(ours.frame().await.is_none() && ours.is_end_stream());
    let whole = body(&layer, script()).await.collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["sum"], "12");
    assert_eq!(whole.to_bytes(), "hello, world");
}

#[tokio::test(start_paused = true)]
async fn t8_answers_of_the_circuits_own_are_empty() {
    let layer = CircuitBreakerLayer::new(config().build().unwrap())
        .http()
        .body(BodyConfig::new());
    layer.circuit().force_open();
    // `Script` can't be made from nothing, as a client's bodies can't.
    let answer = tower::service_fn(|()| async { Ok::<_, Infallible>(ok(Script::new([]))) });
    let response = layer.layer(answer).oneshot(()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.into_body();
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}

#[tokio::test(start_paused = true)]
async fn t8_the_waiting_mode_waits_all_the_same() {
    let layer = CircuitBreakerLayer::new(config().build().unwrap()).body(BodyConfig::new());
    let answer = tower::service_fn(|()| async { Ok::<_, Infallible>(ok(Script::new([Fail]))) });
    let mut service = layer.layer(answer);
    let response = service.ready().await.unwrap().call(()).await.unwrap();
    response.into_body().collect().await.unwrap_err();
    assert_pending!(task::spawn(service.ready()).poll());
}

// ===== deadlines =====

/// How a body ended, and after how long.
async fn ends(body: SettledBody<Script>) -> (Result<(), Timeout>, Duration) {
    let begun = Instant::now();
    let end = match body.collect().await {
        Ok(_) => Ok(()),
        Err(Error::Timeout(timeout)) => Err(timeout),
        Err(other) => panic!("{other}"),
    };
    (end, begun.elapsed())
}

#[track_caller]
fn assert_late(
    (end, took): (Result<(), Timeout>, Duration),
    deadline: Deadline,
    after: Duration,
    at: Duration,
) {
    let timeout = end.unwrap_err();
    assert_eq!(
        (timeout.deadline, timeout.after, took),
        (deadline, after, at)
    );
}

#[tokio::test(start_paused = true)]
async fn t8_the_timeout_ends_at_the_head() {
    let layer = layer(BodyConfig::new());
    let body = body(
        &layer,
        Script::new([Data("a"), Wait(1000 * SECOND), Data("b")]),
    )
    .await;
    assert_eq!(ends(body).await, (Ok(()), 1000 * SECOND));
    assert_eq!(seen(&layer), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_first_byte_and_idle_deadlines_are_apart() {
    let (first, idle) = (5 * SECOND, 2 * SECOND);
    let deadlines = || {
        BodyConfig::new()
            .first_byte_timeout(first)
            .idle_timeout(idle)
    };
    let layer = || layer(deadlines());

    let pauses = [Wait(4 * SECOND), Data("a"), Wait(SECOND), Data("b")];
    let well = body(&layer(), Script::new(pauses)).await;
    assert_eq!(ends(well).await, (Ok(()), 5 * SECOND));

    let never = layer();
    let late = ends(body(&never, Script::new([Hang])).await).await;
    assert_late(late, Deadline::FirstByte, first, first);
    let metrics = never.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.timed_out_requests),
        (1, 1)
    );
    assert_eq!(metrics.current_state, CircuitState::Open);

    let stalls = body(&layer(), Script::new([Wait(SECOND), Data("a"), Hang])).await;
    let late = ends(stalls).await;
    assert_late(late, Deadline::Idle, idle, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn t8_the_idle_deadline_begins_anew_with_each_frame() {
    let layer = layer(BodyConfig::new().idle_timeout(2 * SECOND));
    let trickle = (0..20).flat_map(|_| [Wait(2 * SECOND - Duration::from_millis(2)), Data("a")]);
    let body = body(&layer, Script::new(trickle)).await;
    assert_eq!(ends(body).await.0, Ok(()));
    let hang = self::body(&layer, Script::new([Hang])).await;
    let late = ends(hang).await;
    assert_late(late, Deadline::Idle, 2 * SECOND, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn t8_a_reader_who_takes_his_time_is_no_silence() {
    let layer = layer(BodyConfig::new().idle_timeout(SECOND));
    let mut body = Box::pin(
        body(
            &layer,
            Script::unknowing([Data("a"), Wait(SECOND / 2), Data("b")]),
        )
        .await,
    );
    body.frame().await.unwrap().unwrap();
    sleep(60 * SECOND).await;
    body.frame().await.unwrap().unwrap();
    sleep(60 * SECOND).await;
    assert!(body.frame().await.is_none());
    assert_eq!(seen(&layer), SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn t8_the_total_timeout_counts_from_the_call() {
    let total = 10 * SECOND;
    for record in [Record::All, Record::Rules] {
        let config = config().record(record);
        let layer = layer_of(config, BodyConfig::new().total_timeout(total));
        let slow_head = |after| {
            tower::service_fn(move |()| async move {
                sleep(after).await;
                let endless = [Data("a"), Wait(4 * SECOND)].into_iter();
                Ok::<_, Infallible>(ok(Script::new(endless.chain([Data("b"), Hang]))))
            })
        };
        let mut service = layer.layer(slow_head(3 * SECOND));
        let response = service.ready().await.unwrap().call(()).await.unwrap();
        let late = ends(response.into_body()).await;
        assert_late(late, Deadline::Total, total, 7 * SECOND);
        assert_eq!(layer.circuit().metrics().timed_out_requests, 1);

        layer.circuit().reset();
        let mut service = layer.layer(slow_head(30 * SECOND));
        let error = service.ready().await.unwrap().call(()).await.unwrap_err();
        match error {
            Error::Timeout(timeout) => assert_eq!(timeout.deadline, Deadline::Total),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t8_of_two_deadlines_the_first_counts() {
    let deadlines = |total| {
        BodyConfig::new()
            .idle_timeout(2 * SECOND)
            .total_timeout(total)
    };
    let endless = || (0..100).flat_map(|_| [Wait(3 * SECOND / 2), Data("a")]);
    let five = 5 * SECOND;
    let late = ends(body(&layer(deadlines(five)), Script::new(endless())).await).await;
    assert_late(late, Deadline::Total, five, five);
    let late = ends(body(&layer(deadlines(five)), Script::new([Hang])).await).await;
    assert_late(late, Deadline::Idle, 2 * SECOND, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn t8_a_body_that_was_late_is_over() {
    let layer = layer(BodyConfig::new().idle_timeout(SECOND));
    let script = Script::new([Wait(2 * SECOND), Data("too late")]);
    let mut body = Box::pin(body(&layer, script).await);
    body.frame().await.unwrap().unwrap_err();
    sleep(10 * SECOND).await;
    assert!(body.is_end_stream() && body.frame().await.is_none());
    assert_eq!(seen(&layer), FAILURE);
}

#[tokio::test(start_paused = true)]
async fn t8_data_that_is_there_beats_a_deadline() {
    let layer = layer(
        BodyConfig::new()
            .idle_timeout(SECOND)
            .total_timeout(2 * SECOND),
    );
    let mut body = Box::pin(
        body(
            &layer,
            Script::new([Wait(SECOND / 2), Data("late, but here")]),
        )
        .await,
    );
    assert_pending!(task::spawn(body.frame()).poll());
    advance(60 * SECOND).await;
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&layer), SUCCESS);
}

// ===== how long a call took =====

fn slow_after_a_second() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder()
        .slow_call_duration(SECOND)
        .slow_call_percentage(100)
        .volume_threshold(1)
}

#[tokio::test(start_paused = true)]
async fn t8_slow_is_a_matter_of_the_head() {
    let layer = layer_of(slow_after_a_second(), BodyConfig::new());
    let long = body(&layer, Script::new([Wait(60 * SECOND), Data("a")])).await;
    let mut collected = task::spawn(long.collect());
    assert_pending!(collected.poll());
    advance(30 * SECOND).await;
    // Neither while it runs (B13) nor when it has ended.
    drop(layer.circuit().try_acquire().unwrap());
    assert_eq!(layer.circuit().metrics().slow_rate, Some(0.0));
    collected.await.unwrap();
    let metrics = layer.circuit().metrics();
    assert_eq!(metrics.slow_requests, Some(0));
    assert_eq!(metrics.current_state, CircuitState::Closed);
    assert_eq!(seen(&layer), [1, 0, 1, 1]);
    #[cfg(feature = "latency")]
    assert!(metrics.latency.unwrap().max < SECOND);
}

#[tokio::test(start_paused = true)]
async fn t8_slow_is_a_matter_of_the_head_of_what_was_dropped_too() {
    let config = slow_after_a_second().on_cancel(OnCancel::FailAfter(10 * SECOND));
    let layer = layer_of(config, BodyConfig::new());
    let mut body = Box::pin(body(&layer, Script::new([Hang])).await);
    assert_pending!(task::spawn(body.frame()).poll());
    advance(60 * SECOND).await;
    drop(body);
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.slow_requests),
        (1, Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn t8_slow_is_a_matter_of_the_whole_where_that_is_asked_for() {
    let whole = BodyConfig::new().slow_call_includes_body(true);
    let layer = layer_of(slow_after_a_second(), whole);
    let long = body(&layer, Script::new([Wait(60 * SECOND), Data("a")])).await;
    long.collect().await.unwrap();
    let metrics = layer.circuit().metrics();
    assert_eq!(metrics.slow_requests, Some(1));
    assert_eq!(metrics.current_state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn b13_a_call_with_a_slow_head_counts_as_slow_while_its_body_runs_and_once() {
    let config = slow_after_a_second().volume_threshold(2);
    let layer = layer_of(config, BodyConfig::new());
    let slow_head = tower::service_fn(|()| async {
        sleep(2 * SECOND).await;
        Ok::<_, Infallible>(ok(Script::new([Wait(60 * SECOND), Data("a")])))
    });
    let response = layer.layer(slow_head).oneshot(()).await.unwrap();
    let mut collected = task::spawn(response.into_body().collect());
    assert_pending!(collected.poll());
    advance(SECOND).await;
    assert_eq!(layer.circuit().metrics().slow_rate, Some(1.0));
    collected.await.unwrap();
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.slow_rate, metrics.slow_requests),
        (Some(1.0), Some(1))
    );
    assert_eq!(
        metrics.current_state,
        CircuitState::Closed,
        "one call is too few"
    );
}

#[tokio::test(start_paused = true)]
async fn b6_calls_are_counted_once_whatever_is_recorded_of_them() {
    let watched = || slow_after_a_second().volume_threshold(4);
    let configs = [
        watched(),
        watched().window(10),
        watched().record(Record::Rules),
        watched().record(Record::Rules).window(10),
        watched().record(Record::Rules).slow_call_percentage(None),
    ];
    for config in configs {
        let config = config
            .failure_threshold(None)
            .error_threshold_percentage(75);
        let layer = layer_of(config, BodyConfig::new());
        for (script, expected) in [
            (Script::new([Wait(SECOND), Data("a")]), 0.0),
            (Script::new([Wait(SECOND), Fail]), 0.5),
            (Script::new([Wait(SECOND), Fail]), 2.0 / 3.0),
        ] {
            let _ = body(&layer, script).await.collect().await;
            let rate = layer.circuit().metrics().error_rate.unwrap();
            assert!((rate - expected).abs() < 1e-9, "{rate}");
        }
        let metrics = layer.circuit().metrics();
        assert_eq!(metrics.failed_requests, 2);
        assert!(metrics.in_flight.is_none_or(|calls| calls == 0));
        assert!(metrics.slow_rate.is_none_or(|rate| rate == 0.0));
        let _ = body(&layer, Script::new([Fail])).await.collect().await;
        assert_eq!(layer.circuit().state(), CircuitState::Open);
    }
}

// ===== half-open =====

/// A layer whose circuit is due for a probe.
async fn due(probes: u32, deadlines: BodyConfig) -> AtEnd<HttpClassifier> {
    let layer = layer_of(config().half_open_requests(probes), deadlines);
    layer.circuit().try_acquire().unwrap().failure();
    advance(RESET).await;
    layer
}

/// The state, once a call has brought about what is due.
fn state(layer: &AtEnd<HttpClassifier>) -> CircuitState {
    assert!(layer.circuit().try_acquire().is_err());
    layer.circuit().state()
}

/// Longer than `half_open_timeout`, which is 60 s.
const LONG: Duration = Duration::from_secs(70);

#[tokio::test(start_paused = true)]
async fn t8_a_probe_that_streams_keeps_its_turn() {
    let trickle = || (0..10).flat_map(|_| [Data("a"), Wait(15 * SECOND)]);
    let first_late = || [Wait(90 * SECOND), Data("a")].into_iter();
    let (idle, first) = (20 * SECOND, 100 * SECOND);
    let cases: [(BodyConfig, Vec<Step>, CircuitState); 4] = [
        (BodyConfig::new(), trickle().collect(), CircuitState::Open),
        (
            BodyConfig::new().idle_timeout(idle),
            trickle().collect(),
            CircuitState::HalfOpen,
        ),
        (
            BodyConfig::new(),
            first_late().collect(),
            CircuitState::Open,
        ),
        (
            BodyConfig::new()
                .idle_timeout(idle)
                .first_byte_timeout(first),
            first_late().collect(),
            CircuitState::HalfOpen,
        ),
    ];
    for (deadlines, steps, expected) in cases {
        let layer = due(1, deadlines).await;
        let steps = steps.into_iter().chain([Data("z")]);
        let probe = tokio::spawn(body(&layer, Script::new(steps)).await.collect());
        sleep(LONG).await;
        assert_eq!(state(&layer), expected);
        probe.await.unwrap().unwrap();
        let recovered = expected == CircuitState::HalfOpen;
        assert_eq!(layer.circuit().state() == CircuitState::Closed, recovered);
    }
}

#[tokio::test(start_paused = true)]
async fn t8_a_probe_whose_reader_takes_his_time_keeps_its_turn() {
    let layer = due(1, BodyConfig::new().idle_timeout(20 * SECOND)).await;
    let ready = (0..10).map(|_| Data("a"));
    let mut body = Box::pin(body(&layer, Script::new(ready)).await);
    for _ in 0..9 {
        body.frame().await.unwrap().unwrap();
        sleep(15 * SECOND).await;
    }
    assert_eq!(state(&layer), CircuitState::HalfOpen);
    body.frame().await.unwrap().unwrap();
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t3_who_waits_for_a_turn_that_is_kept_is_woken_when_it_is_over() {
    let layer = due(1, BodyConfig::new().idle_timeout(20 * SECOND)).await;
    let trickle = (0..10).flat_map(|_| [Wait(15 * SECOND), Data("a")]);
    let probe = body(&layer, Script::new(trickle)).await;
    let waiting = CircuitBreakerLayer::from_circuit(layer.circuit().clone());
    let mut waiting = waiting.layer(tower::service_fn(|()| ready(Ok::<_, Infallible>(()))));
    let begun = Instant::now();
    let (ended, ready) = tokio::join!(probe.collect(), waiting.ready());
    ended.unwrap();
    ready.unwrap();
    assert_eq!(begun.elapsed(), 150 * SECOND);
    assert_eq!(layer.circuit().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn t8_a_closure_judges_heads_and_errors_of_the_body_are_failures() {
    let layer = CircuitBreakerLayer::new(config().build().unwrap())
        .fail_fast()
        .classify(
            |result: Result<&Response<Script>, &Infallible>| match result {
                Ok(response) if response.status() == 404 => tower_breaker::Outcome::Ignored,
                _ => tower_breaker::Outcome::Success,
            },
        )
        .body(BodyConfig::new());
    let mut missing = ok(Script::new([Fail]));
    *missing.status_mut() = StatusCode::NOT_FOUND;
    let missing = call(&layer, missing).await;
    assert_eq!(seen(&layer), [0, 0, 1, 0]);
    missing.into_body().collect().await.unwrap_err();
    assert_eq!(seen(&layer), [0, 0, 1, 0]);
    let breaks = call(&layer, ok(Script::new([Fail]))).await;
    breaks.into_body().collect().await.unwrap_err();
    assert_eq!(seen(&layer), [0, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn t8_a_turn_that_has_ended_is_not_revived() {
    let layer = due(1, BodyConfig::new().idle_timeout(20 * SECOND)).await;
    let mut body = Box::pin(body(&layer, Script::new([Data("a"), Data("b"), Data("c")])).await);
    body.frame().await.unwrap().unwrap();
    advance(60 * SECOND).await; // B14: over at that very moment
    body.frame().await.unwrap().unwrap();
    assert_eq!(state(&layer), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn t8_a_probe_keeps_no_turn_but_its_own() {
    let layer = due(2, BodyConfig::new().idle_timeout(20 * SECOND)).await;
    let trickle = (0..30).flat_map(|_| [Data("a"), Wait(15 * SECOND)]);
    let late = tokio::spawn(body(&layer, Script::new(trickle)).await.collect());
    layer.circuit().try_acquire().unwrap().failure(); // the other probe, which ends the turn
    sleep(RESET).await;
    let _hang = [(); 2].map(|()| layer.circuit().try_acquire().unwrap());
    assert_eq!(state(&layer), CircuitState::HalfOpen);
    sleep(LONG).await;
    assert_eq!(state(&layer), CircuitState::Open);
    assert!(!late.is_finished());
    late.abort();
}

#[tokio::test(start_paused = true)]
async fn t8_a_probe_is_slow_by_its_head() {
    for (head, expected) in [(0, CircuitState::Closed), (2, CircuitState::Open)] {
        let config = config().half_open_requests(1).slow_call_duration(SECOND);
        let layer = layer_of(config, BodyConfig::new());
        layer.circuit().try_acquire().unwrap().failure();
        advance(RESET).await;
        let answer = tower::service_fn(move |()| async move {
            sleep(head * SECOND).await;
            Ok::<_, Infallible>(ok(Script::new([Wait(10 * SECOND), Data("a")])))
        });
        let response = layer.layer(answer).oneshot(()).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(layer.circuit().state(), expected, "head after {head} s");
    }
}

#[tokio::test(start_paused = true)]
async fn t8_a_probe_that_stalls_ends_its_turn() {
    let config = config().half_open_requests(1);
    let layer = layer_of(config, BodyConfig::new().idle_timeout(20 * SECOND));
    layer.circuit().try_acquire().unwrap().failure();
    advance(RESET).await;
    let stalls = body(&layer, Script::new([Wait(19 * SECOND), Data("a"), Hang])).await;
    stalls.collect().await.unwrap_err();
    assert_eq!(layer.circuit().state(), CircuitState::Open);
}

// ===== gRPC =====

#[tokio::test(start_paused = true)]
async fn t8_trailers_decide_grpc() {
    for (end, expected) in [
        (trailers("grpc-status", "0"), SUCCESS),
        (trailers("grpc-status", "5"), SUCCESS),
        (trailers("grpc-status", "1"), [0, 0, 1, 0]),
        (trailers("grpc-status", "14"), FAILURE),
        (trailers("checksum", "12"), FAILURE),
        (Fail, FAILURE),
    ] {
        let layer = grpc();
        let response = call(&layer, ok(Script::unknowing([Data("a"), end]))).await;
        assert_eq!(seen(&layer), NONE);
        let _ = response.into_body().collect().await;
        assert_eq!(seen(&layer), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn t8_a_grpc_stream_that_ends_without_a_status_is_a_failure() {
    for script in [
        Script::new([Data("a")]),
        Script::unknowing([Data("a")]),
        Script::new([]),
    ] {
        let layer = grpc();
        let response = call(&layer, ok(script)).await;
        response.into_body().collect().await.unwrap();
        assert_eq!(seen(&layer), FAILURE);
    }
    let layer = grpc();
    let _unread = call(&layer, ok(Script::new([]))).await;
    assert_eq!(seen(&layer), FAILURE, "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn t8_a_grpc_response_that_nobody_asks_for_its_status_is_a_cancellation() {
    let layer = grpc();
    drop(
        call(
            &layer,
            ok(Script::unknowing([Data("a"), trailers("grpc-status", "0")])),
        )
        .await,
    );
    assert_eq!(seen(&layer), CANCELLED);
}

#[tokio::test(start_paused = true)]
async fn t7_grpc_pushback_in_trailers_is_heeded() {
    let layer = grpc();
    let mut asks = HeaderMap::new();
    asks.insert("grpc-status", 8.into());
    asks.insert("grpc-retry-pushback-ms", 300_000.into());
    let response = call(&layer, ok(Script::unknowing([Step::Trailers(asks)]))).await;
    response.into_body().collect().await.unwrap();
    let retry_after = layer.circuit().metrics().retry_after;
    assert_eq!(retry_after, Some(Duration::from_secs(300)));
}

// ===== what it costs, and what it asks for =====

#[test]
fn t8_bodies_are_as_free_as_what_they_wrap() {
    fn free<T: Send + Sync + 'static>() {}
    free::<SettledBody<Script>>();
    free::<SettledBody<Script, GrpcAtEnd>>();
    free::<SettleAtEnd<FailFast>>();
}

#[test]
fn p_bytes_of_a_future_with_the_option() {
    type Inner = std::future::Ready<Result<Response<Script>, Infallible>>;
    type Future<M> = tower_breaker::service::ResponseFuture<Inner, HttpClassifier, M>;
    let timer = size_of::<Option<tokio::time::Sleep>>();
    let added = |future| future - size_of::<Inner>() - timer;
    let without = added(size_of::<Future<FailFast>>());
    let with = added(size_of::<Future<SettleAtEnd<FailFast>>>());
    println!("added to a future: {without} B, {with} B with the option, a deadline's timer apart");
    assert_eq!(with, without + size_of::<usize>());
    assert!(with <= 32);
}

/// Pending once, then one frame.
enum Slow {
    Pending,
    Ready,
    Over,
}

impl Body for Slow {
    type Data = axum::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Infallible>>> {
        match *self {
            Slow::Pending => {
                *self = Slow::Ready;
                Poll::Pending
            }
            Slow::Ready => {
                *self = Slow::Over;
                let data = axum::body::Bytes::from_static(b"slow");
                Poll::Ready(Some(Ok(http_body::Frame::data(data))))
            }
            Slow::Over => Poll::Ready(None),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn p_the_option_allocates_nothing_with_all_its_deadlines() {
    let deadlines = BodyConfig::new()
        .first_byte_timeout(SECOND)
        .idle_timeout(SECOND)
        .total_timeout(SECOND);
    let layer = layer(deadlines);
    let slow = tower::service_fn(|()| ready(Ok::<_, Infallible>(Response::new(Slow::Pending))));
    let mut service = layer.layer(slow);
    let mut call = || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut response = pin!(service.call(()));
        let Poll::Ready(Ok(response)) = response.as_mut().poll(&mut cx) else {
            panic!("it answers at once");
        };
        let mut body = pin!(response.into_body());
        let mut frames = 0;
        while !matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(None)) {
            frames += 1;
        }
        assert_eq!(frames, 2);
    };
    call();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..1000 {
            call();
        }
    });
    assert_eq!(allocated.count_total, 0);
    assert_eq!(seen(&layer), [1001, 0, 0, 0]);
}

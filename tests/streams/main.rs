//! M5: streamed answers, on paused time and over scripted bodies; and over real HTTP where it is about
//! connections.

mod codecs;
mod model;
mod remote;
mod wire;

use std::{collections::VecDeque, future::poll_fn, time::Duration};

use futures_util::StreamExt;
use tower::{ServiceBuilder, service_fn};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerMetrics, CircuitState,
    fallback::AttemptOutcome::{Answered, Failed, Skipped},
    models::{
        Completion, Deadlines, Degraded, FinishReason, MidStream, Model, ModelError,
        ModelErrorKind, ModelManager, ModelManagerBuilder, ModelRequest, ModelStream,
        ProviderRequest, StreamEvent,
    },
};

use self::remote::{
    Lines, Remote,
    Step::{self, Cut, Hang, NoHead, Say, Status, Wait},
};

const WELL: &str = "start id upstream\ntext Hello,_\ntext world\nusage 3 5\nfinish";
const SECOND: Duration = Duration::from_secs(1);

fn defaults() -> CircuitBreakerConfig {
    ModelManager::circuit_breaker_defaults().build().unwrap()
}

/// This model `a` and a model `b`, of the providers `first` and `second`.
fn builder(first: &Remote, second: &Remote, a: Model) -> ModelManagerBuilder {
    ModelManager::builder()
        .provider("first", Lines::default(), first.http(), defaults())
        .provider("second", Lines::default(), second.http(), defaults())
        .model("a", a)
        .model("b", Model::new("second", "B"))
}

fn a() -> Model {
    Model::new("first", "A").or("b")
}

fn pair(first: &Remote, second: &Remote) -> ModelManager {
    builder(first, second, a()).build().unwrap()
}

fn ask() -> ModelRequest {
    ModelRequest::prompt("hello").preferred_model("a")
}

#[allow(clippy::disallowed_methods, reason = "paused time is tokio's")]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn metrics(manager: &ModelManager, provider: &str) -> CircuitBreakerMetrics {
    manager.health_check()[provider]
        .circuit_breaker
        .metrics
        .clone()
}

/// What a stream came to: its events, the error at its end if there was one, and the stream.
struct Outcome {
    events: Vec<StreamEvent>,
    error: Option<ModelError>,
    stream: ModelStream,
}

impl Outcome {
    fn text(&self) -> String {
        let texts = self.events.iter().map(|event| match event {
            StreamEvent::Text(text) => text,
            _ => "",
        });
        texts.collect()
    }

    fn count(&self, kind: impl Fn(&StreamEvent) -> bool) -> usize {
        self.events.iter().filter(|event| kind(event)).count()
    }

    /// Whether it is one whole answer: one start, and one finish at the very end.
    fn is_whole(&self) -> bool {
        let is_finish = |event: &StreamEvent| matches!(event, StreamEvent::Finish(_));
        self.error.is_none()
            && self.count(is_finish) == 1
            && self.count(|event| matches!(event, StreamEvent::Start { .. })) == 1
            && self.events.last().is_some_and(is_finish)
    }
}

async fn read(mut stream: ModelStream) -> Outcome {
    let (mut events, mut error) = (Vec::new(), None);
    while let Some(next) = stream.next().await {
        assert!(error.is_none(), "an error comes last");
        match next {
            Ok(event) => events.push(event),
            Err(last) => error = Some(last),
        }
    }
    assert!(stream.next().await.is_none(), "it has ended for good");
    Outcome {
        events,
        error,
        stream,
    }
}

async fn stream(manager: &ModelManager) -> Outcome {
    read(manager.stream(ask()).await.unwrap()).await
}

/// The second answers in place of the first, which has failed once, unseen and timed out so often.
async fn falls_back_unseen(script: impl Into<Vec<Step>>, reason: &str, timed_out: u64) {
    let (first, second) = (Remote::default().then(script), Remote::says(WELL));
    let manager = pair(&first, &second);
    let got = stream(&manager).await;
    assert!(got.is_whole(), "{:?}", got.events);
    assert_eq!(got.text(), "Hello, world");
    assert_eq!((got.stream.model(), got.stream.provider()), ("b", "second"));
    let attempts = got.stream.attempts();
    let outcomes: Vec<_> = attempts.iter().map(|a| (&*a.model, a.outcome)).collect();
    assert_eq!(outcomes, [("a", Failed), ("b", Answered)]);
    let said = attempts[0].reason.as_deref().unwrap();
    assert!(said.contains(reason), "{said}");
    let seen = metrics(&manager, "first");
    assert_eq!(
        (seen.failed_requests, seen.timed_out_requests),
        (1, timed_out)
    );
    assert_eq!(seen.in_flight, Some(0));
    assert!(got.stream.metadata().joins.is_empty());
}

/// The first breaks off after some text, and the stream with it.
async fn breaks_off(script: impl Into<Vec<Step>>, kind: ModelErrorKind, reason: &str) -> Outcome {
    let (first, second) = (Remote::default().then(script), Remote::says(WELL));
    let manager = pair(&first, &second);
    let got = stream(&manager).await;
    assert_eq!(got.text(), "Hello,");
    assert_eq!(got.stream.finish_reason(), None);
    assert_eq!(
        got.count(|event| matches!(event, StreamEvent::Finish(_))),
        0
    );
    let error = got
        .error
        .as_ref()
        .expect("it is not passed off as complete");
    assert_eq!(error.kind(), kind);
    assert!(error.to_string().contains(reason), "{error}");
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(error.attempts()[0].outcome, Failed);
    assert_eq!(metrics(&manager, "first").failed_requests, 1);
    assert_eq!(second.calls(), [""; 0]);
    got
}

#[tokio::test(start_paused = true)]
async fn m5_an_answer_comes_in_pieces_and_is_a_success_at_its_finish_only() {
    let first = Remote::default().then([
        Say("start id upstream\n"),
        Wait(SECOND),
        Say("text Hello,_\n"),
        Wait(SECOND),
        Say("text world\nusage 3 5\n"),
        Wait(SECOND),
        Say("finish"),
    ]);
    let manager = pair(&first, &Remote::default());
    let mut answer = manager.stream(ask()).await.unwrap();
    assert_eq!(first.steps(), 3, "it is there with the first content");
    assert_eq!((answer.model(), answer.provider()), ("a", "first"));
    for _ in 0..4 {
        let event = answer.next().await.unwrap().unwrap();
        assert!(!matches!(event, StreamEvent::Finish(_)));
        let seen = metrics(&manager, "first");
        assert_eq!(
            (seen.in_flight, seen.successful_requests),
            (Some(1), Some(0))
        );
    }
    let got = read(answer).await;
    assert_eq!(got.events, [StreamEvent::Finish(FinishReason::Stop)]);
    assert_eq!(metrics(&manager, "first").successful_requests, Some(1));
    assert_eq!(got.stream.finish_reason(), Some(&FinishReason::Stop));
    assert_eq!(
        (
            got.stream.usage().input_tokens,
            got.stream.usage().output_tokens
        ),
        (3, 5)
    );
    let metadata = got.stream.metadata();
    assert_eq!(metadata.provider_model, "upstream");
    assert_eq!(metadata.attempts.len(), 1);
    assert_eq!(metadata.attempts[0].outcome, Answered);
    assert_eq!(
        metadata.attempts[0].latency, SECOND,
        "until the first content"
    );
    assert!(!metadata.degraded);
    assert_eq!(first.calls(), ["A: hello"]);
}

#[tokio::test(start_paused = true)]
async fn m5_events_that_are_ready_come_in_one_go() {
    let manager = pair(&Remote::says(WELL), &Remote::default());
    let mut answer = manager.stream(ask()).await.unwrap();
    let mut events = VecDeque::new();
    let all = poll_fn(|cx| answer.poll_ready_events(cx, &mut events)).await;
    assert!(matches!(all, Some(Ok(()))));
    assert_eq!(events.len(), 5);
    let end = poll_fn(|cx| answer.poll_ready_events(cx, &mut events)).await;
    assert!(end.is_none());
}

#[tokio::test(start_paused = true)]
async fn m5_an_answer_without_content_is_an_answer() {
    let first = Remote::says("start id upstream\nusage 3 0\nfinish");
    let manager = pair(&first, &Remote::default());
    assert!(stream(&manager).await.is_whole());
    assert_eq!(metrics(&manager, "first").successful_requests, Some(1));
}

#[tokio::test(start_paused = true)]
async fn m5_an_error_as_the_first_event_falls_back_unseen() {
    falls_back_unseen([Say("overloaded try_later")], "try later", 0).await;
    let script = [Say("start id upstream\nusage 3 0\n"), Say("overloaded no")];
    falls_back_unseen(script, "overloaded", 0).await;
}

#[tokio::test(start_paused = true)]
async fn m5_a_failure_right_behind_content_is_one_after_it_however_the_bytes_were_cut() {
    const BEGUN: &str = "start id upstream\ntext Hello,\n";
    let at_once = Say("start id upstream\ntext Hello,\noverloaded no");
    breaks_off([at_once], ModelErrorKind::Overloaded, "overloaded").await;
    let script = [Say(BEGUN), Say("overloaded no")];
    breaks_off(script, ModelErrorKind::Overloaded, "overloaded").await;
    breaks_off([Say(BEGUN), Cut], ModelErrorKind::Malformed, "cut off").await;
    let missing = "without its finish";
    breaks_off([Say(BEGUN)], ModelErrorKind::Malformed, missing).await;

    let first = Remote::says("start one A-1\ntext Hello,_\noverloaded no");
    let second = Remote::says("start two B-1\ntext world\nfinish");
    let manager = builder(&first, &second, a().mid_stream(MidStream::Continue));
    let got = stream(&manager.build().unwrap()).await;
    assert!(got.is_whole(), "{:?}", got.events);
    assert_eq!(got.text(), "Hello, world");
    assert_eq!(second.calls(), ["B: hello, after `Hello, `"]);
}

#[tokio::test(start_paused = true)]
async fn m5_a_cut_before_the_first_content_falls_back_unseen() {
    falls_back_unseen([Cut], "cut off", 0).await;
    falls_back_unseen([Say("start id upstream\n"), Cut], "cut off", 0).await;
    falls_back_unseen([Say("start id upstream\n")], "without its finish", 0).await;
}

#[tokio::test(start_paused = true)]
async fn m5_a_status_that_is_no_success_falls_back_unseen() {
    falls_back_unseen([Status(500), Say("no")], "status 500", 0).await;
    falls_back_unseen([Status(529), Cut], "status 529", 0).await;
}

#[tokio::test(start_paused = true)]
async fn m5_silence_after_the_headers_falls_back_unseen() {
    falls_back_unseen([Hang], "no content within 30s", 1).await;
    falls_back_unseen([NoHead], "no content within 30s", 1).await;
}

#[tokio::test(start_paused = true)]
async fn m5_keep_alives_are_no_content() {
    let mut script = vec![Say("start id upstream\n")];
    for _ in 0..4 {
        script.extend([Wait(10 * SECOND), Say("ping\n")]);
    }
    script.push(Say(WELL));
    falls_back_unseen(script, "no content within 30s", 1).await;
}

#[tokio::test(start_paused = true)]
async fn m5_deadlines_are_of_the_model_or_else_of_its_provider() {
    let slow = Remote::default().then([Wait(5 * SECOND), Say(WELL)]);
    let within = |seconds: u32| Deadlines::default().first_token(seconds * SECOND);
    for (provider, model, answers) in [
        (None, None, true),
        (Some(4), None, false),
        (Some(6), None, true),
        (Some(4), Some(6), true),
        (Some(6), Some(4), false),
    ] {
        let mut a = a();
        if let Some(seconds) = model {
            a = a.deadlines(within(seconds));
        }
        let mut builder = builder(&slow, &Remote::says(WELL), a);
        if let Some(seconds) = provider {
            builder = builder.deadlines("first", within(seconds));
        }
        let got = stream(&builder.build().unwrap()).await;
        let by = if answers { "first" } else { "second" };
        assert_eq!(got.stream.provider(), by, "{provider:?} {model:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn m5_without_deadlines_an_answer_may_take_its_time() {
    let script = [
        Wait(900 * SECOND),
        Say("text Hello,_\n"),
        Wait(900 * SECOND),
        Say(WELL),
    ];
    let none = Deadlines::default()
        .first_token(None)
        .idle(None)
        .total(None);
    let builder = builder(
        &Remote::default().then(script),
        &Remote::default(),
        a().deadlines(none),
    );
    let got = stream(&builder.build().unwrap()).await;
    assert!(got.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn m5_an_error_mid_stream_comes_after_what_there_was() {
    let script = [Say("text Hello,\n"), Wait(SECOND), Say("overloaded later")];
    breaks_off(script, ModelErrorKind::Overloaded, "later").await;
}

#[tokio::test(start_paused = true)]
async fn m5_a_cut_mid_stream_is_a_failure() {
    let script = [Say("text Hello,\n"), Wait(SECOND), Cut];
    breaks_off(script, ModelErrorKind::Malformed, "cut off").await;
}

#[tokio::test(start_paused = true)]
async fn m5_an_end_without_its_finish_is_a_failure() {
    let script = [Say("text Hello,\nusage 3 5\n"), Wait(SECOND)];
    breaks_off(script, ModelErrorKind::Malformed, "without its finish").await;
}

#[tokio::test(start_paused = true)]
async fn m5_a_stall_mid_stream_misses_the_idle_deadline() {
    let begun = now();
    let script = [Wait(SECOND), Say("text Hello,\n"), Hang];
    let got = breaks_off(script, ModelErrorKind::Timeout, "nothing more within 30s").await;
    assert_eq!(begun.elapsed(), 31 * SECOND);
    let metrics = got.stream.metadata().circuit_breaker;
    assert_eq!(metrics.timed_out_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn m5_keep_alives_mid_stream_are_signs_of_life() {
    let mut script = vec![Say("text Hello,\n")];
    for _ in 0..5 {
        script.extend([Wait(29 * SECOND), Say("ping\n")]);
    }
    script.extend([Wait(29 * SECOND), Say("finish")]);
    let manager = pair(&Remote::default().then(script), &Remote::default());
    assert!(stream(&manager).await.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn m5_the_idle_deadline_may_be_over_before_the_other_would_have_been() {
    let begun = now();
    let script = [Wait(SECOND), Say("text Hello,\n"), Hang];
    let a = a().deadlines(Deadlines::default().idle(5 * SECOND));
    let manager = builder(&Remote::default().then(script), &Remote::default(), a);
    assert!(stream(&manager.build().unwrap()).await.error.is_some());
    assert_eq!(begun.elapsed(), 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn m5_a_flood_of_keep_alives_hides_no_content() {
    let mut script = vec![Say("ping\n"); 100];
    script.push(Say(WELL));
    let manager = pair(&Remote::default().then(script), &Remote::default());
    let begun = now();
    assert!(stream(&manager).await.is_whole());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn m5_an_answer_that_does_not_end_is_cut_at_the_limit() {
    let much: &str = Box::leak(format!("ping {}\n", "x".repeat(17 << 20)).into_boxed_str());
    falls_back_unseen([Say(much), Say(much)], "larger than 33554432 bytes", 0).await;
    let script = [Say("text Hello,\n"), Say(much), Say(much)];
    breaks_off(
        script,
        ModelErrorKind::Malformed,
        "larger than 33554432 bytes",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn m5_the_end_of_the_body_is_read_along_with_the_finish() {
    let first = Remote::default().then([Say(WELL), Say("")]);
    let manager = pair(&first, &Remote::default());
    assert!(stream(&manager).await.is_whole());
    assert_eq!((first.steps(), first.abandoned()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn m5_a_trickle_without_end_misses_the_total_deadline() {
    let begun = now();
    let mut script = vec![Say("text Hello,\n")];
    script.extend(std::iter::repeat_n([Wait(20 * SECOND), Say("ping\n")], 60).flatten());
    breaks_off(script, ModelErrorKind::Timeout, "not complete within 600s").await;
    assert_eq!(begun.elapsed(), 600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn m5_a_reader_that_takes_its_time_is_no_silence_of_the_provider() {
    let script = [
        Say("text Hello,\n"),
        Wait(SECOND),
        Say("text world\n"),
        Wait(SECOND),
        Say("finish"),
    ];
    let remote = Remote::default().then(script);
    let manager = pair(&remote, &Remote::default());
    let mut answer = manager.stream(ask()).await.unwrap();
    let mut read = 0;
    while let Some(event) = answer.next().await {
        event.unwrap();
        read += 1;
        let before = remote.steps();
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(remote.steps(), before, "nobody reads ahead");
    }
    assert_eq!(read, 3);
    assert_eq!(metrics(&manager, "first").successful_requests, Some(1));
}

#[tokio::test(start_paused = true)]
async fn m5_another_provider_goes_on_and_the_answer_is_one() {
    let first = Remote::default().then([
        Say("start one A-1\nthought hm\ntext Hello,_\nusage 3 2\n"),
        Wait(SECOND),
        Say("overloaded no"),
    ]);
    let second = Remote::says(
        "start two B-1\nthought ah\nsignature s\ntext world\nusage 7 1\nusage 7 4\nfinish",
    );
    let manager = builder(&first, &second, a().mid_stream(MidStream::Continue))
        .build()
        .unwrap();
    let got = stream(&manager).await;
    assert!(got.is_whole(), "{:?}", got.events);
    assert_eq!(got.text(), "Hello, world");
    let start = StreamEvent::Start {
        id: "one".to_owned(),
        model: "A-1".to_owned(),
    };
    assert_eq!(got.events[0], start);
    let thoughts = got.count(|event| {
        matches!(
            event,
            StreamEvent::Reasoning(_) | StreamEvent::ReasoningSignature(_)
        )
    });
    assert_eq!(thoughts, 1, "thoughts in the middle of a text are nobody's");
    assert_eq!(second.calls(), ["B: hello, after `Hello, `"]);

    let usage = got.events.iter().filter_map(|event| match event {
        StreamEvent::Usage(usage) => Some((usage.input_tokens, usage.output_tokens)),
        _ => None,
    });
    let usage: Vec<_> = usage.collect();
    assert_eq!(usage, [(3, 2), (10, 3), (10, 6)]);
    assert_eq!(got.stream.usage().output_tokens, 6);

    let metadata = got.stream.metadata();
    assert_eq!((got.stream.model(), got.stream.provider()), ("b", "second"));
    assert_eq!(metadata.provider_model, "B-1");
    let join = &metadata.joins[0];
    assert_eq!((join.at, &*join.model, &*join.provider), (7, "b", "second"));
    let outcomes: Vec<_> = metadata.attempts.iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, [Failed, Answered]);
    let reason = metadata.attempts[0].reason.as_deref().unwrap();
    assert!(reason.contains("overloaded"), "{reason}");
    assert_eq!(metrics(&manager, "first").failed_requests, 1);
    assert_eq!(metrics(&manager, "second").successful_requests, Some(1));
    let json = serde_json::to_value(&metadata).unwrap();
    assert_eq!(json["joins"][0]["at"], 7);
}

/// `a` goes on at `b`, and after that at `c`.
fn going_on(first: &Remote, second: &Remote, third: &Remote) -> ModelManager {
    builder(first, second, a().mid_stream(MidStream::Continue).or("c"))
        .provider("third", Lines::default(), third.http(), defaults())
        .model("c", Model::new("third", "C"))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn m5_those_who_can_not_go_on_are_passed_over() {
    let first = Remote::default().then([Say("start 1 A\ntext one\n"), Wait(SECOND), Cut]);
    let second = Remote::default()
        .then([Say("start 2 B\ntext _two\n"), Hang])
        .then([Say("overloaded"), Hang]);
    let third = Remote::default().then([Say("start 3 C\ntext _three\nfinish")]);
    let manager = going_on(&first, &second, &third);
    // First the second goes on and breaks off too; then it fails at once.
    for (text, joins) in [("one two three", 2), ("one three", 1)] {
        let got = stream(&manager).await;
        assert!(got.is_whole(), "{:?}", got.events);
        assert_eq!(got.text(), text);
        let metadata = got.stream.metadata();
        assert_eq!(metadata.joins.len(), joins);
        assert_eq!(metadata.attempts.len(), 3);
        assert_eq!(metadata.attempts[2].model, "c");
    }
    let asked = ["C: hello, after `one two`", "C: hello, after `one`"];
    assert_eq!(third.calls(), asked);
    // Its circuit is open: nobody asks it.
    manager
        .circuits()
        .find(|(name, _)| *name == "second")
        .unwrap()
        .1
        .force_open();
    let got = stream(&manager).await;
    assert_eq!(got.text(), "one three");
    let outcomes: Vec<_> = got.stream.attempts().iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, [Failed, Skipped, Answered]);
    assert_eq!(second.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn m5_with_nobody_to_go_on_the_answer_ends_with_what_broke_it() {
    let first = Remote::default().then([
        Say("start 1 A\ntext one\n"),
        Wait(SECOND),
        Say("overloaded busy_now"),
    ]);
    let second = Remote::default().then([Status(500)]);
    let manager = builder(&first, &second, a().mid_stream(MidStream::Continue))
        .build()
        .unwrap();
    let got = stream(&manager).await;
    assert_eq!(got.text(), "one");
    let error = got.error.unwrap();
    assert_eq!(error.kind(), ModelErrorKind::Overloaded);
    let outcomes: Vec<_> = error
        .attempts()
        .iter()
        .map(|a| (&*a.model, a.outcome))
        .collect();
    assert_eq!(outcomes, [("a", Failed), ("b", Failed)]);

    // The last of its chain.
    let second = Remote::default().then([Say("text one\n"), Wait(SECOND), Cut]);
    let manager = builder(&Remote::default(), &second, a())
        .default_model("b")
        .build()
        .unwrap();
    let answer = manager.stream(ModelRequest::prompt("hello")).await.unwrap();
    assert_eq!(
        read(answer).await.error.unwrap().kind(),
        ModelErrorKind::Malformed
    );
}

#[tokio::test(start_paused = true)]
async fn m5_a_call_of_a_tool_is_not_continued_blindly() {
    for script in [
        "text I_look\ntool search\narguments {\"q\":",
        "tool search\narguments {}",
    ] {
        let first = Remote::default().then([Say(script), Wait(SECOND), Cut]);
        let second = Remote::says(WELL);
        let a = a().mid_stream(MidStream::Continue);
        let manager = builder(&first, &second, a).build().unwrap();
        let got = stream(&manager).await;
        assert_eq!(got.error.unwrap().kind(), ModelErrorKind::Malformed);
        assert_eq!(second.calls(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn m5_of_thoughts_nobody_goes_on_and_the_answer_begins_anew() {
    let first = Remote::default().then([Say("start 1 A\nthought hm\n"), Wait(SECOND), Cut]);
    let second = Remote::says("start 2 B\nthought ah\nsignature s\ntext Hello\nfinish");
    let manager = builder(&first, &second, a().mid_stream(MidStream::Continue))
        .build()
        .unwrap();
    let got = stream(&manager).await;
    assert!(got.is_whole());
    assert_eq!(got.text(), "Hello");
    assert_eq!(second.calls(), ["B: hello"]);
    assert_eq!(
        got.count(|event| matches!(event, StreamEvent::Reasoning(_))),
        2
    );
    assert_eq!(
        got.count(|event| matches!(event, StreamEvent::ReasoningSignature(_))),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn m5_an_answer_that_went_on_from_somewhere_goes_on_from_there() {
    let first = Remote::default().then([Say("start 1 A\ntext _two"), Wait(SECOND), Cut]);
    let second = Remote::says("start 2 B\ntext _three\nfinish");
    let a = a().mid_stream(MidStream::Continue);
    let manager = builder(&first, &second, a).build().unwrap();
    let answer = manager.stream(ask().continue_from("one")).await.unwrap();
    assert_eq!(read(answer).await.text(), " two three");
    assert_eq!(first.calls(), ["A: hello, after `one`"]);
    assert_eq!(second.calls(), ["B: hello, after `one two`"]);
}

#[tokio::test(start_paused = true)]
async fn m5_a_stream_that_is_dropped_is_dropped_at_the_provider_and_does_not_count() {
    let first = Remote::default()
        .then([Say("text Hello\n"), Hang])
        .then([Say("start 1 A\n"), Hang]);
    let manager = pair(&first, &Remote::default());
    let mut answer = manager.stream(ask()).await.unwrap();
    answer.next().await.unwrap().unwrap();
    assert_eq!(
        (first.abandoned(), metrics(&manager, "first").in_flight),
        (0, Some(1))
    );
    drop(answer);
    assert_eq!(first.abandoned(), 1);

    // Before its first content, too.
    let waiting = tokio::time::timeout(SECOND, manager.stream(ask()));
    assert!(waiting.await.is_err());
    assert_eq!(first.abandoned(), 2);
    let seen = metrics(&manager, "first");
    assert_eq!(
        (
            seen.in_flight,
            seen.cancelled_requests,
            seen.failed_requests
        ),
        (Some(0), 2, 0)
    );
    assert_eq!(seen.ignored_requests, 2);
}

#[tokio::test(start_paused = true)]
async fn m5_a_stream_that_is_dropped_between_two_providers_asks_nobody() {
    let first = Remote::default().then([Say("text one\n"), Wait(SECOND), Cut]);
    let second = Remote::default().then([NoHead]);
    let manager = builder(&first, &second, a().mid_stream(MidStream::Continue))
        .build()
        .unwrap();
    let mut answer = manager.stream(ask()).await.unwrap();
    answer.next().await.unwrap().unwrap();
    assert!(tokio::time::timeout(SECOND, answer.next()).await.is_err());
    assert_eq!(metrics(&manager, "second").in_flight, Some(1));
    drop(answer);
    let seen = metrics(&manager, "second");
    assert_eq!((seen.in_flight, seen.cancelled_requests), (Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn m5_streams_that_break_off_open_the_circuit_and_one_that_ends_well_closes_it() {
    let first = Remote::default()
        .then([Say("text one\n"), Wait(SECOND), Cut])
        .then([Say("text one\n"), Wait(SECOND), Cut])
        .then([Say("text one\n"), Wait(SECOND), Cut])
        .then([Say("start 1 A\ntext one\n"), Wait(SECOND), Say("finish")]);
    let manager = pair(&first, &Remote::says(WELL));
    for _ in 0..3 {
        assert!(stream(&manager).await.error.is_some());
    }
    let state = || manager.health_check()["first"].circuit_breaker.state;
    assert_eq!(state(), CircuitState::Open);
    let got = stream(&manager).await;
    assert_eq!(got.stream.model(), "b");
    assert_eq!(got.stream.attempts()[0].outcome, Skipped);
    assert_eq!(first.calls().len(), 3);

    tokio::time::sleep(120 * SECOND).await;
    let probes = [
        manager.stream(ask()).await.unwrap(),
        manager.stream(ask()).await.unwrap(),
    ];
    assert_eq!(state(), CircuitState::HalfOpen);
    assert_eq!(
        stream(&manager).await.stream.model(),
        "b",
        "both probes are out"
    );
    for probe in probes {
        assert_eq!(read(probe).await.stream.model(), "a");
    }
    assert_eq!(state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn m4_an_error_event_that_says_when_to_come_back_opens_the_circuit_for_so_long() {
    let manager = pair(&Remote::says("busy 50"), &Remote::says(WELL));
    assert_eq!(stream(&manager).await.stream.model(), "b");
    let health = &manager.health_check()["first"].circuit_breaker;
    assert_eq!(health.state, CircuitState::Open);
    assert_eq!(
        health.metrics.retry_after.unwrap().as_secs().div_ceil(10),
        5
    );
}

#[tokio::test(start_paused = true)]
async fn m4_a_stream_that_was_asked_for_wrongly_goes_back_as_it_is() {
    for first in [
        Remote::says("invalid no"),
        Remote::default().then([Status(422), Say("no")]),
    ] {
        let second = Remote::says(WELL);
        let manager = pair(&first, &second);
        let error = manager.stream(ask()).await.unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::InvalidRequest);
        assert_eq!(error.message(), "no");
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(second.calls(), [""; 0]);
        assert_eq!(metrics(&manager, "first").failed_requests, 0);
    }
    let manager = pair(&Remote::default(), &Remote::default());
    let unknown = ModelRequest::prompt("hello").preferred_model("c");
    let error = manager.stream(unknown).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::UnknownModel);
}

#[tokio::test(start_paused = true)]
async fn m4_a_key_that_is_refused_falls_back_shows_and_does_not_count() {
    let first = Remote::default()
        .then([Status(401), Say("no such key")])
        .then([Say(WELL)]);
    let manager = pair(&first, &Remote::says(WELL));
    assert_eq!(stream(&manager).await.stream.model(), "b");
    let health = &manager.health_check()["first"];
    assert_eq!(health.credentials.as_ref().unwrap().status, Some(401));
    assert_eq!(health.circuit_breaker.metrics.failed_requests, 0);
    assert_eq!(stream(&manager).await.stream.model(), "a");
    assert!(manager.health_check()["first"].credentials.is_none());
}

#[tokio::test(start_paused = true)]
async fn m1_with_every_circuit_open_a_stream_fails_at_once_with_the_shortest_wait() {
    let manager = pair(&Remote::says("busy 50"), &Remote::says("busy 20"));
    manager.stream(ask()).await.unwrap_err();
    let error = manager.stream(ask()).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unavailable);
    assert!(error.retry_after().unwrap() <= 20 * SECOND);
    assert_eq!(error.attempts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn b7_a_panic_while_a_stream_is_read_is_a_failure() {
    let manager = pair(
        &Remote::default().then([Say("text one\n"), Wait(SECOND), Say("nonsense")]),
        &Remote::default(),
    );
    let mut answer = manager.stream(ask()).await.unwrap();
    answer.next().await.unwrap().unwrap();
    let panicked = tokio::spawn(async move { answer.next().await }).await;
    assert!(panicked.unwrap_err().is_panic());
    let seen = metrics(&manager, "first");
    assert_eq!(
        (
            seen.in_flight,
            seen.failed_requests,
            seen.cancelled_requests
        ),
        (Some(0), 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn f6_a_stream_has_the_same_last_resorts_as_a_whole_answer() {
    let first = Remote::default().then([Say(WELL)]).then([Status(500)]);
    let a = Model::new("first", "A")
        .degraded(Degraded::cached())
        .degraded(Degraded::message("come back later"));
    let manager = ModelManager::builder()
        .provider("first", Lines::default(), first.http(), defaults())
        .model("a", a)
        .cache(1)
        .build()
        .unwrap();
    let fresh = stream(&manager).await;
    assert!(!fresh.stream.metadata().degraded);

    let cached = stream(&manager).await;
    assert!(cached.is_whole());
    assert_eq!(cached.text(), "Hello, world");
    assert!(cached.stream.metadata().degraded);
    assert_eq!(cached.stream.metadata().provider_model, "upstream");
    assert_eq!(
        cached.stream.usage().output_tokens,
        0,
        "nobody is paid twice"
    );
    // What was streamed serves who asks for a whole answer, too.
    let whole = manager.process_request(ask()).await.unwrap();
    assert_eq!(whole.text, "Hello, world");
    assert!(whole.metadata.degraded);

    let other = ModelRequest::prompt("what else?").preferred_model("a");
    let canned = read(manager.stream(other).await.unwrap()).await;
    assert!(canned.is_whole());
    assert_eq!(canned.text(), "come back later");
    assert_eq!(canned.stream.provider(), "message");
    let attempts = canned.stream.attempts();
    assert_eq!(
        (attempts[0].outcome, attempts[1].outcome),
        (Failed, Answered)
    );
}

#[tokio::test(start_paused = true)]
async fn m1_a_provider_with_whole_answers_only_streams_in_one_piece() {
    let whole = service_fn(|request: ProviderRequest| async move {
        assert!(request.request.stream);
        let mut completion = Completion::new("Hello");
        completion.reasoning = Some("hm".to_owned());
        Ok(completion)
    });
    let manager = ModelManager::builder()
        .provider_service("first", whole, Circuit::new(defaults()))
        .model("a", Model::new("first", "A"))
        .build()
        .unwrap();
    let got = stream(&manager).await;
    assert!(got.is_whole());
    assert_eq!(got.text(), "Hello");
    assert_eq!(got.events.len(), 5);
    assert_eq!(metrics(&manager, "first").successful_requests, Some(1));
}

#[tokio::test(start_paused = true)]
async fn t8_a_probe_that_streams_keeps_its_turn_and_a_stream_is_as_slow_as_its_first_content() {
    let circuit = ModelManager::circuit_breaker_defaults()
        .slow_call_duration(10 * SECOND)
        .failure_threshold(1)
        .half_open_requests(1)
        .build()
        .unwrap();
    let mut long = vec![Say("start 1 A\ntext one\n")];
    long.extend(std::iter::repeat_n([Wait(20 * SECOND), Say("text more\n")], 10).flatten());
    long.push(Say("finish"));
    let first = Remote::default()
        .then([Cut])
        .then(long)
        .then([Wait(11 * SECOND), Say(WELL)]);
    let manager = ModelManager::builder()
        .provider("first", Lines::default(), first.http(), circuit)
        .model("a", Model::new("first", "A"))
        .build()
        .unwrap();
    manager.stream(ask()).await.unwrap_err();
    tokio::time::sleep(120 * SECOND).await;

    // The probe takes 200 s, which is longer than a half-open turn. Meanwhile there is no room.
    let (probe, other) = tokio::join!(stream(&manager), async {
        tokio::time::sleep(100 * SECOND).await;
        manager.stream(ask()).await
    });
    assert_eq!(other.unwrap_err().kind(), ModelErrorKind::Unavailable);
    assert!(probe.is_whole());
    let health = &manager.health_check()["first"].circuit_breaker;
    assert_eq!(health.state, CircuitState::Closed);
    assert_eq!(health.metrics.slow_requests, Some(0));

    assert!(stream(&manager).await.is_whole());
    assert_eq!(metrics(&manager, "first").slow_requests, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b6_streams_in_many_threads_are_settled_once_each() {
    const EACH: u64 = 200;
    let mut remote = Remote::default();
    for _ in 0..EACH {
        remote = remote
            .then([Say(WELL)])
            .then([Say("text Hello"), Cut])
            .then([Say("text dropped"), Hang])
            .then([Status(401)]);
    }
    let never = CircuitBreakerConfig::builder()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .build()
        .unwrap();
    let manager = ModelManager::builder()
        .provider("first", Lines::default(), remote.http(), never)
        .model("a", Model::new("first", "A"))
        .build()
        .unwrap();
    let callers = (0..4 * EACH).map(|_| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let Ok(mut answer) = manager.stream(ask()).await else {
                return;
            };
            while let Some(Ok(event)) = answer.next().await {
                if event == StreamEvent::Text("dropped".to_owned()) {
                    return;
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let seen = metrics(&manager, "first");
    assert_eq!(seen.total_requests, Some(4 * EACH));
    // A key that is refused is an answer.
    assert_eq!(seen.successful_requests, Some(2 * EACH));
    assert_eq!((seen.failed_requests, seen.ignored_requests), (EACH, EACH));
    assert_eq!((seen.in_flight, seen.cancelled_requests), (Some(0), EACH));
    assert_eq!(remote.abandoned() as u64, EACH);
}

#[tokio::test(start_paused = true)]
async fn m1_a_provider_without_room_is_passed_over() {
    let (first, second) = (Remote::default().then([NoHead]), Remote::says(WELL));
    let limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(first.http());
    let manager = ModelManager::builder()
        .provider("first", Lines::default(), limited, defaults())
        .provider("second", Lines::default(), second.http(), defaults())
        .model("a", a())
        .model("b", Model::new("second", "B"))
        .build()
        .unwrap();
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.stream(ask()).await }
    });
    tokio::time::sleep(SECOND).await;
    let got = stream(&manager).await;
    assert_eq!(got.stream.model(), "b");
    let attempt = &got.stream.attempts()[0];
    assert_eq!(attempt.outcome, Skipped);
    assert_eq!(attempt.reason.as_deref(), Some("busy"));
    // The limit is one for both kinds of answers.
    let whole = manager.process_request(ask()).await.unwrap();
    assert_eq!(whole.model, "b");
    assert_eq!(first.calls().len(), 1);
    waiting.abort();
}

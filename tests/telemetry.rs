//! What `telemetry` tells, by a recorder and a subscriber that keep it for the tests.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata,
    SharedString, Unit, with_local_recorder,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, Outcome, Record, telemetry,
};
use tracing::{
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::SubscriberExt, registry::LookupSpan};

fn config() -> tower_breaker::CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder().failure_threshold(1)
}

fn circuit() -> Circuit {
    Circuit::new(config().build().unwrap())
}

// Metrics.

/// A recorder that keeps everything under `name{label=value,...}`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    values: BTreeMap<String, f64>,
    samples: BTreeMap<String, Vec<f64>>,
    units: BTreeMap<String, Option<Unit>>,
}

/// One series of it.
struct Series {
    recorder: Recorder,
    key: String,
}

impl Recorder {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", short(label.key()), label.value()))
            .collect();
        Arc::new(Series {
            recorder: self.clone(),
            key: format!("{}{{{}}}", short(key.name()), labels.join(",")),
        })
    }

    fn value(&self, key: &str) -> Option<f64> {
        self.0.lock().unwrap().values.get(key).copied()
    }

    fn samples(&self, key: &str) -> Vec<f64> {
        let kept = self.0.lock().unwrap();
        kept.samples.get(key).cloned().unwrap_or_default()
    }

    /// Which states are told as the present one, and how many are told at all.
    fn states(&self) -> (Vec<String>, usize) {
        let kept = self.0.lock().unwrap();
        let states = kept
            .values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("status{name=a,state=")?, value)));
        let (mut present, mut all) = (Vec::new(), 0);
        for (state, value) in states {
            all += 1;
            if *value == 1.0 {
                present.push(state.trim_end_matches('}').to_owned());
            }
        }
        (present, all)
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("circuit_breaker.").expect("a namespace")
}

impl Series {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut kept = self.recorder.0.lock().unwrap();
        let value = kept.values.entry(self.key.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Series {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }

    fn absolute(&self, to: u64) {
        self.change(|value| value.max(to as f64));
    }
}

impl GaugeFn for Series {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

impl HistogramFn for Series {
    fn record(&self, sample: f64) {
        let mut kept = self.recorder.0.lock().unwrap();
        kept.samples
            .entry(self.key.clone())
            .or_default()
            .push(sample);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        let mut kept = self.0.lock().unwrap();
        kept.units.insert(short(key.as_str()).to_owned(), unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

#[test]
fn metrics_keep_a_gauge_for_each_state_and_zero_it_again() {
    let (recorder, circuit) = (Recorder::default(), circuit());
    with_local_recorder(&recorder, || {
        telemetry::metrics(&circuit, "a");
        assert_eq!(recorder.states(), (vec!["CLOSED".into()], 5));
        circuit.try_acquire().unwrap().failure();
        assert_eq!(recorder.states(), (vec!["OPEN".into()], 5));
        circuit.force_open();
        assert_eq!(recorder.states(), (vec!["FORCED_OPEN".into()], 5));
        circuit.disable();
        assert_eq!(recorder.states(), (vec!["DISABLED".into()], 5));
        circuit.reset();
        assert_eq!(recorder.states(), (vec!["CLOSED".into()], 5));
    });
}

#[test]
fn metrics_begin_with_the_present_state() {
    let (recorder, circuit) = (Recorder::default(), circuit());
    circuit.force_open();
    with_local_recorder(&recorder, || telemetry::metrics(&circuit, "a"));
    assert_eq!(recorder.states(), (vec!["FORCED_OPEN".into()], 5));
}

#[tokio::test(start_paused = true)]
async fn metrics_count_transitions_with_their_reason() {
    let (recorder, circuit) = (Recorder::default(), circuit());
    let _recorder = metrics::set_default_local_recorder(&recorder);
    telemetry::metrics(&circuit, "a");
    circuit.try_acquire().unwrap().failure();
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(120)).await;
        circuit.try_acquire().unwrap().failure();
    }
    tokio::time::advance(Duration::from_secs(120)).await;
    for _ in 0..2 {
        circuit.try_acquire().unwrap().success();
    }
    assert_eq!(circuit.state(), CircuitState::Closed);
    let expected = [
        (
            "previous_state=CLOSED,state=OPEN,reason=CONSECUTIVE_FAILURES",
            1.0,
        ),
        ("previous_state=OPEN,state=HALF_OPEN", 3.0),
        (
            "previous_state=HALF_OPEN,state=OPEN,reason=PROBE_FAILED",
            2.0,
        ),
        ("previous_state=HALF_OPEN,state=CLOSED", 1.0),
    ];
    for (labels, times) in expected {
        let key = format!("transitions{{name=a,{labels}}}");
        assert_eq!(recorder.value(&key), Some(times), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn publish_tells_what_the_circuit_has_counted() {
    let recorder = Recorder::default();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let circuit = Circuit::new(
        config()
            .failure_threshold(2)
            .slow_call_duration(Duration::from_secs(1))
            .slow_call_percentage(100)
            .build()
            .unwrap(),
    );
    circuit.try_acquire().unwrap().success();
    circuit.try_acquire().unwrap().ignore();
    drop(circuit.try_acquire().unwrap());
    let running = circuit.try_acquire().unwrap();
    let slow = circuit.try_acquire().unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    slow.success();
    circuit.try_acquire().unwrap().failure();
    circuit.try_acquire().unwrap().timed_out();
    circuit.try_acquire().unwrap_err();
    let expected = [
        ("calls{name=a,outcome=success}", 2.0),
        ("calls{name=a,outcome=failure}", 2.0),
        ("calls{name=a,outcome=ignored}", 2.0),
        ("rejections{name=a}", 1.0),
        ("timeouts{name=a}", 1.0),
        ("cancellations{name=a}", 1.0),
        ("slow_calls{name=a}", 1.0),
        ("active_calls{name=a}", 1.0),
        ("error_rate{name=a}", 0.5),
        ("retry_after{name=a}", 120.0),
    ];
    // Twice, because counters take the total and don't add it up.
    for _ in 0..2 {
        telemetry::publish(&circuit, "a");
        for (key, value) in expected {
            assert_eq!(recorder.value(key), Some(value), "{key}");
        }
    }
    assert!(recorder.value("slow_rate{name=a}").is_some());
    drop(running);
    circuit.reset();
    telemetry::publish(&circuit, "a");
    assert_eq!(recorder.value("active_calls{name=a}"), Some(0.0));
    assert_eq!(recorder.value("retry_after{name=a}"), Some(0.0));
}

#[test]
fn publish_leaves_out_what_is_not_kept() {
    let recorder = Recorder::default();
    let circuit = Circuit::new(
        config()
            .record(Record::Rules)
            .error_threshold_percentage(None)
            .build()
            .unwrap(),
    );
    with_local_recorder(&recorder, || telemetry::publish(&circuit, "a"));
    assert_eq!(recorder.value("calls{name=a,outcome=failure}"), Some(0.0));
    for absent in [
        "calls{name=a,outcome=success}",
        "slow_calls{name=a}",
        "active_calls{name=a}",
        "error_rate{name=a}",
        "slow_rate{name=a}",
    ] {
        assert_eq!(recorder.value(absent), None, "{absent}");
    }
}

#[test]
fn every_metric_is_described_in_its_unit_and_listed_in_the_docs() {
    let recorder = Recorder::default();
    with_local_recorder(&recorder, || telemetry::metrics(&circuit(), "a"));
    let kept = recorder.0.lock().unwrap();
    assert_eq!(kept.units["call.duration"], Some(Unit::Seconds));
    assert_eq!(kept.units["retry_after"], Some(Unit::Seconds));
    assert_eq!(kept.units["error_rate"], None);
    let docs = include_str!("../src/telemetry/mod.rs");
    for metric in kept.units.keys() {
        let row = format!("//! | `circuit_breaker.{metric}` |");
        assert!(docs.contains(&row), "{row}");
    }
    let rows = docs.matches("//! | `circuit_breaker.").count();
    assert_eq!(rows, kept.units.len());
}

#[test]
fn a_call_costs_no_more_for_those_who_listen() {
    let (recorder, circuit) = (Recorder::default(), circuit());
    with_local_recorder(&recorder, || {
        telemetry::metrics(&circuit, "a");
        telemetry::trace(&circuit, "a");
        let call = || circuit.try_acquire().unwrap().success();
        call();
        assert_eq!(allocation_counter::measure(call).count_total, 0);
    });
}

// Calls.

/// Answers with the request, once the test lets it.
#[derive(Clone)]
struct Echo;

type Answer = Result<u16, &'static str>;

impl Service<Answer> for Echo {
    type Response = u16;
    type Error = &'static str;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, answer: Answer) -> Self::Future {
        tracing::info!("called");
        ready(answer)
    }
}

#[tokio::test(start_paused = true)]
async fn durations_are_those_of_calls_that_reach_the_dependency() {
    let recorder = Recorder::default();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let second = Duration::from_secs(1);
    let breaker = CircuitBreakerLayer::new(config().timeout(second * 9).build().unwrap());
    let mut service = ServiceBuilder::new()
        .layer(breaker.clone().fail_fast())
        .layer(telemetry::ObserveLayer::new("a"))
        .service_fn(async |wait: Duration| {
            tokio::time::sleep(wait).await;
            if wait > Duration::from_secs(5) {
                Err(())
            } else {
                Ok(())
            }
        });
    service.call(second).await.unwrap();
    assert_eq!(
        recorder.samples("call.duration{name=a,outcome=success}"),
        [1.0]
    );
    service.call(second * 6).await.unwrap_err();
    assert_eq!(
        recorder.samples("call.duration{name=a,outcome=failure}"),
        [6.0]
    );
    // A rejection reaches nothing.
    assert!(service.call(second).await.unwrap_err().is_open());
    breaker.circuit().reset();
    // The deadline ends this one, by dropping it.
    assert!(service.call(second * 99).await.unwrap_err().is_timeout());
    assert_eq!(
        recorder.samples("call.duration{name=a,outcome=cancelled}"),
        [9.0]
    );
    assert_eq!(recorder.0.lock().unwrap().samples.len(), 3);
}

#[test]
fn the_outcome_of_an_observed_call_is_the_classifiers() {
    let recorder = Recorder::default();
    let layer =
        telemetry::ObserveLayer::new("a").classify(|result: Result<&u16, &&'static str>| {
            match result {
                Ok(500..) => Outcome::FAILURE,
                Ok(_) => Outcome::Success,
                Err(_) => Outcome::Ignored,
            }
        });
    let mut service = layer.layer(Echo);
    with_local_recorder(&recorder, || {
        for answer in [Ok(200), Ok(503), Err("no")] {
            assert_eq!(
                assert_ready!(task::spawn(service.call(answer)).poll()),
                answer
            );
        }
    });
    for outcome in ["success", "failure", "ignored"] {
        let key = format!("call.duration{{name=a,outcome={outcome}}}");
        assert_eq!(recorder.samples(&key).len(), 1, "{key}");
    }
}

// Events and spans.

/// A layer of a subscriber that writes down each event, and each span when it closes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// The fields of a span.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl<S> tracing_subscriber::Layer<S> for Log
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(fields);
    }

    fn on_record(
        &self,
        id: &span::Id,
        values: &span::Record<'_>,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_event(
        &self,
        event: &tracing::Event<'_>,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let within = context.event_span(event).map(|span| span.name());
        self.0.lock().unwrap().push(format!(
            "{} {} {} in {within:?}{}",
            metadata.level(),
            metadata.target(),
            metadata.name(),
            fields.0
        ));
    }

    fn on_close(&self, id: span::Id, context: tracing_subscriber::layer::Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let extensions = span.extensions();
        let fields = &extensions.get::<Fields>().unwrap().0;
        let line = format!("{} {}{fields}", span.metadata().target(), span.name());
        self.0.lock().unwrap().push(line);
    }
}

impl Log {
    /// What `run` had written down.
    fn of(run: impl FnOnce()) -> Vec<String> {
        let log = Self::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, run);
        std::mem::take(&mut *log.0.lock().unwrap())
    }
}

#[test]
fn each_change_of_state_is_an_event() {
    let circuit = circuit();
    let told = Log::of(|| {
        telemetry::trace(&circuit, "payments");
        circuit.try_acquire().unwrap().failure();
        circuit.reset();
    });
    let [opened, closed] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        opened,
        "WARN tower_breaker circuit_breaker.state_change in None \
         message=CLOSED -> OPEN (too many failures in a row) \
         circuit_breaker.name=\"payments\" circuit_breaker.state=\"OPEN\" \
         circuit_breaker.previous_state=\"CLOSED\" \
         circuit_breaker.reason=\"CONSECUTIVE_FAILURES\" circuit_breaker.generation=1"
    );
    assert_eq!(
        closed,
        "INFO tower_breaker circuit_breaker.state_change in None message=OPEN -> CLOSED \
         circuit_breaker.name=\"payments\" circuit_breaker.state=\"CLOSED\" \
         circuit_breaker.previous_state=\"OPEN\" circuit_breaker.generation=2"
    );
}

#[test]
fn each_call_is_a_span_with_its_outcome() {
    let mut service = telemetry::ObserveLayer::new("payments").layer(Echo);
    let told = Log::of(|| {
        for answer in [Ok(1), Err("no")] {
            assert_eq!(
                assert_ready!(task::spawn(service.call(answer)).poll()),
                answer
            );
        }
    });
    let span = "tower_breaker circuit_breaker.call circuit_breaker.name=\"payments\"";
    // What happens within it stands in it.
    assert!(told[0].ends_with("in Some(\"circuit_breaker.call\") message=called"));
    assert_eq!(
        told[1],
        format!("{span} circuit_breaker.outcome=\"success\"")
    );
    assert_eq!(
        told[3],
        format!("{span} circuit_breaker.outcome=\"failure\" otel.status_code=\"ERROR\"")
    );
}

#[test]
fn a_call_that_is_dropped_is_told_once_as_cancelled() {
    let pending = tower::service_fn(|(): ()| std::future::pending::<Result<(), ()>>());
    let mut service = telemetry::ObserveLayer::new("payments").layer(pending);
    let told = Log::of(|| {
        let mut call = task::spawn(service.call(()));
        assert_pending!(call.poll());
    });
    let [span] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(span.ends_with("circuit_breaker.outcome=\"cancelled\""));
}

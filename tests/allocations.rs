//! What a call costs in memory: no allocation, and so many bytes in its future and its circuit (P).

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::{AllocationInfo, measure};
use tower::{Layer, Service};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerLayer, CircuitState,
    Error, ManualClock, Record, service::FailFast,
};

/// Enough for anything that grows with the calls to grow: the window of a slower design, say.
const CALLS: u64 = 10_000;

const SECOND: Duration = Duration::from_secs(1);

/// Answers at once; an odd number is refused.
#[derive(Debug, Clone)]
struct Even;

struct Answer(u64);

impl Future for Answer {
    type Output = Result<u64, u64>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.0.is_multiple_of(2) {
            Ok(self.0)
        } else {
            Err(self.0)
        })
    }
}

impl Service<u64> for Even {
    type Response = u64;
    type Error = u64;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u64) -> Answer {
        Answer(number)
    }
}

type Breaker = tower_breaker::CircuitBreaker<Even, tower_breaker::ErrorsAsFailures, FailFast>;

/// Behind the default configuration, with somebody listening.
fn breaker() -> (Breaker, Circuit) {
    let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default()).fail_fast();
    let circuit = layer.circuit().clone();
    circuit.on_state_change(|_| ());
    (layer.layer(Even), circuit)
}

fn call<S: Service<u64>>(service: &mut S, number: u64) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut answer = pin!(service.call(number));
    match answer.as_mut().poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it answers at once"),
    }
}

/// What calls with these numbers, again and again, allocate once the first few are over.
fn allocated_by(service: &mut Breaker, numbers: &[u64]) -> AllocationInfo {
    let mut round = |calls: u64| {
        for number in numbers.iter().cycle().take(calls as usize) {
            let _ = call(service, *number);
        }
    };
    round(16);
    measure(|| round(CALLS))
}

#[test]
fn p_the_counter_counts() {
    // Or else all the zeros below would prove nothing.
    let seen = measure(|| drop(std::hint::black_box(Box::new(1_u64))));
    assert_eq!((seen.count_total, seen.bytes_total), (1, 8));
}

#[test]
fn p_a_success_allocates_nothing() {
    let (mut service, circuit) = breaker();
    let allocated = allocated_by(&mut service, &[0]);
    assert_eq!(allocated.count_total, 0);
    assert!(circuit.metrics().successful_requests > Some(CALLS));
}

#[test]
fn p_a_failure_below_the_thresholds_allocates_nothing() {
    let (mut service, circuit) = breaker();
    let allocated = allocated_by(&mut service, &[0, 1]);
    assert_eq!(allocated.count_total, 0);
    let metrics = circuit.metrics();
    assert!(metrics.failed_requests > CALLS / 2);
    assert_eq!(metrics.current_state, CircuitState::Closed);
}

#[test]
fn p_a_rejection_allocates_nothing() {
    let (mut service, circuit) = breaker();
    for _ in 0..3 {
        assert!(matches!(call(&mut service, 1), Err(Error::Inner(1))));
    }
    let allocated = allocated_by(&mut service, &[0]);
    assert_eq!(allocated.count_total, 0);
    assert!(circuit.metrics().rejected_requests > CALLS);
}

#[test]
fn p_the_waiting_mode_allocates_nothing_while_closed() {
    let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
    let mut service = layer.layer(Even);
    assert_eq!(call(&mut service, 0).ok(), Some(0));
    let allocated = measure(|| assert_eq!(call(&mut service, 2).ok(), Some(2)));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn p_metrics_allocate_nothing() {
    let (mut service, circuit) = breaker();
    assert_eq!(call(&mut service, 0).ok(), Some(0));
    // The first ones of a thread may.
    assert_eq!(
        circuit.metrics().latency.is_some(),
        cfg!(feature = "latency")
    );
    let allocated = measure(|| assert_eq!(circuit.metrics().successful_requests, Some(1)));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn p_bytes_of_a_future() {
    let inner = size_of::<Answer>();
    let ours = size_of::<<Breaker as Service<u64>>::Future>();
    let timer = size_of::<Option<tokio::time::Sleep>>();
    println!("future: {ours} B around one of {inner} B, of which a deadline's timer: {timer} B");
    // The permit (the circuit, the generation, the start) and whether there is an inner future.
    assert!(ours - inner - timer <= 32);
}

/// What a circuit takes, but for the latency histogram: its buckets, and 56 bytes about them.
fn bytes_of_a_circuit(config: CircuitBreakerConfigBuilder) -> u64 {
    let config = config.build().unwrap();
    let histogram = match config.record() {
        Record::All if cfg!(feature = "latency") => 9_216 + 56,
        _ => 0,
    };
    let circuit = std::cell::Cell::new(None);
    let allocated = measure(|| circuit.set(Some(Circuit::new(config.clone()))));
    allocated.bytes_current as u64 - histogram
}

#[test]
fn p_bytes_of_a_circuit() {
    let config = CircuitBreakerConfig::builder;
    let rules = || config().record(Record::Rules);
    for (what, most, config) in [
        ("by default", 1_024, config()),
        ("with a window of 100 calls", 1_024, config().window(100)),
        (
            "with a run alone",
            768,
            rules().error_threshold_percentage(None),
        ),
        // Those that run: when they began, and when those have left.
        (
            "with slow calls",
            2_688,
            config().slow_call_duration(SECOND),
        ),
    ] {
        let bytes = bytes_of_a_circuit(config);
        println!("circuit {what}: {bytes} B");
        assert!(bytes <= most, "{what}: {bytes} B");
    }
    assert_eq!(size_of::<Circuit>(), 8);
}

#[test]
fn p_calls_add_nothing_to_a_circuit() {
    let (mut service, circuit) = breaker();
    let clock = ManualClock::new();
    let moving = Circuit::with_clock(CircuitBreakerConfig::default(), clock.clone());
    let grown = measure(|| {
        for number in 0..CALLS {
            let _ = call(&mut service, number);
            clock.advance(SECOND);
            moving.try_acquire().unwrap().success();
        }
    });
    assert_eq!(grown.bytes_current, 0);
    assert_eq!(circuit.state(), CircuitState::Closed);
}

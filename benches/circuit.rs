//! What the circuit costs by itself. README.md tells how to run this and how to read it.

mod even;

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use divan::Bencher;
use tower::Layer;
use tower_breaker::{
    Circuit, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState,
    ErrorsAsFailures, ManualClock, service::FailFast,
};

use self::even::{Even, request};

fn main() {
    divan::main();
}

/// How many calls are timed together. Left to itself, divan takes that from the first call, which
/// is a cold one.
const CALLS: u32 = 1_000;

/// The same with several threads, whose starts must not be far apart beside it.
const CONTENDED_CALLS: u32 = 20_000;

/// The default configuration, with somebody listening to the changes of state.
fn circuit() -> Circuit {
    let circuit = Circuit::new(CircuitBreakerConfig::default());
    circuit.on_state_change(|event| {
        black_box(event);
    });
    circuit
}

/// Tripped as a sick dependency would trip it.
fn open_circuit() -> Circuit {
    let circuit = circuit();
    while let Ok(permit) = circuit.try_acquire() {
        permit.failure();
    }
    circuit
}

/// What to compare with: the nanoseconds of another machine say little.
#[divan::bench_group(sample_size = CALLS)]
mod reference {
    use super::*;

    #[divan::bench]
    fn bare_service(bencher: Bencher<'_, '_>) {
        let mut service = Even;
        bencher.bench_local(|| request(&mut service, 0));
    }

    #[divan::bench]
    fn arc_clone_and_drop(bencher: Bencher<'_, '_>) {
        let shared = Arc::new(0_u64);
        bencher.bench(|| drop(black_box(Arc::clone(&shared))));
    }

    #[divan::bench(threads = [1, 2], sample_size = CONTENDED_CALLS)]
    fn mutex(bencher: Bencher<'_, '_>) {
        let shared = Mutex::new(0_u64);
        bencher.bench(|| *shared.lock().unwrap() += 1);
    }

    #[divan::bench]
    #[allow(
        clippy::disallowed_methods,
        reason = "it is the clock that is measured"
    )]
    fn clock_read_twice(bencher: Bencher<'_, '_>) {
        bencher.bench(|| black_box(Instant::now()).elapsed());
    }
}

/// Through the Tower layer.
#[divan::bench_group(sample_size = CALLS)]
mod layer {
    use super::*;

    fn fail_fast(circuit: Circuit) -> CircuitBreaker<Even, ErrorsAsFailures, FailFast> {
        CircuitBreakerLayer::from_circuit(circuit)
            .fail_fast()
            .layer(Even)
    }

    #[divan::bench]
    fn closed_success(bencher: Bencher<'_, '_>) {
        let mut service = fail_fast(circuit());
        bencher.bench_local(|| request(&mut service, 0));
        assert_eq!(service.circuit().metrics().failed_requests, 0);
    }

    #[divan::bench]
    fn closed_success_waiting_mode(bencher: Bencher<'_, '_>) {
        let mut service = CircuitBreakerLayer::from_circuit(circuit()).layer(Even);
        bencher.bench_local(|| request(&mut service, 0));
        assert_eq!(service.circuit().metrics().failed_requests, 0);
    }

    #[divan::bench]
    fn half_failing(bencher: Bencher<'_, '_>) {
        let mut service = fail_fast(circuit());
        // A success first, or else three of the first five fail: that is 60 %, and it opens.
        let mut number = 1;
        bencher.bench_local(|| {
            number += 1;
            request(&mut service, number)
        });
        assert_eq!(service.circuit().state(), CircuitState::Closed);
    }

    #[divan::bench]
    fn open_rejection(bencher: Bencher<'_, '_>) {
        let mut service = fail_fast(open_circuit());
        bencher.bench_local(|| request(&mut service, 0));
        assert_eq!(service.circuit().state(), CircuitState::Open);
    }
}

/// Without Tower.
#[divan::bench_group(sample_size = CALLS)]
mod permit {
    use super::*;

    #[divan::bench(threads = [1, 2], sample_size = CONTENDED_CALLS)]
    fn closed_success(bencher: Bencher<'_, '_>) {
        let circuit = circuit();
        bencher.bench(|| circuit.try_acquire().unwrap().success());
    }

    #[divan::bench]
    fn open_rejection(bencher: Bencher<'_, '_>) {
        let circuit = open_circuit();
        bencher.bench(|| circuit.try_acquire().is_err());
    }

    /// With so many calls in the window, spread over all of it. The clock stands still while this
    /// is measured, and costs nothing.
    #[divan::bench(args = [100, 10_000, 1_000_000], sample_count = 50, sample_size = 20)]
    fn closed_success_by_calls_in_the_window(bencher: Bencher<'_, '_>, calls: u32) {
        let clock = ManualClock::new();
        let config = CircuitBreakerConfig::default();
        let pause = config.monitoring_period() / calls;
        let circuit = Circuit::with_clock(config, clock.clone());
        for _ in 0..calls {
            clock.advance(pause);
            circuit.try_acquire().unwrap().success();
        }
        bencher.bench(|| circuit.try_acquire().unwrap().success());
    }

    /// Every call in a step of its own, so that the window moves on each time.
    #[divan::bench]
    fn closed_success_in_a_moving_window(bencher: Bencher<'_, '_>) {
        let clock = ManualClock::new();
        let circuit = Circuit::with_clock(CircuitBreakerConfig::default(), clock.clone());
        bencher.bench(|| {
            clock.advance(Duration::from_secs(1));
            circuit.try_acquire().unwrap().success();
        });
    }
}

#[divan::bench_group(sample_size = CALLS)]
mod snapshot {
    use super::*;

    #[divan::bench(threads = [1, 2], sample_size = CONTENDED_CALLS)]
    fn metrics(bencher: Bencher<'_, '_>) {
        let circuit = circuit();
        circuit.try_acquire().unwrap().success();
        bencher.bench(|| circuit.metrics());
    }
}

/// Finding a circuit, in a registry of 1,000.
#[divan::bench_group(sample_size = CALLS)]
mod registry {
    use std::num::NonZeroUsize;

    use tower_breaker::Registry;

    use super::*;

    const CIRCUITS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

    fn full() -> Registry<usize> {
        let registry = Registry::new(CircuitBreakerConfig::default(), CIRCUITS);
        for key in 0..CIRCUITS.get() {
            registry.get(&key).unwrap();
        }
        registry
    }

    #[divan::bench]
    fn hit(bencher: Bencher<'_, '_>) {
        let registry = full();
        bencher.bench(|| registry.get(black_box(&500)).unwrap());
    }

    /// A circuit is made and another one evicted each time.
    #[divan::bench]
    fn miss(bencher: Bencher<'_, '_>) {
        let registry = full();
        let mut key = CIRCUITS.get();
        bencher.bench_local(|| {
            key += 1;
            registry.get(&key).unwrap()
        });
    }
}

//! Circuits by key: at most so many, and none is forgotten that still matters (T1).

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tower::Layer;
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, ManualClock, Record,
    Registry, RegistryFull,
};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Opens after two failures.
fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .build()
        .unwrap()
}

fn registry(capacity: NonZeroUsize) -> Registry<String> {
    Registry::new(config(), capacity)
}

fn keys(registry: &Registry<String>) -> Vec<String> {
    let mut keys: Vec<_> = registry.iter().map(|(key, _)| key).collect();
    keys.sort();
    keys
}

fn succeed(circuit: &Circuit) {
    circuit.try_acquire().unwrap().success();
}

fn fail(circuit: &Circuit) {
    circuit.try_acquire().unwrap().failure();
}

#[test]
fn t1_a_key_has_one_circuit_and_clones_of_the_registry_share_it() {
    let registry = registry(TWO);
    assert!(registry.is_empty());
    succeed(&registry.get("a").unwrap());
    succeed(&registry.clone().get(&"a".to_owned()).unwrap());

    assert_eq!(
        registry.peek("a").unwrap().metrics().successful_requests,
        Some(2)
    );
    assert_eq!(registry.get("b").unwrap().metrics().total_requests, Some(0));
    assert!(registry.peek("c").is_none());
    assert_eq!((registry.len(), registry.capacity()), (2, TWO));
}

#[test]
fn t1_the_least_recently_got_goes_first() {
    let registry = registry(TWO);
    for key in ["a", "b", "a", "c"] {
        registry.get(key).unwrap();
        assert!(registry.len() <= 2);
    }
    assert_eq!(keys(&registry), ["a", "c"]);

    // Neither of these is a use.
    assert!(registry.peek("a").is_some());
    assert_eq!(registry.iter().len(), 2);
    registry.get("d").unwrap();
    assert_eq!(keys(&registry), ["c", "d"]);
}

#[test]
fn t1_a_circuit_that_somebody_holds_stays() {
    let registry = registry(TWO);
    let handle = registry.get("a").unwrap();
    registry.get("b").unwrap();
    registry.get("c").unwrap();
    assert_eq!(keys(&registry), ["a", "c"]);

    let permit = handle.try_acquire().unwrap();
    drop(handle);
    registry.get("d").unwrap();
    assert_eq!(keys(&registry), ["a", "d"], "a call is in flight");

    permit.success();
    let layer = CircuitBreakerLayer::from_circuit(registry.peek("a").unwrap());
    let service = layer.layer(());
    drop(layer);
    registry.get("e").unwrap();
    assert_eq!(keys(&registry), ["a", "e"], "a service uses it");

    drop(service);
    registry.get("f").unwrap();
    assert_eq!(keys(&registry), ["e", "f"]);
}

#[test]
fn t1_a_thread_that_has_called_a_circuit_does_not_hold_it() {
    for record in [Record::All, Record::Rules] {
        let config = CircuitBreakerConfig::builder().record(record);
        let registry = Registry::<String>::new(config.build().unwrap(), NonZeroUsize::MIN);
        let (called, evicted) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                succeed(&registry.get("a").unwrap());
                called.wait();
                evicted.wait();
            });
            called.wait();
            succeed(&registry.get("a").unwrap());
            let made = registry.get("b");
            evicted.wait();
            made.unwrap();
        });
        assert_eq!(keys(&registry), ["b"]);
    }
}

#[test]
fn t1_only_closed_circuits_are_evicted() {
    let clock = ManualClock::new();
    let registry: Registry<String> = {
        let clock = clock.clone();
        Registry::from_fn(
            move |_| Circuit::with_clock(config(), clock.clone()),
            NonZeroUsize::MIN,
        )
    };
    let stays = |state| {
        assert_eq!(registry.get("b").unwrap_err().capacity.get(), 1);
        assert_eq!(registry.peek("a").unwrap().state(), state);
    };
    let a = || registry.get("a").unwrap();

    fail(&a());
    fail(&a());
    stays(CircuitState::Open);
    clock.advance(Duration::from_secs(120));
    stays(CircuitState::Open);
    succeed(&a());
    stays(CircuitState::HalfOpen);
    a().force_open();
    stays(CircuitState::ForcedOpen);
    a().disable();
    stays(CircuitState::Disabled);

    a().reset();
    registry.get("b").unwrap();
    assert_eq!(keys(&registry), ["b"]);
}

#[test]
fn t1_a_full_registry_says_so() {
    let registry = registry(TWO);
    let _held = (registry.get("a").unwrap(), registry.get("b").unwrap());
    let full: RegistryFull = registry.get("c").unwrap_err();
    assert_eq!(
        full.to_string(),
        "the registry is full: none of its 2 circuits is idle"
    );
    assert!(registry.get("a").is_ok(), "it still has what it has");
}

#[test]
fn t1_circuits_that_are_well_go_before_those_with_failures() {
    let registry = registry(NonZeroUsize::new(3).unwrap());
    fail(&registry.get("failed").unwrap());
    succeed(&registry.get("well").unwrap());
    succeed(&registry.get("well too").unwrap());

    registry.get("a").unwrap();
    assert_eq!(keys(&registry), ["a", "failed", "well too"]);
    fail(&registry.get("a").unwrap());
    fail(&registry.get("well too").unwrap());

    registry.get("b").unwrap();
    assert_eq!(keys(&registry), ["a", "b", "well too"], "all have failed");
    let again = registry.get("failed").unwrap();
    assert_eq!(again.metrics().failed_requests, 0, "what it knew is lost");
}

#[test]
fn t1_a_removed_circuit_lives_on_with_its_holders() {
    let registry = registry(TWO);
    fail(&registry.get("a").unwrap());
    fail(&registry.get("a").unwrap());
    let removed = registry.remove("a").unwrap();
    assert_eq!(removed.state(), CircuitState::Open);
    assert!(registry.remove("a").is_none());
    assert_eq!(registry.get("a").unwrap().state(), CircuitState::Closed);
}

#[test]
fn t1_circuits_are_made_for_their_keys_and_outside_the_lock() {
    static REGISTRY: OnceLock<Registry<String>> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        Registry::from_fn(
            |key: &String| {
                let registry = REGISTRY.get().unwrap();
                assert!(registry.peek(key.as_str()).is_none());
                let config = CircuitBreakerConfig::builder().failure_threshold(key.len() as u32);
                let circuit = Circuit::new(config.build().unwrap());
                circuit.on_state_change(|_| assert!(registry.len() <= 2));
                circuit
            },
            TWO,
        )
    });
    let circuit = registry.get("abc").unwrap();
    assert_eq!(circuit.config().failure_threshold(), Some(3));
    circuit.force_open();
}

/// Whoever holds a circuit finds the very same one under its key, however the others press.
#[test]
fn t1_threads_never_see_two_circuits_for_one_key() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 12;
    const ROUNDS: u64 = 3_000;

    // The reset timeout serves as the name of a circuit.
    let made = Arc::new(AtomicU64::new(0));
    let registry: Registry<u64> = {
        let made = made.clone();
        Registry::from_fn(
            move |_| {
                let name = made.fetch_add(1, Ordering::Relaxed) + 1;
                let config = config().to_builder();
                Circuit::new(
                    config
                        .reset_timeout(Duration::from_secs(name))
                        .build()
                        .unwrap(),
                )
            },
            NonZeroUsize::new(6).unwrap(),
        )
    };
    let calls: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let registry = registry.clone();
                scope.spawn(move || {
                    let mut calls = 0;
                    for round in 0..ROUNDS {
                        let key = (round * (2 * thread + 1) + thread) % KEYS;
                        // Four threads hold at most four of six.
                        let circuit = registry.get(&key).unwrap();
                        let name = circuit.config().reset_timeout();
                        let permit = circuit.try_acquire().unwrap();
                        drop(circuit);
                        thread::yield_now();
                        let found = registry.peek(&key).expect("a call is in flight");
                        assert_eq!(found.config().reset_timeout(), name);
                        assert!(registry.len() <= 6);
                        permit.success();
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(calls, THREADS * ROUNDS);
    assert_eq!(registry.len(), 6);
    assert!(made.load(Ordering::Relaxed) > KEYS, "none was evicted");
}

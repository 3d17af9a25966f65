//! `recovery_ramp`, for those who wait in `poll_ready`.
#![cfg(feature = "tokio")]

use std::{convert::Infallible, time::Duration};

use tokio_test::{assert_pending, assert_ready_ok};
use tower::{Layer, Service, service_fn};
use tower_breaker::{Circuit, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState};
use tower_test::mock::Spawn;

const RESET: Duration = Duration::from_secs(120);
const RAMP: Duration = Duration::from_secs(64);

/// A layer whose circuit has just recovered, and has admitted the first call of its ramp.
async fn recovered() -> CircuitBreakerLayer {
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(1)
        .half_open_requests(1)
        .reset_timeout(RESET)
        .recovery_ramp(RAMP);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit: &Circuit = layer.circuit();
    circuit.try_acquire().unwrap().failure();
    tokio::time::advance(RESET).await;
    circuit.try_acquire().unwrap().success();
    assert_eq!(circuit.state(), CircuitState::Closed);
    circuit.try_acquire().unwrap().success();
    layer
}

fn ok(
    layer: &CircuitBreakerLayer,
) -> Spawn<impl Service<(), Response = (), Error = impl std::fmt::Debug>> {
    Spawn::new(layer.layer(service_fn(|()| async { Ok::<_, Infallible>(()) })))
}

#[tokio::test(start_paused = true)]
async fn b1_who_waits_gets_a_share_of_the_ramp_that_rises() {
    let layer = recovered().await;
    let mut service = ok(&layer);
    let mut halves = [0, 0];
    for second in 0..64 {
        if service.poll_ready::<()>().is_ready() {
            halves[second / 32] += 1;
            service.call(()).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // The share is a quarter on average in the first half, and three quarters in the second.
    assert!((6..=9).contains(&halves[0]), "{halves:?}");
    assert!((22..=25).contains(&halves[1]), "{halves:?}");
}

#[tokio::test(start_paused = true)]
async fn t3_who_waits_for_its_share_is_woken_to_ask_again() {
    let layer = recovered().await;
    tokio::time::advance(RAMP / 2).await;
    let mut service = ok(&layer);
    assert_pending!(service.poll_ready::<()>());
    tokio::time::advance(RAMP / 64 - Duration::from_millis(1)).await;
    assert!(!service.is_woken(), "not all the time");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready::<()>());
}

#[tokio::test(start_paused = true)]
async fn b8_a_reset_wakes_who_waits_for_its_share() {
    let layer = recovered().await;
    let mut service = ok(&layer);
    assert_pending!(service.poll_ready::<()>());
    layer.circuit().reset();
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready::<()>());
}

//! Whatever a body and its reader do, the call is settled once (B6, T8).
#![cfg(all(feature = "tokio", feature = "http"))]

use std::{convert::Infallible, time::Duration};

use axum::http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;
use proptest::{collection::vec, option, prelude::*};
use tower::{Layer, ServiceExt};
use tower_breaker::{BodyConfig, CircuitBreakerConfig, CircuitBreakerLayer};

#[path = "support/script.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is not a crate that anyone else could reach into, and uses its own part of this"
)]
mod script;

use script::{
    Script,
    Step::{self, Data, Fail, Hang, Trailers, Wait},
};

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(()).prop_map(|()| Data("a")),
        3 => seconds(1..5).prop_map(Wait),
        1 => Just(()).prop_map(|()| Fail),
        1 => Just(()).prop_map(|()| Hang),
        1 => (0_u16..17).prop_map(|code| {
            Trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]))
        }),
    ]
}

fn any_deadlines() -> impl Strategy<Value = BodyConfig> {
    let deadline = || option::of(seconds(1..8));
    (deadline(), deadline(), deadline(), any::<bool>()).prop_map(|(first, idle, total, slow)| {
        BodyConfig::new()
            .first_byte_timeout(first)
            .idle_timeout(idle)
            .total_timeout(total)
            .slow_call_includes_body(slow)
    })
}

/// How a reader left a body.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    AtItsEnd,
    Failed,
    Before,
}

/// Reads so many frames, with so much patience for each, and drops the body.
async fn read<B: Body>(body: B, frames: usize, patience: Duration) -> Left {
    let mut body = Box::pin(body);
    for _ in 0..frames {
        match tokio::time::timeout(patience, body.frame()).await {
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_))) => {
                assert!(body.frame().await.is_none(), "it failed, and is over");
                return Left::Failed;
            }
            Ok(None) => return Left::AtItsEnd,
            Err(_) => return Left::Before,
        }
    }
    Left::Before
}

proptest! {
    #[test]
    fn b6_every_body_settles_its_call_once(
        steps in vec(any_step(), 0..8),
        knows in any::<bool>(),
        deadlines in any_deadlines(),
        is_grpc in any::<bool>(),
        frames in 0_usize..10,
        patience in seconds(1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let script = if knows { Script::new(steps) } else { Script::unknowing(steps) };
        let mut script = Some(script);
        let answer = tower::service_fn(move |()| {
            let script = script.take().expect("one call");
            async move { Ok::<_, Infallible>(Response::new(script)) }
        });
        let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
        let circuit = layer.circuit().clone();
        let left = runtime.block_on(async {
            if is_grpc {
                let response = layer.grpc().body(deadlines).layer(answer).oneshot(()).await;
                read(response.unwrap().into_body(), frames, patience).await
            } else {
                let response = layer.http().body(deadlines).layer(answer).oneshot(()).await;
                read(response.unwrap().into_body(), frames, patience).await
            }
        });

        let metrics = circuit.metrics();
        let successful = metrics.successful_requests.unwrap();
        let (failed, ignored) = (metrics.failed_requests, metrics.ignored_requests);
        prop_assert_eq!(metrics.in_flight, Some(0));
        prop_assert_eq!(successful + failed + ignored, 1);
        prop_assert!(metrics.timed_out_requests <= failed);
        if metrics.cancelled_requests == 1 {
            prop_assert_eq!((ignored, left), (1, Left::Before));
        } else if left == Left::AtItsEnd && !is_grpc {
            prop_assert_eq!(successful, 1);
        }
    }
}

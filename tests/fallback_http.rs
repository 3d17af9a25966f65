//! A proxy that falls back, over real HTTP (F2 to F6): two sites behind circuit breakers, and a page of
//! its own for when both are down.
#![cfg(all(feature = "fallback", feature = "http", feature = "tokio"))]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tower::{Layer, Service, ServiceExt};
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, Fallback, FallbackError,
    fallback::{
        AttemptOutcome::{self, Answered, Failed, Skipped},
        Attempts,
    },
};

type Req = Request<Empty<Bytes>>;

/// A site on loopback that answers `GET /` with its name, until it is aborted.
async fn site(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/", get(async move || name))
        .route("/broken", get(async || StatusCode::BAD_GATEWAY));
    let server = tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (address, server)
}

/// The way to a site. Each request has a connection of its own, so that an aborted site is seen to be
/// gone.
fn way_to(
    address: SocketAddr,
) -> impl Service<Req, Response = Response<Body>, Error = Error, Future: Send> + Clone {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    tower::service_fn(move |mut request: Req| {
        let path = request.uri().path();
        *request.uri_mut() = format!("http://{address}{path}").parse().unwrap();
        let response = client.request(request);
        async { Ok(response.await?.map(Body::new)) }
    })
}

fn breaker() -> CircuitBreakerLayer {
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(1)
        .half_open_requests(1)
        .reset_timeout(Duration::from_secs(30));
    CircuitBreakerLayer::new(config.build().unwrap())
}

fn get_(path: &str) -> Req {
    Request::get(path).body(Empty::new()).unwrap()
}

/// The answer's text, and what became of the links.
async fn ask<S>(chain: &mut S, path: &str) -> (String, Vec<(usize, AttemptOutcome)>, bool)
where
    S: Service<Req, Response = Response<Body>, Error = FallbackError<Error>>,
{
    let response = chain.ready().await.unwrap().call(get_(path)).await.unwrap();
    let attempts = response.extensions().get::<Attempts>().unwrap().clone();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let told = attempts.iter().map(|a| (a.link, a.outcome)).collect();
    (
        String::from_utf8(text.into()).unwrap(),
        told,
        attempts.degraded(),
    )
}

fn state(circuit: &Circuit) -> CircuitState {
    circuit.state()
}

#[tokio::test]
async fn f2_f3_f6_over_real_http_a_site_that_goes_down_is_gone_round() {
    let ((a, first), (b, second)) = (site("a").await, site("b").await);
    let (breaker_a, breaker_b) = (breaker().http(), breaker().http());
    let (circuit_a, circuit_b) = (breaker_a.circuit().clone(), breaker_b.circuit().clone());
    let page = tower::service_fn(|_: Req| async { Ok::<_, Error>(Response::new("sorry".into())) });
    let mut chain = Fallback::new_link(breaker_a.layer(way_to(a)), circuit_a.probe())
        .or_link(breaker_b.layer(way_to(b)), circuit_b.probe())
        .or_degraded(page)
        .http();

    let (text, told, degraded) = ask(&mut chain, "/").await;
    assert_eq!((&*text, degraded), ("a", false));
    assert_eq!(told, [(0, Answered)]);

    first.abort();
    let _ = first.await;
    let (text, told, _) = ask(&mut chain, "/").await;
    assert_eq!(text, "b");
    assert_eq!(told, [(0, Failed), (1, Answered)]);
    assert_eq!(state(&circuit_a), CircuitState::Open);
    let (text, told, _) = ask(&mut chain, "/").await;
    assert_eq!(text, "b");
    assert_eq!(told, [(0, Skipped), (1, Answered)]);

    // A status is a failure too, and opens the second circuit.
    let (text, told, degraded) = ask(&mut chain, "/broken").await;
    assert_eq!((&*text, degraded), ("sorry", true));
    assert_eq!(told, [(0, Skipped), (1, Failed), (2, Answered)]);
    assert_eq!(state(&circuit_b), CircuitState::Open);
    let (text, told, degraded) = ask(&mut chain, "/").await;
    assert_eq!((&*text, degraded), ("sorry", true));
    assert_eq!(told, [(0, Skipped), (1, Skipped), (2, Answered)]);

    circuit_b.reset();
    assert_eq!(ask(&mut chain, "/").await.0, "b");
    second.abort();
}

#[tokio::test]
async fn f5_over_real_http_a_proxy_tells_its_clients_the_shortest_wait() {
    let (a, server) = site("a").await;
    let breaker = breaker().http();
    let probe = breaker.circuit().probe();
    let chain = Fallback::new_link(breaker.layer(way_to(a)), probe)
        .fail_fast()
        .http();
    let answer = move || {
        let answer = chain.clone().oneshot(get_("/"));
        async {
            answer.await.unwrap_or_else(|error| {
                let wait = error.retry_after().unwrap_or_default().as_secs() + 1;
                let response = Response::builder().status(503);
                let response = response.header(header::RETRY_AFTER, wait);
                response.body(Body::empty()).unwrap()
            })
        }
    };
    let proxy = Router::new().route("/", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async { axum::serve(listener, proxy).await.unwrap() });
    let client = way_to(address);

    let response = client.clone().oneshot(get_("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    breaker.circuit().try_acquire().unwrap().failure();
    let response = client.oneshot(get_("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let wait: u64 = response.headers()[header::RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait));
    serving.abort();
    server.abort();
}

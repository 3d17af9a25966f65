//! Calls that settle at the end of their bodies (T8), over real HTTP: in an axum server, and in a hyper-util client.
#![cfg(all(feature = "tokio", feature = "http"))]

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
    routing::get,
};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, Service, ServiceExt};
use tower_breaker::{
    BodyConfig, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, Error, HttpClassifier,
    Rejected, service::Deadline,
};

mod support;

use support::{
    eventually,
    http::{self, Response as Answer},
};

/// Long enough for a busy machine, where something has to be there in time.
const MOMENT: Duration = Duration::from_millis(500);

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .build()
        .unwrap()
}

// ===== a server =====

/// Three events, and how they go on.
fn events(
    end: impl stream::Stream<Item = Result<&'static str, &'static str>> + Send + 'static,
) -> Response<Body> {
    let events = stream::iter(["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]);
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(events.map(Ok).chain(end)))
        .unwrap()
}

/// Breaks, once what came before is on its way.
fn gone() -> impl stream::Stream<Item = Result<&'static str, &'static str>> {
    stream::once(async {
        tokio::task::yield_now().await;
        Err("the database is gone")
    })
}

fn routes() -> Router {
    Router::new()
        .route("/text", get(async || "hello"))
        .route("/fails", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/whole", get(async || events(stream::empty())))
        .route("/breaks", get(async || events(gone())))
        .route("/stalls", get(async || events(stream::pending())))
        .route(
            "/counted",
            // A stream of known length, as proxies have it.
            get(async || {
                let body = Body::from_stream(stream::iter(["hel", "lo"]).map(Ok::<_, Infallible>));
                Response::builder()
                    .header("content-length", 5)
                    .body(body)
                    .unwrap()
            }),
        )
}

async fn serve(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    url
}

async fn ask(method: &str, url: &str, path: &str) -> Result<Answer, http::Error> {
    http::try_request(method, &format!("{url}{path}"), &[], "").await
}

// ===== the breaker in the server =====

#[tokio::test]
async fn t8_an_event_stream_that_breaks_after_the_200_opens_the_servers_circuit() {
    let layer = CircuitBreakerLayer::new(config())
        .http()
        .body(BodyConfig::new());
    let url = serve(routes().layer(layer.clone())).await;
    for _ in 0..2 {
        ask("GET", &url, "/breaks").await.unwrap_err();
    }
    assert_eq!(layer.circuit().state(), CircuitState::Open);
    let answer = ask("GET", &url, "/whole").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "120")
    );
    assert_eq!(answer.text(), "");

    layer.circuit().reset();
    let answer = ask("GET", &url, "/whole").await.unwrap();
    assert_eq!(answer.text(), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[tokio::test]
async fn t8_without_the_option_it_does_not() {
    let layer = CircuitBreakerLayer::new(config()).http();
    let url = serve(routes().layer(layer.clone())).await;
    for _ in 0..2 {
        ask("GET", &url, "/breaks").await.unwrap_err();
    }
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.successful_requests, metrics.failed_requests),
        (Some(2), 0)
    );
}

#[tokio::test]
async fn t8_whole_answers_of_every_kind_are_successes_in_a_server() {
    let layer = CircuitBreakerLayer::new(config())
        .http()
        .body(BodyConfig::new());
    let url = serve(routes().layer(layer.clone())).await;
    let mut successes = 0;
    for method in ["GET", "HEAD"] {
        for path in ["/text", "/whole", "/counted", "/nowhere"] {
            let answer = ask(method, &url, path).await.unwrap();
            let length = answer.headers.get("content-length");
            match path {
                "/text" | "/counted" => assert_eq!(length.unwrap(), "5", "{method} {path}"),
                "/whole" => assert_eq!(length, None),
                _ => assert_eq!(answer.status, 404),
            }
            successes += 1;
            let counted = eventually("the server to have let go of the body", async || {
                let metrics = layer.circuit().metrics();
                (metrics.in_flight == Some(0)).then_some(metrics.successful_requests)
            });
            assert_eq!(counted.await, Some(successes), "{method} {path}");
        }
    }
    assert_eq!(layer.circuit().metrics().failed_requests, 0);
}

#[tokio::test]
async fn t8_a_stream_whose_client_goes_away_is_a_cancellation_in_the_server() {
    let layer = CircuitBreakerLayer::new(config())
        .http()
        .body(BodyConfig::new());
    let url = serve(routes().layer(layer.clone())).await;
    let mut client = client();
    let response = client.call(request(&url, "/stalls")).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop((body, client));
    eventually("the cancellation", async || {
        let metrics = layer.circuit().metrics();
        (metrics.cancelled_requests == 1).then_some(())
    })
    .await;
    assert_eq!(layer.circuit().metrics().failed_requests, 0);
}

#[tokio::test]
async fn t8_a_stream_that_falls_silent_is_cut_by_the_server() {
    let layer = CircuitBreakerLayer::new(config())
        .http()
        .body(BodyConfig::new().idle_timeout(MOMENT));
    let url = serve(routes().layer(layer.clone())).await;
    ask("GET", &url, "/stalls").await.unwrap_err();
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.failed_requests, metrics.timed_out_requests),
        (1, 1)
    );
}

// ===== the breaker in a client =====

type HyperClient = Client<HttpConnector, Empty<Bytes>>;

fn client() -> HyperClient {
    Client::builder(TokioExecutor::new()).build_http()
}

fn request(url: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("{url}{path}"))
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn t2_fail_fast_around_a_hyper_client() {
    let layer = CircuitBreakerLayer::new(config())
        .fail_fast()
        .classify(HttpClassifier);
    let url = serve(routes()).await;
    let mut client = layer.layer(client());
    for _ in 0..2 {
        let response = client
            .ready()
            .await
            .unwrap()
            .call(request(&url, "/fails"))
            .await;
        assert_eq!(response.unwrap().status(), 500);
    }
    let rejected = client
        .ready()
        .await
        .unwrap()
        .call(request(&url, "/text"))
        .await;
    assert!(rejected.unwrap_err().is_open());
    layer.circuit().reset();
    // Without the option, the body is hyper's own.
    let response = client
        .ready()
        .await
        .unwrap()
        .call(request(&url, "/text"))
        .await;
    let body: hyper::body::Incoming = response.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn t2_a_server_that_is_not_there_opens_a_hyper_clients_circuit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // The modes that answer by themselves need no body that can be made from nothing.
    let layer = CircuitBreakerLayer::new(config())
        .http()
        .body(BodyConfig::new());
    let mut client = layer.layer(client());
    for _ in 0..2 {
        let refused = client
            .ready()
            .await
            .unwrap()
            .call(request(&url, "/text"))
            .await;
        assert!(refused.unwrap_err().is_connect());
    }
    let answer = client
        .ready()
        .await
        .unwrap()
        .call(request(&url, "/text"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.extensions().get::<Rejected>().is_some());
}

#[tokio::test]
async fn t8_an_event_stream_that_breaks_after_the_200_opens_the_clients_circuit() {
    let layer = CircuitBreakerLayer::new(config())
        .fail_fast()
        .classify(HttpClassifier)
        .body(BodyConfig::new());
    let url = serve(routes()).await;
    let mut client = layer.layer(client());
    for _ in 0..2 {
        let response = client
            .ready()
            .await
            .unwrap()
            .call(request(&url, "/breaks"))
            .await;
        let broken = response.unwrap().into_body().collect().await.unwrap_err();
        assert!(matches!(broken, Error::Inner(_)), "{broken:?}");
    }
    let rejected = client
        .ready()
        .await
        .unwrap()
        .call(request(&url, "/text"))
        .await;
    assert!(rejected.unwrap_err().is_open());
}

#[tokio::test]
async fn t8_whole_half_and_stalled_answers_in_a_client() {
    let layer = CircuitBreakerLayer::new(config())
        .fail_fast()
        .classify(HttpClassifier)
        .body(BodyConfig::new().idle_timeout(MOMENT));
    let url = serve(routes()).await;
    let mut client = layer.layer(client());
    let mut get = async |path| {
        let call = client.ready().await.unwrap().call(request(&url, path));
        call.await.unwrap().into_body()
    };

    for path in ["/text", "/whole", "/counted"] {
        get(path).await.collect().await.unwrap();
    }
    assert_eq!(layer.circuit().metrics().successful_requests, Some(3));

    let mut half = Box::pin(get("/stalls").await);
    half.frame().await.unwrap().unwrap();
    drop(half);
    assert_eq!(layer.circuit().metrics().cancelled_requests, 1);

    let stalled = get("/stalls").await.collect().await.unwrap_err();
    match stalled {
        Error::Timeout(timeout) => assert_eq!(timeout.deadline, Deadline::Idle),
        other => panic!("{other:?}"),
    }
    assert_eq!(layer.circuit().metrics().timed_out_requests, 1);
}

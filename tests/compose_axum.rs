//! The modes in a real axum server over loopback (T2).
#![cfg(all(feature = "tokio", feature = "http"))]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    BoxError, Router, body::Body, error_handling::HandleErrorLayer, http::StatusCode, routing::get,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{
    CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, HttpClassifier, Open, Outcome,
    Rejected,
};

mod support;

use support::http::{self, Response};

/// A real server, for as long as it is held.
struct Server {
    url: String,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(routes: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async { axum::serve(listener, routes).await });
        Self { url, task }
    }

    async fn get(&self, path: &str) -> Response {
        http::get(&format!("{}{path}", self.url)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap()
}

/// Routes that answer well, fail, refuse and hang, and count what reaches them.
fn routes() -> (Router, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = |status: StatusCode| {
        let reached = reached.clone();
        get(move || async move {
            reached.fetch_add(1, Ordering::Relaxed);
            status
        })
    };
    let router = Router::new()
        .route("/ok", count(StatusCode::OK))
        .route("/fails", count(StatusCode::INTERNAL_SERVER_ERROR))
        .route("/missing", count(StatusCode::NOT_FOUND))
        .route("/hangs", get(std::future::pending::<()>));
    (router, reached)
}

#[tokio::test]
async fn t2_http_answers_503_with_retry_after_on_a_router() {
    let (routes, reached) = routes();
    let layer = CircuitBreakerLayer::new(config()).http();
    let server = Server::start(routes.layer(layer.clone())).await;

    for _ in 0..5 {
        assert_eq!(server.get("/missing").await.status, 404);
    }
    // Two routes and two connections, one circuit (T1).
    assert_eq!(server.get("/fails").await.status, 500);
    assert_eq!(server.get("/fails").await.status, 500);
    assert_eq!(layer.circuit().state(), CircuitState::Open);
    let before = reached.load(Ordering::Relaxed);
    let response = server.get("/ok").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.headers["retry-after"], "120");
    assert_eq!(reached.load(Ordering::Relaxed), before);

    layer.circuit().reset();
    assert_eq!(server.get("/ok").await.status, 200);
}

#[tokio::test]
async fn t2_http_answers_504_on_timeout() {
    let (routes, _) = routes();
    let layer = CircuitBreakerLayer::new(config()).http();
    let server = Server::start(routes.layer(layer.clone())).await;
    assert_eq!(server.get("/hangs").await.status, 504);
    assert_eq!(layer.circuit().metrics().timed_out_requests, 1);
}

#[tokio::test]
async fn t2_waiting_under_load_shed_answers_at_once() {
    let (routes, reached) = routes();
    let layer = CircuitBreakerLayer::new(config()).classify(HttpClassifier);
    let stack = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|error: BoxError| async move {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }))
        .load_shed()
        .layer(layer.clone());
    let server = Server::start(routes.layer(stack)).await;
    assert_eq!(server.get("/fails").await.status, 500);
    assert_eq!(server.get("/fails").await.status, 500);
    let response = server.get("/ok").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "service overloaded");
    assert_eq!(reached.load(Ordering::Relaxed), 2);
    layer.circuit().reset();
    assert_eq!(server.get("/ok").await.status, 200);
}

#[tokio::test]
async fn t2_fail_fast_under_handle_error() {
    let (routes, _) = routes();
    let layer = CircuitBreakerLayer::new(config()).fail_fast();
    let handle = HandleErrorLayer::new(|error: tower_breaker::Error<Infallible>| async move {
        let error = BoxError::from(error);
        let status = match error.downcast_ref::<Open>() {
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::GATEWAY_TIMEOUT,
        };
        (status, error.to_string())
    });
    let stack = ServiceBuilder::new().layer(handle).layer(layer.clone());
    let server = Server::start(routes.layer(stack)).await;
    assert_eq!(server.get("/hangs").await.status, 504);
    layer.circuit().force_open();
    let response = server.get("/ok").await;
    assert_eq!(response.status, 503);
    assert_eq!(
        response.text(),
        "circuit is open (forced open) until it is reset"
    );
}

#[tokio::test]
async fn t2_the_breakers_own_answers_are_marked() {
    let layer = CircuitBreakerLayer::new(config()).http();
    layer.circuit().force_open();
    let ok = tower::service_fn(|_: ()| async {
        Ok::<_, Infallible>(axum::http::Response::new(Body::empty()))
    });
    let mut service = layer.layer(ok);
    let response = service.ready().await.unwrap().call(()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(!response.headers().contains_key("retry-after"));
    let rejected = response.extensions().get::<Rejected>().unwrap();
    assert_eq!(rejected.retry_after, None);
}

#[tokio::test]
async fn t7_http_with_a_classifier_of_ones_own() {
    let (routes, _) = routes();
    let layer = CircuitBreakerLayer::new(config()).http().classify(
        |result: Result<&axum::http::Response<Body>, &Infallible>| match result {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => Outcome::FAILURE,
            _ => Outcome::Success,
        },
    );
    let server = Server::start(routes.layer(layer)).await;
    assert_eq!(server.get("/missing").await.status, 404);
    assert_eq!(server.get("/missing").await.status, 404);
    assert_eq!(server.get("/missing").await.status, 503);
}

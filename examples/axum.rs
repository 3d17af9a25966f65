//! A circuit breaker on an axum router.
//!
//! ```text
//! cargo run --example axum
//! ```
//!
//! `/orders` needs a database. When that is down, its callers shouldn't queue up to find out, and
//! the database shouldn't have them to deal with while it comes back: they get a `503` at once, and
//! are told when to try again. `/health` doesn't need the database, so it stands outside.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header::RETRY_AFTER},
    routing::get,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Short times, so that you needn't wait. The defaults suit slow remote services.
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(3)
        .reset_timeout(Duration::from_millis(500))
        .half_open_requests(1)
        .timeout(Duration::from_secs(5))
        .build()?;
    // The circuit belongs to the layer. axum applies it to each route and each connection, and all
    // of those share the one.
    let breaker = CircuitBreakerLayer::new(config).http();
    let circuit = breaker.circuit().clone();

    let app = Router::new()
        .route("/orders", get(orders))
        .layer(breaker)
        // What is added after the layer is not behind it.
        .route("/health", get(async move || circuit.state().to_string()));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    // From here on, we are our own client, over real HTTP.
    let client = Client::builder(TokioExecutor::new()).build_http();

    println!("# the database is up");
    show(&client, &url, "/orders").await?;

    println!("# the database goes down");
    DATABASE_IS_DOWN.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        show(&client, &url, "/orders").await?;
    }
    show(&client, &url, "/health").await?;

    println!("# the database is up again, and the circuit has waited for its reset timeout");
    DATABASE_IS_DOWN.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    show(&client, &url, "/orders").await?;
    show(&client, &url, "/health").await?;
    Ok(())
}

/// Whether the database is down.
static DATABASE_IS_DOWN: AtomicBool = AtomicBool::new(false);

async fn orders() -> Result<&'static str, StatusCode> {
    if DATABASE_IS_DOWN.load(Ordering::Relaxed) {
        Err(StatusCode::INTERNAL_SERVER_ERROR)
    } else {
        Ok("3 orders")
    }
}

/// Sends a request, and prints what came back.
async fn show(client: &Client<HttpConnector, Body>, url: &str, path: &str) -> Result<(), BoxError> {
    let response = client.get(format!("{url}{path}").parse()?).await?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).cloned();
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1024).await?;

    print!("GET {path}: {status}");
    if let Some(seconds) = retry_after {
        print!(", Retry-After: {}", seconds.to_str()?);
    }
    if !body.is_empty() {
        print!(", {}", String::from_utf8_lossy(&body));
    }
    println!();
    Ok(())
}

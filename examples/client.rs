//! An HTTP client behind a circuit breaker that fails fast.
//!
//! ```text
//! cargo run --example client
//! ```
//!
//! The server is a real one on loopback, and breaks when it is told to. Watch the circuit open,
//! reject what would have failed anyway, let a probe through once the server has had some rest,
//! and close.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{Router, routing::get};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitBreakerLayer, Error, HttpClassifier};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url: Uri = format!("http://{}/", listener.local_addr()?).parse()?;
    let routes = Router::new().route("/", get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    // Short times, so that you needn't wait. The defaults suit slow remote services.
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(3)
        .reset_timeout(Duration::from_millis(500))
        .half_open_requests(2)
        .timeout(Duration::from_secs(5))
        .build()?;
    // To the HTTP client, a status of 500 is a response like any other. The classifier knows
    // better.
    let breaker = CircuitBreakerLayer::new(config)
        .fail_fast()
        .classify(HttpClassifier);
    // The circuit hears of a response before you do, so these lines come just before it.
    breaker
        .circuit()
        .on_state_change(|event| println!("circuit: {event}"));

    let mut client = ServiceBuilder::new()
        .layer(breaker)
        .service(Client::builder(TokioExecutor::new()).build_http());

    println!("# the server is well");
    println!("{}", send(&mut client, &url).await?);

    println!("# the server breaks");
    BROKEN.store(true, Ordering::Relaxed);
    let mut wait = Duration::ZERO;
    for _ in 0..4 {
        match send(&mut client, &url).await {
            Ok(status) => println!("{status}"),
            Err(Error::Open(open)) => {
                println!("not sent: {open}");
                // `None` if no time will change it: somebody forced the circuit open.
                wait = open.retry_after.unwrap_or_default();
            }
            Err(error) => return Err(error.into()),
        }
    }

    println!("# the server recovers, and we come back when we were told to");
    BROKEN.store(false, Ordering::Relaxed);
    tokio::time::sleep(wait).await;
    println!("{}", send(&mut client, &url).await?);
    println!("{}", send(&mut client, &url).await?);
    Ok(())
}

/// Sends one request, with any client that is a Tower service.
async fn send<S, B>(client: &mut S, url: &Uri) -> Result<StatusCode, S::Error>
where
    S: Service<Request<String>, Response = Response<B>>,
{
    let mut request = Request::new(String::new());
    *request.uri_mut() = url.clone();
    let response = client.ready().await?.call(request).await?;
    Ok(response.status())
}

/// Whether the server is broken.
static BROKEN: AtomicBool = AtomicBool::new(false);

async fn answer() -> StatusCode {
    if BROKEN.load(Ordering::Relaxed) {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    }
}

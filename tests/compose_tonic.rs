//! A real tonic server and a real tonic client over loopback, with the breaker on either side (T2, T8).
#![cfg(all(feature = "tokio", feature = "http"))]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{self, uri::PathAndQuery};
use bytes::{Buf, BufMut};
use futures_util::{Stream, StreamExt, stream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::NamedService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::{Layer, Service};
use tower_breaker::{
    BodyConfig, CircuitBreakerConfig, CircuitBreakerLayer, CircuitState, GrpcClassifier, Open,
};

mod support;

use support::eventually;

/// Long enough for a busy machine, where something has to be there in time.
const MOMENT: Duration = Duration::from_millis(500);

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .build()
        .unwrap()
}

// ===== a service whose messages are text =====

#[derive(Debug, Default, Clone, Copy)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining()).to_vec();
        let text = String::from_utf8(bytes);
        Ok(Some(text.map_err(|_| Status::internal("not text"))?))
    }
}

/// Does what the message says, and counts what reaches it.
#[derive(Debug, Default, Clone)]
struct Echo {
    reached: Arc<AtomicUsize>,
}

impl Echo {
    fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed)
    }
}

/// The status that a message asks for.
fn asked(message: &str) -> Result<(), Status> {
    match message {
        "down" => Err(Status::unavailable("as you wish")),
        "missing" => Err(Status::not_found("as you wish")),
        _ => Ok(()),
    }
}

async fn once(request: Request<String>) -> Result<Response<String>, Status> {
    let message = request.into_inner();
    if message == "hang" {
        std::future::pending::<()>().await;
    }
    asked(&message)?;
    Ok(Response::new(message))
}

type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// The message twice, and then how it ends.
async fn twice(request: Request<String>) -> Result<Response<Messages>, Status> {
    let message = request.into_inner();
    let twice = stream::iter([message.clone(), message.clone()]).map(Ok);
    let end = stream::once(async move {
        if message == "hang" {
            std::future::pending::<()>().await;
        }
        asked(&message)
    });
    let end = end.filter_map(|end| async { end.err().map(Err) });
    Ok(Response::new(Box::pin(twice.chain(end))))
}

impl NamedService for Echo {
    const NAME: &'static str = "echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.reached.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Text);
            Ok(match request.uri().path() {
                "/echo/Once" => grpc.unary(tower::service_fn(once), request).await,
                _ => {
                    grpc.server_streaming(tower::service_fn(twice), request)
                        .await
                }
            })
        })
    }
}

// ===== both sides =====

async fn bind() -> (TcpIncoming, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpIncoming::from(listener), address)
}

/// A server with no breaker.
async fn serve(echo: Echo) -> SocketAddr {
    let (incoming, address) = bind().await;
    let router = Server::builder().add_service(echo);
    tokio::spawn(router.serve_with_incoming(incoming));
    address
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// What generated clients do.
struct Client<T>(Grpc<T>);

impl<T> Client<T>
where
    T: GrpcService<Body>,
    T::Error: std::fmt::Debug,
    T::ResponseBody: Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError>,
{
    fn new(service: T) -> Self {
        Self(Grpc::new(service))
    }

    async fn once(&mut self, message: &str) -> Result<String, Status> {
        self.0.ready().await.expect("it is never an error here");
        let path = PathAndQuery::from_static("/echo/Once");
        let request = Request::new(message.to_owned());
        let response = self.0.unary(request, path, Text).await?;
        Ok(response.into_inner())
    }

    async fn twice(&mut self, message: &str) -> Result<Streaming<String>, Status> {
        self.0.ready().await.expect("it is never an error here");
        let path = PathAndQuery::from_static("/echo/Twice");
        let request = Request::new(message.to_owned());
        let response = self.0.server_streaming(request, path, Text).await?;
        Ok(response.into_inner())
    }

    /// How a stream of messages ended, and after how many.
    async fn count(&mut self, message: &str) -> (usize, Result<(), Status>) {
        let mut messages = match self.twice(message).await {
            Ok(messages) => messages,
            Err(status) => return (0, Err(status)),
        };
        let mut count = 0;
        loop {
            match messages.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, Ok(())),
                Err(status) => return (count, Err(status)),
            }
        }
    }
}

#[track_caller]
fn assert_rejected(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("circuit is open"), "{status}");
    let wait = status.metadata().get("grpc-retry-pushback-ms");
    let wait: u64 = wait.expect("the wait").to_str().unwrap().parse().unwrap();
    assert!((110_000..=120_000).contains(&wait), "{wait}");
}

// ===== the breaker in the server =====

#[tokio::test]
async fn t2_grpc_on_a_tonic_server_answers_unavailable_with_the_wait() {
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let echo = Echo::default();
    let (incoming, address) = bind().await;
    let router = Server::builder()
        .layer(layer.clone())
        .add_service(echo.clone());
    tokio::spawn(router.serve_with_incoming(incoming));
    let mut client = Client::new(channel(address));

    for _ in 0..5 {
        let status = client.once("missing").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    assert_eq!(client.once("hello").await.unwrap(), "hello");
    for _ in 0..2 {
        let status = client.once("down").await.unwrap_err();
        assert_eq!(status.message(), "as you wish");
    }
    let reached = echo.reached();
    assert_rejected(&client.once("hello").await.unwrap_err());
    let (count, end) = client.count("hello").await;
    assert_eq!(count, 0);
    assert_rejected(&end.unwrap_err());
    assert_eq!(echo.reached(), reached);

    layer.circuit().reset();
    assert_eq!(client.once("hello").await.unwrap(), "hello");
    layer.circuit().force_open();
    let status = client.once("hello").await.unwrap_err();
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
}

#[tokio::test]
async fn t2_grpc_answers_deadline_exceeded_on_a_timeout() {
    let config = CircuitBreakerConfig::builder().timeout(Duration::from_millis(50));
    let layer = CircuitBreakerLayer::new(config.build().unwrap()).grpc();
    let (incoming, address) = bind().await;
    let router = Server::builder()
        .layer(layer.clone())
        .add_service(Echo::default());
    tokio::spawn(router.serve_with_incoming(incoming));
    let status = Client::new(channel(address))
        .once("hang")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "no answer within 50ms");
    assert_eq!(layer.circuit().metrics().timed_out_requests, 1);
}

#[tokio::test]
async fn t2_waiting_under_load_shed_in_a_tonic_server_answers_at_once() {
    let layer = CircuitBreakerLayer::new(config()).classify(GrpcClassifier);
    let echo = Echo::default();
    let (incoming, address) = bind().await;
    let stack = tower::ServiceBuilder::new()
        .load_shed()
        .layer(layer.clone())
        .into_inner();
    let router = Server::builder().layer(stack).add_service(echo.clone());
    tokio::spawn(router.serve_with_incoming(incoming));
    let mut client = Client::new(channel(address));
    for _ in 0..2 {
        client.once("down").await.unwrap_err();
    }
    let status = client.once("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted); // tonic's answer to `Overloaded`
    assert_eq!(echo.reached(), 2);
    layer.circuit().reset();
    assert_eq!(client.once("hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn t8_a_tonic_servers_streams_settle_by_their_trailers() {
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let (incoming, address) = bind().await;
    let router = Server::builder()
        .layer(layer.clone())
        .add_service(Echo::default());
    tokio::spawn(router.serve_with_incoming(incoming));
    let mut client = Client::new(channel(address));

    let (count, end) = client.count("hello").await;
    assert_eq!((count, end.is_ok()), (2, true));
    let (count, end) = client.count("missing").await;
    assert_eq!((count, end.unwrap_err().code()), (2, Code::NotFound));
    assert_eq!(layer.circuit().metrics().successful_requests, Some(2));
    for _ in 0..2 {
        let (count, end) = client.count("down").await;
        assert_eq!((count, end.unwrap_err().code()), (2, Code::Unavailable));
    }
    assert_eq!(layer.circuit().state(), CircuitState::Open);
}

#[tokio::test]
async fn t8_a_stream_that_its_client_leaves_is_a_cancellation_in_the_server() {
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let (incoming, address) = bind().await;
    let router = Server::builder()
        .layer(layer.clone())
        .add_service(Echo::default());
    tokio::spawn(router.serve_with_incoming(incoming));
    let mut client = Client::new(channel(address));
    let mut messages = client.twice("hang").await.unwrap();
    messages.message().await.unwrap().unwrap();
    drop(messages);
    eventually("the cancellation", async || {
        let metrics = layer.circuit().metrics();
        (metrics.cancelled_requests == 1).then_some(())
    })
    .await;
    assert_eq!(layer.circuit().metrics().failed_requests, 0);
}

// ===== the breaker in the client =====

#[tokio::test]
async fn t2_grpc_on_a_tonic_client_answers_unavailable_with_the_wait() {
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let echo = Echo::default();
    let address = serve(echo.clone()).await;
    let mut client = Client::new(layer.layer(channel(address)));

    assert_eq!(client.once("hello").await.unwrap(), "hello");
    let status = client.once("missing").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(layer.circuit().metrics().successful_requests, Some(2));
    for _ in 0..2 {
        let (count, end) = client.count("down").await;
        assert_eq!((count, end.unwrap_err().code()), (2, Code::Unavailable));
    }
    let reached = echo.reached();
    assert_rejected(&client.once("hello").await.unwrap_err());
    assert_eq!(echo.reached(), reached);
    layer.circuit().reset();
    assert_eq!(client.count("hello").await.0, 2);
}

#[tokio::test]
async fn t7_a_server_that_is_not_there_opens_the_circuit() {
    // A port that was free a moment ago.
    let (gone, address) = bind().await;
    drop(gone);
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let mut client = Client::new(layer.layer(channel(address)));
    for _ in 0..2 {
        let status = client.once("hello").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
    assert_rejected(&client.once("hello").await.unwrap_err());
}

#[tokio::test]
async fn t8_a_stream_that_is_left_half_way_is_a_cancellation_in_the_client() {
    let layer = CircuitBreakerLayer::new(config()).grpc();
    let address = serve(Echo::default()).await;
    let mut client = Client::new(layer.layer(channel(address)));
    let mut messages = client.twice("hang").await.unwrap();
    messages.message().await.unwrap().unwrap();
    assert_eq!(layer.circuit().metrics().in_flight, Some(1));
    drop(messages);
    let metrics = layer.circuit().metrics();
    assert_eq!(
        (metrics.in_flight, metrics.cancelled_requests),
        (Some(0), 1)
    );
}

#[tokio::test]
async fn t8_a_stream_that_falls_silent_ends_with_deadline_exceeded_on_either_side() {
    let idle = || BodyConfig::new().idle_timeout(MOMENT);
    let in_client = CircuitBreakerLayer::new(config()).grpc().body(idle());
    let in_server = CircuitBreakerLayer::new(config()).grpc().body(idle());
    let address = serve(Echo::default()).await;
    let mut client = Client::new(in_client.layer(channel(address)));
    let seen_in_client = client.count("hang").await;

    let (incoming, address) = bind().await;
    let router = Server::builder()
        .layer(in_server.clone())
        .add_service(Echo::default());
    tokio::spawn(router.serve_with_incoming(incoming));
    let seen_of_server = Client::new(channel(address)).count("hang").await;

    for ((count, end), layer) in [(seen_in_client, in_client), (seen_of_server, in_server)] {
        let status = end.unwrap_err();
        assert_eq!((count, status.code()), (2, Code::DeadlineExceeded));
        assert_eq!(status.message(), "nothing more of the body for 500ms");
        let metrics = layer.circuit().metrics();
        assert_eq!(
            (metrics.failed_requests, metrics.timed_out_requests),
            (1, 1)
        );
    }
}

#[tokio::test]
async fn t6_failing_fast_under_a_tonic_client_tells_open_as_a_source() {
    let layer = CircuitBreakerLayer::new(config())
        .fail_fast()
        .classify(GrpcClassifier)
        .body(BodyConfig::new());
    let address = serve(Echo::default()).await;
    layer.circuit().force_open();
    let mut client = Client::new(layer.layer(channel(address)));
    let status = client.once("hello").await.unwrap_err();
    let mut source = std::error::Error::source(&status);
    while let Some(error) = source {
        if error.is::<Open>() {
            return;
        }
        source = error.source();
    }
    panic!("no `Open` in {status:?}");
}

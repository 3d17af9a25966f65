//! A circuit breaker in a tonic client.
//!
//! ```text
//! cargo run --example tonic
//! ```
//!
//! A gRPC call tells how it went when it is over: the head of a stream is well, messages arrive, and
//! the trailers say that it failed. So `.grpc()` settles calls at the end of their bodies, and a
//! stream that breaks half-way opens the circuit. In a server it is the same layer:
//! `Server::builder().layer(breaker)`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::{Request, uri::PathAndQuery};
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::{Layer, service_fn};
use tower_breaker::{BodyConfig, BoxError, CircuitBreakerConfig, CircuitBreakerLayer};

use self::text::Text;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    tokio::spawn(serve(TcpIncoming::from(listener)));

    // Short times, so that you needn't wait. The defaults suit slow remote services.
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .reset_timeout(Duration::from_millis(500))
        .half_open_requests(1)
        .build()?;
    // A stream that falls silent has failed, too.
    let body = BodyConfig::new().idle_timeout(Duration::from_secs(10));
    let breaker = CircuitBreakerLayer::new(config).grpc().body(body);
    breaker
        .circuit()
        .on_state_change(|event| println!("circuit: {event}"));

    // Generated clients take such a service as they take a channel: `GreeterClient::new(...)`.
    let channel: Channel = server.connect_lazy();
    let mut client = Grpc::new(breaker.layer(channel));

    println!("# the rocket is well");
    count_down(&mut client).await?;

    println!("# the rocket has a leak");
    LEAKS.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        count_down(&mut client).await?;
    }

    println!("# the rocket is well again, and the circuit has waited for its reset timeout");
    LEAKS.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    count_down(&mut client).await
}

/// Reads a countdown, and prints how it went.
async fn count_down<T>(client: &mut Grpc<T>) -> Result<(), BoxError>
where
    T: GrpcService<Body, Error: Send + Sync + std::error::Error + 'static>,
    T::ResponseBody: Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    client.ready().await?;
    let path = PathAndQuery::from_static("/rocket/CountDown");
    let request = tonic::Request::new("please".to_owned());
    let mut said = String::new();
    let ended = async {
        let response = client.server_streaming(request, path, Text).await?;
        let mut counts = response.into_inner();
        while let Some(count) = counts.message().await? {
            said += &format!("{count}, ");
        }
        Ok::<_, Status>(())
    };
    match ended.await {
        Ok(()) => println!("{said}lift-off"),
        Err(status) => println!("{said}{:?}: {}", status.code(), status.message()),
    }
    Ok(())
}

// ===== the server =====

/// Whether the rocket has a leak.
static LEAKS: AtomicBool = AtomicBool::new(false);

async fn serve(incoming: TcpIncoming) -> Result<(), tonic::transport::Error> {
    let rocket = service_fn(async |request: Request<Body>| {
        let mut grpc = tonic::server::Grpc::new(Text);
        let answer = grpc.server_streaming(service_fn(countdown), request).await;
        Ok::<_, std::convert::Infallible>(answer)
    });
    Server::builder()
        .serve_with_incoming(rocket, incoming)
        .await
}

async fn countdown(
    _: tonic::Request<String>,
) -> Result<tonic::Response<impl Stream<Item = Result<String, Status>>>, Status> {
    let mut messages: Vec<_> = ["3", "2", "1"].map(|count| Ok(count.to_owned())).into();
    if LEAKS.load(Ordering::Relaxed) {
        messages[2] = Err(Status::unavailable("no fuel left"));
    }
    Ok(tonic::Response::new(stream::iter(messages)))
}

/// Messages of plain text. You would have protobuf generate all this.
mod text {
    use bytes::{Buf, BufMut};
    use tonic::{
        Status,
        codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    };

    #[derive(Default)]
    pub(super) struct Text;

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
            let bytes = buffer.copy_to_bytes(buffer.remaining());
            let text = String::from_utf8(bytes.into());
            Ok(Some(text.map_err(|_| Status::internal("not text"))?))
        }
    }
}

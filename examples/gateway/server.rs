//! Accepting connections, within limits, until told to stop.
//!
//! `axum::serve` has no limit on headers, on the time that a client takes to send them, or on
//! connections. What it does beyond calling hyper is what is left here.

mod stall;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

use self::stall::Impatient;
use crate::{app::App, config::Limits};

/// How long to wait after an `accept` that failed for want of something: file descriptors, above
/// all, which only come back when connections end.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// How many connections over the limit are told so at the same time; more are closed without a
/// word. And how long that may take.
const TURNED_AWAY: usize = 64;
const FAREWELL: Duration = Duration::from_secs(1);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 0\r\n\r\n";
const TOO_SLOW: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-length: 0\r\n\r\n";

/// Serves until the application stops and all that is under way has finished. Dropping the future
/// ends what is left.
pub(crate) async fn serve(listener: TcpListener, router: Router, app: App) {
    let mut connections = JoinSet::new();
    let mut turned_away = JoinSet::new();
    let mut stopped = pin!(app.clone().stopped());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Keeps the set at the size of what is open.
            Some(_) = connections.join_next() => continue,
            () = &mut stopped => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_the_peers(&error) {
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let limits = app.running().limits.clone();
        if connections.len() >= limits.connections {
            app.metrics.refused("connections");
            while turned_away.try_join_next().is_some() {}
            if turned_away.len() < TURNED_AWAY {
                turned_away.spawn(say(FULL, stream));
            }
            continue;
        }
        let open = app.metrics.connection();
        let connection = connection(stream, peer, router.clone(), limits, app.clone());
        connections.spawn(async move {
            connection.await;
            drop(open);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits, app: App) {
    // The events of a stream are small, and each is worth something at once.
    let _ = stream.set_nodelay(true);
    let stream = Impatient::new(stream, limits.write_timeout);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|e| match e {})) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_headers(limits.header_count)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopped = pin!(app.stopped());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = &mut stopped => {
            // What is under way is finished, then the connection is closed.
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    tracing::debug!(%peer, "the connection ended: {error}");
    if error.is_timeout() {
        // hyper leaves it at that. One that was idle has asked nothing, so it gets no answer.
        let parts = connection.into_parts();
        if !parts.read_buf.is_empty() {
            say(TOO_SLOW, parts.io.into_inner().stream).await;
        }
    }
}

/// Answers, and waits for a moment until the client has read it: closing a connection on which it
/// is still sending could take the answer away from it.
async fn say(answer: &'static str, mut stream: TcpStream) {
    let exchange = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // However it ends, there is nobody left to tell.
    let _ = tokio::time::timeout(FAREWELL, exchange).await;
}

/// Whether a client was gone before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

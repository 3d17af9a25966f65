//! Over real HTTP: connections are given back, given up and cut.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tower_breaker::models::{HttpClient, Model, ModelErrorKind, ModelManager};

use super::{Lines, WELL, ask, defaults, metrics, read};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";

fn manager(address: SocketAddr) -> ModelManager {
    let codec = Lines(format!("http://{address}/").parse().unwrap());
    ModelManager::builder()
        .provider("first", codec, HttpClient::new().unwrap(), defaults())
        .model("a", Model::new("first", "A"))
        .build()
        .unwrap()
}

/// A server for as long as the test runs, which hands over each of its connections.
async fn server() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if sender.send(connection).is_err() {
                return;
            }
        }
    });
    (address, connections)
}

/// Reads the next request to its end, which a body this small comes with.
async fn request(connection: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"A: hello") {
        let mut more = [0; 1024];
        let read = timeout(PATIENCE, connection.read(&mut more)).await;
        let read = read.unwrap().unwrap();
        assert!(read > 0, "{request:?}");
        request.extend_from_slice(&more[..read]);
    }
    String::from_utf8(request).unwrap()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn m5_streams_that_end_well_share_a_connection() {
    let (address, mut connections) = server().await;
    let manager = manager(address);
    let serve = tokio::spawn(async move {
        let mut connection = connections.recv().await.unwrap();
        for _ in 0..10 {
            request(&mut connection).await;
            let answer = format!("{HEAD}{}0\r\n\r\n", chunk(WELL));
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        connections.try_recv().is_err()
    });
    for _ in 0..10 {
        let got = read(manager.stream(ask()).await.unwrap()).await;
        assert!(got.is_whole());
        drop(got);
        // The connection goes back to the pool in tasks of its own, on this very thread.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert!(serve.await.unwrap(), "there was but one connection");
}

#[tokio::test]
async fn m5_a_stream_that_is_dropped_closes_its_connection() {
    let (address, mut connections) = server().await;
    let manager = manager(address);
    let (stream, connection) = tokio::join!(manager.stream(ask()), async {
        let mut connection = connections.recv().await.unwrap();
        request(&mut connection).await;
        let begun = format!("{HEAD}{}", chunk("text Hello\n"));
        connection.write_all(begun.as_bytes()).await.unwrap();
        connection
    });
    let mut connection = connection;
    drop(stream.unwrap());
    let end = timeout(PATIENCE, connection.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    let seen = metrics(&manager, "first");
    assert_eq!(
        (
            seen.in_flight,
            seen.failed_requests,
            seen.cancelled_requests
        ),
        (Some(0), 0, 1)
    );
}

#[tokio::test]
async fn m5_a_connection_that_is_cut_is_a_failure_wherever_it_happens() {
    for (sent, has_begun) in [
        (String::new(), false),
        (HEAD[..40].to_owned(), false),
        (HEAD.to_owned(), false),
        (format!("{HEAD}{}", chunk("start 1 A\n")), false),
        (format!("{HEAD}{}", chunk("text Hello\n")), true),
        (format!("{HEAD}{}ff\r\ntext", chunk("text Hello\n")), true),
        // The transfer is whole, the answer is not.
        (format!("{HEAD}{}0\r\n\r\n", chunk("text Hello\n")), true),
    ] {
        let (address, mut connections) = server().await;
        let manager = manager(address);
        let (stream, ()) = tokio::join!(manager.stream(ask()), async {
            let mut connection = connections.recv().await.unwrap();
            request(&mut connection).await;
            connection.write_all(sent.as_bytes()).await.unwrap();
        });
        // What came before the cut may be seen with it, and then it is not begun either.
        let error = match stream {
            Ok(stream) => {
                assert!(has_begun, "{sent}");
                read(stream).await.error.unwrap()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), ModelErrorKind::Malformed, "{sent}: {error}");
        assert_eq!(metrics(&manager, "first").failed_requests, 1, "{sent}");
    }
}

/// A server with a certificate of the authority in `tests/fixtures`, which answers every request with a
/// whole stream.
fn tls_server() -> u16 {
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.pem");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pem).unwrap()],
            PrivateKeyDer::from_pem_file(pem).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut seen = Vec::new();
            let mut more = [0; 1024];
            while !seen.ends_with(b"A: hello") {
                match stream.read(&mut more) {
                    Ok(read) if read > 0 => seen.extend_from_slice(&more[..read]),
                    // It was not trusted.
                    _ => break,
                }
            }
            let answer = format!("{HEAD}{}0\r\n\r\n", chunk(WELL));
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn g5_a_certificate_is_trusted_if_its_authority_was_added_and_not_otherwise() {
    let authority = include_bytes!("../fixtures/authority.pem");
    let url: http::Uri = format!("https://localhost:{}/", tls_server())
        .parse()
        .unwrap();
    let ask_by = |http: HttpClient| {
        let manager = ModelManager::builder()
            .provider("first", Lines(url.clone()), http, defaults())
            .model("a", Model::new("first", "A"))
            .build()
            .unwrap();
        async move { manager.stream(ask()).await }
    };
    let error = ask_by(HttpClient::new().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Connect);

    let der = CertificateDer::from_pem_slice(authority).unwrap().to_vec();
    for certificate in [authority.to_vec(), der] {
        let http = HttpClient::builder().add_root_certificate(certificate);
        let stream = ask_by(http.build().unwrap()).await.unwrap();
        assert!(read(stream).await.is_whole());
    }
}

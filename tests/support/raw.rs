//! HTTP as bytes: for what a well-behaved client doesn't send, and for streams that are still going on.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PATIENCE;

/// A connection, and what has come over it.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    pub seen: String,
}

impl Raw {
    /// Connects to `http://127.0.0.1:PORT`, whatever comes after that.
    pub async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let address = address.split('/').next().unwrap_or(address);
        let address: SocketAddr = address.parse().expect("an address of loopback");
        Self {
            stream: TcpStream::connect(address).await.expect("it listens"),
            seen: String::new(),
        }
    }

    /// The same, or `None` where nobody listens.
    pub async fn try_connect(url: &str) -> Option<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await;
        stream.ok().map(|stream| Self {
            stream,
            seen: String::new(),
        })
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // One that has been closed at the other end has an answer to read all the same.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Sends a `POST` of JSON, after whose answer the connection ends.
    pub async fn post(&mut self, path: &str, body: &str) {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    /// Sends a `GET` with these further lines of the head, each with its end.
    pub async fn get(&mut self, path: &str, more: &str) {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n"
        ))
        .await;
    }

    /// Reads until this has come.
    ///
    /// # Panics
    ///
    /// When it doesn't within 30 seconds, or the connection ends before.
    pub async fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let more = self.read().await;
            assert!(more, "the end came before `{text}`:\n{}", self.seen);
        }
    }

    /// What comes next; `None` at the end. It waits for as long as that takes.
    pub async fn more(&mut self) -> Option<String> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        self.seen += &text;
        (read > 0).then_some(text)
    }

    /// Reads to the end, and gives all that has come.
    pub async fn rest(mut self) -> String {
        while self.read().await {}
        self.seen
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more came after:\n{}", self.seen));
        // A connection that was reset has ended.
        let read = read.unwrap_or_default();
        self.seen += &String::from_utf8_lossy(&buffer[..read]);
        read > 0
    }
}

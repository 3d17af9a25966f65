//! A ready-made HTTP client, for whoever has none.
//!
//! HTTP/1.1 and HTTP/2 over TLS by rustls with ring, trusting Mozilla's roots. It sets no deadline
//! for an answer: that is the circuit breaker's.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::error::{ModelError, ModelErrorKind};
use super::setup::SetupError;
use super::transport;

/// A provider that takes longer than this to accept a connection is as good as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Common load balancers close idle connections after 60 s. Closing ours before that avoids sending
/// a request into a connection that is being closed at the other end.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// All requests to a provider share one HTTP/2 connection. If the network drops it without a word,
/// every request on it hangs, probes included, and the circuit could never close: so it is pinged,
/// and given up if the answer takes longer than [`KEEP_ALIVE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// An HTTP and HTTPS client with a pool of connections, to put below a
/// [`ProviderService`](super::ProviderService).
///
/// Clones share the pool. Connecting takes at most 10 s (per attempt at the TCP connection); there
/// is no deadline for the answer, and no redirect is followed: an API doesn't redirect, and a key
/// must not go where one points.
///
/// Must be called within a Tokio runtime with I/O and time enabled.
///
/// ```
/// use tower_breaker::models::{Anthropic, ApiKey, HttpClient, ProviderService};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let http = HttpClient::new()?;
/// let claude = ProviderService::new(Anthropic::new(ApiKey::new("a-key")?), http.clone());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
}

impl HttpClient {
    /// A client with a pool of its own.
    ///
    /// # Errors
    ///
    /// If the TLS library refuses its own defaults.
    pub fn new() -> Result<Self, SetupError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // `https` too: the TLS layer above sees to it.
        tcp.enforce_http(false);
        // The provider is named, and not the process's default: that one panics where no default
        // is set, or where another crate has brought a second one.
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring)
            .map_err(|error| SetupError::new("tls", error.to_string()))?
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .build(connector);
        Ok(Self { client })
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl Service<Request<Full<Bytes>>> for HttpClient {
    type Response = Response<HttpBody>;
    type Error = ModelError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        // The pool opens connections as they are needed.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> HttpFuture {
        HttpFuture(self.client.request(request))
    }
}

/// The future of [`HttpClient`].
pub struct HttpFuture(legacy::ResponseFuture);

impl Future for HttpFuture {
    type Output = Result<Response<HttpBody>, ModelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| match result {
            Ok(response) => Ok(response.map(|body| {
                let body = body.map_err(|error| cut_off(ModelErrorKind::Malformed, error));
                HttpBody(body.boxed_unsync())
            })),
            Err(error) if error.is_connect() => {
                Err(ModelError::new(ModelErrorKind::Connect, "").with_source(error))
            }
            // Connected, and then no whole head: whatever came was cut off.
            Err(error) => Err(cut_off(ModelErrorKind::Malformed, error)),
        })
    }
}

fn cut_off(otherwise: ModelErrorKind, error: impl Error + Send + Sync + 'static) -> ModelError {
    let kind = transport::kind_of(&error).unwrap_or(otherwise);
    ModelError::new(kind, "the connection ended before the answer did").with_source(error)
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

/// The body of a response of [`HttpClient`].
pub struct HttpBody(UnsyncBoxBody<Bytes, ModelError>);

impl Body for HttpBody {
    type Data = Bytes;
    type Error = ModelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ModelError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody").finish_non_exhaustive()
    }
}

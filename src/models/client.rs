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
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
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

/// How far an HTTP/2 peer may send ahead of who reads, per answer and for all answers on a connection.
/// Those that are read slowly share the latter with all others: it has room for hundreds of them, so
/// that one client's slowness doesn't look like a provider's.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// As many as a busy gateway has in use at a time. Beyond that a burst would leave thousands of open
/// files behind.
const POOL_MAX_IDLE_PER_HOST: usize = 256;

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
    /// A client with a pool of its own, set up as [`builder`](Self::builder) does by default.
    ///
    /// # Errors
    ///
    /// If the TLS library refuses its own defaults.
    pub fn new() -> Result<Self, SetupError> {
        Self::builder().build()
    }

    /// Sets up a client.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder::default()
    }
}

/// Sets up an [`HttpClient`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct HttpClientBuilder {
    connect_timeout: Duration,
    pool_idle_timeout: Duration,
    pool_max_idle_per_host: usize,
    root_certificates: Vec<Vec<u8>>,
}

impl Default for HttpClientBuilder {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            pool_idle_timeout: POOL_IDLE_TIMEOUT,
            pool_max_idle_per_host: POOL_MAX_IDLE_PER_HOST,
            root_certificates: Vec::new(),
        }
    }
}

impl HttpClientBuilder {
    /// How long an attempt at a TCP connection may take. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection is kept that nobody uses. Default: 50 s.
    pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
        self.pool_idle_timeout = timeout;
        self
    }

    /// How many connections to a host are kept that nobody uses. Default: 256.
    ///
    /// It bounds what is kept, not what is opened: the number of requests at a time is the caller's to
    /// limit, with a `ConcurrencyLimit` for instance.
    pub fn pool_max_idle_per_host(mut self, connections: usize) -> Self {
        self.pool_max_idle_per_host = connections;
        self
    }

    /// Trusts a certificate authority besides Mozilla's roots: in PEM, where there may be several, or
    /// one in DER.
    pub fn add_root_certificate(mut self, certificate: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(certificate.into());
        self
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// If a root certificate can't be read, or the TLS library refuses its own defaults.
    pub fn build(self) -> Result<HttpClient, SetupError> {
        let mut tcp = HttpConnector::new();
        // Requests are written whole: waiting for more to send only delays them.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.connect_timeout));
        // `https` too: the TLS layer above sees to it.
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&self.root_certificates)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.pool_idle_timeout)
            .pool_max_idle_per_host(self.pool_max_idle_per_host)
            .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .build(connector);
        Ok(HttpClient { client })
    }
}

/// Certificates are verified, against Mozilla's roots and those that were added.
fn tls(root_certificates: &[Vec<u8>]) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for bytes in root_certificates {
        let wrong = |error: &dyn fmt::Display| {
            SetupError::new("root_certificate", format!("can't be read: {error}"))
        };
        // DER begins with the tag of a sequence, which is no text.
        let certificates = if bytes.first() == Some(&0x30) {
            vec![CertificateDer::from(bytes.as_slice())]
        } else {
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
            read.map_err(|error| wrong(&error))?
        };
        if certificates.is_empty() {
            return Err(wrong(&"it holds no certificate"));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    // The provider is named, and not the process's default: that one panics where no default is
    // set, or where another crate has brought a second one.
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::new("tls", error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
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
            Ok(response) => Ok(response.map(HttpBody)),
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
#[derive(Debug)]
pub struct HttpBody(Incoming);

impl Body for HttpBody {
    type Data = Bytes;
    type Error = ModelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ModelError>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map_err(|error| cut_off(ModelErrorKind::Malformed, error))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_a_root_certificate_that_is_none_is_refused_at_the_start() {
        for (bytes, why) in [
            ("no certificate", "it holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "",
            ),
            ("0\u{1}", ""),
        ] {
            let client = HttpClient::builder().add_root_certificate(bytes).build();
            let error = client.unwrap_err();
            assert_eq!(error.field(), "root_certificate");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}

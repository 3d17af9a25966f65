//! A small HTTP client: one request, one connection, the whole body.

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Request, StatusCode},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// With the body, when it isn't.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {} {}", self.status, self.text()),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, or "" where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("headers here are text"))
    }
}

/// What went wrong instead of a response: no connection, or a body that broke off.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// `GET`.
///
/// # Panics
///
/// When there is no whole response.
pub async fn get(url: &str) -> Response {
    expect(Method::GET, url, &[], "").await
}

/// `POST` with a JSON body.
///
/// # Panics
///
/// When there is no whole response.
pub async fn post_json(url: &str, value: &Value) -> Response {
    expect(
        Method::POST,
        url,
        &[("content-type", "application/json")],
        value.to_string(),
    )
    .await
}

/// Any request.
///
/// # Panics
///
/// When there is no whole response; see [`try_request`].
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response {
    let method = method.parse().expect("a method");
    expect(method, url, headers, body).await
}

/// Any request, where the failure is what is tested.
///
/// # Errors
///
/// No connection, no answer, or a body that broke off.
pub async fn try_request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response, Error> {
    send(method.parse()?, url, headers, body).await
}

async fn expect(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response {
    match send(method.clone(), url, headers, body).await {
        Ok(response) => response,
        Err(error) => panic!("{method} {url}: {error:?}"),
    }
}

async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response, Error> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into()))?;
    // A client per request: its connections belong to the runtime of one test.
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let (head, body) = client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    match tokio::time::timeout(super::PATIENCE, exchange).await {
        Ok(done) => done,
        Err(_) => Err(format!("no whole response within {:?}", super::PATIENCE).into()),
    }
}

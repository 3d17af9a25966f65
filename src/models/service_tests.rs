use std::convert::Infallible;
use std::io;

use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::models::{Health, StreamDecoder};

/// A codec that answers with what it was given: no API, so that the service alone is tested.
#[derive(Debug)]
struct Echo;

impl Provider for Echo {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        request.validate()?;
        let text = request.messages[0].content.text();
        Ok(Request::new(format!("{model}: {text}").into()))
    }

    fn decode(
        &self,
        status: StatusCode,
        _: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        let text = String::from_utf8_lossy(body);
        match ModelErrorKind::from_status(status) {
            Some(kind) => Err(ModelError::new(kind, text).with_status(status)),
            None => Ok(Completion::new(text)),
        }
    }

    fn stream_decoder(
        &self,
        _: &ModelRequest,
        _: StatusCode,
        _: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        unreachable!("whole answers alone are tested here")
    }
}

type Chunk = Result<Frame<Bytes>, io::Error>;

fn data(text: &'static str) -> Chunk {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn cut() -> Chunk {
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// What comes of an answer with this status and these chunks, under a limit of 10 bytes.
async fn answered(status: u16, chunks: Vec<Chunk>) -> Result<Completion, ModelError> {
    let mut chunks = Some(chunks);
    let http = service_fn(move |_: Request<Full<Bytes>>| {
        let body = StreamBody::new(futures_util::stream::iter(chunks.take().unwrap()));
        let response = Response::builder().status(status).body(body).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    ProviderService::new(Echo, http)
        .body_limit(10)
        .oneshot(request("hi"))
        .await
}

fn request(prompt: &str) -> ProviderRequest {
    ProviderRequest::new(ModelRequest::prompt(prompt), "m")
}

#[tokio::test]
async fn m3_a_request_is_encoded_sent_and_its_answer_decoded() {
    let http = service_fn(|request: Request<Full<Bytes>>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let completion = ProviderService::new(Echo, http)
        .oneshot(request("hi"))
        .await
        .unwrap();
    assert_eq!(completion.text, "m: hi");
}

#[tokio::test]
async fn m4_a_body_that_breaks_or_never_ends_is_malformed() {
    let whole = answered(200, vec![data("12345"), data("67890")])
        .await
        .unwrap();
    assert_eq!(whole.text, "1234567890");

    let error = answered(200, vec![data("12345"), data("678901")])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert_eq!(error.message(), "the answer is larger than 10 bytes");
    assert_eq!(error.status(), Some(StatusCode::OK));

    let error = answered(200, vec![data("12345"), cut()]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.counts_as()),
        (ModelErrorKind::Malformed, Health::Failure)
    );
    assert_eq!(error.message(), "the answer was cut off");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn m4_a_head_that_says_what_is_wrong_needs_no_body() {
    for chunks in [vec![cut()], vec![data("12345678901")]] {
        let error = answered(429, chunks).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ModelErrorKind::RateLimited, "")
        );
    }
}

#[tokio::test]
async fn m4_an_error_in_place_of_an_answer_is_told_by_its_cause() {
    let table = [
        (io::ErrorKind::ConnectionRefused, ModelErrorKind::Connect),
        (io::ErrorKind::TimedOut, ModelErrorKind::Timeout),
        (io::ErrorKind::ConnectionReset, ModelErrorKind::Malformed),
        (io::ErrorKind::Other, ModelErrorKind::Connect),
    ];
    for (cause, kind) in table {
        let http = service_fn(move |_: Request<Full<Bytes>>| async move {
            Err::<Response<Full<Bytes>>, _>(io::Error::from(cause))
        });
        let error = ProviderService::new(Echo, http)
            .oneshot(request("hi"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{cause:?}");
        assert_eq!(error.status(), None);
    }
}

#[test]
fn t2_readiness_is_the_http_services_own() {
    let (mock, mut handle) =
        tower_test::mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
    let mut service = tower_test::mock::Spawn::new(ProviderService::new(Echo, mock));

    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());

    // A request that can't be encoded makes no call, so the readied instance stays ready.
    let mut refused = task::spawn(service.call(request(" ")));
    let error = assert_ready_err!(refused.poll());
    assert_eq!(error.kind(), ModelErrorKind::InvalidRequest);
    assert_eq!(error.counts_as(), Health::Ignored);
    assert_ready_ok!(service.poll_ready());

    let mut answer = task::spawn(service.call(request("hi")));
    assert_pending!(answer.poll());
    let (sent, reply) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    assert_eq!(sent.uri(), "/");
    reply.send_response(Response::new(Full::from("done")));
    assert_eq!(assert_ready_ok!(answer.poll()).text, "done");

    handle.send_error("gone");
    let error = assert_ready_err!(service.poll_ready());
    assert_eq!(error.kind(), ModelErrorKind::Connect);
}

#[test]
fn the_future_may_cross_threads() {
    fn crosses<T: Send>(_: &T) {}
    let http = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut service = ProviderService::new(Echo, http);
    crosses(&service);
    crosses(&service.call(request("hi")));
}

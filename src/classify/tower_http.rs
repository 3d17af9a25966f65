//! Classifiers written for tower-http's `Trace` and its like.

use std::fmt::Display;

use http::{HeaderMap, Response};
use tower_http::classify::{ClassifiedResponse, ClassifyEos, ClassifyResponse};

use super::{Classified, Classify, ClassifyEnd, http::retry_after};
use crate::circuit::Outcome;

/// Classifies as one of tower-http's classifiers does, so that traces and circuits agree on what a
/// failure is.
///
/// Whatever class of failures it tells is a failure here; a `Retry-After` header is heeded with it.
/// A classifier that waits for the end of the stream needs the body to be watched, with
/// [`CircuitBreakerLayer::body`](crate::CircuitBreakerLayer::body); elsewhere a response that
/// begins well is a success.
///
/// ```
/// use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, service::BodyConfig};
/// use tower_breaker::classify::TowerHttp;
/// use tower_http::classify::{GrpcCode, GrpcErrorsAsFailures};
///
/// let grpc = GrpcErrorsAsFailures::new().with_success(GrpcCode::NotFound);
/// let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default())
///     .fail_fast()
///     .classify(TowerHttp::new(grpc))
///     .body(BodyConfig::new());
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct TowerHttp<T> {
    classifier: T,
}

impl<T> TowerHttp<T> {
    /// Classifies as `classifier` does. It is cloned for each call.
    pub fn new(classifier: T) -> Self {
        Self { classifier }
    }
}

impl<T, B, E> Classify<Response<B>, E> for TowerHttp<T>
where
    T: ClassifyResponse + Clone,
    E: Display + 'static,
{
    type AtEnd = TowerHttpAtEnd<T::ClassifyEos>;

    fn classify(&self, result: Result<&Response<B>, &E>) -> Classified<Self::AtEnd> {
        let classifier = self.classifier.clone();
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let _class = classifier.classify_error(error);
                return Classified::Done(Outcome::FAILURE);
            }
        };
        match classifier.classify_response(response) {
            ClassifiedResponse::Ready(Ok(())) => Classified::Done(Outcome::Success),
            ClassifiedResponse::Ready(Err(_class)) => Classified::Done(Outcome::Failure {
                retry_after: retry_after(response.headers()),
            }),
            ClassifiedResponse::RequiresEos(eos) => Classified::AtEnd(TowerHttpAtEnd(eos)),
        }
    }
}

/// A response that one of tower-http's classifiers judges at its end.
#[derive(Debug)]
pub struct TowerHttpAtEnd<T>(T);

impl<T, E> ClassifyEnd<E> for TowerHttpAtEnd<T>
where
    T: ClassifyEos,
    E: Display + 'static,
{
    fn classify_end(self, end: Result<Option<&HeaderMap>, &E>) -> Outcome {
        let ended = match end {
            Ok(trailers) => self.0.classify_eos(trailers),
            Err(error) => Err(self.0.classify_error(error)),
        };
        match ended {
            Ok(()) => Outcome::Success,
            Err(_class) => Outcome::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderValue, StatusCode};
    use tower_http::classify::{GrpcErrorsAsFailures, ServerErrorsAsFailures};

    use super::*;

    fn response(status: StatusCode) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response
    }

    /// How a gRPC response ends that begins well.
    fn ends(end: Result<Option<&HeaderMap>, &&'static str>) -> Outcome {
        let classifier = TowerHttp::new(GrpcErrorsAsFailures::new());
        match classifier.classify(Ok::<_, &&'static str>(&response(StatusCode::OK))) {
            Classified::AtEnd(judge) => judge.classify_end(end),
            Classified::Done(outcome) => panic!("{outcome:?} too early"),
        }
    }

    #[test]
    fn t7_tower_http_judges_heads_and_errors() {
        fn judge(result: Result<&Response<()>, &&'static str>) -> Outcome {
            let classifier = TowerHttp::new(ServerErrorsAsFailures::new());
            classifier.classify(result).outcome()
        }
        assert_eq!(
            judge(Ok(&response(StatusCode::NOT_FOUND))),
            Outcome::Success
        );
        assert_eq!(judge(Err(&"reset")), Outcome::FAILURE);
        let mut asks = response(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(judge(Ok(&asks)), Outcome::FAILURE);
        let seven = HeaderValue::from_static("7");
        asks.headers_mut().insert(http::header::RETRY_AFTER, seven);
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(judge(Ok(&asks)), Outcome::Failure { retry_after });
    }

    #[test]
    fn t7_tower_http_judges_ends() {
        let trailers = |code| HeaderMap::from_iter([("grpc-status".parse().unwrap(), code)]);
        let (well, ill) = (HeaderValue::from(0), HeaderValue::from(14));
        assert_eq!(ends(Ok(Some(&trailers(well)))), Outcome::Success);
        assert_eq!(ends(Ok(Some(&trailers(ill)))), Outcome::FAILURE);
        assert_eq!(ends(Err(&"reset")), Outcome::FAILURE);
    }
}

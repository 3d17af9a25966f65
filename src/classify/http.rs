//! HTTP responses by their status.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Response, StatusCode, header};

use super::{Classified, Classify};
use crate::circuit::{Outcome, wall_clock};

/// Server errors (5xx), `408 Request Timeout`, `429 Too Many Requests` and errors are failures;
/// a `Retry-After` header says for how long, in seconds or as a date. Everything else is a
/// success of the dependency: it understood the request well enough to refuse it.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpClassifier;

impl<B, E> Classify<Response<B>, E> for HttpClassifier {
    type AtEnd = Infallible;

    fn classify(&self, result: Result<&Response<B>, &E>) -> Classified {
        let Ok(response) = result else {
            return Classified::Done(Outcome::FAILURE);
        };
        let status = response.status();
        let failed = status.is_server_error()
            || status == StatusCode::REQUEST_TIMEOUT
            || status == StatusCode::TOO_MANY_REQUESTS;
        Classified::Done(if failed {
            Outcome::Failure {
                retry_after: retry_after(response.headers()),
            }
        } else {
            Outcome::Success
        })
    }
}

/// The wait that a `Retry-After` header asks for (RFC 9110, section 10.2.3): whole seconds, or
/// the time until a date, 0 if that has passed. `None` if it is absent or neither.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    seconds(value).or_else(|| until(value, wall_clock()))
}

fn seconds(value: &str) -> Option<Duration> {
    // Digits alone: `parse` would also take a sign.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // More than fits is for ever, as far as anyone here is concerned.
    digits.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
}

fn until(value: &str, now: SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(status: u16, retry_after: Option<&str>) -> Outcome {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(header::RETRY_AFTER, value);
        }
        let response = response.body(()).unwrap();
        HttpClassifier.classify(Ok::<_, &()>(&response)).outcome()
    }

    #[test]
    fn t7_statuses_by_whose_fault_they_are() {
        for success in [200, 204, 301, 400, 401, 403, 404, 409, 418, 422] {
            assert_eq!(classify(success, None), Outcome::Success, "{success}");
        }
        for failure in [408, 429, 500, 501, 502, 503, 504, 529, 599] {
            assert_eq!(classify(failure, None), Outcome::FAILURE, "{failure}");
        }
        let error: Result<&Response<()>, _> = Err(&"reset");
        assert_eq!(HttpClassifier.classify(error).outcome(), Outcome::FAILURE);
    }

    #[test]
    fn t7_retry_after_in_seconds() {
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(classify(503, Some("7")), Outcome::Failure { retry_after });
        assert_eq!(classify(404, Some("7")), Outcome::Success);
        let retry_after = Some(Duration::from_secs(u64::MAX));
        let endless = "99999999999999999999";
        assert_eq!(
            classify(429, Some(endless)),
            Outcome::Failure { retry_after }
        );
        for rubbish in ["-7", "+7", "7.5", "soon", ""] {
            assert_eq!(
                classify(503, Some(rubbish)),
                Outcome::FAILURE,
                "{rubbish:?}"
            );
        }
    }

    #[test]
    fn t7_retry_after_as_a_date() {
        // The example of RFC 9110, section 5.6.7, in its three formats; it was a Sunday.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(until(date, now), Some(Duration::from_secs(90)), "{date}");
            let later = now + Duration::from_secs(91);
            assert_eq!(until(date, later), Some(Duration::ZERO), "{date}");
        }
        assert_eq!(until("tomorrow", now), None);
    }
}

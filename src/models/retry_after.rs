//! `Retry-After`, in both its forms.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// For how long the answer asks to be left alone; `None` if it doesn't say, or says it wrong.
///
/// A date that has passed is a wait of zero.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    // The one place where a codec needs the time: the header may hold a date. The reading of the
    // clock moves to the classifier's helper, which is allowed to.
    #[allow(clippy::disallowed_methods)]
    from_header(headers, SystemTime::now)
}

fn from_header(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    // Digits alone: `parse` would also take a sign.
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return value.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m4_seconds_and_dates_are_read_and_nothing_else() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let table = [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Wed, 21 Oct 2015 07:29:30 GMT", Some(90)),
            ("Wed, 21 Oct 2015 07:27:59 GMT", Some(0)),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ];
        for (value, seconds) in table {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(
                from_header(&headers, || now),
                seconds.map(Duration::from_secs),
                "{value:?}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}

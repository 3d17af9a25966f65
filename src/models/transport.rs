//! What the error of an HTTP service means, without knowing which service it is.

use std::error::Error;
use std::io;

use http_body_util::LengthLimitError;

use crate::BoxError;

use super::error::{ModelError, ModelErrorKind};

/// An error in place of a response.
///
/// What nothing is known about counts as not connected: no answer came.
pub(super) fn before_the_head(error: BoxError) -> ModelError {
    read(error, ModelErrorKind::Connect, "")
}

/// An error in the middle of the body.
pub(super) fn in_the_body(error: BoxError, limit: usize) -> ModelError {
    if error.is::<LengthLimitError>() {
        return too_large(limit);
    }
    read(error, ModelErrorKind::Malformed, "the answer was cut off")
}

/// An answer that goes beyond the limit.
pub(super) fn too_large(limit: usize) -> ModelError {
    let message = format!("the answer is larger than {limit} bytes");
    ModelError::new(ModelErrorKind::Malformed, message)
}

fn read(error: BoxError, otherwise: ModelErrorKind, message: &str) -> ModelError {
    // `HttpClient`, and any service that knows better than we do here, has said it already.
    let error = match error.downcast::<ModelError>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    let kind = kind_of(&*error).unwrap_or(otherwise);
    let message = if kind == ModelErrorKind::Malformed {
        "the answer was cut off"
    } else {
        message
    };
    ModelError::new(kind, message).with_source(error)
}

/// The kind that something along the chain of causes stands for.
pub(super) fn kind_of(error: &(dyn Error + 'static)) -> Option<ModelErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<tokio::time::error::Elapsed>() {
            return Some(ModelErrorKind::Timeout);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::TimedOut => return Some(ModelErrorKind::Timeout),
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => return Some(ModelErrorKind::Connect),
                // The connection was there, and ended under the answer.
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => return Some(ModelErrorKind::Malformed),
                _ => {}
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModelErrorKind::*;

    #[test]
    fn m4_transport_errors_are_told_apart_by_their_causes() {
        // In place of a head, and in the middle of a body.
        let table = [
            (io::ErrorKind::ConnectionRefused, Connect, Connect),
            (io::ErrorKind::TimedOut, Timeout, Timeout),
            (io::ErrorKind::ConnectionReset, Malformed, Malformed),
            (io::ErrorKind::Other, Connect, Malformed),
        ];
        for (cause, head, body) in table {
            assert_eq!(
                before_the_head(io::Error::from(cause).into()).kind(),
                head,
                "{cause:?}"
            );
            let error = in_the_body(io::Error::from(cause).into(), 1);
            assert_eq!(error.kind(), body, "{cause:?}");
            assert!(error.source().is_some());
        }
        assert_eq!(before_the_head("unknown".into()).kind(), Connect);
    }

    #[test]
    fn an_error_that_is_ours_already_passes_through() {
        let wrapped: BoxError = ModelError::new(Timeout, "first byte").into();
        let passed = before_the_head(wrapped);
        assert_eq!((passed.kind(), passed.message()), (Timeout, "first byte"));
    }
}

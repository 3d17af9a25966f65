//! Responses whose end decides.

use std::convert::Infallible;

use http::HeaderMap;

use crate::circuit::Outcome;

/// Decides what the end of a response's body says about its dependency: what a
/// [`Classify`](super::Classify) carries there that has judged the head
/// [`Classified::AtEnd`](super::Classified::AtEnd).
///
/// Bodies are watched with [`CircuitBreakerLayer::body`](crate::CircuitBreakerLayer::body).
pub trait ClassifyEnd<E> {
    /// Judges how the body ended: with trailers, without, or with an error.
    fn classify_end(self, end: Result<Option<&HeaderMap>, &E>) -> Outcome;
}

/// Of those who leave nothing to the end.
impl<E> ClassifyEnd<E> for Infallible {
    fn classify_end(self, _: Result<Option<&HeaderMap>, &E>) -> Outcome {
        match self {}
    }
}

//! The body that settles its call at its end.
//!
//! A response whose head is well can still fail: a stream of events breaks, a download stalls, a
//! gRPC call tells its status in its trailers. With [`CircuitBreakerLayer::body`] the call is
//! settled when its body has ended.
//!
//! It differs from tower-http's `TimeoutBody` in that it knows the first byte from a pause and from
//! the whole, and in that the dependency is blamed only for what it had a chance to do: the time
//! during which nobody asks the body for more is not counted as silence.
//!
//! [`CircuitBreakerLayer::body`]: crate::CircuitBreakerLayer::body

mod config;
mod deadlines;
mod ending;
mod mode;

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

pub use self::{
    config::BodyConfig,
    mode::{BodyMode, SettleAtEnd},
};
use self::{deadlines::Deadlines, ending::Ending};
use super::{
    error::{Error, Timeout},
    future::FailOnUnwind,
};
use crate::classify::ClassifyEnd;

pin_project! {
    /// The body of a response that settles its call when it ends; see [`SettleAtEnd`].
    ///
    /// Its frames, trailers and size are those of the inner body, and so are its errors, besides the
    /// [`Timeout`]s of a [`BodyConfig`]. With [`.grpc()`](crate::CircuitBreakerLayer::grpc) those are
    /// no errors of the body, but trailers with `grpc-status: 4`.
    ///
    /// # Panics
    ///
    /// Deadlines need a Tokio runtime with its timer enabled, once the inner body is pending.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it settles the call as [`OnCancel`](crate::OnCancel) says.
    pub struct SettledBody<B, A = Infallible> {
        // None: an empty body, or one that has failed.
        #[pin]
        inner: Option<B>,
        // Made when the inner body is first found pending, if there is a deadline.
        #[pin]
        timer: Option<Sleep>,
        deadlines: Deadlines,
        end_late: fn(&Timeout) -> Option<HeaderMap>,
        ending: Ending<A>,
    }
}

/// An empty body, which settles nothing.
impl<B, A> Default for SettledBody<B, A> {
    fn default() -> Self {
        Self {
            inner: None,
            timer: None,
            deadlines: Deadlines::default(),
            end_late: |_| None,
            ending: Ending::default(),
        }
    }
}

impl<B, A> Body for SettledBody<B, A>
where
    B: Body,
    A: ClassifyEnd<B::Error>,
{
    type Data = B::Data;
    type Error = Error<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let guard = FailOnUnwind(&mut this.ending.permit);
        let polled = inner.as_mut().poll_frame(cx);
        guard.disarm();
        this.ending.begun = true;

        // The inner body comes before the deadlines: data that is there is not thrown away.
        let Poll::Ready(frame) = polled else {
            let permit = &this.ending.permit;
            let timeout = ready!(this.deadlines.poll(this.timer, permit, cx));
            this.ending.time_out();
            this.inner.set(None);
            let told = (this.end_late)(&timeout).map(Frame::trailers);
            return Poll::Ready(Some(told.ok_or(Error::Timeout(timeout))));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.deadlines.progress(&this.ending.permit);
                this.ending.pass(&frame);
                this.ending.look(&*inner);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.ending.end(Err(&error));
                this.inner.set(None);
                Some(Err(Error::Inner(error)))
            }
            None => {
                this.ending.end::<B::Error>(Ok(None));
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: fmt::Debug, A> fmt::Debug for SettledBody<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettledBody")
            .field("inner", &self.inner)
            .field("permit", &self.ending.permit)
            .finish_non_exhaustive()
    }
}

//! [`ResponseFuture`]: from the permit to the settled outcome.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{error::Timeout, reply::Mode};
use crate::{
    circuit::{Open, Permit},
    classify::Classify,
};

pin_project! {
    /// The future of a [`CircuitBreaker`](super::CircuitBreaker)'s response.
    ///
    /// It settles the call with the circuit when the response is there, when the deadline has
    /// passed, when the inner future panics, or when it is dropped.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C, M> {
        // None if the call was rejected, and once it has ended.
        #[pin]
        inner: Option<F>,
        // Made when the inner future is first found pending: most calls to fast services never
        // touch the timer.
        #[pin]
        deadline: Option<Sleep>,
        call: Call,
        classify: C,
        mode: PhantomData<fn() -> M>,
    }
}

#[derive(Debug)]
enum Call {
    Running(Permit),
    Rejected(Open),
    Ended,
}

impl<F, C, M> ResponseFuture<F, C, M> {
    /// Makes the call that `permit` is for.
    pub(super) fn call(inner: impl FnOnce() -> F, permit: Permit, classify: C) -> Self {
        let mut call = Call::Running(permit);
        let guard = FailOnUnwind(&mut call);
        let inner = inner();
        guard.disarm();
        Self::new(Some(inner), call, classify)
    }

    pub(super) fn rejected(open: Open, classify: C) -> Self {
        Self::new(None, Call::Rejected(open), classify)
    }

    fn new(inner: Option<F>, call: Call, classify: C) -> Self {
        Self {
            inner,
            deadline: None,
            call,
            classify,
            mode: PhantomData,
        }
    }
}

impl<F, C, M, Res, E> Future for ResponseFuture<F, C, M>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    M: Mode<Res, E>,
{
    type Output = Result<Res, M::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return match std::mem::replace(this.call, Call::Ended) {
                Call::Rejected(open) => Poll::Ready(M::open(open)),
                _ => panic!("`ResponseFuture` polled after it was ready"),
            };
        };

        let guard = FailOnUnwind(this.call);
        let polled = inner.poll(cx);
        guard.disarm();
        // The inner future comes before the deadline: an answer that is there is not thrown away.
        let answer = match polled {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(ready!(poll_deadline(this.deadline, this.call, cx))),
        };

        this.inner.set(None);
        let call = std::mem::replace(this.call, Call::Ended);
        Poll::Ready(match answer {
            Ok(result) => {
                if let Call::Running(permit) = call {
                    permit.settle(this.classify.classify(result.as_ref()).outcome());
                }
                result.map_err(M::inner)
            }
            Err(timeout) => {
                if let Call::Running(permit) = call {
                    permit.timed_out();
                }
                M::timeout(timeout)
            }
        })
    }
}

fn poll_deadline(
    mut deadline: Pin<&mut Option<Sleep>>,
    call: &Call,
    cx: &mut Context<'_>,
) -> Poll<Timeout> {
    let Call::Running(permit) = call else {
        return Poll::Pending;
    };
    let Some((after, elapsed)) = permit.timeout() else {
        return Poll::Pending;
    };
    if deadline.is_none() {
        deadline.set(Some(sleep(after.saturating_sub(elapsed))));
    }
    if let Some(deadline) = deadline.as_pin_mut() {
        ready!(deadline.poll(cx));
    }
    Poll::Ready(Timeout { after })
}

/// Settles the call as a failure unless it is disarmed, which a panic of the inner future skips.
/// The panic goes on unwinding.
///
/// Asking in `drop` whether the thread panics would also blame the dependency for a panic of its
/// caller's.
struct FailOnUnwind<'a>(&'a mut Call);

impl FailOnUnwind<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for FailOnUnwind<'_> {
    fn drop(&mut self) {
        if let Call::Running(permit) = std::mem::replace(self.0, Call::Ended) {
            permit.failure();
        }
    }
}

impl<F, C, M> fmt::Debug for ResponseFuture<F, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

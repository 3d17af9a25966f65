//! [`ResponseFuture`]: from the permit to the settled outcome.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    error::{Deadline, Timeout},
    mode::Mode,
};
use crate::{
    circuit::{Outcome, Permit, Rejection},
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
        permit: Permit,
        classify: C,
        mode: M,
    }
}

impl<F, C, M> ResponseFuture<F, C, M> {
    /// Makes the call that `permit` is for.
    #[inline]
    pub(super) fn call(
        inner: impl FnOnce() -> F,
        mut permit: Permit,
        classify: C,
        mode: M,
    ) -> Self {
        let guard = FailOnUnwind(&mut permit);
        let inner = inner();
        guard.disarm();
        Self::new(Some(inner), permit, classify, mode)
    }

    pub(super) fn rejected(rejection: Rejection, classify: C, mode: M) -> Self {
        Self::new(None, Permit::rejected(rejection), classify, mode)
    }

    #[inline]
    fn new(inner: Option<F>, permit: Permit, classify: C, mode: M) -> Self {
        Self {
            inner,
            deadline: None,
            permit,
            classify,
            mode,
        }
    }
}

impl<F, C, M, Res, E> Future for ResponseFuture<F, C, M>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    M: Mode<Res, E, C::AtEnd>,
{
    type Output = Result<M::Response, M::Error>;

    // Once in each kind of future, and small: the way of a call that is well, and calls to the rest.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            let rejected = this.permit.take_rejection();
            let open = rejected.expect("`ResponseFuture` polled after it was ready");
            return Poll::Ready(M::open(open));
        };

        let guard = FailOnUnwind(this.permit);
        // The inner future comes before the deadline: an answer that is there is not thrown away.
        let Poll::Ready(result) = inner.poll(cx) else {
            guard.disarm();
            let total = this.mode.total_timeout();
            let timeout = ready!(poll_deadline(this.deadline, this.permit, total, cx));
            this.inner.set(None);
            this.permit.end_late();
            return Poll::Ready(M::timeout(timeout));
        };
        this.inner.set(None);
        let judged = this.classify.classify(result.as_ref());
        guard.disarm();
        Poll::Ready(match result {
            Ok(response) => Ok(this.mode.settle(response, judged, this.permit)),
            Err(error) => {
                this.permit.end(judged.outcome());
                Err(M::inner(error))
            }
        })
    }
}

#[cold]
fn poll_deadline(
    mut timer: Pin<&mut Option<Sleep>>,
    permit: &Permit,
    total: Option<Duration>,
    cx: &mut Context<'_>,
) -> Poll<Timeout> {
    let deadlines = [
        (permit.timeout(), Deadline::Response),
        (total, Deadline::Total),
    ];
    let timeouts = deadlines.into_iter().filter_map(|(after, deadline)| {
        let after = after?;
        Some(Timeout { after, deadline })
    });
    let Some(timeout) = timeouts.min_by_key(|timeout| timeout.after) else {
        return Poll::Pending;
    };
    if timer.is_none() {
        timer.set(Some(sleep(timeout.after.saturating_sub(permit.elapsed()))));
    }
    if let Some(timer) = timer.as_pin_mut() {
        ready!(timer.poll(cx));
    }
    Poll::Ready(timeout)
}

/// Settles the call as a failure unless it is disarmed, which a panic of the inner future, or of what
/// judges its result, skips. The panic goes on unwinding.
///
/// Asking in `drop` whether the thread panics would also blame the dependency for a panic of its
/// caller's.
pub(super) struct FailOnUnwind<'a>(pub(super) &'a mut Permit);

impl FailOnUnwind<'_> {
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for FailOnUnwind<'_> {
    fn drop(&mut self) {
        self.0.end(Outcome::FAILURE);
    }
}

impl<F, C, M> fmt::Debug for ResponseFuture<F, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

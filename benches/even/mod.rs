//! The service that is called, and how.

use std::{
    future::Future,
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tower::Service;

/// The cheapest of services: one word of state, ready at the first poll. An odd number fails.
#[derive(Debug, Clone)]
pub(crate) struct Even;

pub(crate) struct Answer(u64);

impl Future for Answer {
    type Output = Result<u64, u64>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.0.is_multiple_of(2) {
            Ok(self.0)
        } else {
            Err(self.0)
        })
    }
}

impl Service<u64> for Even {
    type Response = u64;
    type Error = u64;
    type Future = Answer;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, number: u64) -> Answer {
        Answer(number)
    }
}

/// One request, without a runtime: readiness, the call, and polling it to its end. `None` if
/// either is pending.
#[inline(always)]
pub(crate) fn request<S: Service<u64>>(service: &mut S, number: u64) -> Option<bool> {
    let mut cx = Context::from_waker(Waker::noop());
    if service.poll_ready(&mut cx).is_pending() {
        return None;
    }
    match pin!(service.call(black_box(number))).poll(&mut cx) {
        Poll::Ready(result) => Some(result.is_ok()),
        Poll::Pending => None,
    }
}

use std::{
    borrow::Cow,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    Attempt, AttemptOutcome, Attempts, CloneRequest, FallbackError, Links, Policy, Record,
    Unavailable,
    select::{BUSY, NOT_READY, UNAVAILABLE, earlier, poll_patience},
    service::Settings,
    timer::{Timer, elapsed, now},
};

/// Why an error ended the chain: by the policy, it isn't one that another link could mend.
const NOT_FOR_OTHERS: &str = "the error is not one to fall back on";
const NO_CLONE: &str = "the request can't be cloned";

pin_project! {
    /// The future of [`Fallback`](super::Fallback).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the call that is running, and with it every reservation.
    pub struct ResponseFuture<L, Req, P, R, C>
    where
        L: Links<Req>,
    {
        // The call that is running; without one, links are looked for from `link` on.
        #[pin]
        call: Option<L::Future>,
        link: usize,
        degraded: bool,
        // When `link` was called, or first found busy.
        since: Option<Instant>,
        // The last result, kept as the answer in case no link is left.
        held: Option<Result<L::Response, L::Error>>,
        rest: Rest<L, Req>,
        shortest: Option<Duration>,
        attempts: Attempts,
        timer: Timer,
        settings: Settings<P, R, C>,
    }
}

/// What there is after the current link.
pub(super) enum Rest<L, Req> {
    /// Links to ask, none of them polled yet, and the request for them.
    Open { links: L, request: Req },
    /// Nothing: the links from here up to this index are out of reach, for this reason.
    Closed { end: usize, reason: &'static str },
    /// Nothing more is to be done: the answer has been given.
    Done,
}

/// A copy of the request if a link after `index` could still need one, or why there is none.
fn spare<L, Req, C>(links: &L, index: usize, request: &Req, hook: &C) -> Result<Req, &'static str>
where
    L: Links<Req>,
    C: CloneRequest<Req>,
{
    if !(index + 1..links.len()).any(|later| links.check(later).is_ok()) {
        return Err(UNAVAILABLE);
    }
    hook.clone_request(request).ok_or(NO_CLONE)
}

impl<L, Req> Rest<L, Req> {
    /// What remains beside a call of the link at `index`, whose readied instance is in `links`.
    pub(super) fn beside<C>(links: &L, index: usize, request: &Req, hook: &C) -> Self
    where
        L: Links<Req> + Clone,
        C: CloneRequest<Req>,
    {
        match spare(links, index, request, hook) {
            Ok(request) => Self::Open {
                links: links.clone(),
                request,
            },
            Err(reason) => Self::Closed {
                end: links.len(),
                reason,
            },
        }
    }
}

impl<L, Req, P, R, C> ResponseFuture<L, Req, P, R, C>
where
    L: Links<Req>,
{
    /// `call` runs, to a ready link.
    pub(super) fn calling(
        call: L::Future,
        link: usize,
        degraded: bool,
        rest: Rest<L, Req>,
        attempts: Attempts,
        settings: Settings<P, R, C>,
    ) -> Self {
        Self {
            call: Some(call),
            link,
            degraded,
            since: Some(now()),
            attempts,
            ..Self::asking(rest, settings)
        }
    }

    /// No link was chosen: they are asked from the first on.
    pub(super) fn asking(rest: Rest<L, Req>, settings: Settings<P, R, C>) -> Self {
        Self {
            call: None,
            link: 0,
            degraded: false,
            since: None,
            held: None,
            rest,
            shortest: None,
            attempts: Attempts::default(),
            timer: Timer::default(),
            settings,
        }
    }

    /// No link is available.
    pub(super) fn unavailable(unavailable: Unavailable, settings: Settings<P, R, C>) -> Self {
        let rest = Rest::Closed {
            end: 0,
            reason: UNAVAILABLE,
        };
        Self {
            shortest: unavailable.retry_after,
            attempts: unavailable.attempts,
            ..Self::asking(rest, settings)
        }
    }
}

impl<L, Req, P, R, C> Future for ResponseFuture<L, Req, P, R, C>
where
    L: Links<Req>,
    P: Policy<L::Response, L::Error>,
    R: Record<L::Response>,
    C: CloneRequest<Req>,
{
    type Output = Result<L::Response, FallbackError<L::Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let Some(call) = this.call.as_mut().as_pin_mut() else {
                if ready!(self.as_mut().poll_next(cx)) {
                    continue;
                }
                return Poll::Ready(self.finish());
            };
            let result = ready!(call.poll(cx));
            this.call.set(None);
            let failure = this.settings.policy.failure(result.as_ref());
            let settled = failure.is_none();
            let answered = settled && result.is_ok();
            // A first answer that nobody records needs no list.
            if !answered || !R::SILENT {
                this.attempts.push(Attempt {
                    link: *this.link,
                    outcome: if answered {
                        AttemptOutcome::Answered
                    } else {
                        AttemptOutcome::Failed
                    },
                    reason: failure.or((!answered).then_some(Cow::Borrowed(NOT_FOR_OTHERS))),
                    latency: this.since.map_or(Duration::ZERO, elapsed),
                    degraded: *this.degraded,
                });
            }
            *this.held = Some(result);
            if settled {
                return Poll::Ready(self.finish());
            }
            *this.since = None;
            *this.link += 1;
        }
    }
}

impl<L, Req, P, R, C> ResponseFuture<L, Req, P, R, C>
where
    L: Links<Req>,
    P: Policy<L::Response, L::Error>,
    R: Record<L::Response>,
    C: CloneRequest<Req>,
{
    /// Calls the next link that is ready, from `link` on; `false` if there is none.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let this = self.as_mut().project();
        let links = match this.rest {
            Rest::Open { links, .. } => links,
            Rest::Closed { end, reason } => {
                for index in *this.link..*end {
                    this.attempts.skip(index, reason, Duration::ZERO);
                }
                return Poll::Ready(false);
            }
            Rest::Done => panic!("`ResponseFuture` polled after it was ready"),
        };
        while *this.link < links.len() {
            let index = *this.link;
            let skipped = match links.check(index) {
                Err(wait) => {
                    *this.shortest = earlier(*this.shortest, wait);
                    UNAVAILABLE
                }
                Ok(()) => match links.poll_ready(index, cx) {
                    Poll::Ready(Ok(())) => {
                        self.start();
                        return Poll::Ready(true);
                    }
                    Poll::Ready(Err(error)) => {
                        let reason = this.settings.policy.failure(Err(&error));
                        this.attempts.push(Attempt {
                            link: index,
                            outcome: AttemptOutcome::Failed,
                            reason: Some(reason.unwrap_or(Cow::Borrowed(NOT_READY))),
                            latency: this.since.take().map_or(Duration::ZERO, elapsed),
                            degraded: false,
                        });
                        *this.held = Some(Err(error));
                        *this.link += 1;
                        continue;
                    }
                    Poll::Pending => {
                        let since = *this.since.get_or_insert_with(now);
                        let patience = this.settings.patience;
                        ready!(poll_patience(this.timer, since, patience, cx));
                        BUSY
                    }
                },
            };
            let waited = this.since.take().map(elapsed);
            if waited.is_some() {
                // Its place in a queue could become a reservation while a later link is called.
                links.renew(index);
            }
            this.attempts
                .skip(index, skipped, waited.unwrap_or_default());
            *this.link += 1;
        }
        Poll::Ready(false)
    }

    /// Calls the link at `link`, which is ready.
    fn start(self: Pin<&mut Self>) {
        let mut this = self.project();
        let closed = Rest::Closed {
            end: 0,
            reason: UNAVAILABLE,
        };
        let Rest::Open { mut links, request } = mem::replace(this.rest, closed) else {
            return;
        };
        let index = *this.link;
        let spare = spare(&links, index, &request, &this.settings.clone_request);
        *this.degraded = links.is_degraded(index);
        // A failed response is let go before the next call, with whatever its body holds.
        *this.held = None;
        this.timer.disarm();
        *this.since = Some(now());
        this.call.set(Some(links.call(index, request)));
        *this.rest = match spare {
            Ok(request) => Rest::Open { links, request },
            Err(reason) => Rest::Closed {
                end: links.len(),
                reason,
            },
        };
    }

    /// The answer: the last result, or the news that there is none.
    fn finish(self: Pin<&mut Self>) -> Result<L::Response, FallbackError<L::Error>> {
        let this = self.project();
        // Whoever polls again must not have the request sent again.
        *this.rest = Rest::Done;
        let attempts = mem::take(this.attempts);
        match this.held.take() {
            Some(Ok(mut response)) => {
                this.settings.record.record(&attempts, &mut response);
                Ok(response)
            }
            Some(Err(error)) => Err(FallbackError::Failed { error, attempts }),
            None => Err(FallbackError::Unavailable(Unavailable {
                retry_after: *this.shortest,
                attempts,
            })),
        }
    }
}

impl<L, Req, P, R, C> fmt::Debug for ResponseFuture<L, Req, P, R, C>
where
    L: Links<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("link", &self.link)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

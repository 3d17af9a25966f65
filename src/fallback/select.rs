use std::{
    borrow::Cow,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Attempt, AttemptOutcome, Attempts, FallbackError, Links, Policy, Unavailable,
    service::Settings,
    timer::{Timer, elapsed, now},
};

pub(crate) const UNAVAILABLE: &str = "unavailable";
pub(super) const BUSY: &str = "busy";
pub(super) const NOT_READY: &str = "the service is not ready";

/// How soon a link is looked at again whose probe says "unavailable, for zero more". A half-open
/// turn whose probes are all out says so, until one of them ends. Without a floor the timer would
/// spin; ten milliseconds cost next to nothing and are short beside a call over a network.
const RECHECK: Duration = Duration::from_millis(10);

/// The choice of the link that the next call goes to, made over as many polls as it takes.
#[derive(Debug, Default)]
pub(super) struct Selection {
    chosen: Option<Chosen>,
    /// What is known of each link so far; those beyond the end are `Unknown`. Empty, and without
    /// an allocation, for as long as the first link is ready at once.
    links: Vec<State>,
    timer: Timer,
}

/// What the next call does.
#[derive(Debug)]
pub(super) enum Chosen {
    /// It goes to this link, which is ready; with what became of those before it.
    Link(usize, Attempts),
    /// It fails at once.
    None(Unavailable),
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    /// Its probe said no when it was last asked.
    RuledOut {
        /// Whether its service was Pending all the same, and so holds a waker.
        waits: bool,
    },
    /// Pending since then: its service holds a waker, and perhaps a place in a queue.
    Busy(Instant),
    /// Its `poll_ready` returned an error, which is final for that instance.
    Failed(Cow<'static, str>, Duration),
}

impl Selection {
    /// The choice that was made, if one was. The next poll begins anew.
    pub(super) fn take(&mut self) -> Option<Chosen> {
        self.chosen.take()
    }

    pub(super) fn poll<L, Req, P, R, C>(
        &mut self,
        links: &mut L,
        settings: &Settings<P, R, C>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FallbackError<L::Error>>>
    where
        L: Links<Req>,
        P: Policy<L::Response, L::Error>,
    {
        // Ready stays ready until the call.
        if self.chosen.is_some() {
            return Poll::Ready(Ok(()));
        }
        let Settings {
            policy,
            patience,
            fail_fast,
            ..
        } = settings;
        let (mut busy, mut shortest, mut last_error) = (false, None, None);
        for index in 0..links.len() {
            if matches!(self.state(index), State::Failed(..)) {
                continue;
            }
            if let Err(wait) = links.check(index) {
                self.rule_out(links, index);
                shortest = earlier(shortest, wait);
                continue;
            }
            match links.poll_ready(index, cx) {
                Poll::Ready(Ok(())) => {
                    self.choose(links, index);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.fail(links, index, policy.failure(Err(&error)));
                    last_error = Some(error);
                }
                Poll::Pending => {
                    busy = true;
                    let since = self.busy_since(index).unwrap_or_else(now);
                    self.set(index, State::Busy(since));
                    // Later links are asked by their probes alone while this one is waited for:
                    // polling them could reserve what nobody would use.
                    let until = since.checked_add(*patience);
                    if until.is_none_or(|until| now() < until)
                        && self.is_other_available(links, index + 1)
                    {
                        self.wake_at(earlier(until, recheck(shortest)), cx);
                        return Poll::Pending;
                    }
                }
            }
        }
        if !fail_fast {
            // No link is available. Those that are ruled out by their probes are polled too, so
            // that whichever of them waits for its circuit wakes the task.
            for index in 0..links.len() {
                if !matches!(self.state(index), State::RuledOut { .. }) {
                    continue;
                }
                match links.poll_ready(index, cx) {
                    Poll::Ready(Ok(())) if links.check(index).is_ok() => {
                        self.choose(links, index);
                        return Poll::Ready(Ok(()));
                    }
                    // It answers for its circuit itself, so its readiness promises a rejection.
                    Poll::Ready(Ok(())) => {
                        links.renew(index);
                        self.set(index, State::RuledOut { waits: false });
                    }
                    Poll::Ready(Err(error)) => {
                        self.fail(links, index, policy.failure(Err(&error)));
                        last_error = Some(error);
                    }
                    Poll::Pending => {
                        busy = true;
                        self.set(index, State::RuledOut { waits: true });
                    }
                }
            }
            if busy {
                self.wake_at(recheck(shortest), cx);
                return Poll::Pending;
            }
        }
        for index in 0..self.links.len() {
            self.give_back(links, index);
        }
        let all_failed = self.links.iter().all(|s| matches!(s, State::Failed(..)));
        let attempts = self.settle(links.len());
        match last_error {
            Some(error) if all_failed => {
                Poll::Ready(Err(FallbackError::Failed { error, attempts }))
            }
            _ => {
                self.chosen = Some(Chosen::None(Unavailable {
                    retry_after: shortest,
                    attempts,
                }));
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Has the task woken at that time, besides by the links that it waits for.
    fn wake_at(&mut self, at: Option<Instant>, cx: &mut Context<'_>) {
        match at {
            Some(at) if self.timer.poll_until(at, cx).is_ready() => cx.waker().wake_by_ref(),
            Some(_) => {}
            None => self.timer.disarm(),
        }
    }

    /// Whether a link at or after `first` may be ready, as far as can be told without polling it.
    /// One that was found busy and still waits in its queue is not.
    fn is_other_available<L: Links<Req>, Req>(&self, links: &L, first: usize) -> bool {
        (first..links.len()).any(|index| {
            matches!(self.state(index), State::Unknown | State::RuledOut { .. })
                && links.check(index).is_ok()
        })
    }

    /// Settles on a ready link and gives back what the others hold, earlier and later ones.
    fn choose<L: Links<Req>, Req>(&mut self, links: &mut L, chosen: usize) {
        for index in 0..self.links.len() {
            if index != chosen {
                self.give_back(links, index);
            }
        }
        let attempts = self.settle(chosen);
        self.chosen = Some(Chosen::Link(chosen, attempts));
    }

    /// The link's probe says no, so it keeps no place in a queue that it has from before.
    fn rule_out<L: Links<Req>, Req>(&mut self, links: &mut L, index: usize) {
        if !matches!(self.state(index), State::RuledOut { .. }) {
            self.give_back(links, index);
            self.set(index, State::RuledOut { waits: false });
        }
    }

    /// The link's `poll_ready` returned an error, final for that instance. The next request meets
    /// another one.
    fn fail<L: Links<Req>, Req>(
        &mut self,
        links: &mut L,
        index: usize,
        reason: Option<Cow<'static, str>>,
    ) {
        let waited = self.busy_since(index).map_or(Duration::ZERO, elapsed);
        let reason = reason.unwrap_or(Cow::Borrowed(NOT_READY));
        links.renew(index);
        self.set(index, State::Failed(reason, waited));
    }

    fn give_back<L: Links<Req>, Req>(&self, links: &mut L, index: usize) {
        if matches!(
            self.state(index),
            State::Busy(_) | State::RuledOut { waits: true }
        ) {
            links.renew(index);
        }
    }

    /// What became of the links before `end`; after that, nothing is known of any.
    fn settle(&mut self, end: usize) -> Attempts {
        let mut attempts = Attempts::default();
        for (link, state) in self.links.drain(..).enumerate().take(end) {
            match state {
                State::Unknown => {}
                State::RuledOut { .. } => attempts.skip(link, UNAVAILABLE, Duration::ZERO),
                State::Busy(since) => attempts.skip(link, BUSY, elapsed(since)),
                State::Failed(reason, latency) => attempts.push(Attempt {
                    link,
                    outcome: AttemptOutcome::Failed,
                    reason: Some(reason),
                    latency,
                    degraded: false,
                }),
            }
        }
        self.timer.disarm();
        attempts
    }

    fn state(&self, index: usize) -> &State {
        self.links.get(index).unwrap_or(&State::Unknown)
    }

    fn set(&mut self, index: usize, state: State) {
        if self.links.len() <= index {
            self.links.resize(index + 1, State::Unknown);
        }
        self.links[index] = state;
    }

    fn busy_since(&self, index: usize) -> Option<Instant> {
        match self.state(index) {
            State::Busy(since) => Some(*since),
            _ => None,
        }
    }
}

/// When to look again at links that their probes rule out: nobody else wakes us for those.
fn recheck(shortest: Option<Duration>) -> Option<Instant> {
    now().checked_add(shortest?.max(RECHECK))
}

/// Ready once a link that is busy since then has been waited for long enough.
pub(super) fn poll_patience(
    timer: &mut Timer,
    since: Instant,
    patience: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match since.checked_add(patience) {
        Some(deadline) if deadline <= now() => Poll::Ready(()),
        Some(deadline) => timer.poll_until(deadline, cx),
        // Beyond what an `Instant` can hold: the link's own waker is all there is to wait for.
        None => Poll::Pending,
    }
}

/// The lesser of what is known.
pub(super) fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

//! How long a streamed answer may take.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::circuit::{Permit, timer_now};

/// Long enough for a model that reads a long prompt, and short enough that somebody who waits is
/// still there for another provider's answer.
const FIRST_TOKEN: Duration = Duration::from_secs(30);

/// Models write several tokens a second; providers that think for longer send pings meanwhile.
const IDLE: Duration = Duration::from_secs(30);

/// What the official clients of the providers allow for.
const TOTAL: Duration = Duration::from_secs(600);

/// How long one provider may take over a streamed answer. Each deadline stands for itself; `None`
/// switches it off. Missing one is a failure of the provider, of the kind
/// [`Timeout`](crate::models::ModelErrorKind::Timeout).
///
/// They are those of streams. An answer that is asked for as a whole has the `timeout` of the
/// circuit breaker, which streams don't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// From the request to the first content: text, reasoning or a tool call. Default: 30 s.
    ///
    /// Pings and comments, with which a provider keeps a waiting connection open, are no content.
    pub first_token: Option<Duration>,
    /// The longest silence after that. Default: 30 s.
    ///
    /// Here a ping or a comment counts: a provider that sends it says that it is still at work.
    pub idle: Option<Duration>,
    /// From the request to the end of the provider's answer, the time that a slow reader takes over
    /// it included. Default: 10 min.
    pub total: Option<Duration>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_token: Some(FIRST_TOKEN),
            idle: Some(IDLE),
            total: Some(TOTAL),
        }
    }
}

impl Deadlines {
    /// The same, with this time for the first content.
    #[must_use]
    pub fn first_token(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.first_token = within.into();
        self
    }

    /// The same, with this time for a silence.
    #[must_use]
    pub fn idle(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.idle = within.into();
        self
    }

    /// The same, with this time for the whole answer.
    #[must_use]
    pub fn total(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.total = within.into();
        self
    }
}

/// Watches over the deadlines of one stream.
pub(super) struct Watch {
    deadlines: Deadlines,
    started: Instant,
    has_content: bool,
    /// Since when nothing came, looked at only when there is nothing to read.
    silent_since: Option<Instant>,
    /// Left as it is while the deadline moves away from it, and set anew when it fires too early: so
    /// the timer is touched once per silence that is worth it, and not per event.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// A deadline that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    FirstToken(Duration),
    Idle(Duration),
    Total(Duration),
}

impl Watch {
    pub(super) fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            started: timer_now(),
            has_content: false,
            silent_since: None,
            sleep: None,
        }
    }

    /// Something came.
    pub(super) fn alive(&mut self) {
        self.silent_since = None;
    }

    /// Content came.
    pub(super) fn content(&mut self) {
        self.has_content = true;
    }

    pub(super) fn has_content(&self) -> bool {
        self.has_content
    }

    pub(super) fn elapsed(&self) -> Duration {
        timer_now().saturating_duration_since(self.started)
    }

    /// Ready once a deadline has passed. To be asked when there is nothing to read.
    ///
    /// A probe that streams keeps its half-open turn from ending as long as it is not late.
    pub(super) fn poll(&mut self, permit: Option<&Permit>, cx: &mut Context<'_>) -> Poll<Late> {
        let Some((due, late)) = self.next(permit) else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(late);
            }
            sleep.as_mut().reset(due);
        }
    }

    fn next(&mut self, permit: Option<&Permit>) -> Option<(Instant, Late)> {
        let Deadlines {
            first_token,
            idle,
            total,
        } = self.deadlines;
        let started = self.started;
        let (progress, kind): (_, fn(Duration) -> Late) = if self.has_content {
            // Without an idle deadline nobody needs the time.
            let since = idle.map(|within| {
                *self.silent_since.get_or_insert_with(|| {
                    if let Some(permit) = permit {
                        permit.keep_turn(within);
                    }
                    timer_now()
                })
            });
            (since.zip(idle), Late::Idle)
        } else {
            (
                first_token.map(|within| (started, within)),
                Late::FirstToken,
            )
        };
        let progress = progress.and_then(|(since, within)| {
            // A time beyond what the clock can hold is no deadline.
            Some((since.checked_add(within)?, kind(within)))
        });
        let total =
            total.and_then(|within| Some((started.checked_add(within)?, Late::Total(within))));
        match (progress, total) {
            (Some(progress), Some(total)) if total.0 < progress.0 => Some(total),
            (progress, total) => progress.or(total),
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstToken(within) => write!(f, "no content within {within:?}"),
            Self::Idle(within) => write!(f, "nothing more within {within:?}"),
            Self::Total(within) => write!(f, "the answer was not complete within {within:?}"),
        }
    }
}

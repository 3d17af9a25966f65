//! How long a body may be silent, and how long it may take.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyConfig;
use crate::{
    circuit::{Permit, timer_now},
    service::error::{Deadline, Timeout},
};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    config: Option<Arc<BodyConfig>>,
    /// When the total is over.
    ends: Option<Instant>,
    /// A frame has been seen.
    begun: bool,
    /// What the timer is set to, since the body was last asked in vain.
    set: Option<Timeout>,
}

impl Deadlines {
    /// At the head of the response.
    pub(super) fn new(config: Option<Arc<BodyConfig>>, permit: &Permit) -> Self {
        let total = config.as_ref().and_then(|config| config.total_timeout);
        Self {
            ends: total.and_then(|total| {
                let left = total.saturating_sub(permit.elapsed());
                timer_now().checked_add(left)
            }),
            config,
            begun: false,
            set: None,
        }
    }

    /// The body has moved on.
    pub(super) fn progress(&mut self, permit: &Permit) {
        if let Some(config) = &self.config {
            self.begun = true;
            // The timer is set anew when there is something to wait for.
            self.set = None;
            if let Some(idle) = config.idle_timeout {
                permit.keep_turn(idle);
            }
        }
    }

    /// The body is pending. Ready once it has been so for too long.
    pub(super) fn poll(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        permit: &Permit,
        cx: &mut Context<'_>,
    ) -> Poll<Timeout> {
        let Some(config) = &self.config else {
            return Poll::Pending;
        };
        let timeout = match self.set {
            Some(timeout) => timeout,
            None => {
                let silence = silence(config, self.begun);
                if let Some(silence) = silence {
                    permit.keep_turn(silence.after);
                }
                let Some((at, timeout)) = next(config, self.ends, silence) else {
                    return Poll::Pending;
                };
                match timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.reset(at),
                    None => timer.set(Some(sleep_until(at))),
                }
                self.set = Some(timeout);
                timeout
            }
        };
        if let Some(timer) = timer.as_pin_mut() {
            ready!(timer.poll(cx));
        }
        Poll::Ready(timeout)
    }
}

/// The silence that is too long now.
fn silence(config: &BodyConfig, begun: bool) -> Option<Timeout> {
    let of = |deadline| move |after| Timeout { after, deadline };
    let idle = config.idle_timeout.map(of(Deadline::Idle));
    let first = config.first_byte_timeout.map(of(Deadline::FirstByte));
    if begun { idle } else { first.or(idle) }
}

/// What is over first, if the body stays silent, and when.
fn next(
    config: &BodyConfig,
    ends: Option<Instant>,
    silence: Option<Timeout>,
) -> Option<(Instant, Timeout)> {
    let total = ends.zip(config.total_timeout).map(|(at, after)| {
        let deadline = Deadline::Total;
        (at, Timeout { after, deadline })
    });
    let silence = silence.and_then(|timeout| {
        let at = timer_now().checked_add(timeout.after)?;
        Some((at, timeout))
    });
    [total, silence]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
}

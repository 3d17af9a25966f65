use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The time by which links are waited for and attempts are measured.
// Fallback knows no circuit and so no circuit's clock. What it measures only ever meets tokio's
// own timers, and has to follow paused time as they do.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn elapsed(since: Instant) -> Duration {
    now().saturating_duration_since(since)
}

/// A wake-up at a set time, allocated when it is first needed.
#[derive(Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `deadline` has passed; until then the task is woken at that time.
    pub(super) fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }

    /// No wake-up is wanted any more.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer")
            .field(&self.0.as_ref().map(|sleep| sleep.deadline()))
            .finish()
    }
}

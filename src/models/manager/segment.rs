//! One provider's part of a streamed answer, from the call to the settled outcome.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    deadlines::Watch,
    link::{Member, outcome},
};
use crate::{
    circuit::{Outcome, Permit, Ran},
    models::{
        ModelError, ModelErrorKind, StreamEvent,
        stream::{Progress, ProviderStream},
    },
};

/// How much is read in one poll before what came is passed on: a provider that sends faster than
/// the caller reads must not fill the memory, nor keep the task to itself.
const READS_PER_POLL: usize = 32;

/// A call to a provider's stream: opening, or open.
pub(super) type Call = Pin<Box<dyn Future<Output = Result<ProviderStream, ModelError>> + Send>>;

/// One provider's part of an answer. It holds the permit of the provider's circuit until the answer
/// has ended, and settles it then: as a success only if the answer came to its finish.
///
/// For the circuit it took as long as its first content did: what comes after that is as long as the
/// answer is. Dropped before its end, it counts as cancelled.
pub(super) struct Segment {
    member: Arc<Member>,
    state: State,
    /// `None` once it is settled.
    permit: Option<Permit>,
    /// How long the first content took.
    ran: Option<Ran>,
    watch: Watch,
}

enum State {
    Opening(Call),
    Open(ProviderStream),
    Ended,
}

impl Segment {
    /// Makes the call that `permit` is for.
    pub(super) fn new(
        member: Arc<Member>,
        permit: Permit,
        call: impl FnOnce(&Member) -> Call,
    ) -> Self {
        let watch = Watch::new(member.deadlines);
        let mut permit = Some(permit);
        let guard = FailOnUnwind(&mut permit);
        let call = call(&member);
        guard.disarm();
        Self {
            member,
            state: State::Opening(call),
            permit,
            ran: None,
            watch,
        }
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Whether there has been content.
    pub(super) fn has_content(&self) -> bool {
        self.watch.has_content()
    }

    /// The time since the call.
    pub(super) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Waits for more, and appends it. A failure may come with events before it, which stand.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        let result = match self.read(cx, events) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let late = ready!(self.watch.poll(self.permit.as_ref(), cx));
                if let Some(permit) = self.take_permit() {
                    permit.timed_out();
                }
                Err(ModelError::new(ModelErrorKind::Timeout, late.to_string()))
            }
        };
        match &result {
            Ok(Progress::Alive) => {}
            Ok(Progress::Finished) => self.settle(None),
            Err(error) => self.settle(Some(error)),
        }
        Poll::Ready(result)
    }

    /// Reads what is there, until it brings events or there is no more.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        let before = events.len();
        let guard = FailOnUnwind(&mut self.permit);
        let mut read = Poll::Pending;
        for turn in 1..=READS_PER_POLL {
            read = match &mut self.state {
                State::Opening(call) => match call.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => {
                        self.state = State::Open(stream);
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                State::Open(stream) => stream.poll_events(cx, events),
                State::Ended => Poll::Ready(Ok(Progress::Finished)),
            };
            if !matches!(read, Poll::Ready(Ok(Progress::Alive))) {
                break;
            }
            self.watch.alive();
            if turn == READS_PER_POLL && events.len() == before {
                // There may be more, though none of it is worth waking the caller.
                cx.waker().wake_by_ref();
                read = Poll::Pending;
            }
        }
        guard.disarm();
        let came = events.range(before..);
        if came.len() > 0 {
            if !self.watch.has_content() && came.into_iter().any(StreamEvent::is_content) {
                self.watch.content();
                self.ran = self.permit.as_mut().and_then(Permit::answered);
            }
            if read.is_pending() {
                return Poll::Ready(Ok(Progress::Alive));
            }
        }
        read
    }

    fn settle(&mut self, error: Option<&ModelError>) {
        // The connection is given back, or given up, at once.
        self.state = State::Ended;
        self.member.credentials.observe(error);
        if let Some(permit) = self.take_permit() {
            permit.settle(outcome(error));
        }
    }

    fn take_permit(&mut self) -> Option<Permit> {
        let mut permit = self.permit.take()?;
        if let Some(ran) = self.ran.take() {
            permit.took(ran);
        }
        Some(permit)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.cancel_answered(self.ran.take());
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("member", &self.member)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

/// Settles the call as a failure unless it is disarmed, which a panic skips. The panic goes on
/// unwinding.
struct FailOnUnwind<'a>(&'a mut Option<Permit>);

impl FailOnUnwind<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for FailOnUnwind<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.settle(Outcome::FAILURE);
        }
    }
}

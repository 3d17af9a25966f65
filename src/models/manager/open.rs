//! Opening a stream: from the request to the first content.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{
    link::{BoxedStreams, ChainRequest, Member, rejected},
    segment::Segment,
};
use crate::{
    fallback::Attempts,
    models::{ModelError, StreamEvent, stream::Progress},
};

/// A provider, asked for streams of one of its models.
///
/// Its answer is there with the first content, and not before: a provider that fails until then
/// can be replaced by another without anybody seeing it.
pub(super) struct StreamService {
    member: Arc<Member>,
    /// As in [`ModelService`](super::link::ModelService).
    ready: Option<BoxedStreams>,
}

impl StreamService {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            ready: None,
        }
    }
}

impl Clone for StreamService {
    fn clone(&self) -> Self {
        Self::new(self.member.clone())
    }
}

impl Service<ChainRequest> for StreamService {
    type Response = Opened;
    type Error = ModelError;
    type Future = Opening;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        // A circuit that is open was found out by its probe.
        let provider = &self.member.streams;
        self.ready
            .get_or_insert_with(|| provider.clone())
            .poll_ready(cx)
    }

    fn call(&mut self, request: ChainRequest) -> Opening {
        let member = self.member.clone();
        let segment = match member.circuit.try_acquire() {
            Ok(permit) => {
                let mut provider = self.ready.take().unwrap_or_else(|| member.streams.clone());
                Ok(Segment::new(member, permit, |member| {
                    provider.call(member.request(request))
                }))
            }
            Err(open) => Err(rejected(open)),
        };
        Opening {
            segment: Some(segment),
            events: VecDeque::new(),
        }
    }
}

/// A stream that has begun, with what has come of it so far.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) segment: Segment,
    pub(super) events: VecDeque<StreamEvent>,
    /// How it has also ended, if it has.
    pub(super) end: Option<Result<(), ModelError>>,
    pub(super) attempts: Attempts,
}

/// Waits for the first content, or for the end of an answer that has none.
pub(super) struct Opening {
    /// `None` once it is ready; an error if the circuit rejected the call.
    segment: Option<Result<Segment, ModelError>>,
    events: VecDeque<StreamEvent>,
}

impl Future for Opening {
    type Output = Result<Opened, ModelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let end = loop {
            let Some(Ok(segment)) = &mut this.segment else {
                break None;
            };
            match ready!(segment.poll(cx, &mut this.events)) {
                Ok(Progress::Finished) => break Some(Ok(())),
                Ok(Progress::Alive) if segment.has_content() => break None,
                Ok(Progress::Alive) => {}
                // What becomes of an answer must not depend on how its bytes were cut into reads.
                Err(error) if segment.has_content() => break Some(Err(error)),
                Err(error) => this.segment = Some(Err(error)),
            }
        };
        let segment = this
            .segment
            .take()
            .expect("`Opening` polled after it was ready");
        Poll::Ready(segment.map(|segment| Opened {
            segment,
            events: std::mem::take(&mut this.events),
            end,
            attempts: Attempts::default(),
        }))
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

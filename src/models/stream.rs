//! A provider's answer as a stream of events.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use super::{error::ModelError, event::StreamEvent, response::Completion};

/// A provider's answer that is still coming.
///
/// It reads the provider's body only when it is polled, so whoever reads slowly slows the provider
/// down. It knows no deadline and no circuit. Dropping it drops the body, and with it the
/// connection to the provider.
pub(super) struct ProviderStream(Pin<Box<dyn ReadEvents>>);

/// What a poll of a [`ProviderStream`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something came: events, or a sign of life that is none.
    Alive,
    /// The answer is complete.
    Finished,
}

trait ReadEvents: Send {
    fn poll_events(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>>;
}

impl ProviderStream {
    /// Reads on, and appends what came. Not to be polled again once it has failed or finished.
    pub(super) fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        self.0.as_mut().poll_events(cx, events)
    }
}

/// An answer that came whole, as if it had come in pieces.
impl From<Completion> for ProviderStream {
    fn from(completion: Completion) -> Self {
        Self(Box::pin(Whole(Some(completion))))
    }
}

struct Whole(Option<Completion>);

impl ReadEvents for Whole {
    fn poll_events(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        if let Some(completion) = self.0.take() {
            events.extend(pieces(completion));
        }
        Poll::Ready(Ok(Progress::Finished))
    }
}

/// A whole answer in the pieces that a stream would bring.
pub(super) fn pieces(completion: Completion) -> impl Iterator<Item = StreamEvent> {
    let reasoning = completion.reasoning.filter(|text| !text.is_empty());
    let text = Some(completion.text).filter(|text| !text.is_empty());
    let start = StreamEvent::Start {
        id: completion.id,
        model: completion.model,
    };
    [
        Some(start),
        reasoning.map(StreamEvent::Reasoning),
        text.map(StreamEvent::Text),
        Some(StreamEvent::Usage(completion.usage)),
        Some(StreamEvent::Finish(completion.finish_reason)),
    ]
    .into_iter()
    .flatten()
}

impl fmt::Debug for ProviderStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderStream").finish_non_exhaustive()
    }
}

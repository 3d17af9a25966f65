//! A provider's answer as a stream of events.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use super::{content::Reasoning, error::ModelError, event::StreamEvent, response::Completion};

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
    let blocks = completion.reasoning_blocks;
    // The blocks hold the same thoughts.
    let plain = completion.reasoning.filter(|_| blocks.is_empty());
    let reasoning = blocks.into_iter().flat_map(|block| match block {
        Reasoning::Text { text, signature } => [
            Some(StreamEvent::Reasoning(text)),
            signature.map(StreamEvent::ReasoningSignature),
        ],
        Reasoning::Redacted(data) => [Some(StreamEvent::RedactedReasoning(data)), None],
    });
    let calls = (0..).zip(completion.tool_calls).flat_map(|(index, call)| {
        [
            StreamEvent::ToolCall {
                index,
                id: call.id,
                name: call.name,
            },
            StreamEvent::ToolArguments {
                index,
                json: call.arguments,
            },
        ]
    });
    let start = StreamEvent::Start {
        id: completion.id,
        model: completion.model,
    };
    let end = [
        StreamEvent::Usage(completion.usage),
        StreamEvent::Finish(completion.finish_reason),
    ];
    let content = plain
        .map(StreamEvent::Reasoning)
        .into_iter()
        .chain(reasoning.flatten())
        .chain([StreamEvent::Text(completion.text)])
        .chain(calls);
    // Nothing comes in empty pieces.
    let content = content.filter(|event| match event {
        StreamEvent::Text(text) | StreamEvent::Reasoning(text) => !text.is_empty(),
        StreamEvent::ToolArguments { json, .. } => !json.is_empty(),
        _ => true,
    });
    std::iter::once(start).chain(content).chain(end)
}

impl fmt::Debug for ProviderStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderStream").finish_non_exhaustive()
    }
}

//! The pieces of a streamed answer, in one shape for all providers.

use std::collections::VecDeque;

use super::{
    error::ModelError,
    response::{FinishReason, Usage},
};

/// One piece of an answer that comes as a stream.
///
/// An answer is `Start`, then any number of the others, then `Finish`. One without its `Finish` is
/// incomplete, whatever came before.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The answer has begun: the provider's own id and name of the model, empty where it gave none.
    Start {
        /// The provider's id of the answer.
        id: String,
        /// The model, as the provider names it.
        model: String,
    },
    /// More of the answer's text; never empty.
    Text(String),
    /// More of what the model thinks before it answers; never empty.
    Reasoning(String),
    /// What proves to the provider that the reasoning so far is its own (Anthropic's `signature`).
    /// What is thought after it is another block.
    ReasoningSignature(String),
    /// A thought that only the provider can read (Anthropic's `redacted_thinking`), whole.
    RedactedReasoning(String),
    /// The model begins to call a tool. All of its arguments follow before the next call begins.
    ToolCall {
        /// Which of the answer's tool calls, from 0.
        index: u32,
        /// The id that the result has to name.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of the arguments of a tool call, as a fragment of JSON text; never empty.
    ToolArguments {
        /// Which of the answer's tool calls, from 0.
        index: u32,
        /// The next characters of the JSON text.
        json: String,
    },
    /// The tokens so far. Each replaces the one before.
    Usage(Usage),
    /// The answer is complete: the last event, after which the provider says nothing more.
    Finish(FinishReason),
}

impl StreamEvent {
    /// Whether a client has seen something of the answer itself once it has got this: text,
    /// reasoning or a tool call. Until then another provider can take over unseen.
    pub fn is_content(&self) -> bool {
        matches!(
            self,
            Self::Text(_) | Self::Reasoning(_) | Self::ToolCall { .. } | Self::ToolArguments { .. }
        )
    }
}

/// Reads one provider's stream: pure, with no socket, clock or runtime in sight.
pub trait StreamDecoder: Send {
    /// Takes the next bytes of the body, which may be split anywhere, and appends what they complete.
    ///
    /// # Errors
    ///
    /// If the provider says that it failed, or says what its API doesn't. What was appended before
    /// stands; the decoder is not to be used again.
    fn feed(&mut self, bytes: &[u8], events: &mut VecDeque<StreamEvent>) -> Result<(), ModelError>;

    /// The body has ended.
    ///
    /// # Errors
    ///
    /// If the answer has not had its [`Finish`](StreamEvent::Finish): then it is cut off.
    fn end(&mut self) -> Result<(), ModelError>;
}

//! What is known of a streamed answer.

use std::sync::Arc;

use super::{
    link::Member,
    report::{Join, ModelAttempt},
};
use crate::{
    circuit::Circuit,
    models::{FinishReason, StreamEvent, Usage},
};

/// What is known of the answer so far.
pub(super) struct Account {
    pub(super) model: Arc<str>,
    pub(super) provider: Arc<str>,
    pub(super) circuit: Circuit,
    pub(super) id: String,
    /// The model, as its provider names it.
    pub(super) provider_model: String,
    pub(super) attempts: Vec<ModelAttempt>,
    pub(super) degraded: bool,
    pub(super) joins: Vec<Join>,
    /// Where the one that answers now has begun, in bytes of the text.
    pub(super) begins_at: usize,
    pub(super) length: usize,
    /// The text, if somebody may need it.
    pub(super) text: Option<String>,
    pub(super) calls_tool: bool,
    /// What those have cost who broke off.
    pub(super) usage_before: Usage,
    pub(super) usage: Usage,
    pub(super) finish_reason: Option<FinishReason>,
}

impl Account {
    pub(super) fn by(member: &Member, attempts: Vec<ModelAttempt>) -> Self {
        Self {
            model: member.model.clone(),
            provider: member.provider.clone(),
            circuit: member.circuit.clone(),
            id: String::new(),
            provider_model: String::new(),
            attempts,
            degraded: member.degraded,
            joins: Vec::new(),
            begins_at: 0,
            length: 0,
            text: None,
            calls_tool: false,
            usage_before: Usage::default(),
            usage: Usage::default(),
            finish_reason: None,
        }
    }

    pub(super) fn observe(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Start { id, model } => {
                if self.id.is_empty() {
                    self.id.clone_from(id);
                }
                self.provider_model.clone_from(model);
            }
            StreamEvent::Text(more) => {
                self.length += more.len();
                if let Some(text) = &mut self.text {
                    text.push_str(more);
                }
            }
            StreamEvent::ToolCall { .. } | StreamEvent::ToolArguments { .. } => {
                self.calls_tool = true;
            }
            StreamEvent::Usage(usage) => self.usage = *usage,
            StreamEvent::Finish(reason) => self.finish_reason = Some(reason.clone()),
            _ => {}
        }
    }

    /// Whether an event after a join belongs into the answer, and as what.
    pub(super) fn adapt(&self, event: &mut StreamEvent) -> bool {
        match event {
            StreamEvent::Start { .. } => false,
            // Thoughts come before the text, and this text has begun.
            StreamEvent::Reasoning(_) => self.begins_at == 0,
            // They would have to speak for the other provider's part too.
            StreamEvent::ReasoningSignature(_) | StreamEvent::RedactedReasoning(_) => false,
            StreamEvent::Usage(usage) => {
                *usage += self.usage_before;
                true
            }
            _ => true,
        }
    }
}

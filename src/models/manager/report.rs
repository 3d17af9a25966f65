//! What the caller is told: the answer or the failure, and how it came about.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Serialize, Serializer};

use super::link::{Answer, Member, REJECTED};
use crate::{
    circuit::{Circuit, CircuitBreakerMetrics},
    fallback::{AttemptOutcome, Attempts, FallbackError, UNAVAILABLE},
    models::{Completion, FinishReason, ModelError, ModelErrorKind, Reasoning, ToolCall, Usage},
};

/// An answer, and how it came about. As JSON in camel case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ModelResponse {
    /// The provider's own id of the answer; empty if it gave none.
    pub id: String,
    /// The answer.
    pub text: String,
    /// What the model thought before it answered, where the provider tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The same thoughts in the blocks that the provider needs to know them again.
    #[serde(skip)]
    pub reasoning_blocks: Vec<Reasoning>,
    /// The tools that the model wants to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The model that answered, by its alias.
    pub model: String,
    /// The provider that answered.
    pub provider: String,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// How it came about.
    pub metadata: Metadata,
}

/// How an answer came about. As JSON in camel case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Metadata {
    /// The model, as the provider that answered names it.
    pub provider_model: String,
    /// What became of each model that was considered, in order. The last one answered.
    pub attempts: Vec<ModelAttempt>,
    /// The circuit of the provider that answered; for an answer of none, that of the model that was
    /// asked for.
    pub circuit_breaker: CircuitSnapshot,
    /// Whether it is a [last resort](super::Degraded) in place of the answer that was asked for.
    pub degraded: bool,
    /// Where another model went on with an answer that had broken off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<Join>,
}

/// What a circuit has seen: its [metrics](CircuitBreakerMetrics), to which it dereferences, as they
/// are when they are first looked at.
///
/// Most answers are passed on and nobody looks, and percentiles cost more than all the rest that is
/// told of an answer.
#[derive(Debug, Clone)]
pub struct CircuitSnapshot {
    circuit: Circuit,
    metrics: OnceLock<CircuitBreakerMetrics>,
}

impl CircuitSnapshot {
    pub(super) fn of(circuit: &Circuit) -> Self {
        Self {
            circuit: circuit.clone(),
            metrics: OnceLock::new(),
        }
    }
}

impl Deref for CircuitSnapshot {
    type Target = CircuitBreakerMetrics;

    fn deref(&self) -> &CircuitBreakerMetrics {
        self.metrics.get_or_init(|| self.circuit.metrics())
    }
}

impl Serialize for CircuitSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

/// A place in a streamed answer where another model went on. As JSON in camel case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Join {
    /// How much of the text was there before, in bytes.
    pub at: usize,
    /// The model that went on, by its alias.
    pub model: String,
    /// Its provider.
    pub provider: String,
}

/// What became of one model that was considered for a request. As JSON in camel case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ModelAttempt {
    /// The model, by its alias.
    pub model: String,
    /// Its provider.
    pub provider: String,
    /// Whether it answered, failed, or was skipped without being asked.
    #[serde(serialize_with = "outcome")]
    pub outcome: AttemptOutcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// How long it took, in JSON as `latencyMs`.
    #[serde(rename = "latencyMs", serialize_with = "milliseconds")]
    pub latency: Duration,
}

impl ModelAttempt {
    /// A last resort that answers in place of a model.
    pub(super) fn last_resort(model: &str, provider: &str) -> Self {
        Self {
            model: model.to_owned(),
            provider: provider.to_owned(),
            outcome: AttemptOutcome::Answered,
            reason: None,
            latency: Duration::ZERO,
        }
    }
}

/// What a model answered.
pub(super) fn response(answer: Answer, members: &[Arc<Member>]) -> ModelResponse {
    let member = answer.member;
    let metadata = Metadata {
        provider_model: String::new(),
        attempts: attempts(&answer.attempts, members),
        circuit_breaker: CircuitSnapshot::of(&member.circuit),
        degraded: member.degraded,
        joins: Vec::new(),
    };
    answered(answer.completion, &member.model, &member.provider, metadata)
}

/// An answer with its metadata, to which it adds the provider's name of the model.
pub(super) fn answered(
    completion: Completion,
    model: &str,
    provider: &str,
    metadata: Metadata,
) -> ModelResponse {
    ModelResponse {
        id: completion.id,
        text: completion.text,
        reasoning: completion.reasoning,
        reasoning_blocks: completion.reasoning_blocks,
        tool_calls: completion.tool_calls,
        model: model.to_owned(),
        provider: provider.to_owned(),
        finish_reason: completion.finish_reason,
        usage: completion.usage,
        metadata: Metadata {
            provider_model: completion.model,
            ..metadata
        },
    }
}

/// Why no model answered. `flatten` makes a model's error of a link's.
pub(super) fn error<E>(
    error: FallbackError<E>,
    members: &[Arc<Member>],
    flatten: impl FnOnce(E) -> ModelError,
) -> ModelError {
    let mut attempts = attempts(error.attempts(), members);
    let error = match error {
        FallbackError::Failed { error, .. } => flatten(error),
        FallbackError::Unavailable(unavailable) => {
            let considered: Vec<&str> = members.iter().map(|member| &*member.model).collect();
            let message = format!("the circuits of {} are open", considered.join(" and "));
            ModelError::new(ModelErrorKind::Unavailable, message)
                .with_retry_after(unavailable.retry_after)
        }
    };
    // A failure that ended the chain has no reason of the fallback's.
    let failed = attempts
        .iter_mut()
        .rfind(|attempt| attempt.outcome == AttemptOutcome::Failed);
    // A rejection is not among those that failed.
    if let Some(last) = failed
        && error.kind() != ModelErrorKind::CircuitOpen
    {
        last.reason = Some(error.to_string().into());
    }
    error.with_attempts(attempts)
}

pub(super) fn attempts(attempts: &Attempts, members: &[Arc<Member>]) -> Vec<ModelAttempt> {
    let attempts = attempts.iter().map(|attempt| {
        let member = &members[attempt.link];
        ModelAttempt {
            model: member.model.to_string(),
            provider: member.provider.to_string(),
            outcome: match attempt.reason.as_deref() {
                // To the fallback it was a call that failed, but the provider was not asked.
                Some(REJECTED) => AttemptOutcome::Skipped,
                _ => attempt.outcome,
            },
            reason: match attempt.reason.as_deref() {
                // The fallback knows no circuit. This one has rejected the request, and counts it.
                Some(UNAVAILABLE) => Some(member.circuit.reject().to_string().into()),
                _ => attempt.reason.clone(),
            },
            latency: attempt.latency,
        }
    });
    attempts.collect()
}

fn outcome<S: Serializer>(outcome: &AttemptOutcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(outcome)
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

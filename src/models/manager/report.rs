//! What the caller is told: the answer or the failure, and how it came about.

use std::{borrow::Cow, time::Duration};

use serde::{Serialize, Serializer};

use super::link::{Answer, Member, flatten};
use crate::{
    circuit::CircuitBreakerMetrics,
    fallback::{AttemptOutcome, Attempts, FallbackError, UNAVAILABLE},
    models::{FinishReason, ModelError, ModelErrorKind, Usage},
    service::Error,
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
    /// The circuit of the provider that answered.
    pub circuit_breaker: CircuitBreakerMetrics,
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

pub(super) fn response(answer: Answer, members: &[Member]) -> ModelResponse {
    let completion = answer.completion;
    let member = answer.member;
    ModelResponse {
        id: completion.id,
        text: completion.text,
        reasoning: completion.reasoning,
        model: member.model.to_string(),
        provider: member.provider.to_string(),
        finish_reason: completion.finish_reason,
        usage: completion.usage,
        metadata: Metadata {
            provider_model: completion.model,
            attempts: attempts(&answer.attempts, members),
            circuit_breaker: member.circuit.metrics(),
        },
    }
}

pub(super) fn error(error: FallbackError<Error<ModelError>>, members: &[Member]) -> ModelError {
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
    if let Some(last) = failed {
        last.reason = Some(error.to_string().into());
    }
    error.with_attempts(attempts)
}

fn attempts(attempts: &Attempts, members: &[Member]) -> Vec<ModelAttempt> {
    let attempts = attempts.iter().map(|attempt| {
        let member = &members[attempt.link];
        ModelAttempt {
            model: member.model.to_string(),
            provider: member.provider.to_string(),
            outcome: attempt.outcome,
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

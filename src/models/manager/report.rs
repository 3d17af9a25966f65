//! What the caller is told: the answer or the failure, and how it came about.

use std::{borrow::Cow, time::Duration};

use serde::{Serialize, Serializer};

use super::link::{Answer, LinkName, flatten};
use crate::{
    circuit::{Circuit, CircuitBreakerMetrics},
    fallback::{AttemptOutcome, Attempts, FallbackError},
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

pub(super) fn response(answer: Answer, names: &[LinkName], circuit: &Circuit) -> ModelResponse {
    let completion = answer.completion;
    ModelResponse {
        id: completion.id,
        text: completion.text,
        reasoning: completion.reasoning,
        model: answer.model.to_string(),
        provider: answer.provider.to_string(),
        finish_reason: completion.finish_reason,
        usage: completion.usage,
        metadata: Metadata {
            provider_model: completion.model,
            attempts: attempts(&answer.attempts, names),
            circuit_breaker: circuit.metrics(),
        },
    }
}

pub(super) fn error(error: FallbackError<Error<ModelError>>, names: &[LinkName]) -> ModelError {
    let attempts = attempts(error.attempts(), names);
    let error = match error {
        FallbackError::Failed { error, .. } => flatten(error),
        FallbackError::Unavailable(unavailable) => {
            let considered: Vec<&str> = names.iter().map(|name| &*name.model).collect();
            let message = format!("the circuits of {} are open", considered.join(" and "));
            ModelError::new(ModelErrorKind::Unavailable, message)
                .with_retry_after(unavailable.retry_after)
        }
    };
    error.with_attempts(attempts)
}

fn attempts(attempts: &Attempts, names: &[LinkName]) -> Vec<ModelAttempt> {
    let attempts = attempts.iter().map(|attempt| {
        let name = &names[attempt.link];
        ModelAttempt {
            model: name.model.to_string(),
            provider: name.provider.to_string(),
            outcome: attempt.outcome,
            reason: attempt.reason.clone(),
            latency: attempt.latency,
        }
    });
    attempts.collect()
}

fn outcome<S: Serializer>(outcome: &AttemptOutcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match outcome {
        AttemptOutcome::Answered => "answered",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Skipped => "skipped",
    })
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

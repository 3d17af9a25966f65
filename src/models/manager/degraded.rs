//! What a caller is given when no model of the chain can answer.

use std::sync::Arc;

use super::{
    ModelEntry, ModelManager,
    cache::{Cached, Key},
    report::{CircuitSnapshot, Metadata, ModelAttempt},
};
use crate::models::{Completion, ModelError};

/// A last resort: something that is worse than the answer that was asked for, and better than none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded(pub(super) Resort);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resort {
    Model(Arc<str>),
    Cached,
    Message(Arc<str>),
}

impl Degraded {
    /// A smaller model, by its alias.
    pub fn model(alias: impl Into<Arc<str>>) -> Self {
        Self(Resort::Model(alias.into()))
    }

    /// The last answer to the same request: the same in all its content, whether it was streamed or
    /// not. It needs a [cache](super::ModelManagerBuilder::cache).
    pub fn cached() -> Self {
        Self(Resort::Cached)
    }

    /// A message of one's own.
    pub fn message(text: impl Into<Arc<str>>) -> Self {
        Self(Resort::Message(text.into()))
    }
}

/// Stands for the provider of an answer that is a configured message.
const MESSAGE: &str = "message";

impl ModelManager {
    /// What is given in place of an answer, once every model of the chain has failed.
    pub(super) fn last_resort(
        &self,
        model: &ModelEntry,
        key: Option<Key>,
        error: ModelError,
    ) -> Result<(Arc<Cached>, Metadata), ModelError> {
        // A request that is wrong has to be told so.
        if !error.falls_back() {
            return Err(error);
        }
        let itself = model.itself();
        let cached = key.and_then(|key| self.shared.cache.get(key));
        let (answer, by) = match (cached, &model.message) {
            (Some(answer), _) => (answer, "cache"),
            (None, Some(message)) => {
                let answer = Cached {
                    completion: Completion::new(&**message),
                    model: itself.model.clone(),
                    provider: MESSAGE.into(),
                };
                (Arc::new(answer), MESSAGE)
            }
            (None, None) => return Err(error),
        };
        let mut attempts = error.attempts().to_vec();
        attempts.push(ModelAttempt::last_resort(&answer.model, by));
        let metadata = Metadata {
            provider_model: answer.completion.model.clone(),
            attempts,
            circuit_breaker: CircuitSnapshot::of(&itself.circuit),
            degraded: true,
            joins: Vec::new(),
        };
        Ok((answer, metadata))
    }
}

//! What a model is configured with.

use std::{num::NonZeroU32, sync::Arc};

use super::{deadlines::Deadlines, degraded::Degraded};
use crate::circuit::Circuit;

/// A model: who serves it, and who stands in for it.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) provider: Arc<str>,
    pub(super) upstream: Arc<str>,
    pub(super) fallbacks: Vec<Arc<str>>,
    pub(super) degraded: Vec<Degraded>,
    pub(super) circuit: Option<Circuit>,
    pub(super) deadlines: Option<Deadlines>,
    pub(super) max_tokens: Option<NonZeroU32>,
    pub(super) mid_stream: MidStream,
}

/// What becomes of a streamed answer that breaks off after its caller has seen some of it.
///
/// Before that another model takes over unseen, whatever this says.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MidStream {
    /// The stream ends with the error.
    #[default]
    Error,
    /// The next model in the chain goes on from the text so far, and the caller sees one unbroken
    /// answer; the [`joins`](super::Metadata::joins) tell where.
    ///
    /// An answer that has begun to call a tool is not continued: half a call must not be guessed at,
    /// and a whole one not be made twice.
    Continue,
}

impl Model {
    /// A model of `provider`, which knows it as `upstream`.
    pub fn new(provider: impl Into<Arc<str>>, upstream: impl Into<Arc<str>>) -> Self {
        Self {
            provider: provider.into(),
            upstream: upstream.into(),
            fallbacks: Vec::new(),
            degraded: Vec::new(),
            circuit: None,
            deadlines: None,
            max_tokens: None,
            mid_stream: MidStream::Error,
        }
    }

    /// Adds a model, by its alias, that answers where this one and those before it can't.
    #[must_use]
    pub fn or(mut self, model: impl Into<Arc<str>>) -> Self {
        self.fallbacks.push(model.into());
        self
    }

    /// Adds a last resort, for when no model of the chain can answer. Such answers are marked as
    /// [degraded](super::Metadata::degraded).
    ///
    /// Several are tried from the best to the worst: smaller models in the order in which they were
    /// added, then the cached answer, then the message.
    #[must_use]
    pub fn degraded(mut self, last_resort: Degraded) -> Self {
        self.degraded.push(last_resort);
        self
    }

    /// Gives the model a circuit of its own, in place of its provider's.
    #[must_use]
    pub fn circuit_breaker(mut self, circuit: impl Into<Circuit>) -> Self {
        self.circuit = Some(circuit.into());
        self
    }

    /// Sets how long a streamed answer may take, in place of what holds for its provider.
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = Some(deadlines);
        self
    }

    /// Sets the longest answer that the model is asked for, in tokens: requests that want a longer
    /// one, or don't say, are capped. It holds wherever the model stands in a chain. Default: no cap.
    #[must_use]
    pub fn max_tokens(mut self, cap: NonZeroU32) -> Self {
        self.max_tokens = Some(cap);
        self
    }

    /// Sets what becomes of a streamed answer that breaks off, for requests to this model, whichever
    /// model of its chain was answering. Default: [`MidStream::Error`].
    #[must_use]
    pub fn mid_stream(mut self, mid_stream: MidStream) -> Self {
        self.mid_stream = mid_stream;
        self
    }
}

//! What is asked of the models, and counted.

use std::time::Duration;

use tower_breaker::models::{
    ModelAttempt, ModelError, ModelManager, ModelRequest, ModelResponse, ModelStream,
};

use crate::{app::App, traces::Origin};

/// A request to a model, until it is counted.
pub(super) struct Question {
    app: App,
    /// The model that was asked for, if there is one of that name: others' names may be any text at all, and labels
    /// are kept for good.
    model: Option<String>,
    /// The trace that it belongs to, where traces are sent.
    origin: Option<Origin>,
}

impl Question {
    /// Has a request answered, and counts it.
    pub(super) async fn answer(
        app: App,
        request: ModelRequest,
    ) -> Result<ModelResponse, ModelError> {
        // The same one from beginning to end, whatever a reload puts in its place meanwhile.
        let manager = app.manager();
        let question = Self::new(app, &manager, &request);
        let result = manager.process_request(request).await;
        match &result {
            Ok(answer) => question.count(&answer.provider, &answer.metadata.attempts),
            Err(error) => question.count("", error.attempts()),
        }
        result
    }

    /// Has a request answered as a stream. Whoever reads it counts the question when it is over.
    pub(super) async fn stream(
        app: App,
        request: ModelRequest,
    ) -> Result<(Self, ModelStream), ModelError> {
        let manager = app.manager();
        let question = Self::new(app, &manager, &request);
        match manager.stream(request).await {
            Ok(answer) => Ok((question, answer)),
            Err(error) => {
                question.count("", error.attempts());
                Err(error)
            }
        }
    }

    fn new(app: App, manager: &ModelManager, request: &ModelRequest) -> Self {
        let model = request.preferred_model.as_deref();
        let model = model.unwrap_or(manager.default_model());
        let exists = manager.models().any(|(known, _)| known == model);
        Self {
            app,
            model: exists.then(|| model.to_owned()),
            origin: Origin::current(),
        }
    }

    /// How long whoever has asked may hear nothing.
    pub(super) fn keep_alive(&self) -> Duration {
        self.app.running().limits.keep_alive
    }

    /// Counts it, by who answered; empty if nobody did.
    pub(super) fn count(&self, answered_by: &str, attempts: &[ModelAttempt]) {
        if let Some(model) = &self.model {
            self.app.metrics.request(model, answered_by, attempts);
            let traces = &self.app.traces;
            traces.record(self.origin.as_ref(), model, answered_by, attempts);
        }
    }
}

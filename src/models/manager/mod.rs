//! [`ModelManager`]: every model behind its provider's circuit, one falling back on another.
//!
//! A model is an alias with a chain: its own provider first, then the models that stand in for it.
//! Each provider has one circuit, whatever the models that it serves, because its models fail
//! together; a model that fails alone can be given a circuit of its own.

mod build;
mod health;
mod link;
mod report;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::ServiceExt;
use tower_service::Service;

pub use self::{
    build::{Model, ModelManagerBuilder},
    health::{CircuitHealth, CredentialTrouble, ProviderHealth},
    report::{Metadata, ModelAttempt, ModelResponse},
};
use self::{health::Credentials, link::Chain};
use super::{ModelError, ModelErrorKind, ModelRequest};
use crate::circuit::{
    Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, RetryAfterPolicy,
};

/// Answers requests with the preferred model, or with the first that stands in for it.
///
/// It is a Tower service that is always ready, and cheap to clone. A request is answered, or fails,
/// at once if no circuit in the chain admits it.
///
/// ```no_run
/// use tower_breaker::models::{
///     Anthropic, ApiKey, DeepSeek, HttpClient, Model, ModelManager, ModelRequest,
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let http = HttpClient::new()?;
/// let claude = Anthropic::new(ApiKey::new(std::env::var("ANTHROPIC_API_KEY")?)?);
/// let deepseek = DeepSeek::new(ApiKey::new(std::env::var("DEEPSEEK_API_KEY")?)?);
/// let circuit_breaker = ModelManager::circuit_breaker_defaults().build()?;
///
/// let manager = ModelManager::builder()
///     .provider("claude", claude, http.clone(), circuit_breaker.clone())
///     .provider("deepseek", deepseek, http, circuit_breaker)
///     .model("claude-sonnet", Model::new("claude", "claude-sonnet-4-5").or("deepseek-chat"))
///     .model("deepseek-chat", Model::new("deepseek", "deepseek-chat").or("claude-sonnet"))
///     .build()?;
///
/// let answer = manager.process_request(ModelRequest::prompt("Why is the sky blue?")).await?;
/// println!("{} says: {}", answer.model, answer.text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelManager {
    shared: Arc<Shared>,
}

struct Shared {
    providers: BTreeMap<Arc<str>, ProviderEntry>,
    models: BTreeMap<Arc<str>, ModelEntry>,
    default_model: Arc<str>,
}

struct ProviderEntry {
    circuit: Circuit,
    credentials: Credentials,
}

struct ModelEntry {
    provider: Arc<str>,
    /// The circuit that decides, its provider's or its own.
    circuit: Circuit,
    has_own_circuit: bool,
    chain: Chain,
}

impl ModelManager {
    /// Begins without providers and models.
    pub fn builder() -> ModelManagerBuilder {
        ModelManagerBuilder::new()
    }

    /// The defaults of a circuit in front of a model provider: those of any circuit, but a
    /// provider that says when to come back is left alone until then.
    pub fn circuit_breaker_defaults() -> CircuitBreakerConfigBuilder {
        CircuitBreakerConfig::builder().retry_after(RetryAfterPolicy::Open)
    }

    /// Has the preferred model answer, or the first available one of those that stand in for it.
    ///
    /// # Errors
    ///
    /// The last failure, with every [attempt](ModelError::attempts). A request that is wrong fails
    /// without an attempt; with every circuit open the kind is [`ModelErrorKind::Unavailable`],
    /// and [`retry_after`](ModelError::retry_after) the shortest wait.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the call to the provider, which then doesn't count against it.
    pub async fn process_request(
        &self,
        request: ModelRequest,
    ) -> Result<ModelResponse, ModelError> {
        // First, so that nothing else is said, or counted, of a model that doesn't exist.
        let model = match &request.preferred_model {
            Some(name) => self.model(name)?,
            None => self.model(&self.shared.default_model)?,
        };
        request.validate()?;
        if request.stream {
            return Err(ModelError::new(
                ModelErrorKind::InvalidRequest,
                "stream: streaming is not supported yet, send false or leave it out",
            ));
        }
        let result = model.chain.service.clone().oneshot(Arc::new(request)).await;
        match result {
            Ok(answer) => Ok(report::response(answer, &model.chain.members)),
            Err(error) => Err(report::error(error, &model.chain.members)),
        }
    }

    /// The state of every provider, from what is known: no provider is asked.
    pub fn health_check(&self) -> BTreeMap<String, ProviderHealth> {
        let providers = self.shared.providers.iter().map(|(name, provider)| {
            let models = self
                .shared
                .models
                .iter()
                .filter(|(_, model)| model.provider == *name);
            let health = ProviderHealth {
                circuit_breaker: CircuitHealth::of(&provider.circuit),
                credentials: provider.credentials.trouble(),
                models: models.clone().map(|(alias, _)| alias.to_string()).collect(),
                model_circuit_breakers: models
                    .filter(|(_, model)| model.has_own_circuit)
                    .map(|(alias, model)| (alias.to_string(), CircuitHealth::of(&model.circuit)))
                    .collect(),
            };
            (name.to_string(), health)
        });
        providers.collect()
    }

    /// Closes every circuit.
    pub fn reset_circuit_breakers(&self) {
        for (_, circuit) in self.circuits() {
            circuit.reset();
        }
    }

    /// The configuration of the circuit in front of a model. `None` if there is no such model.
    pub fn circuit_breaker_config(&self, model: &str) -> Option<CircuitBreakerConfig> {
        let model = self.shared.models.get(model)?;
        Some(model.circuit.config())
    }

    /// Every circuit with its name: the provider's, or the model's for one of its own.
    pub fn circuits(&self) -> impl Iterator<Item = (&str, &Circuit)> {
        let providers = self.shared.providers.iter();
        let models = self.shared.models.iter();
        providers
            .map(|(name, provider)| (&**name, &provider.circuit))
            .chain(
                models
                    .filter(|(_, model)| model.has_own_circuit)
                    .map(|(alias, model)| (&**alias, &model.circuit)),
            )
    }

    /// Every model with the provider that serves it.
    pub fn models(&self) -> impl Iterator<Item = (&str, &str)> {
        let models = self.shared.models.iter();
        models.map(|(alias, model)| (&**alias, &*model.provider))
    }

    /// The model that answers requests without a preference.
    pub fn default_model(&self) -> &str {
        &self.shared.default_model
    }

    fn model(&self, name: &str) -> Result<&ModelEntry, ModelError> {
        self.shared.models.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.shared.models.keys().map(|name| &**name).collect();
            ModelError::new(
                ModelErrorKind::UnknownModel,
                format!("there is no model `{name}`; there are {}", known.join(", ")),
            )
        })
    }
}

impl Service<ModelRequest> for ModelManager {
    type Response = ModelResponse;
    type Error = ModelError;
    type Future = Pin<Box<dyn Future<Output = Result<ModelResponse, ModelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ModelRequest) -> Self::Future {
        let manager = self.clone();
        Box::pin(async move { manager.process_request(request).await })
    }
}

impl fmt::Debug for ModelManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelManager")
            .field("providers", &self.shared.providers.keys())
            .field("models", &self.shared.models.keys())
            .field("default_model", &self.shared.default_model)
            .finish()
    }
}

//! [`ModelManager`]: every model behind its provider's circuit, one falling back on another.
//!
//! A model is an alias with a chain: its own provider first, then the models that stand in for it.
//! Each provider has one circuit, whatever the models that it serves, because its models fail
//! together; a model that fails alone can be given a circuit of its own.
//!
//! A streamed answer goes through the same chain, one step later: a link has answered with the first
//! content, and not with the head of a response ([`open`]). From the call to the end of its answer a
//! provider's part is a [`segment`], which holds the permit of the provider's circuit, watches the
//! [`deadlines`] and settles the permit when the answer has ended. [`ModelStream`] passes on what the
//! segment brings, and has another link go on where the segment breaks off and the model is
//! configured so.

mod account;
mod build;
mod cache;
mod deadlines;
mod degraded;
mod health;
mod link;
mod model;
mod open;
mod report;
mod segment;
mod stream;

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
    build::ModelManagerBuilder,
    deadlines::Deadlines,
    degraded::Degraded,
    health::{CircuitHealth, CredentialTrouble, ProviderHealth},
    model::{MidStream, Model},
    report::{CircuitSnapshot, Join, Metadata, ModelAttempt, ModelResponse},
    stream::ModelStream,
};
use self::{
    cache::{Cache, Cached, Key},
    health::Credentials,
    link::{Chain, ChainRequest, Member, StreamChain, flatten},
};
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
    models: BTreeMap<Arc<str>, Arc<ModelEntry>>,
    default_model: Arc<str>,
    cache: Cache,
}

struct ProviderEntry {
    circuit: Circuit,
    credentials: Credentials,
}

struct ModelEntry {
    /// The model itself, then those that stand in for it.
    members: Vec<Arc<Member>>,
    chain: Chain,
    stream_chain: StreamChain,
    mid_stream: MidStream,
    has_own_circuit: bool,
    /// Whether a cached answer may stand in when the chain has none, and then this message.
    cached: bool,
    message: Option<Arc<str>>,
}

impl ModelEntry {
    fn itself(&self) -> &Member {
        &self.members[0]
    }
}

type Accepted<'a> = (&'a Arc<ModelEntry>, Option<Key>, ChainRequest);

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
    /// The answer comes as a whole, whatever the request says of [`stream`](ModelRequest::stream); for
    /// pieces there is [`stream`](Self::stream).
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
        let (model, key, request) = self.accept(request, false)?;
        let answer = model.chain.clone().oneshot(request).await;
        match answer {
            Ok(answer) => {
                if let (Some(key), false) = (key, answer.member.degraded) {
                    let cached = Cached {
                        completion: answer.completion.clone(),
                        model: answer.member.model.clone(),
                        provider: answer.member.provider.clone(),
                    };
                    self.shared.cache.put(key, cached);
                }
                Ok(report::response(answer, &model.members))
            }
            Err(error) => {
                let error = report::error(error, &model.members, flatten);
                let (last, metadata) = self.last_resort(model, key, error)?;
                let Cached {
                    completion,
                    model,
                    provider,
                } = &*last;
                Ok(report::answered(
                    completion.clone(),
                    model,
                    provider,
                    metadata,
                ))
            }
        }
    }

    /// Has the preferred model answer as a stream, or the first available one of those that stand in
    /// for it.
    ///
    /// It returns with the first content, so that whatever goes wrong before that goes to the next
    /// model unseen. What happens afterwards is told by [`MidStream`] and [`ModelStream`].
    ///
    /// ```no_run
    /// # use tower_breaker::models::{ModelError, ModelManager, ModelRequest, StreamEvent};
    /// # async fn example(manager: ModelManager) -> Result<(), ModelError> {
    /// use futures_util::StreamExt;
    ///
    /// let mut answer = manager.stream(ModelRequest::prompt("Why is the sky blue?")).await?;
    /// while let Some(event) = answer.next().await {
    ///     if let StreamEvent::Text(text) = event? {
    ///         print!("{text}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`process_request`](Self::process_request).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the stream, drops the call to the provider, which then doesn't count
    /// against it.
    pub async fn stream(&self, request: ModelRequest) -> Result<ModelStream, ModelError> {
        let (model, key, request) = self.accept(request, true)?;
        let opened = model.stream_chain.clone().oneshot(request.clone()).await;
        match opened {
            Ok(opened) => {
                let cache = key.map(|key| (self.clone(), key));
                Ok(ModelStream::new(model.clone(), request, opened, cache))
            }
            Err(error) => {
                let error = report::error(error, &model.members, |error| error);
                let (last, metadata) = self.last_resort(model, key, error)?;
                Ok(ModelStream::last_resort(model.clone(), &last, metadata))
            }
        }
    }

    /// Finds the model, checks the request, and says under which key its answer is kept, if it is.
    fn accept(&self, mut request: ModelRequest, stream: bool) -> Result<Accepted<'_>, ModelError> {
        // First, so that nothing else is said, or counted, of a model that doesn't exist.
        let model = match &request.preferred_model {
            Some(name) => self.model(name)?,
            None => self.model(&self.shared.default_model)?,
        };
        request.validate()?;
        // The same key for both ways to answer.
        request.stream = false;
        let key = model
            .cached
            .then(|| self.shared.cache.key(&model.itself().model, &request));
        request.stream = stream;
        Ok((model, key, Arc::new(request)))
    }

    /// The state of every provider, from what is known: no provider is asked.
    pub fn health_check(&self) -> BTreeMap<String, ProviderHealth> {
        let providers = self.shared.providers.iter().map(|(name, provider)| {
            let models = self
                .shared
                .models
                .iter()
                .filter(|(_, model)| model.itself().provider == *name);
            let health = ProviderHealth {
                circuit_breaker: CircuitHealth::of(&provider.circuit),
                credentials: provider.credentials.trouble(),
                models: models.clone().map(|(alias, _)| alias.to_string()).collect(),
                model_circuit_breakers: models
                    .filter(|(_, model)| model.has_own_circuit)
                    .map(|(alias, model)| {
                        (
                            alias.to_string(),
                            CircuitHealth::of(&model.itself().circuit),
                        )
                    })
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
        Some(model.itself().circuit.config())
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
                    .map(|(alias, model)| (&**alias, &model.itself().circuit)),
            )
    }

    /// Every model with the provider that serves it.
    pub fn models(&self) -> impl Iterator<Item = (&str, &str)> {
        let models = self.shared.models.iter();
        models.map(|(alias, model)| (&**alias, &*model.itself().provider))
    }

    /// The model that answers requests without a preference.
    pub fn default_model(&self) -> &str {
        &self.shared.default_model
    }

    fn model(&self, name: &str) -> Result<&Arc<ModelEntry>, ModelError> {
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

//! Putting a [`ModelManager`] together.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower_service::Service;

use super::{
    ModelEntry, ModelManager, ProviderEntry, Shared,
    health::Credentials,
    link::{BoxedProvider, Chain, Member, ModelService},
};
use crate::{
    BoxError,
    circuit::Circuit,
    models::{Completion, ModelError, Provider, ProviderRequest, ProviderService, SetupError},
};

/// A model: who serves it, and who stands in for it.
#[derive(Debug, Clone)]
pub struct Model {
    provider: Arc<str>,
    upstream: Arc<str>,
    fallbacks: Vec<Arc<str>>,
    circuit: Option<Circuit>,
}

impl Model {
    /// A model of `provider`, which knows it as `upstream`.
    pub fn new(provider: impl Into<Arc<str>>, upstream: impl Into<Arc<str>>) -> Self {
        Self {
            provider: provider.into(),
            upstream: upstream.into(),
            fallbacks: Vec::new(),
            circuit: None,
        }
    }

    /// Adds a model, by its alias, that answers where this one and those before it can't.
    #[must_use]
    pub fn or(mut self, model: impl Into<Arc<str>>) -> Self {
        self.fallbacks.push(model.into());
        self
    }

    /// Gives the model a circuit of its own, in place of its provider's.
    #[must_use]
    pub fn circuit_breaker(mut self, circuit: impl Into<Circuit>) -> Self {
        self.circuit = Some(circuit.into());
        self
    }
}

/// Builds a [`ModelManager`].
#[must_use = "a builder does nothing until `build`"]
pub struct ModelManagerBuilder {
    providers: BTreeMap<Arc<str>, (BoxedProvider, Circuit)>,
    /// A provider that came twice.
    double: Option<Arc<str>>,
    models: Vec<(Arc<str>, Model)>,
    default_model: Option<Arc<str>>,
}

impl ModelManagerBuilder {
    pub(super) fn new() -> Self {
        Self {
            providers: BTreeMap::new(),
            double: None,
            models: Vec::new(),
            default_model: None,
        }
    }

    /// Adds a provider: its codec, over an HTTP service such as
    /// [`HttpClient`](crate::models::HttpClient), behind a circuit.
    pub fn provider<H, B>(
        self,
        name: impl Into<Arc<str>>,
        provider: impl Provider + 'static,
        http: H,
        circuit: impl Into<Circuit>,
    ) -> Self
    where
        H: Service<http::Request<Full<Bytes>>, Response = http::Response<B>>,
        H: Clone + Send + Sync + 'static,
        H::Error: Into<BoxError>,
        H::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.provider_service(name, ProviderService::new(provider, http), circuit)
    }

    /// Adds a provider that is a service already, with other middleware around it for instance.
    pub fn provider_service<S>(
        mut self,
        name: impl Into<Arc<str>>,
        service: S,
        circuit: impl Into<Circuit>,
    ) -> Self
    where
        S: Service<ProviderRequest, Response = Completion, Error = ModelError>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let service = BoxCloneSyncService::new(service);
        let name = name.into();
        let before = self
            .providers
            .insert(name.clone(), (service, circuit.into()));
        if before.is_some() {
            self.double = Some(name);
        }
        self
    }

    /// Adds a model under the alias by which callers ask for it.
    pub fn model(mut self, alias: impl Into<Arc<str>>, model: Model) -> Self {
        self.models.push((alias.into(), model));
        self
    }

    /// The model that answers requests without a preference; default: the one that was added
    /// first.
    pub fn default_model(mut self, alias: impl Into<Arc<str>>) -> Self {
        self.default_model = Some(alias.into());
        self
    }

    /// Checks that every name has one who bears it, and only one.
    ///
    /// # Errors
    ///
    /// If there is no model; if two providers or models have the same name, or a model with a
    /// circuit of its own that of a provider; if a model names a provider, or a model to stand in
    /// for it, that doesn't exist; or if it names one twice.
    pub fn build(self) -> Result<ModelManager, SetupError> {
        if let Some(name) = &self.double {
            let problem = format!("must have a name each, but two are `{name}`");
            return Err(SetupError::new("providers", problem));
        }
        let Some((first, _)) = self.models.first() else {
            return Err(SetupError::new("models", "must have at least one model"));
        };
        let default_model = self.default_model.clone().unwrap_or_else(|| first.clone());
        let by_alias: BTreeMap<_, _> = self.models.iter().map(|(name, m)| (name, m)).collect();
        if by_alias.len() < self.models.len() {
            return Err(SetupError::new(
                "models",
                "must have an alias each, no two the same",
            ));
        }
        if !by_alias.contains_key(&default_model) {
            let problem = format!("names `{default_model}`, which is not among the models");
            return Err(SetupError::new("default_model", problem));
        }

        let credentials: BTreeMap<_, _> = self
            .providers
            .keys()
            .map(|name| (name.clone(), Credentials::default()))
            .collect();
        let link = |alias: &Arc<str>, asked_by: &Arc<str>| {
            let Some(model) = by_alias.get(alias) else {
                let problem =
                    format!("of `{asked_by}` name `{alias}`, which is not among the models");
                return Err(SetupError::new("fallbacks", problem));
            };
            let Some((provider, circuit)) = self.providers.get(&model.provider) else {
                let problem = format!(
                    "of `{alias}` is `{}`, which is not among the providers",
                    model.provider
                );
                return Err(SetupError::new("provider", problem));
            };
            let service = ModelService {
                member: Member {
                    model: alias.clone(),
                    provider: model.provider.clone(),
                    circuit: model.circuit.as_ref().unwrap_or(circuit).clone(),
                },
                upstream: model.upstream.clone(),
                provider: provider.clone(),
                credentials: credentials[&model.provider].clone(),
            };
            Ok(service)
        };

        let mut models = BTreeMap::new();
        for (alias, model) in &self.models {
            if model.circuit.is_some() && self.providers.contains_key(alias) {
                let problem = format!(
                    "with circuits of their own need names of their own: `{alias}` is a provider's"
                );
                return Err(SetupError::new("models", problem));
            }
            let mut chain: Vec<_> = std::iter::once(alias).chain(&model.fallbacks).collect();
            chain.sort();
            if let Some(twice) = chain.windows(2).find(|pair| pair[0] == pair[1]) {
                let problem = format!("of `{alias}` name `{}` twice", twice[0]);
                return Err(SetupError::new("fallbacks", problem));
            }
            let aliases = std::iter::once(alias).chain(&model.fallbacks);
            let links = aliases
                .map(|member| link(member, alias))
                .collect::<Result<Vec<_>, _>>()?;
            let entry = ModelEntry {
                provider: model.provider.clone(),
                circuit: links[0].member.circuit.clone(),
                has_own_circuit: model.circuit.is_some(),
                chain: Chain::new(links),
            };
            models.insert(alias.clone(), entry);
        }
        let providers = self.providers.into_iter().map(|(name, (_, circuit))| {
            let entry = ProviderEntry {
                circuit,
                credentials: credentials[&name].clone(),
            };
            (name, entry)
        });
        Ok(ModelManager {
            shared: Arc::new(Shared {
                providers: providers.collect(),
                models,
                default_model,
            }),
        })
    }
}

impl fmt::Debug for ModelManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelManagerBuilder")
            .field("providers", &self.providers.keys())
            .field("models", &self.models)
            .field("default_model", &self.default_model)
            .finish()
    }
}

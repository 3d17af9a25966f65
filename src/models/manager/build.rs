//! Putting a [`ModelManager`] together.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use tower::util::{BoxCloneSyncService, MapResponse};
use tower_service::Service;

use super::{
    ModelEntry, ModelManager, ProviderEntry, Shared,
    cache::Cache,
    deadlines::Deadlines,
    degraded::Resort,
    health::Credentials,
    link::{BoxedProvider, BoxedStreams, Member, chain, stream_chain},
    model::Model,
};
use crate::{
    BoxError,
    circuit::Circuit,
    models::{
        Completion, ModelError, Provider, ProviderRequest, ProviderService, SetupError,
        stream::ProviderStream,
    },
};

/// Builds a [`ModelManager`].
///
/// # Another configuration for one that runs
///
/// A manager doesn't change. Build another, give it the circuits of the one before where they are to
/// live on ([`ModelManager::circuits`]; [`Circuit::reconfigure`] changes one in place), and
/// [`credentials_from`](Self::credentials_from) for the keys that are still the same; requests that
/// are running end with the manager that they began with.
#[must_use = "a builder does nothing until `build`"]
pub struct ModelManagerBuilder {
    providers: BTreeMap<Arc<str>, ProviderSetup>,
    /// A provider that came twice.
    double: Option<Arc<str>>,
    deadlines: Vec<(Arc<str>, Deadlines)>,
    credentials: BTreeMap<Arc<str>, Credentials>,
    models: Vec<(Arc<str>, Model)>,
    default_model: Option<Arc<str>>,
    cache: usize,
}

struct ProviderSetup {
    whole: BoxedProvider,
    streams: BoxedStreams,
    circuit: Circuit,
}

impl ModelManagerBuilder {
    pub(super) fn new() -> Self {
        Self {
            providers: BTreeMap::new(),
            double: None,
            deadlines: Vec::new(),
            credentials: BTreeMap::new(),
            models: Vec::new(),
            default_model: None,
            cache: 0,
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
        let whole = ProviderService::new(provider, http);
        let setup = ProviderSetup {
            streams: BoxCloneSyncService::new(whole.streams()),
            whole: BoxCloneSyncService::new(whole),
            circuit: circuit.into(),
        };
        self.add(name.into(), setup)
    }

    /// Adds a provider that is a service already, with other middleware around it for instance.
    ///
    /// It has whole answers only: one that is asked for as a stream comes in one piece, and all of it
    /// has to come within the deadline of the [first token](Deadlines::first_token). Middleware that
    /// streams are to go through as well stands around the HTTP service of a
    /// [`provider`](Self::provider).
    pub fn provider_service<S>(
        self,
        name: impl Into<Arc<str>>,
        service: S,
        circuit: impl Into<Circuit>,
    ) -> Self
    where
        S: Service<ProviderRequest, Response = Completion, Error = ModelError>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let in_one_piece: fn(Completion) -> ProviderStream = ProviderStream::from;
        let setup = ProviderSetup {
            streams: BoxCloneSyncService::new(MapResponse::new(service.clone(), in_one_piece)),
            whole: BoxCloneSyncService::new(service),
            circuit: circuit.into(),
        };
        self.add(name.into(), setup)
    }

    fn add(mut self, name: Arc<str>, setup: ProviderSetup) -> Self {
        if self.providers.insert(name.clone(), setup).is_some() {
            self.double = Some(name);
        }
        self
    }

    /// Sets how long streamed answers of a provider may take, for those of its models that don't say
    /// otherwise. Default: [`Deadlines::default`].
    pub fn deadlines(mut self, provider: impl Into<Arc<str>>, deadlines: Deadlines) -> Self {
        self.deadlines.push((provider.into(), deadlines));
        self
    }

    /// Goes on with what `manager` knows of a provider's credentials, if it has a provider of that
    /// name: for a manager that takes the place of another, where the key is still the same.
    pub fn credentials_from(
        mut self,
        provider: impl Into<Arc<str>>,
        manager: &ModelManager,
    ) -> Self {
        let provider = provider.into();
        if let Some(known) = manager.shared.providers.get(&provider) {
            self.credentials.insert(provider, known.credentials.clone());
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

    /// Keeps so many answers for [`Degraded::cached`](super::Degraded::cached). Default: 0, which is
    /// no cache.
    ///
    /// Answers are kept of models with that last resort alone, if they ended by themselves, call no
    /// tool and are no longer than 64 KiB. The one that was used least lately makes way.
    pub fn cache(mut self, answers: usize) -> Self {
        self.cache = answers;
        self
    }

    /// Checks that every name has one who bears it, and only one.
    ///
    /// # Errors
    ///
    /// If there is no model; if two providers or models have the same name, or a model with a
    /// circuit of its own that of a provider; if a model names a provider, or a model to stand in
    /// for it, that doesn't exist; if it names one twice; or if it wants cached answers and there is
    /// no cache.
    pub fn build(self) -> Result<ModelManager, SetupError> {
        let default_model = self.check_names()?;
        let by_alias: BTreeMap<_, _> = self.models.iter().map(|(name, m)| (name, m)).collect();
        let deadlines: BTreeMap<_, _> = self.deadlines.iter().map(|(name, d)| (name, *d)).collect();
        let credentials: BTreeMap<_, _> = self
            .providers
            .keys()
            .map(|name| {
                let known = self.credentials.get(name).cloned();
                (name.clone(), known.unwrap_or_default())
            })
            .collect();
        let member = |alias: &Arc<str>, asked_by: &Arc<str>, degraded| {
            let Some(model) = by_alias.get(alias) else {
                let problem =
                    format!("of `{asked_by}` name `{alias}`, which is not among the models");
                let field = if degraded { "degraded" } else { "fallbacks" };
                return Err(SetupError::new(field, problem));
            };
            let Some(setup) = self.providers.get(&model.provider) else {
                let problem = format!(
                    "of `{alias}` is `{}`, which is not among the providers",
                    model.provider
                );
                return Err(SetupError::new("provider", problem));
            };
            let of_provider = deadlines.get(&model.provider).copied();
            Ok(Arc::new(Member {
                model: alias.clone(),
                provider: model.provider.clone(),
                circuit: model.circuit.as_ref().unwrap_or(&setup.circuit).clone(),
                upstream: model.upstream.clone(),
                whole: setup.whole.clone(),
                streams: setup.streams.clone(),
                credentials: credentials[&model.provider].clone(),
                deadlines: model.deadlines.or(of_provider).unwrap_or_default(),
                max_tokens: model.max_tokens,
                degraded,
            }))
        };

        let mut models = BTreeMap::new();
        for (alias, model) in &self.models {
            if model.circuit.is_some() && self.providers.contains_key(alias) {
                let problem = format!(
                    "with circuits of their own need names of their own: `{alias}` is a provider's"
                );
                return Err(SetupError::new("models", problem));
            }
            let full = std::iter::once(alias).chain(&model.fallbacks);
            let full = full.map(|name| (name, false));
            let smaller = model.degraded.iter().filter_map(|last| match &last.0 {
                Resort::Model(name) => Some((name, true)),
                _ => None,
            });
            let names: Vec<_> = full.chain(smaller).collect();
            let mut sorted: Vec<_> = names.iter().map(|(name, _)| name).collect();
            sorted.sort();
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                let problem = format!("of `{alias}` name `{}` twice", twice[0]);
                return Err(SetupError::new("fallbacks", problem));
            }
            let wants = |resort| model.degraded.iter().any(|last| last.0 == resort);
            let cached = wants(Resort::Cached);
            if cached && self.cache == 0 {
                let problem = format!("must have room for an answer: `{alias}` wants cached ones");
                return Err(SetupError::new("cache", problem));
            }
            let members = names
                .into_iter()
                .map(|(name, degraded)| member(name, alias, degraded))
                .collect::<Result<Vec<_>, _>>()?;
            let message = model.degraded.iter().find_map(|last| match &last.0 {
                Resort::Message(text) => Some(text.clone()),
                _ => None,
            });
            let entry = ModelEntry {
                has_own_circuit: model.circuit.is_some(),
                chain: chain(&members),
                stream_chain: stream_chain(&members),
                members,
                mid_stream: model.mid_stream,
                cached,
                message,
            };
            models.insert(alias.clone(), Arc::new(entry));
        }
        let providers = self.providers.into_iter().map(|(name, setup)| {
            let entry = ProviderEntry {
                circuit: setup.circuit,
                credentials: credentials[&name].clone(),
            };
            (name, entry)
        });
        Ok(ModelManager {
            shared: Arc::new(Shared {
                providers: providers.collect(),
                models,
                default_model,
                cache: Cache::new(self.cache),
            }),
        })
    }

    /// Checks the names that stand alone, and returns that of the default model.
    fn check_names(&self) -> Result<Arc<str>, SetupError> {
        if let Some(name) = &self.double {
            let problem = format!("must have a name each, but two are `{name}`");
            return Err(SetupError::new("providers", problem));
        }
        let Some((first, _)) = self.models.first() else {
            return Err(SetupError::new("models", "must have at least one model"));
        };
        let mut aliases: Vec<_> = self.models.iter().map(|(alias, _)| alias).collect();
        aliases.sort();
        if aliases.windows(2).any(|pair| pair[0] == pair[1]) {
            let problem = "must have an alias each, no two the same";
            return Err(SetupError::new("models", problem));
        }
        let default_model = self.default_model.as_ref().unwrap_or(first);
        if !aliases.contains(&default_model) {
            let problem = format!("names `{default_model}`, which is not among the models");
            return Err(SetupError::new("default_model", problem));
        }
        let unknown = self
            .deadlines
            .iter()
            .find(|(provider, _)| !self.providers.contains_key(provider));
        if let Some((provider, _)) = unknown {
            let problem = format!("are of `{provider}`, which is not among the providers");
            return Err(SetupError::new("deadlines", problem));
        }
        Ok(default_model.clone())
    }
}

impl fmt::Debug for ModelManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelManagerBuilder")
            .field("providers", &self.providers.keys())
            .field("models", &self.models)
            .field("default_model", &self.default_model)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

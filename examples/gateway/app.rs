//! What every request needs, and how it is exchanged for something newer without dropping one.
//!
//! A [`Running`] is all that follows from one configuration. A reload builds the next one beside
//! it and puts it in its place: requests that are under way finish with the one that they began
//! with, and the circuits that both have in common are the same, with all that they have seen.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, HeaderName};
use tokio::sync::{Mutex, watch};
use tower_breaker::{
    Circuit, CircuitBreakerConfig,
    models::{HttpClient, ModelManager},
};

use crate::{
    Error,
    config::{self, Args, Kind, Limits, Settings},
    dashboard::History,
    events::Feed,
    gate::Gate,
    metrics::Metrics,
    routes::AdminToken,
    simulated::{self, Simulated},
    stack,
    traces::Traces,
};

/// How often the configuration file is looked at. It is small, and reading it is cheaper than a
/// watcher that knows the ways of every file system.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What every request needs.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    args: Args,
    http: HttpClient,
    running: RwLock<Arc<Running>>,
    pub(crate) metrics: Metrics,
    pub(crate) feed: Feed,
    pub(crate) history: History,
    pub(crate) traces: Traces,
    /// Only one reload at a time.
    reloading: Mutex<Tried>,
    reload: RwLock<Reload>,
    stopping: watch::Sender<bool>,
}

/// What follows from one configuration.
pub(crate) struct Running {
    pub(crate) manager: ModelManager,
    pub(crate) limits: Limits,
    pub(crate) admin_token: Option<AdminToken>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) simulated: BTreeMap<String, Arc<Companion>>,
    /// The headers of clients that some provider is to be told.
    forward: Vec<HeaderName>,
    circuits: BTreeMap<String, Placed>,
}

/// A simulated provider that runs beside the gateway.
pub(crate) struct Companion {
    kind: simulated::Kind,
    pub(crate) server: Simulated,
}

/// A circuit, with what it was configured with and what it stands in front of.
struct Placed {
    circuit: Circuit,
    config: CircuitBreakerConfig,
    dependency: String,
}

/// The text that was last made something of, well or not.
struct Tried {
    text: Option<String>,
    settings: Settings,
}

/// How the last reload went.
#[derive(Debug, Clone)]
pub(crate) struct Reload {
    /// When the configuration that is in force was read.
    pub(crate) loaded_at: SystemTime,
    /// Why a newer one is not.
    pub(crate) error: Option<String>,
}

impl App {
    pub(crate) async fn new(
        args: Args,
        text: Option<String>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let http = HttpClient::new()?;
        let endpoint = args.otlp_endpoint.as_ref().map(ToString::to_string);
        let traces = Traces::new(endpoint.as_deref(), http.clone());
        let feed = Feed::new();
        let running = Running::new(&settings, None, &http, &feed).await?;
        Ok(Self(Arc::new(Shared {
            args,
            http,
            running: RwLock::new(Arc::new(running)),
            metrics: Metrics::new(),
            feed,
            history: History::new(),
            traces,
            reloading: Mutex::new(Tried { text, settings }),
            reload: RwLock::new(Reload {
                loaded_at: now(),
                error: None,
            }),
            stopping: watch::Sender::new(false),
        })))
    }

    /// What is in force now. Whoever needs more than one thing of it asks once.
    pub(crate) fn running(&self) -> Arc<Running> {
        // Only whole values are ever stored, so a panic elsewhere leaves nothing half done.
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.clone()
    }

    /// The models.
    pub(crate) fn manager(&self) -> ModelManager {
        self.running().manager.clone()
    }

    /// The client that providers are asked with.
    pub(crate) fn http(&self) -> HttpClient {
        self.http.clone()
    }

    /// The configuration file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.args.config.as_deref()
    }

    /// How the last reload went.
    pub(crate) fn last_reload(&self) -> Reload {
        let reload = self.reload.read().unwrap_or_else(PoisonError::into_inner);
        reload.clone()
    }

    /// Reads the configuration again, and goes on with it if it is well.
    pub(crate) async fn reload(&self) {
        let mut tried = self.reloading.lock().await;
        match self.try_reload(&mut tried).await {
            Ok(()) => {
                tracing::info!("the configuration was read again, and is in force");
                *self.reload.write().unwrap_or_else(PoisonError::into_inner) = Reload {
                    loaded_at: now(),
                    error: None,
                };
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!("the new configuration is not in force, the old one is: {error}");
                let mut reload = self.reload.write().unwrap_or_else(PoisonError::into_inner);
                reload.error = Some(error);
            }
        }
    }

    async fn try_reload(&self, tried: &mut Tried) -> Result<(), Error> {
        tried.text = config::read(self.args.config.as_deref())?;
        let settings = config::load(&self.args, tried.text.as_deref())?;
        let before = self.running();
        let next = Running::new(&settings, Some(&before), &self.http, &self.feed).await?;
        if (settings.listen, settings.admin_listen)
            != (tried.settings.listen, tried.settings.admin_listen)
        {
            tracing::warn!("where to listen has changed: that takes a restart");
        }
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        tried.settings = settings;
        Ok(())
    }

    /// Reloads whenever the file has another text than the one that was tried last, and has kept
    /// it from one look to the next: an editor may be in the middle of writing it.
    pub(crate) async fn watch_file(self) {
        let mut seen = None;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            // One that is gone for a moment is about to be replaced.
            let Ok(text) = config::read(self.args.config.as_deref()) else {
                continue;
            };
            let settled = seen.as_ref() == Some(&text);
            seen = Some(text);
            if settled && seen.as_ref() != Some(&self.reloading.lock().await.text) {
                self.reload().await;
            }
        }
    }

    /// Begins the shutdown: what never ends by itself ends now.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for [`stop`](Self::stop).
    pub(crate) async fn stopped(self) {
        let mut stopping = self.stopping.subscribe();
        // The sender is in here too, so it can't be gone.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Running {
    /// Those of a client's headers that some provider is to be told.
    pub(crate) fn passed_on(&self, headers: &HeaderMap) -> HeaderMap {
        let named = self.forward.iter().filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.clone(), value.clone()))
        });
        named.collect()
    }

    /// What follows from these settings. What `before` has in common with it is taken over.
    async fn new(
        settings: &Settings,
        before: Option<&Self>,
        http: &HttpClient,
        feed: &Feed,
    ) -> Result<Self, Error> {
        let mut simulated = BTreeMap::new();
        for (name, provider) in &settings.providers {
            if !provider.simulated {
                continue;
            }
            let kind = match provider.kind {
                Kind::Anthropic => simulated::Kind::Anthropic,
                Kind::OpenAi | Kind::DeepSeek => simulated::Kind::DeepSeek,
            };
            let kept = before.and_then(|before| before.simulated.get(name));
            let companion = match kept.filter(|kept| kept.kind == kind) {
                Some(kept) => kept.clone(),
                None => {
                    let server = Simulated::start(kind, name.clone())
                        .await
                        .map_err(|error| format!("cannot start the simulated {name}: {error}"))?;
                    Arc::new(Companion { kind, server })
                }
            };
            simulated.insert(name.clone(), companion);
        }

        let mut circuits = BTreeMap::new();
        let mut changed = Vec::new();
        let circuit = |name: &str, config: &CircuitBreakerConfig, dependency: String| {
            let kept = before.and_then(|before| before.circuits.get(name));
            let circuit = match kept.filter(|kept| kept.dependency == dependency) {
                Some(kept) => {
                    // What an administrator has changed stays, unless the file changes it too.
                    if kept.config != *config {
                        changed.push((kept.circuit.clone(), config.clone()));
                    }
                    kept.circuit.clone()
                }
                None => {
                    let circuit = Circuit::new(config.clone());
                    feed.listen(name, &circuit);
                    circuit
                }
            };
            let placed = Placed {
                circuit: circuit.clone(),
                config: config.clone(),
                dependency,
            };
            circuits.insert(name.to_owned(), placed);
            circuit
        };
        let known = before.map(|before| &before.manager);
        let manager = stack::models(settings, http, &simulated, known, circuit)?;
        // Last, when nothing can fail any more.
        for (circuit, config) in changed {
            circuit.reconfigure(config);
        }
        let providers = settings.providers.values();
        let forward = providers.flat_map(|provider| provider.forward_headers.clone());
        let forward = forward.collect();
        let gate = match before {
            Some(before) if before.limits == settings.limits => before.gate.clone(),
            _ => Arc::new(Gate::new(&settings.limits)),
        };
        Ok(Self {
            manager,
            limits: settings.limits.clone(),
            admin_token: settings.admin_token.clone(),
            gate,
            simulated,
            forward,
            circuits,
        })
    }
}

#[allow(clippy::disallowed_methods, reason = "people are told the time of day")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

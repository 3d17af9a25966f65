//! The one place where things are put in order.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tower_breaker::models::{HttpClient, Model, ModelManager};

use crate::{
    Error,
    config::Settings,
    metrics::Metrics,
    routes::{self, AdminToken},
};

/// The aliases under which callers ask for the models.
const CLAUDE: &str = "claude-3.5-sonnet";
const DEEPSEEK: &str = "deepseek-chat";

/// What every request needs.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) manager: ModelManager,
    pub(crate) metrics: Metrics,
    pub(crate) admin_token: Option<AdminToken>,
}

impl App {
    pub(crate) fn new(manager: ModelManager, admin_token: Option<AdminToken>) -> Self {
        Self(Arc::new(Shared {
            manager,
            metrics: Metrics::new(),
            admin_token,
        }))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The models. A request goes through its model's chain; each link of it is, from the outside in:
///
/// 1. the provider's circuit, with its deadline, which so covers the whole answer;
/// 2. the provider's codec, which turns the request into HTTP and the answer back, so that the
///    circuit judges what the answer means and not just its status;
/// 3. one HTTP client for all, because its connections are pooled by host.
pub(crate) fn models(settings: &Settings) -> Result<ModelManager, Error> {
    let http = HttpClient::new()?;
    let mut manager = ModelManager::builder();
    let both = settings.claude.is_some() && settings.deepseek.is_some();
    let model = |provider: &str, upstream: &str, fallback: &str| {
        let model = Model::new(provider, upstream);
        if both { model.or(fallback) } else { model }
    };
    if let Some(claude) = &settings.claude {
        manager = manager
            .provider(
                "claude",
                claude.provider.clone(),
                http.clone(),
                settings.circuit_breaker.clone(),
            )
            .model(CLAUDE, model("claude", &claude.model, DEEPSEEK));
    }
    if let Some(deepseek) = &settings.deepseek {
        manager = manager
            .provider(
                "deepseek",
                deepseek.provider.clone(),
                http,
                settings.circuit_breaker.clone(),
            )
            .model(DEEPSEEK, model("deepseek", &deepseek.model, CLAUDE));
    }
    Ok(manager.build()?)
}

/// How long a client may take to send its request's body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest request body: hundreds of times the longest prompt that people write.
pub(crate) const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The server's routes.
pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .merge(routes::models())
        .merge(routes::health())
        // Nested, so that nothing below /admin escapes its guard.
        .nest("/admin", routes::admin(app.clone()))
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .with_state(app)
}

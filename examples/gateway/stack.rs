//! The one place where things are put in order. From the outside in, and why there:
//!
//! | layer | where | why there |
//! |---|---|---|
//! | connections, and the time and size of a request's head | `server` | they cost something before there is a request |
//! | the guard of `/admin` | `routes::admin` | before anything below it is even looked for |
//! | a turn for each request to a model | `gate` | around its body, so that what waits holds no prompt in memory; to the end of the answer, because that is when the work ends |
//! | the size and time of a request's body | `routes::read` | once it has its turn |
//! | the chain of a model | [`models`] | outside the circuits, so that it sees which are open, and passes them by |
//! | a circuit with its deadline | [`models`] | around one provider alone; inside the chain, so that a timeout falls back and counts |
//! | the headers that a provider may see | `forward` | next to the codec, which is different for each provider |
//! | the codec | [`models`] | inside the circuit, so that it judges what an answer means, and not just its status |
//! | the HTTP client | [`models`] | one for all: its connections are pooled by host |

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, middleware};
use tower_breaker::{
    Circuit, CircuitBreakerConfig,
    models::{Degraded, HttpClient, Model, ModelManager},
};

use crate::{
    Error,
    app::{App, Companion},
    config::{LastResort, Settings},
    dashboard,
    forward::Forwarding,
    gate, routes,
};

/// The models, each with its chain.
///
/// `before` is the manager whose place this one takes. `circuit` makes a circuit, or has it from
/// before, by its name, its configuration and what it stands in front of.
pub(crate) fn models(
    settings: &Settings,
    http: &HttpClient,
    simulated: &BTreeMap<String, Arc<Companion>>,
    before: Option<&ModelManager>,
    mut circuit: impl FnMut(&str, &CircuitBreakerConfig, String) -> Circuit,
) -> Result<ModelManager, Error> {
    let mut manager = ModelManager::builder()
        .default_model(settings.default_model.as_str())
        .cache(settings.cache);
    for (name, provider) in &settings.providers {
        let url = simulated.get(name).map(|companion| companion.server.url());
        let codec = Forwarding {
            codec: provider.codec(url.or(provider.base_url.as_deref()))?,
            headers: provider.forward_headers.clone(),
        };
        let dependency = format!("{:?} {url:?} {:?}", provider.kind, provider.base_url);
        let circuit = circuit(name, &provider.circuit, dependency);
        manager = manager
            .provider(name.as_str(), codec, http.clone(), circuit)
            .deadlines(name.as_str(), provider.deadlines);
        if let Some(before) = before {
            // A new key is known to be well with the first answer.
            manager = manager.credentials_from(name.as_str(), before);
        }
    }
    for (alias, settings) in &settings.models {
        let mut model = Model::new(settings.provider.as_str(), settings.upstream.as_str())
            .mid_stream(settings.mid_stream)
            .deadlines(settings.deadlines);
        for fallback in &settings.fallbacks {
            model = model.or(fallback.as_str());
        }
        for resort in &settings.degraded {
            model = model.degraded(match resort {
                LastResort::Model(alias) => Degraded::model(alias.as_str()),
                LastResort::Cached => Degraded::cached(),
                LastResort::Message(text) => Degraded::message(text.as_str()),
            });
        }
        if let Some(cap) = settings.max_tokens {
            model = model.max_tokens(cap);
        }
        if let Some(config) = &settings.circuit {
            let dependency = format!("{} {}", settings.provider, settings.upstream);
            model = model.circuit_breaker(circuit(alias, config, dependency));
        }
        manager = manager.model(alias.as_str(), model);
    }
    Ok(manager.build()?)
}

/// Everything in one place. Around it is `server`, with the limits on connections and on heads of
/// requests, which are over before there is a request.
pub(crate) fn all(app: App) -> Router {
    finish(public(&app).merge(private(&app)), app)
}

/// What is for everybody, where administrators have a listener of their own.
pub(crate) fn only_public(app: App) -> Router {
    finish(public(&app), app)
}

fn public(app: &App) -> Router<App> {
    // A turn for each request to a model, until the end of its answer. Around these routes alone:
    // a full gateway still tells how it is.
    let turns = middleware::from_fn_with_state(app.clone(), gate::turns);
    Router::new()
        .merge(routes::models().layer(turns))
        .merge(routes::health())
        .merge(routes::openapi())
}

fn private(app: &App) -> Router<App> {
    Router::new()
        .merge(routes::metrics())
        .merge(dashboard::routes())
        // Nested, so that nothing below /admin escapes its guard.
        .nest("/admin", routes::admin(app.clone()))
}

fn finish(router: Router<App>, app: App) -> Router {
    router
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .with_state(app)
}

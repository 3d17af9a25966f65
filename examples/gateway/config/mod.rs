//! What the gateway is told: by a file, and by flags and environment variables that come before
//! it.
//!
//! [`load`] is a function from those to [`Settings`], or to a [`Problem`] that says in which file,
//! at which line, which field is wrong and what it may be. It starts nothing, so `--check` and a
//! reload use it as it is.

mod args;
mod circuit;
mod file;
mod presets;
mod problem;
mod secret;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderName, header};
use tower_breaker::{
    CircuitBreakerConfig,
    models::{self, Anthropic, ApiKey, Deadlines, DeepSeek, MidStream, OpenAi, SetupError},
};

pub(crate) use self::{
    args::Args,
    circuit::{lay_over, read as circuit, spelled},
    file::{Kind, LastResort, Limits},
    problem::Problem,
};
use self::{
    circuit::Layers,
    file::{Fields, File, ModelTable, ProviderTable},
    problem::Source,
};
use crate::routes::AdminToken;

/// What the gateway runs with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Who knows it may use `/admin`. It has no flag, because others can see those.
    pub(crate) admin_token: Option<AdminToken>,
    pub(crate) limits: Limits,
    pub(crate) providers: BTreeMap<String, Provider>,
    pub(crate) models: BTreeMap<String, Model>,
    pub(crate) default_model: String,
    /// How many answers are kept for models whose last resort they are.
    pub(crate) cache: usize,
}

/// How many answers are kept unless the file says otherwise: at most some 64 MiB, and nothing for
/// models that don't want it.
const CACHE: usize = 1000;

/// A provider: how it is reached, and its circuit.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) kind: Kind,
    pub(crate) base_url: Option<String>,
    pub(crate) key: ApiKey,
    /// Whether one that lives in this process is to stand in for it.
    pub(crate) simulated: bool,
    /// The headers of clients that it is told.
    pub(crate) forward_headers: Vec<HeaderName>,
    pub(crate) circuit: CircuitBreakerConfig,
    pub(crate) deadlines: Deadlines,
}

impl Provider {
    /// The codec of its API, for requests to `base_url`, or to where its makers serve it.
    pub(crate) fn codec(
        &self,
        base_url: Option<&str>,
    ) -> Result<Arc<dyn models::Provider>, SetupError> {
        macro_rules! codec {
            ($codec:ident) => {{
                let codec = $codec::new(self.key.clone());
                match base_url {
                    Some(url) => Arc::new(codec.base_url(url)?),
                    None => Arc::new(codec),
                }
            }};
        }
        Ok(match self.kind {
            Kind::Anthropic => codec!(Anthropic),
            Kind::OpenAi => codec!(OpenAi),
            Kind::DeepSeek => codec!(DeepSeek),
        })
    }
}

/// A model: who serves it under which name, and which models stand in for it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) provider: String,
    pub(crate) upstream: String,
    pub(crate) fallbacks: Vec<String>,
    pub(crate) degraded: Vec<LastResort>,
    pub(crate) mid_stream: MidStream,
    pub(crate) max_tokens: Option<NonZeroU32>,
    pub(crate) deadlines: Deadlines,
    /// For a circuit of its own.
    pub(crate) circuit: Option<CircuitBreakerConfig>,
}

/// The text of the configuration file, if there is one.
pub(crate) fn read(file: Option<&Path>) -> Result<Option<String>, Problem> {
    let Some(file) = file else { return Ok(None) };
    fs::read_to_string(file)
        .map(Some)
        .map_err(|error| Problem::new(file.display().to_string(), error))
}

/// Puts everything together, and checks it.
pub(crate) fn load(args: &Args, text: Option<&str>) -> Result<Settings, Problem> {
    let nowhere = PathBuf::new();
    let name = args.config.as_deref().unwrap_or(&nowhere);
    let source = Source::new(name, text.unwrap_or_default());
    let file: File = source.read()?;
    if let Some((field, value, range)) = file.limits.out_of_range() {
        let message = format!("is {value}, but has to be {range}");
        return Err(source.wrong(&["limits", field], message));
    }
    if let Some(endpoint) = &args.otlp_endpoint
        && !matches!(endpoint.scheme_str(), Some("http" | "https"))
    {
        let message = format!("is {endpoint}, but has to begin with http:// or https://");
        return Err(Problem::new("--otlp-endpoint", message));
    }
    let over = circuit::from_json(args.circuit_breaker.as_deref())?;
    let layers = Layers {
        source,
        file: &file.circuit_breaker,
        over: &over,
    };
    let deadlines = file.deadlines.over(Deadlines::default());
    let (providers, models, first) = if file.providers.is_empty() && file.models.is_empty() {
        presets::presets(args, &layers, deadlines)?
    } else {
        let providers = providers(&file.providers, &layers, deadlines)?;
        let models = self::models(&file.models, &providers, &layers)?;
        (providers, models, None)
    };
    let default_model = default_model(file.default_model, first, &models, source)?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    Ok(Settings {
        listen: args.listen.or(file.listen).unwrap_or(listen),
        admin_listen: args.admin_listen.or(file.admin.listen),
        admin_token: secret::admin_token(&file.admin, source)?,
        limits: file.limits,
        providers,
        models,
        default_model,
        cache: file.cache.unwrap_or(CACHE),
    })
}

fn providers(
    tables: &BTreeMap<String, ProviderTable>,
    layers: &Layers<'_>,
    deadlines: Deadlines,
) -> Result<BTreeMap<String, Provider>, Problem> {
    let source = layers.source;
    let provider = |(name, table): (&String, &ProviderTable)| {
        let provider = Provider {
            kind: table.kind,
            base_url: table.base_url.clone(),
            key: secret::api_key(name, table, source)?,
            simulated: table.simulated,
            forward_headers: forward_headers(name, &table.forward_headers, source)?,
            circuit: layers.circuit(&[(&["providers", name][..], &table.circuit_breaker)])?,
            deadlines: table.deadlines.over(deadlines),
        };
        if table.simulated && table.base_url.is_some() {
            let message = "a simulated provider has an address of its own, take this away";
            return Err(source.wrong(&["providers", name, "base_url"], message));
        }
        provider
            .codec(table.base_url.as_deref())
            .map_err(|error| source.wrong(&["providers", name, error.field()], error))?;
        Ok((name.clone(), provider))
    };
    tables.iter().map(provider).collect()
}

/// Headers that say who a client is are for the gateway, and others are those of the connection or
/// of the new body.
const NEVER_FORWARDED: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("x-api-key"),
];

fn forward_headers(
    provider: &str,
    names: &[String],
    source: Source<'_>,
) -> Result<Vec<HeaderName>, Problem> {
    let wrong =
        |message: String| source.wrong(&["providers", provider, "forward_headers"], message);
    let name = |name: &String| match name.parse() {
        Ok(name) if NEVER_FORWARDED.contains(&name) => {
            Err(wrong(format!("`{name}` is never passed on")))
        }
        Ok(name) => Ok(name),
        Err(_) => Err(wrong(format!("`{name}` is not the name of a header"))),
    };
    names.iter().map(name).collect()
}

fn models(
    tables: &BTreeMap<String, ModelTable>,
    providers: &BTreeMap<String, Provider>,
    layers: &Layers<'_>,
) -> Result<BTreeMap<String, Model>, Problem> {
    let source = layers.source;
    let model = |(alias, table): (&String, &ModelTable)| {
        let Some(provider) = providers.get(&table.provider) else {
            let message = format!("there is no `{}`; {}", table.provider, are(providers));
            return Err(source.wrong(&["models", alias, "provider"], message));
        };
        for (index, fallback) in table.fallbacks.iter().enumerate() {
            let wrong = |message: String| source.wrong(&["models", alias, "fallbacks"], message);
            if !tables.contains_key(fallback) {
                return Err(wrong(format!("there is no `{fallback}`; {}", are(tables))));
            }
            if fallback == alias || table.fallbacks[..index].contains(fallback) {
                return Err(wrong(format!("`{fallback}` comes twice in the chain")));
            }
        }
        for resort in &table.degraded {
            if let LastResort::Model(model) = resort {
                let wrong = |message: String| source.wrong(&["models", alias, "degraded"], message);
                if !tables.contains_key(model) {
                    return Err(wrong(format!("there is no `{model}`; {}", are(tables))));
                }
                if model == alias || table.fallbacks.contains(model) {
                    return Err(wrong(format!("`{model}` is in the chain already")));
                }
            }
        }
        if table.circuit_breaker.is_some() && providers.contains_key(alias) {
            let message =
                format!("the circuit is called `{alias}`, and so is a provider's: rename one");
            return Err(source.wrong(&["models", alias, "circuit_breaker"], message));
        }
        let own = |own: &Fields| layers.circuit(&[(&["models", alias][..], own)]);
        let model = Model {
            provider: table.provider.clone(),
            upstream: table.upstream.clone().unwrap_or_else(|| alias.clone()),
            fallbacks: table.fallbacks.clone(),
            degraded: table.degraded.clone(),
            mid_stream: table.mid_stream,
            max_tokens: table.max_tokens,
            deadlines: table.deadlines.over(provider.deadlines),
            circuit: table.circuit_breaker.as_ref().map(own).transpose()?,
        };
        Ok((alias.clone(), model))
    };
    if tables.is_empty() {
        return Err(source.wrong(&["models"], "there has to be at least one"));
    }
    tables.iter().map(model).collect()
}

fn default_model(
    given: Option<String>,
    first: Option<String>,
    models: &BTreeMap<String, Model>,
    source: Source<'_>,
) -> Result<String, Problem> {
    let wrong = |message: String| Err(source.wrong(&["default_model"], message));
    match given.or(first) {
        Some(name) if models.contains_key(&name) => Ok(name),
        Some(name) => wrong(format!("there is no `{name}`; {}", are(models))),
        None if models.len() == 1 => Ok(models.keys().cloned().collect()),
        None => wrong(format!("has to name one of the models; {}", are(models))),
    }
}

fn are<T>(known: &BTreeMap<String, T>) -> String {
    let names: Vec<_> = known.keys().map(|name| format!("`{name}`")).collect();
    format!("there are {}", names.join(", "))
}

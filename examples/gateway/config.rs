//! What the gateway is told: flags and environment variables, and the providers that follow from
//! them.

use std::{env, net::SocketAddr};

use clap::Parser;
use tower_breaker::{
    CircuitBreakerConfig, RetryAfterPolicy,
    models::{Anthropic, ApiKey, DeepSeek, ModelManager, SetupError},
};

use crate::{
    Companion, Error,
    routes::AdminToken,
    simulated::{Kind, Simulated},
};

/// A gateway to language models that survives the failure of any of them.
///
/// Providers are switched on by their keys: ANTHROPIC_API_KEY and DEEPSEEK_API_KEY. With neither,
/// two simulated providers stand in.
#[derive(Debug, Parser)]
#[command(name = "gateway", version)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(
        long,
        env = "GATEWAY_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,

    /// Every provider's circuit breaker, as JSON such as {"resetTimeout":"30s"}.
    #[arg(long, env = "GATEWAY_CIRCUIT_BREAKER", value_name = "JSON")]
    circuit_breaker: Option<String>,

    /// Where Anthropic's API is.
    #[arg(long, env = "ANTHROPIC_BASE_URL", value_name = "URL")]
    anthropic_base_url: Option<String>,

    /// Anthropic's name for the model that is served as claude-3.5-sonnet.
    #[arg(
        long,
        env = "ANTHROPIC_MODEL",
        default_value = "claude-3-5-sonnet-latest",
        value_name = "NAME"
    )]
    anthropic_model: String,

    /// Where DeepSeek's API is, or one that is compatible with it.
    #[arg(long, env = "DEEPSEEK_BASE_URL", value_name = "URL")]
    deepseek_base_url: Option<String>,

    /// DeepSeek's name for the model that is served as deepseek-chat.
    #[arg(
        long,
        env = "DEEPSEEK_MODEL",
        default_value = "deepseek-chat",
        value_name = "NAME"
    )]
    deepseek_model: String,
}

/// What the gateway runs with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) circuit_breaker: CircuitBreakerConfig,
    /// Who knows it may use `/admin`. It has no flag, because others can see those.
    pub(crate) admin_token: Option<AdminToken>,
    pub(crate) claude: Option<Upstream<Anthropic>>,
    pub(crate) deepseek: Option<Upstream<DeepSeek>>,
}

/// A provider, and what it calls the model that it serves.
#[derive(Debug)]
pub(crate) struct Upstream<P> {
    pub(crate) provider: P,
    pub(crate) model: String,
}

impl Settings {
    /// Puts everything together, and starts simulated providers if no real one is configured.
    pub(crate) async fn new(args: Args) -> Result<(Self, Vec<Companion>), Error> {
        let circuit_breaker = circuit_breaker(args.circuit_breaker.as_deref())?;
        let anthropic_key = key("ANTHROPIC_API_KEY", args.anthropic_base_url.is_some())?;
        let deepseek_key = key("DEEPSEEK_API_KEY", args.deepseek_base_url.is_some())?;
        let mut simulated = Vec::new();
        let (claude, deepseek) = if anthropic_key.is_none() && deepseek_key.is_none() {
            let key = ApiKey::new("simulated")?;
            let anthropic = start(&mut simulated, Kind::Anthropic, "claude").await?;
            let open_ai = start(&mut simulated, Kind::DeepSeek, "deepseek").await?;
            (
                Some(Anthropic::new(key.clone()).base_url(anthropic)?),
                Some(DeepSeek::new(key).base_url(open_ai)?),
            )
        } else {
            let claude = anthropic_key.map(Anthropic::new);
            let deepseek = deepseek_key.map(DeepSeek::new);
            (
                at(claude, args.anthropic_base_url, Anthropic::base_url)
                    .map_err(|error| format!("ANTHROPIC_BASE_URL: {error}"))?,
                at(deepseek, args.deepseek_base_url, DeepSeek::base_url)
                    .map_err(|error| format!("DEEPSEEK_BASE_URL: {error}"))?,
            )
        };
        let settings = Self {
            listen: args.listen,
            circuit_breaker,
            admin_token: admin_token()?,
            claude: claude.map(|provider| Upstream {
                provider,
                model: args.anthropic_model,
            }),
            deepseek: deepseek.map(|provider| Upstream {
                provider,
                model: args.deepseek_model,
            }),
        };
        Ok((settings, simulated))
    }
}

async fn start(
    simulated: &mut Vec<Companion>,
    kind: Kind,
    name: &'static str,
) -> Result<String, Error> {
    let server = Simulated::start(kind, name)
        .await
        .map_err(|error| format!("cannot start the simulated {name}: {error}"))?;
    let url = server.url().to_owned();
    simulated.push(Companion { name, server });
    Ok(url)
}

fn at<P>(
    provider: Option<P>,
    url: Option<String>,
    base_url: impl Fn(P, String) -> Result<P, SetupError>,
) -> Result<Option<P>, SetupError> {
    match (provider, url) {
        (Some(provider), Some(url)) => base_url(provider, url).map(Some),
        (provider, _) => Ok(provider),
    }
}

/// The key in this variable. A server of one's own often asks for none, so with a URL there need
/// not be one.
fn key(name: &str, has_url: bool) -> Result<Option<ApiKey>, Error> {
    let key = match variable(name)? {
        None if has_url => Some("none".to_owned()),
        key => key,
    };
    key.map(|key| ApiKey::new(key).map_err(|error| format!("{name}: {error}").into()))
        .transpose()
}

fn admin_token() -> Result<Option<AdminToken>, Error> {
    let token = variable("GATEWAY_ADMIN_TOKEN")?;
    let token = token.map(|token| AdminToken::new(&token)).transpose();
    Ok(token.map_err(|error| format!("GATEWAY_ADMIN_TOKEN: {error}"))?)
}

/// A variable's value; one that is empty counts as unset, as in a shell's `KEY= command`.
fn variable(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not valid UTF-8").into()),
    }
}

/// Providers that say when to come back are left alone until then, unless the JSON says otherwise.
fn circuit_breaker(json: Option<&str>) -> Result<CircuitBreakerConfig, Error> {
    let defaults = ModelManager::circuit_breaker_defaults().build()?;
    let Some(json) = json else {
        return Ok(defaults);
    };
    let wrong = |error: &dyn std::fmt::Display| format!("circuit breaker: {error}, in `{json}`");
    let mut value: serde_json::Value = serde_json::from_str(json).map_err(|error| wrong(&error))?;
    if let Some(fields) = value.as_object_mut()
        && !fields.contains_key("retry_after")
    {
        let policy = serde_json::to_value(RetryAfterPolicy::Open)?;
        fields.entry("retryAfter").or_insert(policy);
    }
    Ok(serde_json::from_value(value).map_err(|error| wrong(&error))?)
}

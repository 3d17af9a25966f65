//! Flags, and the environment variables that stand in for them.

use std::{net::SocketAddr, path::PathBuf};

use axum::http::Uri;
use clap::Parser;

/// A gateway to language models that survives the failure of any of them.
///
/// With nothing configured, providers are switched on by their keys: ANTHROPIC_API_KEY and
/// DEEPSEEK_API_KEY. With neither, two simulated providers stand in. A configuration file says
/// everything else; flags and variables come before what it says.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", version)]
pub(crate) struct Args {
    /// The configuration, in TOML. It is read again when it changes, and on SIGHUP.
    #[arg(long, env = "GATEWAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Checks the configuration and exits: 0 if all is well, 1 if not.
    #[arg(long)]
    pub(crate) check: bool,

    /// Where to listen; port 0 takes a free one. Default: 127.0.0.1:8080.
    #[arg(long, env = "GATEWAY_LISTEN", value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,

    /// Where /admin, /metrics and the dashboard listen instead. Default: beside everything else.
    #[arg(long, env = "GATEWAY_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub(super) admin_listen: Option<SocketAddr>,

    /// Every circuit breaker, as JSON such as {"resetTimeout":"30s"}.
    #[arg(long, env = "GATEWAY_CIRCUIT_BREAKER", value_name = "JSON")]
    pub(super) circuit_breaker: Option<String>,

    /// Where to send traces: the address of a collector that understands OTLP over HTTP.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<Uri>,

    /// Where Anthropic's API is. This and the next three are for when no file names providers.
    #[arg(long, env = "ANTHROPIC_BASE_URL", value_name = "URL")]
    pub(super) anthropic_base_url: Option<String>,

    /// Anthropic's name for the model that is served as claude-3.5-sonnet.
    #[arg(
        long,
        env = "ANTHROPIC_MODEL",
        default_value = "claude-3-5-sonnet-latest",
        value_name = "NAME"
    )]
    pub(super) anthropic_model: String,

    /// Where DeepSeek's API is, or one that is compatible with it.
    #[arg(long, env = "DEEPSEEK_BASE_URL", value_name = "URL")]
    pub(super) deepseek_base_url: Option<String>,

    /// DeepSeek's name for the model that is served as deepseek-chat.
    #[arg(
        long,
        env = "DEEPSEEK_MODEL",
        default_value = "deepseek-chat",
        value_name = "NAME"
    )]
    pub(super) deepseek_model: String,
}

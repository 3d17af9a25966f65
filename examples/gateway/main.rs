//! A gateway in front of language models: each provider behind its own circuit, one falling back
//! on the other.
//!
//! With nothing configured it brings two simulated providers along, each a real HTTP server with
//! faults that can be switched on, so that one can watch a circuit open and close:
//!
//! ```text
//! cargo run --release --example gateway
//! ```
//!
//! One request's way: `routes` reads it, [`stack::models`] has it answered, `routes` writes the
//! answer. `config` says with what, and `simulated` is what there is to talk to otherwise.

mod config;
mod metrics;
mod routes;
mod simulated;
mod stack;

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tokio::net::TcpListener;
use tower_breaker::{CircuitState, models::ModelManager};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use self::{
    config::{Args, Settings},
    simulated::Simulated,
    stack::App,
};

/// How long requests that are under way may take to finish after a signal to stop. Orchestrators
/// kill after 30 seconds by default.
const GRACE: Duration = Duration::from_secs(25);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Logs go to stderr: stdout is for the address and what to try.
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder()
                .with_default_directive(LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let (settings, simulated) = Settings::new(args).await?;
    let manager = stack::models(&settings)?;
    log_state_changes(&manager);
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let address = listener.local_addr()?;
    introduce(address, &settings, &manager, &simulated);

    let app = App::new(manager, settings.admin_token);
    let routes = stack::routes(app).into_make_service_with_connect_info::<SocketAddr>();
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async {
        stop_signal().await;
        tracing::info!("stopping: no new connections, up to {GRACE:?} for what is under way");
        let _ = stopping.send(());
    });
    let grace_over = async {
        // An error means that the server ended by itself, and so will the `select!`.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        match tokio::time::timeout(GRACE, stop_signal()).await {
            Ok(()) => "asked twice",
            Err(_) => "the time for that is over",
        }
    };
    tokio::select! {
        ended = server => ended?,
        why = grace_over => tracing::warn!("stopping with requests still under way: {why}"),
    }
    for provider in simulated {
        provider.server.shutdown().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Ctrl-C, or what an orchestrator sends.
async fn stop_signal() {
    let ctrl_c = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!("cannot listen for Ctrl-C: {error}");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::error!("cannot listen for SIGTERM: {error}");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = ctrl_c => {}
        () = terminate => {}
    }
}

fn log_state_changes(manager: &ModelManager) {
    for (name, circuit) in manager.circuits() {
        let name = name.to_owned();
        circuit.on_state_change(move |event| match event.to {
            CircuitState::Open | CircuitState::ForcedOpen => {
                tracing::warn!(circuit = name, "{event}");
            }
            _ => tracing::info!(circuit = name, "{event}"),
        });
    }
}

/// A simulated provider that runs beside the gateway.
#[derive(Debug)]
pub(crate) struct Companion {
    pub(crate) name: &'static str,
    pub(crate) server: Simulated,
}

/// Says where everything is, and what to try.
fn introduce(
    address: SocketAddr,
    settings: &Settings,
    manager: &ModelManager,
    simulated: &[Companion],
) {
    println!("gateway listening on http://{address}");
    for Companion { name, server } in simulated {
        println!("{name}: simulated on {}", server.control());
    }
    for (name, circuit) in manager.circuits() {
        println!("{name}: circuit {}", circuit.state());
    }
    if settings.admin_token.is_none() {
        tracing::warn!(
            "no GATEWAY_ADMIN_TOKEN is set: /admin answers callers on this machine, and nobody else"
        );
    }
    let ask = format!(
        "curl -s http://{address}/v1/process -H 'content-type: application/json' \
         -d '{{\"prompt\":\"Why is the sky blue?\"}}'"
    );
    println!("\ntry:");
    println!("  {ask}");
    if let Some(first) = simulated.first() {
        println!(
            "  curl -s -X POST {}/fault/overloaded   # break {}, then ask again a few times",
            first.server.control(),
            first.name
        );
    }
    println!("  curl -s http://{address}/health");
    println!();
}

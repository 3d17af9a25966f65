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
//! One request's way: `server` accepts it, `routes` reads it, [`stack::models`] has it answered,
//! `routes` writes the answer. `config` says with what, `app` exchanges that while it runs, and
//! `simulated` is what there is to talk to otherwise.

mod app;
mod config;
mod dashboard;
mod events;
mod forward;
mod gate;
mod metrics;
mod routes;
mod server;
mod simulated;
mod stack;
mod traces;

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use tokio::{net::TcpListener, task::JoinSet};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use self::{app::App, config::Args};

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
    let text = config::read(args.config.as_deref())?;
    let settings = config::load(&args, text.as_deref())?;
    if args.check {
        println!("the configuration is well");
        return Ok(());
    }
    let (listener, address) = listen(settings.listen).await?;
    let admin = match settings.admin_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let has_file = args.config.is_some();
    let app = App::new(args, text, settings).await?;
    introduce(&app, address, admin.as_ref().map(|(_, address)| *address));
    let mut beside = JoinSet::new();
    if has_file {
        beside.spawn(app.clone().watch_file());
    }
    beside.spawn(reload_on_signal(app.clone()));
    beside.spawn(dashboard::sample(app.clone()));

    // As tasks, because what `main` itself awaits runs beside the workers: each new connection would have to be handed
    // over from one thread to another.
    let mut serving = JoinSet::new();
    let public = match admin {
        Some((admin, _)) => {
            serving.spawn(server::serve(admin, stack::all(app.clone()), app.clone()));
            stack::only_public(app.clone())
        }
        None => stack::all(app.clone()),
    };
    serving.spawn(server::serve(listener, public, app.clone()));
    let served = async { while serving.join_next().await.is_some() {} };
    let grace_over = async {
        stop_signal().await;
        let grace = app.running().limits.shutdown_grace;
        tracing::info!("stopping: no new connections, up to {grace:?} for what is under way");
        app.stop();
        match tokio::time::timeout(grace, stop_signal()).await {
            Ok(()) => "asked twice",
            Err(_) => "the time for that is over",
        }
    };
    tokio::select! {
        () = served => {}
        why = grace_over => tracing::warn!("stopping with requests still under way: {why}"),
    }
    serving.shutdown().await;
    app.traces.flush().await;
    // Nobody is left to ask the simulated providers, or to hold on to them.
    beside.shutdown().await;
    let companions = app.running().simulated.clone();
    drop(app);
    for companion in companions.into_values() {
        if let Some(companion) = Arc::into_inner(companion) {
            companion.server.shutdown().await;
        }
    }
    tracing::info!("stopped");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
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

/// SIGHUP, as servers have it since ever.
async fn reload_on_signal(app: App) {
    #[cfg(unix)]
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(mut signal) => {
            while signal.recv().await.is_some() {
                app.reload().await;
            }
        }
        Err(error) => tracing::error!("cannot listen for SIGHUP: {error}"),
    }
    #[cfg(not(unix))]
    drop(app);
}

/// Says where everything is, and what to try.
fn introduce(app: &App, address: SocketAddr, admin: Option<SocketAddr>) {
    let running = app.running();
    println!("gateway listening on http://{address}");
    if let Some(admin) = admin {
        println!("admin: listening on http://{admin}");
    }
    for (name, companion) in &running.simulated {
        println!("{name}: simulated on {}", companion.server.control());
    }
    for (name, circuit) in running.manager.circuits() {
        println!("{name}: circuit {}", circuit.state());
    }
    if running.admin_token.is_none() {
        tracing::warn!(
            "no GATEWAY_ADMIN_TOKEN is set: /admin answers callers on this machine, and nobody else"
        );
    }
    let ask = format!(
        "curl -s http://{address}/v1/process -H 'content-type: application/json' \
         -d '{{\"prompt\":\"Why is the sky blue?\"}}'"
    );
    println!("dashboard: http://{}/", admin.unwrap_or(address));
    println!("\ntry:");
    println!("  {ask}");
    if let Some((name, companion)) = running.simulated.first_key_value() {
        println!(
            "  curl -s -X POST {}/fault/overloaded   # break {name}, then ask again a few times",
            companion.server.control(),
        );
    }
    println!("  curl -s http://{address}/health");
    println!();
}

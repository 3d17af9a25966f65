//! What tests have in common: the examples and above all the gateway as child processes, and a small HTTP client.
//!
//! All of it waits in real time on real sockets, so it doesn't go together with tokio's paused clock.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own, uses its own part of this, and nothing can reach into it"
)]

pub mod browser;
pub mod example;
pub mod gateway;
pub mod http;
pub mod raw;

use std::time::Duration;

/// Whether a program that a test needs is there. Where `TOWER_BREAKER_TEST_TOOLS` is set, as `tests/run` does
/// after it has installed them all, it has to be.
///
/// # Panics
///
/// When it has to be, and isn't.
pub fn tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let required = std::env::var_os("TOWER_BREAKER_TEST_TOOLS").is_some();
    assert!(there || !required, "`{name}` is missing");
    if !there {
        eprintln!("skipped: `{name}` is missing; tests/run installs it");
    }
    there
}

/// What anything here may take. Far more than a healthy run needs, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often [`eventually`] looks again.
const POLL: Duration = Duration::from_millis(20);

/// Asks again and again until there is `Some`, for 30 seconds at most.
///
/// # Panics
///
/// With `what`, when the time is over.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let mut ticks = tokio::time::interval(POLL);
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                ticks.tick().await;
                if let Some(found) = look().await {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("{caller}: waited {PATIENCE:?} in vain for {what}"),
        }
    }
}

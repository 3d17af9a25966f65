//! The small examples: each runs by itself, ends by itself, and prints what its reader is promised.
//!
//! They run in real time with short reset timeouts, so a machine that stands still for half a second can make a
//! rejection into a probe.
#![cfg(any(feature = "http", feature = "fallback"))]

mod support;

use support::{PATIENCE, example};
use tokio::process::Command;

/// What the example prints, once it has ended well.
async fn lines(name: &str) -> Vec<String> {
    let mut command = Command::from(example::command(name));
    let ended = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{name} does not end"))
        .expect("the example's binary runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    stdout.lines().map(str::to_owned).collect()
}

#[tokio::test]
#[cfg(feature = "http")]
async fn client_goes_through_all_states() {
    let mut lines = lines("client").await;
    let rejection = lines.remove(7);
    assert!(
        rejection
            .starts_with("not sent: circuit is open (too many failures in a row), try again in "),
        "{rejection}"
    );
    assert_eq!(
        lines,
        [
            "# the server is well",
            "200 OK",
            "# the server breaks",
            "500 Internal Server Error",
            "500 Internal Server Error",
            "circuit: CLOSED -> OPEN (too many failures in a row)",
            "500 Internal Server Error",
            "# the server recovers, and we come back when we were told to",
            "circuit: OPEN -> HALF_OPEN",
            "200 OK",
            "circuit: HALF_OPEN -> CLOSED",
            "200 OK",
        ]
    );
}

#[tokio::test]
#[cfg(feature = "http")]
async fn axum_answers_for_a_dependency_that_is_down() {
    assert_eq!(
        lines("axum").await,
        [
            "# the database is up",
            "GET /orders: 200 OK, 3 orders",
            "# the database goes down",
            "GET /orders: 500 Internal Server Error",
            "GET /orders: 500 Internal Server Error",
            "GET /orders: 500 Internal Server Error",
            "GET /orders: 503 Service Unavailable, Retry-After: 1",
            "GET /orders: 503 Service Unavailable, Retry-After: 1",
            "GET /health: 200 OK, OPEN",
            "# the database is up again, and the circuit has waited for its reset timeout",
            "GET /orders: 200 OK, 3 orders",
            "GET /health: 200 OK, CLOSED",
        ]
    );
}

#[tokio::test]
#[cfg(feature = "http")]
async fn tonic_sees_streams_that_break_half_way() {
    let mut lines = lines("tonic").await;
    let rejection = lines.remove(6);
    assert!(
        rejection.starts_with(
            "Unavailable: circuit is open (too many failures in a row), try again in "
        ),
        "{rejection}"
    );
    assert_eq!(
        lines,
        [
            "# the rocket is well",
            "3, 2, 1, lift-off",
            "# the rocket has a leak",
            "3, 2, Unavailable: no fuel left",
            "circuit: CLOSED -> OPEN (too many failures in a row)",
            "3, 2, Unavailable: no fuel left",
            "# the rocket is well again, and the circuit has waited for its reset timeout",
            "circuit: OPEN -> HALF_OPEN",
            "circuit: HALF_OPEN -> CLOSED",
            "3, 2, 1, lift-off",
        ]
    );
}

#[tokio::test]
#[cfg(feature = "fallback")]
async fn fallback_has_the_first_available_link_answer() {
    assert_eq!(
        lines("fallback").await,
        [
            "# all is well",
            "Bergen: 17 degrees, rain at noon",
            "    primary: Answered",
            "# the primary goes down: it fails twice, then its circuit is open",
            "Bergen: 17 degrees, rain at noon",
            "    primary: Failed, connection refused",
            "    backup: Answered",
            "Bergen: 17 degrees, rain at noon",
            "    primary: Failed, connection refused",
            "    backup: Answered",
            "Bergen: 17 degrees, rain at noon",
            "    primary: Skipped, busy",
            "    backup: Answered",
            "# the backup goes down as well",
            "Bergen is mild in spring (degraded)",
            "    primary: Skipped, busy",
            "    backup: Failed, connection refused",
            "    almanac: Answered",
            "Bergen is mild in spring (degraded)",
            "    primary: Skipped, busy",
            "    backup: Failed, connection refused",
            "    almanac: Answered",
            "Bergen is mild in spring (degraded)",
            "    primary: Skipped, busy",
            "    backup: Skipped, busy",
            "    almanac: Answered",
            "# the primary is up again, and its circuit lets a probe through",
            "Bergen: 17 degrees, rain at noon",
            "    primary: Answered",
        ]
    );
}

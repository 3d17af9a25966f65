//! The small examples: each runs by itself, ends by itself, and prints what its reader is promised.
//!
//! They run in real time with short reset timeouts, so a machine that stands still for half a second can make a
//! rejection into a probe.
#![cfg(any(feature = "http", feature = "fallback"))]

mod support;

use support::example;

/// What the example prints, once it has ended well.
#[track_caller]
fn lines(name: &str) -> Vec<String> {
    let output = example::command(name).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    stdout.lines().map(str::to_owned).collect()
}

#[test]
#[cfg(feature = "http")]
fn client_goes_through_all_states() {
    let mut lines = lines("client");
    let rejection = lines.remove(7);
    assert!(
        rejection
            .starts_with("not sent: circuit is open (too many failures in a row), try again in 0."),
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

#[test]
#[cfg(feature = "http")]
fn axum_answers_for_a_dependency_that_is_down() {
    assert_eq!(
        lines("axum"),
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

#[test]
#[cfg(feature = "fallback")]
fn fallback_has_the_first_available_link_answer() {
    assert_eq!(
        lines("fallback"),
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

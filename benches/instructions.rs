//! How many instructions a call takes, counted by callgrind: they repeat, whatever else the machine does.
//! README.md tells how to run this and how to read it.
//!
//! Each case runs twice, in a process of its own, with more calls the second time: the difference is
//! what those take.

mod even;

use std::{env, hint::black_box, process::Command, sync::Arc, time::Duration};

use tower::Layer;
use tower_breaker::{
    Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerLayer, Clock, Record,
};

use self::even::{Even, request};

type Case = (&'static str, fn(Calls) -> CircuitBreakerConfigBuilder);

const CASES: [Case; 5] = [
    ("five in a row, rules", |_| rules().failure_threshold(5)),
    ("window of 100 calls, rules", |calls| {
        rules().window(100).error_threshold_percentage(rate(calls))
    }),
    ("window of 60 s, rules", |calls| {
        let period = rules().monitoring_period(Duration::from_secs(60));
        period.error_threshold_percentage(rate(calls))
    }),
    ("default", |calls| {
        CircuitBreakerConfig::builder().error_threshold_percentage(rate(calls))
    }),
    ("default, and slow calls", |calls| {
        CircuitBreakerConfig::builder()
            .error_threshold_percentage(rate(calls))
            .slow_call_duration(Duration::from_secs(5))
            .slow_call_percentage(50)
    }),
];

/// Only what the rules need is recorded, and calls have no deadline.
fn rules() -> CircuitBreakerConfigBuilder {
    CircuitBreakerConfig::builder()
        .failure_threshold(None)
        .error_threshold_percentage(None)
        .timeout(None)
        .record(Record::Rules)
}

fn rate(calls: Calls) -> u8 {
    if calls == Calls::HalfFail { 90 } else { 50 }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Calls {
    Succeed,
    /// Every second one, and the circuit stays closed.
    HalfFail,
    AreRejected,
}

const CALLS: [Calls; 3] = [Calls::Succeed, Calls::HalfFail, Calls::AreRejected];

/// Costs nothing, so that what remains is ours.
#[derive(Debug)]
struct Free;

impl Clock for Free {
    fn now(&self) -> u64 {
        1
    }
}

fn main() {
    // `cargo bench` adds arguments of its own.
    let numbers = env::args().skip(1).map(|arg| arg.parse().ok());
    if let Some(child) = numbers.take(4).collect::<Option<Vec<usize>>>()
        && let [case, clock, calls, times] = child[..]
    {
        return call(CASES.get(case), clock == 1, CALLS[calls], times as u64);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("valgrind, which counts them, is not installed");
    }
    println!("| instructions per call | success | half of them failing | rejection |");
    println!("|---|--:|--:|--:|");
    let arc = counted(CASES.len(), 0, 0);
    println!("| `Arc` clone and drop, around the bare service | {arc:.0} | | |");
    for (clock, its) in ["", ", a clock that costs nothing"].into_iter().enumerate() {
        for (case, (name, _)) in CASES.iter().enumerate() {
            let [success, failing, rejection] = [0, 1, 2].map(|calls| counted(case, clock, calls));
            println!("| {name}{its} | {success:.0} | {failing:.0} | {rejection:.0} |");
        }
    }
}

/// What one call takes.
fn counted(case: usize, clock: usize, calls: usize) -> f64 {
    const TIMES: [u64; 2] = [1_000, 11_000];
    let [few, many] = TIMES.map(|times| {
        let child = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().expect("this runs"))
            .args([case, clock, calls].map(|number| number.to_string()))
            .arg(times.to_string())
            .output()
            .expect("valgrind runs");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        let collected = said
            .lines()
            .find_map(|line| line.split("Collected :").nth(1));
        let collected = collected.and_then(|count| count.trim().parse::<u64>().ok());
        collected.expect("callgrind says what it has collected")
    });
    (many - few) as f64 / (TIMES[1] - TIMES[0]) as f64
}

/// Makes so many calls, in a process of its own. No case: there is no circuit.
fn call(case: Option<&Case>, free: bool, calls: Calls, times: u64) {
    let Some((_, config)) = case else {
        let shared = Arc::new(());
        for number in 0..times {
            drop(black_box(Arc::clone(&shared)));
            assert_eq!(request(&mut Even, 2 * number), Some(true));
        }
        return;
    };
    let config = config(calls)
        .build()
        .expect("these are within their ranges");
    let circuit = match free {
        true => Circuit::with_clock(config, Free),
        false => Circuit::new(config),
    };
    circuit.on_state_change(|event| {
        black_box(event);
    });
    if calls == Calls::AreRejected {
        while let Ok(permit) = circuit.try_acquire() {
            permit.failure();
        }
    }
    let layer = CircuitBreakerLayer::from_circuit(circuit).fail_fast();
    let mut service = layer.layer(Even);
    // An odd number fails. A success comes first, or else too many of the first five fail.
    let step = if calls == Calls::HalfFail { 1 } else { 2 };
    for number in 0..times {
        let succeeded = request(&mut service, 2 + step * number);
        assert_eq!(
            succeeded,
            Some(calls != Calls::AreRejected && (step * number) % 2 == 0)
        );
    }
}

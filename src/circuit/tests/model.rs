//! The circuit against a model that is too simple to be wrong: lists of what happened, from which
//! everything is worked out anew whenever it is asked for.
//!
//! `TOWER_BREAKER_MODEL_CASES` sets the number of cases; the default is a few thousand.

use std::time::Duration;

use proptest::prelude::*;

use super::{super::*, reserve};

/// The contract of the time window: it slides in this many steps.
const STEPS: u128 = 30;

// ===== the model =====

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Ramping { since: Duration },
    Open { since: Duration, until: Duration },
    HalfOpen { since: Duration },
    ForcedOpen,
    Disabled,
}

/// A call that was admitted.
#[derive(Debug, Clone, Copy)]
struct Call {
    generation: usize,
    /// When, if the configuration has that known.
    started: Option<Duration>,
    /// Since which change of `slow_call_duration` it is watched.
    watch: Option<usize>,
}

/// A call that settled in the state that admitted it.
#[derive(Debug, Clone, Copy)]
struct Settled {
    generation: usize,
    at: Duration,
    outcome: Outcome,
    slow: bool,
    probe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Reserved {
    generation: usize,
    id: usize,
    until: Duration,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Totals {
    successful: u64,
    failed: u64,
    ignored: u64,
    rejected: u64,
    cancelled: u64,
    timed_out: u64,
    slow: u64,
    opened: u64,
    recoveries: u64,
    failed_recoveries: u64,
}

#[derive(Debug)]
struct Model {
    config: CircuitBreakerConfig,
    now: Duration,
    state: State,
    generation: usize,
    reason: Option<TripReason>,
    /// Everything that settled in its own generation and was not ignored, oldest first.
    settled: Vec<Settled>,
    /// What lies before these in `settled` was cleared away: for the run, and for the windows of
    /// failures and of slow calls.
    cleared: usize,
    errors_from: usize,
    slow_from: usize,
    watch: usize,
    /// When calls have asked to be admitted during the ramp, and how many were.
    ramp_asks: Vec<Duration>,
    ramp_admitted: i64,
    /// Until when failures have asked to be left alone since then.
    asks: Vec<Duration>,
    /// How often it has opened since then.
    openings: u32,
    in_flight: Vec<Call>,
    reserved: Vec<Reserved>,
    reservations: usize,
    totals: Totals,
    last_success: Option<Duration>,
    last_failure: Option<Duration>,
}

impl Model {
    fn new(config: CircuitBreakerConfig) -> Self {
        Self {
            config,
            now: Duration::ZERO,
            state: State::Closed,
            generation: 0,
            reason: None,
            settled: Vec::new(),
            cleared: 0,
            errors_from: 0,
            slow_from: 0,
            watch: 0,
            ramp_asks: Vec::new(),
            ramp_admitted: 0,
            asks: Vec::new(),
            openings: 0,
            in_flight: Vec::new(),
            reserved: Vec::new(),
            reservations: 0,
            totals: Totals::default(),
            last_success: None,
            last_failure: None,
        }
    }

    fn step(&self, at: Duration) -> u128 {
        at.as_nanos() / self.config.monitoring_period().as_nanos().div_ceil(STEPS)
    }

    /// What settled within the window. Probes are not part of it: they decide by themselves.
    fn window(&self, from: usize) -> Vec<Settled> {
        let settled = self.settled[from..].iter().filter(|call| !call.probe);
        if let Some(calls) = self.config.window() {
            let newest_first = settled.rev().take(calls as usize);
            return newest_first.copied().collect();
        }
        let recent = |call: &&Settled| self.step(self.now) - self.step(call.at) < STEPS;
        settled.filter(recent).copied().collect()
    }

    fn run(&self) -> usize {
        let newest_first = self.settled[self.cleared..].iter().rev();
        newest_first
            .take_while(|call| call.outcome != Outcome::Success)
            .count()
    }

    /// Failed calls, and all.
    fn errors(&self) -> (usize, usize) {
        let window = self.window(self.errors_from);
        let failed = |call: &&Settled| call.outcome != Outcome::Success;
        (window.iter().filter(failed).count(), window.len())
    }

    /// Slow calls, and all, with those that are still running and slow by now.
    fn slow(&self) -> (usize, usize) {
        let window = self.window(self.slow_from);
        let overdue = self.overdue();
        let slow = window.iter().filter(|call| call.slow).count();
        (slow + overdue, window.len() + overdue)
    }

    /// A call is overdue to within 1/63 of what makes it slow.
    fn overdue(&self) -> usize {
        let (Some(slow), false) = (
            self.config.slow_call_duration(),
            matches!(self.state, State::HalfOpen { .. }),
        ) else {
            return 0;
        };
        let width = slow.as_nanos().div_ceil(126).next_power_of_two();
        let of_now = |call: &&Call| call.generation == self.generation;
        let watched = |call: &&Call| call.watch == Some(self.watch);
        let overdue = |call: &&Call| {
            let started = call.started.expect("calls that are watched know it");
            let bucket = started.as_nanos() / width * width;
            bucket + slow.as_nanos() <= self.now.as_nanos()
        };
        let calls = self.in_flight.iter().filter(of_now);
        calls.filter(watched).filter(overdue).count()
    }

    /// The rate that says open.
    fn broken_rate(&self) -> Option<TripReason> {
        let reached = |(bad, all): (usize, usize), percentage: Option<u8>| {
            all >= self.config.volume_threshold() as usize
                && percentage.is_some_and(|percentage| bad * 100 >= usize::from(percentage) * all)
        };
        if reached(self.errors(), self.config.error_threshold_percentage()) {
            Some(TripReason::ErrorRate)
        } else if reached(self.slow(), self.config.slow_call_percentage()) {
            Some(TripReason::SlowCalls)
        } else {
            None
        }
    }

    fn asked(&self, outcome: Outcome) -> Option<Duration> {
        match outcome {
            Outcome::Failure {
                retry_after: Some(wait),
            } if self.config.retry_after() != RetryAfterPolicy::Ignore && !wait.is_zero() => {
                Some(wait.min(self.config.retry_after_cap()))
            }
            _ => None,
        }
    }

    /// What is left of the time for which failures have asked.
    fn asked_wait(&self) -> Duration {
        let latest = self.asks.iter().max().copied().unwrap_or_default();
        latest.saturating_sub(self.now)
    }

    /// How long a circuit that opens now stays open.
    fn wait(&self) -> Duration {
        self.wait_after(self.openings).max(self.asked_wait())
    }

    /// How long it stays open if nobody asks for more.
    fn wait_after(&self, openings: u32) -> Duration {
        let mut wait = self.config.reset_timeout();
        if self.config.reset_backoff().is_some() {
            // Doubling up to 40 s is the one backoff of `config()`.
            for _ in 0..openings {
                wait = (wait * 2).min(Duration::from_secs(40));
            }
        }
        wait
    }

    fn probes(&self) -> (usize, usize) {
        let of = |wanted: bool| {
            let probes = self
                .settled
                .iter()
                .filter(|c| c.generation == self.generation);
            probes
                .filter(|c| (c.outcome == Outcome::Success && !c.slow) == wanted)
                .count()
        };
        (of(true), of(false))
    }

    fn running(&self) -> usize {
        self.in_flight
            .iter()
            .filter(|call| call.generation == self.generation)
            .count()
    }

    fn leases(&self) -> Vec<Reserved> {
        let live = |r: &&Reserved| r.generation == self.generation && self.now < r.until;
        self.reserved.iter().filter(live).copied().collect()
    }

    fn free(&self) -> usize {
        let (good, bad) = self.probes();
        let taken = good + bad + self.running() + self.leases().len();
        (self.config.half_open_requests() as usize).saturating_sub(taken)
    }

    fn change(&mut self, state: State, reason: Option<TripReason>) {
        self.state = state;
        self.generation += 1;
        if !matches!(state, State::HalfOpen { .. }) {
            self.reason = reason;
        }
    }

    fn open(&mut self, wait: Duration, reason: TripReason) {
        self.openings += 1;
        self.totals.opened += 1;
        self.change(
            State::Open {
                since: self.now,
                until: self.now + wait,
            },
            Some(reason),
        );
    }

    fn clear(&mut self) {
        self.cleared = self.settled.len();
        self.errors_from = self.cleared;
        self.slow_from = self.cleared;
        self.asks.clear();
        self.openings = 0;
    }

    fn close(&mut self) {
        self.clear();
        self.change(State::Closed, None);
    }

    /// The probes have decided, or not yet.
    fn decide(&mut self) -> bool {
        let (good, bad) = self.probes();
        let needed = self.config.half_open_success_threshold() as usize;
        if good >= needed {
            self.totals.recoveries += 1;
            self.close();
            if self.config.recovery_ramp().is_some() {
                self.state = State::Ramping { since: self.now };
                self.ramp_asks.clear();
                self.ramp_admitted = 0;
            }
        } else if bad > self.config.half_open_requests() as usize - needed {
            self.totals.failed_recoveries += 1;
            self.open(self.wait(), TripReason::ProbeFailed);
        } else {
            return false;
        }
        true
    }

    /// The ramp's share of all calls that have asked, and one more, is admitted.
    fn ramp_admits(&self, since: Duration) -> bool {
        let all = self.config.recovery_ramp().unwrap().as_nanos();
        let asks = self.ramp_asks.iter().chain([&self.now]);
        let shares = asks.map(|at| (*at - since).as_nanos().min(all));
        let admitted = shares.sum::<u128>() / all + 1;
        admitted as i64 > self.ramp_admitted
    }

    fn ask_ramp(&mut self, since: Duration) -> bool {
        let admitted = self.ramp_admits(since);
        self.ramp_asks.push(self.now);
        self.ramp_admitted += i64::from(admitted);
        admitted
    }

    fn expire(&mut self) {
        match self.state {
            State::Ramping { since }
                if self.now >= since + self.config.recovery_ramp().unwrap_or_default() =>
            {
                self.state = State::Closed;
            }
            State::Open { until, .. } if self.now >= until => {
                self.change(State::HalfOpen { since: self.now }, None);
            }
            State::HalfOpen { since } if self.now >= since + self.config.half_open_timeout() => {
                self.totals.failed_recoveries += 1;
                self.open(self.wait(), TripReason::HalfOpenTimeout);
            }
            _ => {}
        }
    }

    /// Admits a call, with a reservation if it has one.
    fn acquire(&mut self, lease: Option<usize>) -> Option<Call> {
        self.expire();
        let closed = matches!(self.state, State::Closed | State::Ramping { .. });
        let spent = lease.is_some_and(|id| self.leases().iter().any(|held| held.id == id));
        let mut admitted = match self.state {
            State::Closed | State::Disabled => true,
            State::Ramping { since } => spent || self.ask_ramp(since),
            State::Open { .. } | State::ForcedOpen => false,
            State::HalfOpen { .. } => spent || self.free() > 0,
        };
        if let Some(id) = lease {
            self.reserved.retain(|held| held.id != id);
        }
        // The rules are looked at here as well where calls can be slow.
        if admitted
            && closed
            && self.config.slow_call_duration().is_some()
            && let Some(reason) = self.broken_rate()
        {
            self.open(self.wait(), reason);
            admitted = false;
        }
        if !admitted {
            self.totals.rejected += 1;
            return None;
        }
        let timed = self.config.record() == Record::All
            || self.config.slow_call_duration().is_some()
            || self.config.on_cancel() != OnCancel::Ignore;
        let call = Call {
            generation: self.generation,
            started: timed.then_some(self.now),
            watch: self.config.slow_call_duration().map(|_| self.watch),
        };
        self.in_flight.push(call);
        Some(call)
    }

    fn reserve(&mut self) -> Option<Option<usize>> {
        self.expire();
        match self.state {
            State::Closed | State::Disabled => Some(None),
            State::Open { .. } | State::ForcedOpen => None,
            State::HalfOpen { .. } if self.free() == 0 => None,
            State::HalfOpen { .. } => {
                let lapses = self.config.probe_lease();
                Some(Some(self.lease(lapses)))
            }
            State::Ramping { since } => {
                let admitted = self.ask_ramp(since);
                admitted.then(|| Some(self.lease(Duration::MAX / 2)))
            }
        }
    }

    fn lease(&mut self, lapses: Duration) -> usize {
        self.reservations += 1;
        self.reserved.push(Reserved {
            generation: self.generation,
            id: self.reservations,
            until: self.now + lapses,
        });
        self.reservations
    }

    fn release(&mut self, id: usize) {
        let held = self.leases().iter().any(|held| held.id == id);
        if held && matches!(self.state, State::Ramping { .. }) {
            self.ramp_admitted -= 1;
        }
        self.reserved.retain(|held| held.id != id);
    }

    fn settle(&mut self, index: usize, end: End) {
        let call = self.in_flight.remove(index);
        let ran = call.started.map_or(Duration::ZERO, |at| self.now - at);
        let outcome = match end {
            End::Outcome(outcome) => outcome,
            End::TimedOut => Outcome::FAILURE,
            End::Dropped => match self.config.on_cancel() {
                OnCancel::FailAfter(least) if ran >= least => Outcome::FAILURE,
                _ => Outcome::Ignored,
            },
        };
        let slow = outcome != Outcome::Ignored
            && self
                .config
                .slow_call_duration()
                .is_some_and(|slow| ran >= slow);
        self.totals.cancelled += u64::from(end == End::Dropped);
        self.totals.timed_out += u64::from(end == End::TimedOut);
        self.totals.slow += u64::from(slow);
        match outcome {
            Outcome::Success => self.totals.successful += 1,
            Outcome::Failure { .. } => self.totals.failed += 1,
            Outcome::Ignored => self.totals.ignored += 1,
        }
        if call.generation != self.generation || outcome == Outcome::Ignored {
            return;
        }
        match outcome {
            Outcome::Success => self.last_success = Some(self.now),
            _ => self.last_failure = Some(self.now),
        }
        let half_open = matches!(self.state, State::HalfOpen { .. });
        self.settled.push(Settled {
            generation: self.generation,
            at: self.now,
            outcome,
            slow,
            probe: half_open,
        });
        if self.state == State::Disabled {
            return;
        }
        let asks = self.asked(outcome);
        self.asks.extend(asks.map(|wait| self.now + wait));
        let asks_to_open = asks.is_some() && self.config.retry_after() == RetryAfterPolicy::Open;
        if half_open {
            if !self.decide() && asks_to_open {
                self.totals.failed_recoveries += 1;
                self.open(self.wait(), TripReason::ProbeFailed);
            }
            return;
        }
        let in_a_row = self.config.failure_threshold();
        let run = in_a_row.is_some_and(|most| self.run() >= most as usize);
        let run = run.then_some(TripReason::ConsecutiveFailures);
        if let Some(reason) = run.or_else(|| self.broken_rate()) {
            self.open(self.wait(), reason);
        } else if asks_to_open {
            self.open(self.asked_wait(), TripReason::RetryAfter);
        }
    }

    fn reconfigure(&mut self, config: CircuitBreakerConfig) {
        let old = std::mem::replace(&mut self.config, config);
        let (slow, was_slow) = (self.config.slow_call_duration(), old.slow_call_duration());
        let here = self.settled.len();
        let common = common_span(&self.config);
        if let Some(Err(_)) = common {
            // A window of time counts both at once, and stays as long as either is asked for.
            if common != common_span(&old) {
                (self.errors_from, self.slow_from) = (here, here);
            }
        } else {
            if errors_span(&old) != errors_span(&self.config) {
                self.errors_from = here;
            }
            if slow_span(&old) != slow_span(&self.config) {
                self.slow_from = here;
            }
        }
        if slow != was_slow || self.config.record() != old.record() {
            self.watch += 1;
        }
        // A run is counted from when its rule was switched on.
        if old.failure_threshold().is_none() {
            self.cleared = self.settled.len();
        }
        let waits_anew = old.reset_timeout() != self.config.reset_timeout()
            || old.reset_backoff() != self.config.reset_backoff();
        match self.state {
            State::Open { since, .. }
                if waits_anew && self.reason != Some(TripReason::RetryAfter) =>
            {
                let until = since + self.wait_after(self.openings - 1);
                let asked = self.asks.iter().max().copied().unwrap_or_default();
                self.state = State::Open {
                    since,
                    until: until.max(asked),
                };
            }
            State::HalfOpen { .. } => {
                self.decide();
            }
            State::Ramping { .. } => {
                self.ramp_asks.clear();
                self.ramp_admitted = 0;
                self.expire();
            }
            _ => {}
        }
    }

    fn manual(&mut self, manual: Manual) {
        match (manual, self.state) {
            (Manual::Reset, State::Closed | State::Ramping { .. }) => {
                self.clear();
                self.state = State::Closed;
                self.generation += 1;
            }
            (Manual::Reset, _) => self.close(),
            (Manual::ForceOpen, State::ForcedOpen) | (Manual::Disable, State::Disabled) => {}
            (Manual::ForceOpen, state) => {
                self.totals.opened += u64::from(!matches!(state, State::Open { .. }));
                self.change(State::ForcedOpen, Some(TripReason::Forced));
            }
            (Manual::Disable, _) => self.change(State::Disabled, None),
        }
    }

    /// What callers are told that are rejected.
    fn retry_after(&self) -> Option<Duration> {
        let ends = match self.state {
            State::Open { until, .. } => until,
            State::Ramping { since } if !self.is_available() => {
                since + self.config.recovery_ramp().unwrap()
            }
            State::HalfOpen { since } => {
                let ends = since + self.config.half_open_timeout();
                if self.now < ends && self.free() > 0 {
                    return None;
                }
                ends.min(self.now + self.config.probe_lease())
            }
            _ => return None,
        };
        Some(ends.saturating_sub(self.now))
    }

    fn is_available(&self) -> bool {
        match self.state {
            State::Closed | State::Disabled => true,
            State::Open { until, .. } => self.now >= until,
            State::Ramping { since } => {
                self.now >= since + self.config.recovery_ramp().unwrap() || self.ramp_admits(since)
            }
            State::ForcedOpen => false,
            State::HalfOpen { since } => {
                self.now >= since + self.config.half_open_timeout() || self.free() > 0
            }
        }
    }
}

/// Over which time or calls failures are counted, if they are.
fn errors_span(config: &CircuitBreakerConfig) -> Option<Span> {
    let all = config.record() == Record::All;
    (all || config.error_threshold_percentage().is_some()).then(|| span(config))
}

fn slow_span(config: &CircuitBreakerConfig) -> Option<Span> {
    let all = config.record() == Record::All && config.slow_call_duration().is_some();
    (all || config.slow_call_percentage().is_some()).then(|| span(config))
}

fn common_span(config: &CircuitBreakerConfig) -> Option<Span> {
    errors_span(config).or(slow_span(config))
}

type Span = Result<u32, Duration>;

fn span(config: &CircuitBreakerConfig) -> Span {
    config.window().ok_or(config.monitoring_period())
}

// ===== what may happen =====

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Outcome(Outcome),
    TimedOut,
    Dropped,
}

#[derive(Debug, Clone, Copy)]
enum Manual {
    Reset,
    ForceOpen,
    Disable,
}

#[derive(Debug, Clone)]
enum Step {
    Acquire,
    /// Ends one of the calls in flight.
    Settle(prop::sample::Index, End),
    Reserve,
    /// Calls with one of the reservations, lapsed ones too.
    Spend(prop::sample::Index),
    Release(prop::sample::Index),
    Advance(Duration),
    Manual(Manual),
    Reconfigure(Box<CircuitBreakerConfig>),
}

fn end() -> impl Strategy<Value = End> {
    let wait = prop_oneof![0_u64..4, Just(40)];
    prop_oneof![
        6 => Just(End::Outcome(Outcome::Success)),
        6 => Just(End::Outcome(Outcome::FAILURE)),
        1 => wait.prop_map(|wait| End::Outcome(Outcome::Failure {
            retry_after: Some(Duration::from_secs(wait)),
        })),
        1 => Just(End::Outcome(Outcome::Ignored)),
        1 => Just(End::TimedOut),
        2 => Just(End::Dropped),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let index = || any::<prop::sample::Index>();
    let manual = prop_oneof![
        3 => Just(Manual::Reset),
        1 => Just(Manual::ForceOpen),
        1 => Just(Manual::Disable),
    ];
    let time = prop_oneof![0_u64..50, 0_u64..3_000, Just(1_000), 0_u64..30_000];
    prop_oneof![
        40 => Just(Step::Acquire),
        40 => (index(), end()).prop_map(|(index, end)| Step::Settle(index, end)),
        6 => Just(Step::Reserve),
        6 => index().prop_map(Step::Spend),
        3 => index().prop_map(Step::Release),
        20 => time.prop_map(|millis| Step::Advance(Duration::from_millis(millis))),
        1 => manual.prop_map(Step::Manual),
        1 => config().prop_map(|config| Step::Reconfigure(Box::new(config))),
    ]
}

fn config() -> impl Strategy<Value = CircuitBreakerConfig> {
    let seconds = |most: u64| (1..=most).prop_map(Duration::from_secs);
    let rules = (
        prop::option::of(1_u32..6),
        prop::option::of(1_u8..=100),
        1_u32..8,
        seconds(20),
        prop::option::weighted(0.4, 8_u32..20),
    );
    let backoff = prop::option::weighted(
        0.3,
        Just(ResetBackoff::new(2.0).cap(Duration::from_secs(40))),
    );
    let open = (seconds(10), 1_u32..5, 0_u32..5, seconds(10), backoff);
    let retry_after = prop_oneof![
        Just(RetryAfterPolicy::Ignore),
        Just(RetryAfterPolicy::Extend),
        Just(RetryAfterPolicy::Open),
    ];
    let on_cancel = prop_oneof![
        Just(OnCancel::Ignore),
        seconds(2).prop_map(OnCancel::FailAfter),
    ];
    let slow = prop::option::of((seconds(2), prop::option::of(1_u8..=100)));
    let ramp = prop::option::weighted(0.4, seconds(10));
    (rules, open, retry_after, on_cancel, slow, ramp).prop_map(
        |(rules, open, retry_after, on_cancel, slow, ramp)| {
            let (run, rate, volume, period, window) = rules;
            let (reset, probes, needed, turn, backoff) = open;
            CircuitBreakerConfig::builder()
                .failure_threshold(run)
                .error_threshold_percentage(rate)
                .volume_threshold(volume)
                .monitoring_period(period)
                .window(window)
                .reset_timeout(reset)
                .reset_backoff(backoff)
                .half_open_requests(probes)
                .half_open_success_threshold((needed > 0).then_some(needed.min(probes)))
                .half_open_timeout(turn)
                .retry_after(retry_after)
                .retry_after_cap(Duration::from_secs(30))
                .on_cancel(on_cancel)
                .recovery_ramp(ramp)
                .slow_call_duration(slow.map(|(duration, _)| duration))
                .slow_call_percentage(slow.and_then(|(_, percentage)| percentage))
                .build()
                .expect("these are all within their ranges")
        },
    )
}

// ===== both side by side =====

impl Model {
    fn state(&self) -> CircuitState {
        match self.state {
            State::Closed | State::Ramping { .. } => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
            State::ForcedOpen => CircuitState::ForcedOpen,
            State::Disabled => CircuitState::Disabled,
        }
    }

    /// Whoever is rejected is told the state, why the circuit opened, and for how long.
    fn expect(&self, open: Open) {
        let told = (open.state, open.reason);
        assert_eq!(told, (self.state(), self.reason));
        // Where a call would be admitted that comes now, there is nothing to wait for.
        let wait = match self.state {
            State::ForcedOpen => None,
            _ => Some(self.retry_after().unwrap_or_default()),
        };
        assert_eq!(open.retry_after, wait);
    }
}

fn compare(circuit: &Circuit, model: &Model) {
    let seen = circuit.metrics();
    assert_eq!(seen.current_state, model.state());
    assert_eq!(seen.trip_reason, model.reason);
    assert_eq!(seen.retry_after, model.retry_after());
    assert_eq!(circuit.is_available(), model.is_available());
    // What is not kept is absent.
    let all = model.config.record() == Record::All;
    assert_eq!(seen.successful_requests.is_some(), all);
    let totals = Totals {
        successful: seen.successful_requests.unwrap_or(model.totals.successful),
        failed: seen.failed_requests,
        ignored: seen.ignored_requests,
        rejected: seen.rejected_requests,
        cancelled: seen.cancelled_requests,
        timed_out: seen.timed_out_requests,
        slow: model.totals.slow,
        opened: seen.opened_total,
        recoveries: seen.recoveries_total,
        failed_recoveries: seen.failed_recoveries_total,
    };
    assert_eq!(totals, model.totals);
    let date = |at: Duration| circuit.shared.timeline.date(clock::nanos(at));
    if all {
        assert_eq!(seen.last_success_time, model.last_success.map(date));
        assert_eq!(seen.last_failure_time, model.last_failure.map(date));
    }
    let in_flight = model.in_flight.len() as u64;
    assert_eq!(seen.in_flight, all.then_some(in_flight));
    let settled = totals.successful + totals.failed + totals.ignored;
    assert_eq!(seen.total_requests, all.then_some(settled + in_flight));
    let rate = |(bad, all): (usize, usize)| bad as f64 / all.max(1) as f64;
    assert_eq!(
        seen.error_rate.is_some(),
        errors_span(&model.config).is_some()
    );
    if let Some(error_rate) = seen.error_rate {
        assert!((error_rate - rate(model.errors())).abs() < 1e-9);
    }
    assert_eq!(seen.slow_rate.is_some(), slow_span(&model.config).is_some());
    if let Some(slow_rate) = seen.slow_rate {
        assert!((slow_rate - rate(model.slow())).abs() < 1e-9);
    }
    let slow = model.config.slow_call_duration();
    assert_eq!(seen.slow_requests, slow.map(|_| model.totals.slow));
}

fn check(record: Record, config: CircuitBreakerConfig, every: usize, steps: Vec<Step>) {
    let recording = |config: CircuitBreakerConfig| {
        let config = config.to_builder().record(record).build();
        config.expect("it was well before")
    };
    let config = recording(config);
    let clock = ManualClock::new();
    let circuit = Circuit::with_clock(config.clone(), clock.clone());
    let mut model = Model::new(config);
    let mut permits = Vec::new();
    let mut leases = Vec::new();
    for (i, step) in steps.into_iter().enumerate() {
        match step {
            Step::Acquire => {
                let permit = circuit.try_acquire();
                assert_eq!(permit.is_ok(), model.acquire(None).is_some());
                permits.extend(permit.map_err(|open| model.expect(open)));
            }
            Step::Settle(index, end) if !permits.is_empty() => {
                let index = index.index(permits.len());
                let permit = permits.remove(index);
                match end {
                    End::Outcome(outcome) => permit.settle(outcome),
                    End::TimedOut => permit.timed_out(),
                    End::Dropped => drop(permit),
                }
                model.settle(index, end);
            }
            Step::Reserve => match (reserve(&circuit, None), model.reserve()) {
                (Ok(Some(lease)), Some(Some(id))) => leases.push((lease, id)),
                (real, expected) => {
                    assert_eq!(real.is_ok(), expected.is_some());
                    match real {
                        Ok(lease) => assert_eq!(lease.is_some(), expected.flatten().is_some()),
                        Err(rejection) => model.expect(rejection.into()),
                    }
                }
            },
            Step::Spend(index) if !leases.is_empty() => {
                let (lease, id) = leases.remove(index.index(leases.len()));
                let permit = circuit.acquire(&mut Some(lease));
                assert_eq!(permit.is_ok(), model.acquire(Some(id)).is_some());
                permits.extend(permit.map_err(|rejection| model.expect(rejection.into())));
            }
            Step::Release(index) if !leases.is_empty() => {
                let (lease, id) = leases.remove(index.index(leases.len()));
                circuit.release(lease);
                model.release(id);
            }
            Step::Settle(..) | Step::Spend(_) | Step::Release(_) => {}
            Step::Advance(by) => {
                clock.advance(by);
                model.now += by;
            }
            Step::Reconfigure(config) => {
                let config = recording(*config);
                circuit.reconfigure(config.clone());
                model.reconfigure(config);
            }
            Step::Manual(manual) => {
                match manual {
                    Manual::Reset => circuit.reset(),
                    Manual::ForceOpen => circuit.force_open(),
                    Manual::Disable => circuit.disable(),
                }
                model.manual(manual);
            }
        }
        assert_eq!(circuit.state(), model.state());
        // Not after each step, because to look at the metrics turns the windows.
        if i % every == 0 {
            compare(&circuit, &model);
        }
    }
    // What is left in flight is dropped before the circuit is compared for the last time.
    while let Some(permit) = permits.pop() {
        drop(permit);
        model.settle(permits.len(), End::Dropped);
    }
    compare(&circuit, &model);
    is_never_shut_out(&circuit, &clock);
}

/// Whoever only calls when `is_available` says so is admitted in the end. (The longest that a
/// circuit of `config()` stays open is 40 s, and half-open 10 s.)
fn is_never_shut_out(circuit: &Circuit, clock: &ManualClock) {
    if circuit.state() == CircuitState::ForcedOpen {
        return;
    }
    let admitted = (0..=100).any(|_| {
        let admitted = circuit.is_available() && circuit.try_acquire().is_ok();
        clock.advance(Duration::from_secs(1));
        admitted
    });
    assert!(admitted, "shut out for ever: {:?}", circuit.metrics());
}

fn cases() -> u32 {
    let cases = std::env::var("TOWER_BREAKER_MODEL_CASES").ok();
    cases.map_or(2_000, |cases| cases.parse().expect("a number of cases"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn b2_to_b14_the_circuit_equals_the_model(
        record in prop::sample::select(vec![Record::All, Record::Rules]),
        config in config(),
        every in prop_oneof![Just(1_usize), 2_usize..200],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(record, config, every, steps);
    }
}

//! What every call touches.
//!
//! A healthy call reads the state word, and settles in the window and the run with one access to
//! each. It takes no lock and allocates nothing. Whatever is rare (a change of state, a half-open
//! turn, the next step of the window) is done under the circuit's lock, in
//! [`Machine`](super::machine::Machine), which publishes its results here.

use super::{
    clock::nanos,
    config::{CircuitBreakerConfig, OnCancel, Record},
    machine::{Cause, Rings},
    outcome::Outcome,
    run::Run,
    state::{CircuitState, TripReason},
    sync::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    window::{RateRule, Window},
    word::Word,
};

#[derive(Debug)]
pub(super) struct Hot {
    state: State,
    run: Run,
    /// Calls that failed, and calls that were slow.
    pub(super) errors: Option<Rate>,
    pub(super) slow: Option<Rate>,
    /// A call that takes so long is slow.
    slow_after: u64,
    /// Which readings of the clock the configuration needs.
    reads_start: bool,
    reads_end: bool,
    /// Whether settled calls are counted by the tallies, because no window counts them for good.
    tallies_good: bool,
    tallies_bad: bool,
    pub(super) records_all: bool,
    pub(super) tallies: Tallies,
    #[cfg(feature = "latency")]
    pub(super) latencies: Option<super::latency::Latencies>,
    pub(super) config: CircuitBreakerConfig,
}

/// On a cache line of its own: every call reads it, and hardly anything writes it.
#[derive(Debug)]
#[repr(align(64))]
struct State {
    word: AtomicU64,
    /// When an open circuit is due for a probe.
    until: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Rate {
    pub(super) window: Window,
    rule: RateRule,
}

/// Counters of what no window counts.
#[derive(Debug)]
pub(super) struct Tallies {
    /// Calls that were admitted; kept with [`Record::All`].
    pub(super) admitted: AtomicU64,
    /// Settled calls that were late, or probes, or of a circuit without a window.
    pub(super) good: AtomicU64,
    pub(super) bad: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) slow: AtomicU64,
    /// Moments, `NEVER` at first.
    pub(super) last_success: AtomicU64,
    pub(super) last_failure: AtomicU64,
}

/// A moment that no clock reaches.
pub(super) const NEVER: u64 = u64::MAX;

impl Tallies {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            admitted: zero(),
            good: zero(),
            bad: zero(),
            ignored: zero(),
            rejected: zero(),
            cancelled: zero(),
            timed_out: zero(),
            slow: zero(),
            last_success: AtomicU64::new(NEVER),
            last_failure: AtomicU64::new(NEVER),
        }
    }

    /// Counts one. Relaxed: a count orders nothing else.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn settled(&self, bad: bool) {
        Self::count(if bad { &self.bad } else { &self.good });
    }

    /// Remembers when a call of the present generation settled.
    pub(super) fn last(&self, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Success => self.last_success.store(now, Relaxed),
            Outcome::Failure { .. } => self.last_failure.store(now, Relaxed),
            Outcome::Ignored => {}
        }
    }

    pub(super) fn cause(&self, cause: Cause) {
        match cause {
            Cause::Answered => {}
            Cause::TimedOut => Self::count(&self.timed_out),
            Cause::Cancelled => Self::count(&self.cancelled),
        }
    }
}

impl Hot {
    pub(super) fn new(config: CircuitBreakerConfig) -> (Self, Rings) {
        let records_all = config.record == Record::All;
        let rate = |percentage, wanted: bool| {
            let period = nanos(config.monitoring_period);
            let rule = RateRule::new(percentage, config.volume_threshold);
            let make = || {
                let (window, ring) = Window::new(config.window, period);
                (Rate { window, rule }, ring)
            };
            let (rate, ring) = (wanted || percentage.is_some()).then(make).unzip();
            (rate, ring.flatten())
        };
        let is_slow = config.slow_call_duration.is_some();
        let (errors, errors_ring) = rate(config.error_threshold_percentage, records_all);
        let (slow, slow_ring) = rate(config.slow_call_percentage, records_all && is_slow);
        let window = errors.as_ref().map(|rate: &Rate| &rate.window);
        let errors_in_time = window.is_some_and(Window::keeps_totals);
        let hot = Self {
            state: State {
                word: AtomicU64::new(Word::new(CircuitState::Closed, None, 0).0),
                until: AtomicU64::new(0),
            },
            run: Run::new(config.failure_threshold),
            slow_after: config.slow_call_duration.map_or(NEVER, nanos),
            reads_start: records_all || is_slow || config.on_cancel != OnCancel::Ignore,
            reads_end: records_all || is_slow || errors_in_time,
            tallies_good: records_all && !errors_in_time,
            tallies_bad: !errors_in_time,
            errors,
            slow,
            records_all,
            tallies: Tallies::new(),
            #[cfg(feature = "latency")]
            latencies: records_all.then(super::latency::Latencies::new),
            config,
        };
        (
            hot,
            Rings {
                errors: errors_ring,
                slow: slow_ring,
            },
        )
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        // Acquire: what was prepared for a generation is seen by those who see the generation.
        Word(self.state.word.load(Acquire))
    }

    #[inline]
    pub(super) fn reads_start(&self) -> bool {
        self.reads_start
    }

    #[inline]
    pub(super) fn reads_end(&self) -> bool {
        self.reads_end
    }

    /// When an open circuit is due for a probe.
    pub(super) fn until(&self) -> u64 {
        self.state.until.load(Relaxed)
    }

    pub(super) fn is_slow(&self, ran: u64) -> bool {
        ran >= self.slow_after
    }

    /// Counts how a call ended that was admitted in `word`, a state that admits all. Returns the
    /// rule that says open, if one does. `turn` turns the windows on to `now`.
    #[inline]
    pub(super) fn settle(
        &self,
        word: Word,
        now: u64,
        ran: u64,
        bad: bool,
        turn: impl Fn(),
    ) -> Option<TripReason> {
        let is_current = || self.word() == word;
        let mut broken = None;
        if let Some(errors) = &self.errors {
            let Some(counts) = errors.window.record(bad, now, is_current, &turn) else {
                self.settle_late(ran, bad);
                return None;
            };
            if errors.rule.is_broken_by(counts) {
                broken = Some(TripReason::ErrorRate);
            }
        }
        if bad {
            if self.tallies_bad {
                Tallies::count(&self.tallies.bad);
            }
        } else if self.tallies_good {
            Tallies::count(&self.tallies.good);
        }
        if self.slow_after != NEVER
            && let Some(reason) = self.settle_slow(word, now, ran, turn)
        {
            broken = broken.or(Some(reason));
        }
        if bad {
            // A run outranks the rates, because it is the plainest news.
            if self.run.failure(word.generation()) {
                broken = Some(TripReason::ConsecutiveFailures);
            }
            if is_current() {
                self.tallies.last_failure.store(now, Relaxed);
            }
        } else {
            self.run.success(word.generation());
            if self.records_all {
                self.tallies.last_success.store(now, Relaxed);
            }
        }
        broken
    }

    fn settle_slow(&self, word: Word, now: u64, ran: u64, turn: impl Fn()) -> Option<TripReason> {
        let is_slow = self.is_slow(ran);
        if is_slow {
            Tallies::count(&self.tallies.slow);
        }
        let slow = self.slow.as_ref()?;
        let is_current = || self.word() == word;
        let counts = slow.window.record(is_slow, now, is_current, turn)?;
        slow.rule
            .is_broken_by(counts)
            .then_some(TripReason::SlowCalls)
    }

    #[cold]
    pub(super) fn settle_late(&self, ran: u64, bad: bool) {
        self.tallies.settled(bad);
        if self.is_slow(ran) {
            Tallies::count(&self.tallies.slow);
        }
    }

    /// Counts the latency of a call that has succeeded or failed.
    #[inline]
    pub(super) fn took(&self, ran: u64) {
        #[cfg(feature = "latency")]
        if let Some(latencies) = &self.latencies {
            latencies.record(ran);
        }
        #[cfg(not(feature = "latency"))]
        let _ = ran;
    }

    // ===== for the machine, under the lock =====

    /// Begins a state, and with `clear` its window anew.
    pub(super) fn publish(&self, word: Word, until: u64, rings: Option<&mut Rings>) {
        let before = self.word();
        self.state.until.store(until, Relaxed);
        if let Some(rings) = rings {
            // Nobody is admitted or recorded while what they would be recorded in is emptied.
            self.state.word.store(before.changing().0, Release);
            rings.each(self, Window::clear);
            self.run.begin(word.generation());
        }
        // Release: see `word`.
        self.state.word.store(word.0, Release);
    }
}

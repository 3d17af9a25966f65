//! What every call touches.
//!
//! A healthy call reads the state word, and settles in the window and the run with one access to
//! each. It takes no lock and allocates nothing. Whatever is rare (a change of state, a half-open
//! turn, the next step of the window, another configuration) is done under the circuit's lock, in
//! [`Machine`](super::machine::Machine), which publishes its results here.

use std::{sync::OnceLock, time::Duration};

#[cfg(feature = "latency")]
use super::latency::Latencies;
use super::{
    clock::nanos,
    config::{CircuitBreakerConfig, OnCancel},
    outcome::Outcome,
    run::Run,
    running::Running,
    state::TripReason,
    sync::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    tallies::Tallies,
    window::{Kind, Rate},
    word::Word,
};

/// In this order, because every call reads what comes first, and writes what comes last: between the
/// word and that lies more than a cache line. (Aligning them to one would take up to 100 bytes more.)
#[derive(Debug)]
#[repr(C)]
pub(super) struct Hot {
    settings: Settings,
    /// Made when calls can first be slow.
    slow: OnceLock<Box<Slow>>,
    /// Made when latencies are first recorded.
    #[cfg(feature = "latency")]
    pub(super) latencies: OnceLock<Box<Latencies>>,
    run: Run,
    /// Calls that failed.
    pub(super) errors: Rate,
    pub(super) tallies: Tallies,
}

/// What is recorded where calls can be slow.
#[derive(Debug)]
pub(super) struct Slow {
    /// Calls that were slow.
    pub(super) rate: Rate,
    /// Calls that may become so.
    pub(super) running: Running,
}

/// Hardly anything writes it.
#[derive(Debug)]
#[repr(C)]
struct Settings {
    word: AtomicU64,
    /// When an open circuit is due for a probe.
    until: AtomicU64,
    /// When an admission has to look at the rules, because time has passed.
    look_at: AtomicU64,
    /// A call that takes so long is slow; `NEVER`: none is.
    slow_after: AtomicU64,
    /// The deadline of a call; `NEVER`: none.
    timeout: AtomicU64,
    /// A call that is dropped after so long failed; `NEVER`: it is ignored.
    cancelled_after: AtomicU64,
}

/// A moment that no clock reaches.
pub(super) const NEVER: u64 = u64::MAX;

/// How a call ended, as far as the rules are concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) now: u64,
    pub(super) ran: u64,
    pub(super) bad: bool,
}

/// The call is of another generation or shape, and is not counted yet.
#[derive(Debug)]
pub(super) struct Missed;

impl Hot {
    /// Not to be used before it is [configured](Self::configure) and a word published.
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let never = || AtomicU64::new(NEVER);
        Self {
            settings: Settings {
                word: zero(),
                until: zero(),
                look_at: zero(),
                slow_after: never(),
                timeout: never(),
                cancelled_after: never(),
            },
            slow: OnceLock::new(),
            #[cfg(feature = "latency")]
            latencies: OnceLock::new(),
            run: Run::new(),
            errors: Rate::new(),
            tallies: Tallies::new(),
        }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        // Acquire: what was prepared for a generation is seen by those who see the generation.
        Word(self.settings.word.load(Acquire))
    }

    /// What is recorded where calls can be slow, if ever they could.
    #[inline]
    pub(super) fn slow(&self) -> Option<&Slow> {
        self.slow.get().map(Box::as_ref)
    }

    /// For calls that are watched.
    #[inline]
    pub(super) fn running(&self) -> &Running {
        let slow = self.slow().expect("it is made before calls are watched");
        &slow.running
    }

    /// When an open circuit is due for a probe.
    pub(super) fn until(&self) -> u64 {
        self.settings.until.load(Relaxed)
    }

    /// When an admission has to look at the rules.
    #[inline]
    pub(super) fn look_at(&self) -> u64 {
        // Relaxed: like the clock, which may have been read a moment before.
        self.settings.look_at.load(Relaxed)
    }

    pub(super) fn is_slow(&self, ran: u64) -> bool {
        let slow_after = self.settings.slow_after.load(Relaxed);
        slow_after != NEVER && ran >= slow_after
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        let timeout = self.settings.timeout.load(Relaxed);
        (timeout != NEVER).then(|| Duration::from_nanos(timeout))
    }

    /// How a call is judged that is dropped after so long.
    pub(super) fn cancelled(&self, ran: impl FnOnce() -> u64) -> Outcome {
        match self.settings.cancelled_after.load(Relaxed) {
            NEVER => Outcome::Ignored,
            least if ran() >= least => Outcome::FAILURE,
            _ => Outcome::Ignored,
        }
    }

    /// Counts a success that changes nothing: it is of the present generation and shape, nothing is
    /// recorded of it but in a window of calls, and that holds none but good ones; and there is no
    /// run to be ended. False if it is not like that.
    #[inline]
    pub(super) fn succeed(&self, word: Word) -> bool {
        !word.records_success()
            && (word.errors() != Kind::Calls || self.errors.is_clean())
            // Asked after the window: see `CountWindow::record`. (Who ramps up goes the long way.)
            && self.word() == word
            && self.run.is_empty()
    }

    /// Counts a success that is [recorded in time](Word::records_in_time), with half of what
    /// [`settle`](Self::settle) does. Nothing is counted if something is in the way.
    #[inline(always)]
    pub(super) fn succeed_in_time(
        &self,
        word: Word,
        end: End,
        turn: impl Fn(),
    ) -> Result<Option<TripReason>, Missed> {
        let is_current = || self.word() == word;
        let counts = self.errors.record_good(end.now, is_current).ok_or(Missed)?;
        if word.is_counted() {
            self.took(end.ran);
            self.tallies.last_success.store(end.now, Relaxed);
        }
        self.run.success(word.generation());
        // It can be broken by a success: the window may hold enough calls only now.
        let mut broken = None;
        if counts.bad != 0 && self.errors.is_broken_by(counts) {
            broken = Some(TripReason::ErrorRate);
        }
        if word.is_watched() {
            broken = broken.or(self.settle_slow(word, end, turn));
        }
        Ok(broken)
    }

    /// Counts how a call ended that was admitted in `word`, a state whose calls are recorded.
    /// Returns the rule that says open, if one does. `turn` turns the windows on to now.
    #[inline]
    pub(super) fn settle(
        &self,
        word: Word,
        end: End,
        turn: impl Fn(),
    ) -> Result<Option<TripReason>, Missed> {
        let is_current = || self.word().carried() == word;
        let mut broken = None;
        if word.errors() != Kind::None {
            let recorded = self
                .errors
                .record(word.errors(), end.bad, end.now, is_current, &turn);
            if self.errors.is_broken_by(recorded.ok_or(Missed)?) {
                broken = Some(TripReason::ErrorRate);
            }
        } else if !is_current() {
            return Err(Missed);
        }
        if word.is_tallied(end.bad) {
            self.tallies.settled(end.bad);
        }
        if word.is_watched()
            && let Some(reason) = self.settle_slow(word, end, turn)
        {
            broken = broken.or(Some(reason));
        }
        if end.bad {
            // A run outranks the rates, because it is the plainest news.
            if self.run.failure(word.generation()) {
                broken = Some(TripReason::ConsecutiveFailures);
            }
            if is_current() {
                self.tallies.last_failure.store(end.now, Relaxed);
            }
        } else {
            self.run.success(word.generation());
            if word.is_counted() {
                self.tallies.last_success.store(end.now, Relaxed);
            }
        }
        Ok(broken)
    }

    #[inline(always)]
    fn settle_slow(&self, word: Word, end: End, turn: impl Fn()) -> Option<TripReason> {
        let is_slow = self.is_slow(end.ran);
        if is_slow {
            Tallies::count(&self.tallies.slow);
        }
        let slow = self.slow()?;
        if end.now >= slow.running.due() {
            turn();
        }
        let is_current = || self.word().carried() == word;
        // If it is not current any more, what this window holds has just been cleared away.
        let is_simple = !is_slow && word.slow() == Kind::Time;
        let counts = is_simple.then(|| slow.rate.record_good(end.now, is_current));
        let mut counts = match counts.flatten() {
            Some(counts) => counts,
            None => slow
                .rate
                .record(word.slow(), is_slow, end.now, is_current, turn)?,
        };
        counts.bad += slow.running.overdue(word.cohort());
        let broken = slow.rate.is_broken_by(counts);
        broken.then_some(TripReason::SlowCalls)
    }

    /// Counts a call that is too late to move anything else.
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
        if let Some(latencies) = self.latencies.get() {
            latencies.record(ran);
        }
        #[cfg(not(feature = "latency"))]
        let _ = ran;
    }

    // ===== for the machine, under the lock =====

    /// Makes what calls will be recorded in, before they are.
    pub(super) fn make(&self, config: &CircuitBreakerConfig) {
        if config.slow_call_duration.is_some() {
            self.slow.get_or_init(|| {
                Box::new(Slow {
                    rate: Rate::new(),
                    running: Running::new(),
                })
            });
        }
        #[cfg(feature = "latency")]
        if config.record == super::config::Record::All {
            self.latencies.get_or_init(|| Box::new(Latencies::new()));
        }
    }

    /// Takes over what a call may find changed at any moment.
    pub(super) fn configure(&self, config: &CircuitBreakerConfig, generation: u64) {
        let volume = config.volume_threshold;
        self.errors
            .set_rule(config.error_threshold_percentage, volume);
        if let Some(slow) = self.slow() {
            slow.rate.set_rule(config.slow_call_percentage, volume);
        }
        self.run.set_threshold(config.failure_threshold, generation);
        let set = |setting: &AtomicU64, value: Option<Duration>| {
            // A time that is too long to be counted is none that ends.
            setting.store(value.map_or(NEVER, nanos), Relaxed);
        };
        set(&self.settings.slow_after, config.slow_call_duration);
        set(&self.settings.timeout, config.timeout);
        let cancelled_after = match config.on_cancel {
            OnCancel::Ignore => None,
            OnCancel::FailAfter(least) => Some(least),
        };
        set(&self.settings.cancelled_after, cancelled_after);
        // A rule may have become true.
        self.set_look_at(0);
    }

    /// From here on to `publish` nobody is admitted, and nobody recorded.
    pub(super) fn suspend(&self) {
        // Release, because the windows are changed after this: see `TimeWindow::record`, which reads
        // this after the window.
        let suspended = self.word().changing();
        self.settings.word.store(suspended.0, Release);
    }

    pub(super) fn publish(&self, word: Word, until: u64) {
        self.settings.until.store(until, Relaxed);
        // Release: see `word`.
        self.settings.word.store(word.0, Release);
    }

    pub(super) fn set_until(&self, until: u64) {
        self.settings.until.store(until, Relaxed);
    }

    pub(super) fn set_look_at(&self, look_at: u64) {
        self.settings.look_at.store(look_at, Relaxed);
    }

    /// Begins the run of a generation. Called before that is published.
    pub(super) fn begin_run(&self, generation: u64) {
        self.run.begin(generation);
    }
}

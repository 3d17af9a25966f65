//! What every call touches.
//!
//! A healthy call reads the state word, and settles in the window and the run with one access to
//! each. It takes no lock and allocates nothing. Whatever is rare (a change of state, a half-open
//! turn, the next step of the window, another configuration) is done under the circuit's lock, in
//! [`Machine`](super::machine::Machine), which publishes its results here.

mod settlement;

use std::{sync::OnceLock, time::Duration};

pub(super) use self::settlement::{End, Missed};
#[cfg(feature = "latency")]
use super::latency::Latencies;
use super::{
    clock::{NEVER, nanos},
    config::{CircuitBreakerConfig, OnCancel},
    outcome::Outcome,
    run::Run,
    running::Running,
    sync::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    tallies::Tallies,
    window::{Rate, TimeWindow},
    word::Word,
};

/// In this order, because every call writes what comes first, and reads what comes last. What is
/// written lies close together, beside the count of the `Arc`, so that two threads pass few cache
/// lines to and fro; between that and the word lies more than one. (Aligning them would take up to
/// 100 bytes more.)
#[derive(Debug)]
#[repr(C)]
pub(super) struct Hot {
    /// Calls that were admitted; kept with [`Record::All`](super::Record::All).
    pub(super) admitted: AtomicU64,
    /// A moment, `NEVER` at first.
    pub(super) last_success: AtomicU64,
    pub(super) time: TimeWindow,
    pub(super) tallies: Tallies,
    /// Calls that failed.
    pub(super) errors: Rate,
    run: Run,
    /// Made when latencies are first recorded.
    #[cfg(feature = "latency")]
    pub(super) latencies: OnceLock<Box<Latencies>>,
    /// Made when calls can first be slow.
    slow: OnceLock<Box<Slow>>,
    settings: Settings,
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
            admitted: zero(),
            last_success: never(),
            slow: OnceLock::new(),
            #[cfg(feature = "latency")]
            latencies: OnceLock::new(),
            run: Run::new(),
            errors: Rate::new(),
            time: TimeWindow::new(),
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
        // Acquire: who needn't look, because another one has, begins after what that one has turned.
        // (No model shows it: loom has no processor that would do otherwise.)
        self.settings.look_at.load(Acquire)
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

    /// Remembers when a call of the present generation settled.
    pub(super) fn last(&self, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Success => self.last_success.store(now, Relaxed),
            Outcome::Failure { .. } => self.tallies.last_failure.store(now, Relaxed),
            Outcome::Ignored => {}
        }
    }

    pub(super) fn set_until(&self, until: u64) {
        self.settings.until.store(until, Relaxed);
    }

    pub(super) fn set_look_at(&self, look_at: u64) {
        self.settings.look_at.store(look_at, Release);
    }

    /// Begins the run of a generation. Called before that is published.
    pub(super) fn begin_run(&self, generation: u64) {
        self.run.begin(generation);
    }
}

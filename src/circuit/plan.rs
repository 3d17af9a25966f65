//! What a call that settles has to do, in one word.

use super::{
    clock::nanos,
    config::{CircuitBreakerConfig, OnCancel, Record},
    window::{Select, Span},
};

/// Flags, and which windows are recorded in. It changes only with the shape of the circuit's
/// [`Word`](super::word::Word), so what belongs together in it is always seen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan(u64);

/// The end of a call is timed.
const TIMED: u64 = 1;
/// Whether settled calls are counted by the tallies, because no window counts them for good.
const TALLIES_GOOD: u64 = 1 << 1;
const TALLIES_BAD: u64 = 1 << 2;
/// Everything is recorded.
const ALL: u64 = 1 << 3;
/// Calls can be slow.
const SLOW: u64 = 1 << 4;
const ERRORS_SHIFT: u32 = 8;
const SLOW_SHIFT: u32 = 32;

impl Plan {
    /// With the windows that these figures are recorded in.
    pub(super) fn new(config: &CircuitBreakerConfig, errors: Select, slow: Select) -> Self {
        let all = config.record == Record::All;
        let is_slow = config.slow_call_duration.is_some();
        let errors_in_time = errors == Select::Time;
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        Self(
            flag(all || is_slow || errors_in_time, TIMED)
                | flag(all && !errors_in_time, TALLIES_GOOD)
                | flag(!errors_in_time, TALLIES_BAD)
                | flag(all, ALL)
                | flag(is_slow, SLOW)
                | (errors.pack() << ERRORS_SHIFT)
                | (slow.pack() << SLOW_SHIFT),
        )
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn times_the_end(self) -> bool {
        self.0 & TIMED != 0
    }

    #[inline]
    pub(super) fn tallies(self, bad: bool) -> bool {
        self.0 & if bad { TALLIES_BAD } else { TALLIES_GOOD } != 0
    }

    #[inline]
    pub(super) fn records_all(self) -> bool {
        self.0 & ALL != 0
    }

    #[inline]
    pub(super) fn knows_slow(self) -> bool {
        self.0 & SLOW != 0
    }

    #[inline]
    pub(super) fn errors(self) -> Select {
        Select::unpack(self.0 >> ERRORS_SHIFT)
    }

    #[inline]
    pub(super) fn slow(self) -> Select {
        Select::unpack(self.0 >> SLOW_SHIFT)
    }
}

/// What the configuration asks the windows of failures and of slow calls to be over.
pub(super) fn spans(config: &CircuitBreakerConfig) -> [Option<Span>; 2] {
    let all = config.record == Record::All;
    let span = match config.window {
        Some(calls) => Span::Calls(calls),
        None => Span::Period(nanos(config.monitoring_period)),
    };
    let is_slow = config.slow_call_duration.is_some();
    let errors = all || config.error_threshold_percentage.is_some();
    let slow = (all && is_slow) || config.slow_call_percentage.is_some();
    [errors.then_some(span), slow.then_some(span)]
}

/// Whether calls have to know when they began.
pub(super) fn times_the_start(config: &CircuitBreakerConfig) -> bool {
    config.record == Record::All
        || config.slow_call_duration.is_some()
        || config.on_cancel != OnCancel::Ignore
}

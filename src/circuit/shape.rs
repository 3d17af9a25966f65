//! What calls are recorded in.

use super::{
    clock::nanos,
    config::{CircuitBreakerConfig, OnCancel, Record},
    window::{Kind, Span},
};

/// What is recorded of a call, as far as the configuration decides that, and how often that has been
/// decided. A part of the circuit's [`Word`](super::word::Word), which each call carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// 0: only what the rules need is recorded. Else everything is, admissions too, and this is
    /// another number than the last time. (3 bits)
    pub(super) counting: u8,
    /// Calls know when they began.
    pub(super) timed: bool,
    /// 0: no call is slow. Else calls are watched while they run, and this is another number than
    /// the last time. (4 bits)
    pub(super) watching: u8,
    /// The windows that calls are counted in (2 bits), and whether the failed and the slow ones of
    /// them are told apart.
    pub(super) window: Kind,
    pub(super) errors: bool,
    pub(super) slow: bool,
    /// Another one each time that any of this changes. It recurs after 256 times; a call would have
    /// to be suspended in the midst of its settlement for exactly so many to be mistaken.
    pub(super) version: u8,
}

impl Shape {
    pub(super) const BITS: u32 = 20;
    pub(super) const COUNTING: u64 = 0b111;
    pub(super) const TIMED: u64 = 1 << 3;
    pub(super) const WINDOW_SHIFT: u32 = 4;
    pub(super) const IN_TIME: u64 = Kind::Time.pack() << Self::WINDOW_SHIFT;
    pub(super) const ERRORS: u64 = 1 << 6;
    pub(super) const SLOW: u64 = 1 << 7;
    const VERSION_SHIFT: u32 = 8;
    /// The highest, so that it stands beside the generation: see [`Word::cohort`].
    ///
    /// [`Word::cohort`]: super::word::Word::cohort
    pub(super) const WATCHING_SHIFT: u32 = 16;
    pub(super) const WATCHING: u64 = 0b1111 << Self::WATCHING_SHIFT;

    pub(super) fn bits(self) -> u64 {
        debug_assert!(self.counting < 8 && self.watching < 16);
        u64::from(self.counting)
            | if self.timed { Self::TIMED } else { 0 }
            | (self.window.pack() << Self::WINDOW_SHIFT)
            | if self.errors { Self::ERRORS } else { 0 }
            | if self.slow { Self::SLOW } else { 0 }
            | (u64::from(self.version) << Self::VERSION_SHIFT)
            | (u64::from(self.watching) << Self::WATCHING_SHIFT)
    }
}

/// What the configuration asks the windows to be over, and which calls of them to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Windows {
    /// `None`: neither is asked for.
    pub(super) span: Option<Span>,
    pub(super) errors: bool,
    pub(super) slow: bool,
}

impl Windows {
    pub(super) fn of(config: &CircuitBreakerConfig) -> Self {
        let all = config.record == Record::All;
        let span = match config.window {
            Some(calls) => Span::Calls(calls),
            None => Span::Period(nanos(config.monitoring_period)),
        };
        let is_slow = config.slow_call_duration.is_some();
        let errors = all || config.error_threshold_percentage.is_some();
        let slow = (all && is_slow) || config.slow_call_percentage.is_some();
        Self {
            span: (errors || slow).then_some(span),
            errors,
            slow,
        }
    }
}

/// Whether calls have to know when they began.
pub(super) fn is_timed(config: &CircuitBreakerConfig) -> bool {
    config.record == Record::All
        || config.slow_call_duration.is_some()
        || config.on_cancel != OnCancel::Ignore
}

/// Another number than the last time, from 1 to `most`.
pub(super) fn another(last: &mut u8, most: u8) -> u8 {
    *last = *last % most + 1;
    *last
}

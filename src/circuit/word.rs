//! The state of a circuit in one word, which is all that a healthy call looks at.

use super::state::{CircuitState, TripReason};

/// From the lowest bit up: the state (3 bits), *changing* (1), *ramping* (1), the trip reason (4),
/// what a call is recorded in (16, see [`Shape`]), the generation (39).
///
/// A call carries the word that admitted it. Equal words are of the same generation and the same
/// shape: what the call was recorded in when it began is still what it is to be recorded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const STATE: u64 = 0b111;
/// Set while a new generation or shape is prepared. Who sees it takes the lock, and so waits for
/// that.
const CHANGING: u64 = 1 << 3;
/// Closed, but not yet to all calls. It is no part of what a call carries: it ends within the
/// generation.
const RAMPING: u64 = 1 << 4;
const REASON_SHIFT: u32 = 5;
const GENERATION_SHIFT: u32 = Shape::SHIFT + 16;

/// What a call does at its admission, as far as the configuration decides that, and how often that
/// has been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// 0: admissions are not counted. Else they are, and this is another number than the last time.
    pub(super) counting: u8,
    /// Calls need to know when they began.
    pub(super) timed: bool,
    /// 0: running calls are not watched. Else they are, and this is another number than the last
    /// time.
    pub(super) watching: u8,
    /// Another one each time that what calls are recorded in changes. It recurs after 256 times; a
    /// call would have to be suspended in the midst of its settlement for exactly so many to be
    /// mistaken.
    pub(super) version: u8,
}

impl Shape {
    const SHIFT: u32 = REASON_SHIFT + 4;
    const COUNTING: u64 = 0b111 << Self::SHIFT;
    const TIMED: u64 = 1 << (Self::SHIFT + 3);
    const WATCHING: u64 = 0b1111 << (Self::SHIFT + 4);
    const VERSION_SHIFT: u32 = Self::SHIFT + 8;

    fn bits(self) -> u64 {
        debug_assert!(self.counting < 8 && self.watching < 16);
        let bits = u64::from(self.counting)
            | (u64::from(self.timed) << 3)
            | (u64::from(self.watching) << 4);
        (bits << Self::SHIFT) | (u64::from(self.version) << Self::VERSION_SHIFT)
    }
}

impl Word {
    pub(super) fn new(
        state: CircuitState,
        reason: Option<TripReason>,
        shape: Shape,
        generation: u64,
    ) -> Self {
        let state = match state {
            CircuitState::Closed => 0,
            CircuitState::Disabled => 1,
            CircuitState::Open => 2,
            CircuitState::ForcedOpen => 3,
            CircuitState::HalfOpen => 4,
        };
        let reason = match reason {
            None => 0,
            Some(TripReason::ConsecutiveFailures) => 1,
            Some(TripReason::ErrorRate) => 2,
            Some(TripReason::SlowCalls) => 3,
            Some(TripReason::RetryAfter) => 4,
            Some(TripReason::ProbeFailed) => 5,
            Some(TripReason::HalfOpenTimeout) => 6,
            Some(TripReason::Forced) => 7,
        };
        let low = state | (reason << REASON_SHIFT);
        Self(low | shape.bits() | (generation << GENERATION_SHIFT))
    }

    /// The same, while the next one is prepared.
    pub(super) fn changing(self) -> Self {
        Self(self.0 | CHANGING)
    }

    /// The same, not yet open to all calls.
    pub(super) fn ramping(self) -> Self {
        Self(self.0 | RAMPING)
    }

    /// What a call carries that is admitted now.
    #[inline]
    pub(super) fn carried(self) -> Self {
        Self(self.0 & !RAMPING)
    }

    /// Closed or disabled, to all calls, and not about to change.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
        self.0 & (CHANGING | RAMPING | STATE) <= 1
    }

    /// Of a state whose calls are recorded in the windows.
    #[inline]
    pub(super) fn is_recorded(self) -> bool {
        self.0 & (CHANGING | STATE) <= 1
    }

    /// Open until a time, and not about to change.
    #[inline]
    pub(super) fn is_open(self) -> bool {
        self.0 & (CHANGING | STATE) == 2
    }

    pub(super) fn state(self) -> CircuitState {
        match self.0 & STATE {
            0 => CircuitState::Closed,
            1 => CircuitState::Disabled,
            2 => CircuitState::Open,
            3 => CircuitState::ForcedOpen,
            _ => CircuitState::HalfOpen,
        }
    }

    pub(super) fn reason(self) -> Option<TripReason> {
        Some(match (self.0 >> REASON_SHIFT) & 0xf {
            1 => TripReason::ConsecutiveFailures,
            2 => TripReason::ErrorRate,
            3 => TripReason::SlowCalls,
            4 => TripReason::RetryAfter,
            5 => TripReason::ProbeFailed,
            6 => TripReason::HalfOpenTimeout,
            7 => TripReason::Forced,
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    // ===== the shape =====

    /// Admission has nothing to do beyond reading this word.
    #[inline]
    pub(super) fn is_bare(self) -> bool {
        self.0 & (Shape::COUNTING | Shape::TIMED | Shape::WATCHING) == 0
    }

    #[inline]
    pub(super) fn is_counted(self) -> bool {
        self.0 & Shape::COUNTING != 0
    }

    #[inline]
    pub(super) fn is_timed(self) -> bool {
        self.0 & Shape::TIMED != 0
    }

    #[inline]
    pub(super) fn is_watched(self) -> bool {
        self.0 & Shape::WATCHING != 0
    }

    /// Whether the admissions of both are counted together.
    pub(super) fn is_counted_like(self, other: Self) -> bool {
        (self.0 ^ other.0) & Shape::COUNTING == 0
    }

    /// A number of 20 bits for the calls that are watched together: those of one generation, between
    /// two changes of how they are watched.
    #[inline]
    pub(super) fn cohort(self) -> u64 {
        let watching = (self.0 & Shape::WATCHING) >> (Shape::SHIFT + 4);
        watching | (self.generation() & 0xffff) << 4
    }
}

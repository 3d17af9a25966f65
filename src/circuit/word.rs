//! The state of a circuit in one word, which is all that a healthy call looks at.

use std::num::NonZero;

use super::{
    shape::Shape,
    state::{CircuitState, TripReason},
    window::Kind,
};

/// From the lowest bit up: the state (3 bits), *changing* (1), *ramping* (1), the trip reason (4),
/// the [`Shape`] (20), the generation (35).
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
const SHAPE_SHIFT: u32 = REASON_SHIFT + 4;
const GENERATION_SHIFT: u32 = SHAPE_SHIFT + Shape::BITS;

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
        Self(low | (shape.bits() << SHAPE_SHIFT) | (generation << GENERATION_SHIFT))
    }

    /// The same, while the next one is prepared.
    pub(super) fn changing(self) -> Self {
        Self(self.0 | CHANGING)
    }

    /// The same, not yet open to all calls.
    pub(super) fn ramping(self) -> Self {
        Self(self.0 | RAMPING)
    }

    /// What a call carries that was rejected. It shares its bit with *ramping*, which no call that
    /// was admitted carries either.
    #[inline]
    pub(super) fn rejecting(self) -> NonZero<u64> {
        const REJECTING: NonZero<u64> = NonZero::new(RAMPING).unwrap();
        REJECTING | self.0
    }

    #[inline]
    pub(super) fn is_rejecting(self) -> bool {
        self.0 & RAMPING != 0
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

    // ===== the shape: what its calls are recorded in =====

    #[inline]
    fn has(self, shape: u64) -> bool {
        self.0 & (shape << SHAPE_SHIFT) != 0
    }

    /// [Admits all](Self::admits_all), and admission has nothing to do beyond reading this word.
    #[inline]
    pub(super) fn admits_all_unseen(self) -> bool {
        let shape = Shape::COUNTING | Shape::TIMED | Shape::WATCHING;
        self.0 & (CHANGING | RAMPING | STATE | (shape << SHAPE_SHIFT)) <= 1
    }

    /// Something has to be stored for a success in any case, or this is a state of its own.
    #[inline]
    pub(super) fn records_success(self) -> bool {
        let recorded = Shape::COUNTING | Shape::WATCHING | Shape::IN_TIME | Shape::SLOW;
        !self.is_recorded() || self.has(recorded)
    }

    /// Recorded in a window of time.
    #[inline]
    pub(super) fn is_in_time(self) -> bool {
        self.has(Shape::IN_TIME)
    }

    /// Everything is recorded, admissions included.
    #[inline]
    pub(super) fn is_counted(self) -> bool {
        self.has(Shape::COUNTING)
    }

    /// When a call began is known.
    #[inline]
    pub(super) fn is_timed(self) -> bool {
        self.has(Shape::TIMED)
    }

    /// Calls can be slow.
    #[inline]
    pub(super) fn is_watched(self) -> bool {
        self.has(Shape::WATCHING)
    }

    /// The same, with nobody watching.
    #[cfg(feature = "http")]
    pub(super) fn unwatched(self) -> Self {
        Self(self.0 & !(Shape::WATCHING << SHAPE_SHIFT))
    }

    /// When a call ended is to be known. (Slow calls are told apart only where calls are watched, but
    /// one may be [`unwatched`](Self::unwatched).)
    #[inline]
    pub(super) fn is_timed_at_its_end(self) -> bool {
        self.has(Shape::COUNTING | Shape::WATCHING | Shape::IN_TIME | Shape::SLOW)
    }

    /// The windows that calls are counted in.
    #[inline]
    pub(super) fn window(self) -> Kind {
        Kind::unpack(self.0 >> (SHAPE_SHIFT + Shape::WINDOW_SHIFT))
    }

    /// The share of failures is kept.
    #[inline]
    pub(super) fn keeps_errors(self) -> bool {
        self.has(Shape::ERRORS)
    }

    /// The share of slow calls is kept.
    #[inline]
    pub(super) fn keeps_slow(self) -> bool {
        self.has(Shape::SLOW)
    }

    /// Whether the admissions of both are counted together.
    pub(super) fn is_counted_like(self, other: Self) -> bool {
        !Self(self.0 ^ other.0).has(Shape::COUNTING)
    }

    /// A number of 20 bits for the calls that are watched together: those of one generation, between
    /// two changes of how they are watched.
    #[inline]
    pub(super) fn cohort(self) -> u64 {
        (self.0 >> (SHAPE_SHIFT + Shape::WATCHING_SHIFT)) & 0xf_ffff
    }
}

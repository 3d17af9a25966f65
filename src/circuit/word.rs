//! The state of a circuit in one word, which is all that a healthy call looks at.

use super::state::{CircuitState, TripReason};

/// From the lowest bit up: the state (3 bits), *changing* (1), the trip reason (4), the generation
/// (56). Two words are equal only if they are of the same generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const STATE: u64 = 0b111;
/// Set while a new generation is prepared. Who sees it takes the lock, and so waits for that.
const CHANGING: u64 = 1 << 3;
const REASON_SHIFT: u32 = 4;
const GENERATION_SHIFT: u32 = 8;

impl Word {
    pub(super) fn new(state: CircuitState, reason: Option<TripReason>, generation: u64) -> Self {
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
        Self(state | (reason << REASON_SHIFT) | (generation << GENERATION_SHIFT))
    }

    /// The same, while the next generation is prepared.
    pub(super) fn changing(self) -> Self {
        Self(self.0 | CHANGING)
    }

    /// Closed or disabled, and not about to change.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
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
}

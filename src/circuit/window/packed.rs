//! What a [window of time](super::time) counts in one word.

use super::Counts;

/// The current word, from the lowest bit up: settled calls that began in the present moment (14 bits),
/// and earlier (12), failed ones among both (10), slow ones (10), *older bad ones* (1), *turning* (1),
/// the epoch (16). While the highest bit of a field is set, nothing is counted: the window is turned
/// within its step, and the field is empty again.
pub(super) const BRIEF: Field = Field { shift: 0, bits: 14 };
pub(super) const LONG: Field = Field {
    shift: 14,
    bits: 12,
};
pub(super) const FAILED: Field = Field {
    shift: 26,
    bits: 10,
};
pub(super) const SLOW: Field = Field {
    shift: 36,
    bits: 10,
};
/// The steps before the current one hold failed calls, or slow ones; or some that still run are slow.
pub(super) const OLDER_BAD: u64 = 1 << 46;
pub(super) const TURNING: u64 = 1 << 47;
pub(super) const EPOCH: u64 = 1 << 48;
/// Nothing is to be counted before the window has been turned.
pub(super) const BUSY: u64 = TURNING | BRIEF.full() | LONG.full() | FAILED.full() | SLOW.full();
/// What is not zero if the window holds failed calls, or slow ones.
pub(super) const BAD: u64 = OLDER_BAD | FAILED.mask() | SLOW.mask();

#[derive(Clone, Copy)]
pub(super) struct Field {
    shift: u32,
    pub(super) bits: u32,
}

impl Field {
    pub(super) const fn one(self) -> u64 {
        1 << self.shift
    }

    pub(super) const fn full(self) -> u64 {
        self.one() << (self.bits - 1)
    }

    const fn mask(self) -> u64 {
        ((1 << self.bits) - 1) << self.shift
    }

    pub(super) const fn of(self, word: u64) -> u64 {
        (word & self.mask()) >> self.shift
    }
}

/// A settled call, as a window of time counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled(pub(super) u64);

impl Settled {
    /// One that is well.
    pub(super) const GOOD: Self = Self(0);

    #[inline]
    pub(crate) fn new(failed: bool, slow: bool) -> Self {
        let failed = u64::from(failed) * FAILED.one();
        let slow = u64::from(slow) * SLOW.one();
        Self(failed | slow)
    }

    #[inline(always)]
    pub(super) fn one(self, brief: bool) -> u64 {
        self.0 + if brief { BRIEF.one() } else { LONG.one() }
    }
}

/// What a window of time holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) settled: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

impl Sums {
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self {
            settled: BRIEF.of(word) + LONG.of(word),
            failed: FAILED.of(word),
            slow: SLOW.of(word),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, other: Self) {
        self.settled += other.settled;
        self.failed += other.failed;
        self.slow += other.slow;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.settled -= other.settled;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }

    #[inline]
    pub(crate) fn errors(self) -> Counts {
        Counts {
            settled: self.settled,
            bad: self.failed,
        }
    }

    #[inline]
    pub(crate) fn slow(self) -> Counts {
        Counts {
            settled: self.settled,
            bad: self.slow,
        }
    }
}

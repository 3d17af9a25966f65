//! The run-of-failures rule.
//!
//! One word holds the failures in a row and the generation that they are of. A success finds the
//! count at zero while all is well and stores nothing. Each settlement takes effect at its one
//! access to the word, so the settlement that brings the count to the threshold is the one that is
//! told so, in every interleaving. Nothing else is ordered by this word, hence `Relaxed`: a
//! generation's own count is zero before the generation is published.

use super::sync::{AtomicU64, Ordering::Relaxed};

/// The lower half counts, the upper half is the generation's lower 32 bits: a settlement would
/// have to be late by a multiple of 2^32 generations to be mistaken.
#[derive(Debug)]
pub(super) struct Run {
    word: AtomicU64,
    /// 0: the rule is off.
    threshold: AtomicU64,
}

const COUNT: u64 = u32::MAX as u64;

impl Run {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            threshold: AtomicU64::new(0),
        }
    }

    /// Switched off, it forgets the run of this generation.
    pub(super) fn set_threshold(&self, threshold: Option<u32>, generation: u64) {
        let threshold = threshold.map_or(0, u64::from);
        self.threshold.store(threshold, Relaxed);
        if threshold == 0 {
            self.begin(generation);
        }
    }

    /// Whether a success has nothing to end.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.word.load(Relaxed) & COUNT == 0
    }

    /// A success ends the run.
    #[inline]
    pub(super) fn success(&self, generation: u64) {
        let seen = self.word.load(Relaxed);
        if seen & COUNT != 0 {
            self.end(seen, generation);
        }
    }

    #[cold]
    fn end(&self, mut seen: u64, generation: u64) {
        while seen & COUNT != 0 && seen >> 32 == generation & COUNT {
            match self
                .word
                .compare_exchange_weak(seen, seen & !COUNT, Relaxed, Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// A failure prolongs it. True if that reached the threshold.
    #[inline]
    pub(super) fn failure(&self, generation: u64) -> bool {
        let threshold = self.threshold.load(Relaxed);
        if threshold == 0 {
            return false;
        }
        let mut seen = self.word.load(Relaxed);
        // At the maximum it has long reached any threshold, and stays there.
        while seen >> 32 == generation & COUNT && seen & COUNT != COUNT {
            match self
                .word
                .compare_exchange_weak(seen, seen + 1, Relaxed, Relaxed)
            {
                Ok(_) => return (seen & COUNT) + 1 >= threshold,
                Err(now) => seen = now,
            }
        }
        seen >> 32 == generation & COUNT
    }

    /// Begins a generation. Called before it is published.
    pub(super) fn begin(&self, generation: u64) {
        self.word.store(generation << 32, Relaxed);
    }
}

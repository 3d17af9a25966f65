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

#[cfg(all(test, not(tower_breaker_loom)))]
mod tests {
    use super::*;

    fn run(threshold: u32, generation: u64) -> Run {
        let run = Run::new();
        run.set_threshold(Some(threshold), generation);
        run.begin(generation);
        run
    }

    #[test]
    fn b4_what_is_late_neither_prolongs_nor_ends_a_run() {
        // Beyond 32 bits, of which the word holds no more.
        let generation = (3 << 32) + 7;
        let run = run(2, generation);
        assert!(!run.failure(generation));
        assert!(!run.failure(generation - 1));
        run.success(generation - 1);
        assert!(run.failure(generation));
        run.success(generation);
        assert!(!run.failure(generation));
    }

    #[test]
    fn b2_a_run_of_more_failures_than_can_be_counted_is_still_too_long() {
        let run = run(2, 7);
        run.word.fetch_add(COUNT - 1, Relaxed);
        for _ in 0..3 {
            assert!(run.failure(7));
            assert!(!run.failure(6) && !run.failure(8));
        }
    }
}

//! The calls that are still running, and how many of them are already slow.
//!
//! A dependency that hangs settles no calls, so the windows would not see it. Where calls can be
//! slow, each one is therefore *watched* from its admission: it is counted in the *bucket* of the
//! moment at which it began. Once a bucket is as old as a slow call, those in it that have not
//! settled are *overdue*. A call leaves where it is counted when it settles, and only then enters
//! the window: so it is never counted twice, and between the two it may be missing for a moment. (A
//! rule that is true only with such a call is then found to be so by that very call, as it enters.)
//!
//! Buckets are so many that each is between 1/126 and 1/63 of `slow_call_duration` wide. A call may
//! become overdue by as much too early: less than a step of the window, unless a slow call takes
//! longer than two monitoring periods.
//!
//! # Why it is exact
//!
//! Each bucket is one word, which says how many are in it, and for which moment and which *cohort*
//! it is. A cohort is the calls of one generation that are watched alike. Who enters or leaves
//! changes the word only as long as it is the bucket of that moment and cohort. A bucket that is
//! overdue is taken over by the moment that comes round to it next, in one swap that also says how
//! many were left in it; whoever comes later to that bucket sees so, and goes to the count of the
//! overdue instead, which is a word with the number of the cohort as well. A cohort recurs after
//! 65,536 generations, and a moment after 2^29 buckets: a call would have to be suspended within its
//! admission or settlement for exactly so long to be mistaken.

use std::array;

use super::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// A power of two, as is their width: so a bucket is found without a division. (Four under loom.)
const BUCKETS: u64 = if cfg!(tower_breaker_loom) { 4 } else { 128 };

/// Buckets from the one that is not yet overdue to the one that is now: those of a slow call's time,
/// which it need not begin with, and one to spare.
const LIVE: u64 = BUCKETS - 2;

/// From the lowest bit up: calls (24 bits), which time round the bucket is on (20), cohort (20).
/// The count of the overdue has the same shape, with nothing for the round.
const CALLS: u64 = (1 << 24) - 1;
const ROUND_SHIFT: u32 = 24;
const ROUND: u64 = (1 << 20) - 1;
const COHORT_SHIFT: u32 = 44;

#[derive(Debug)]
pub(super) struct Running {
    buckets: [AtomicU64; BUCKETS as usize],
    /// Nanoseconds per bucket, as a power of two, and after which a call is slow.
    width: AtomicU64,
    slow_after: AtomicU64,
    /// The first moment, in buckets, that is not overdue, and when it will be.
    first: AtomicU64,
    due: AtomicU64,
    overdue: AtomicU64,
}

/// A bucket for the calls of one moment and cohort.
struct Bucket<'a> {
    word: &'a AtomicU64,
    /// The word while nobody is in it.
    empty: u64,
}

impl Running {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            buckets: array::from_fn(|_| zero()),
            width: zero(),
            slow_after: zero(),
            first: zero(),
            due: AtomicU64::new(u64::MAX),
            overdue: zero(),
        }
    }

    // ===== for calls =====

    /// A call has begun, at most a little before now. `turn` takes the lock and calls
    /// [`turn`](Self::turn) for that moment.
    #[inline]
    pub(super) fn enter(&self, cohort: u64, started: u64, turn: impl Fn()) {
        let bucket = self.bucket(cohort, started);
        if let Err(found) = bucket.add() {
            self.enter_otherwise(&bucket, found, cohort, turn);
        }
    }

    #[cold]
    fn enter_otherwise(&self, bucket: &Bucket<'_>, mut found: u64, cohort: u64, turn: impl Fn()) {
        let mut turned = false;
        loop {
            if !bucket.is_of_cohort(found) {
                return; // The generation is over, and nobody will ask for this call.
            }
            if turned || bucket.is_later(found) {
                // It took so long to get here that the call is overdue by now. (Or the clock has been
                // set back: then the bucket may be so far ahead that it looks like an earlier one.)
                let _ = Bucket::overdue(&self.overdue, cohort).add();
                return;
            }
            turn();
            turned = true;
            match bucket.add() {
                Ok(()) => return,
                Err(later) => found = later,
            }
        }
    }

    /// A call has settled.
    #[inline]
    pub(super) fn leave(&self, cohort: u64, started: u64) {
        let bucket = self.bucket(cohort, started);
        if let Err(found) = bucket.subtract() {
            self.leave_late(&bucket, found, cohort);
        }
    }

    #[cold]
    fn leave_late(&self, bucket: &Bucket<'_>, found: u64, cohort: u64) {
        if bucket.is_of_cohort(found) {
            let overdue = Bucket::overdue(&self.overdue, cohort);
            let _ = overdue.change(|word| word.wrapping_sub(1));
        }
    }

    /// How many calls of this cohort run for longer than a fast one, as of the last turn.
    #[inline]
    pub(super) fn overdue(&self, cohort: u64) -> u64 {
        // Acquire: nobody sees the turn that took them over before they are counted.
        let word = self.overdue.load(Acquire);
        if word >> COHORT_SHIFT != cohort {
            return 0;
        }
        // Who leaves may come before the turn that has taken it over adds it: then it is below 0.
        let calls = word & CALLS;
        if calls > CALLS / 2 { 0 } else { calls }
    }

    /// Whether nobody is overdue at `now`, so that there is nobody to be counted.
    #[inline]
    pub(super) fn is_idle_at(&self, now: u64) -> bool {
        now < self.due() && self.overdue.load(Acquire) & CALLS == 0
    }

    /// When, by time alone, somebody may become overdue.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        self.due.load(Relaxed)
    }

    // ===== under the lock =====

    /// Forgets who was watched, and watches a new cohort from now on.
    pub(super) fn begin(&self, cohort: u64, slow_after: u64, now: u64) {
        let width = slow_after.div_ceil(LIVE).next_power_of_two();
        self.width.store(width.ilog2().into(), Relaxed);
        self.slow_after.store(slow_after, Relaxed);
        let first = self.first_at(now);
        self.set_first(first);
        for moment in first..first.saturating_add(BUCKETS) {
            let bucket = Bucket::of(&self.buckets, cohort, moment);
            // Swapped, not stored: calls of the cohort before may be leaving, and loom knows the
            // order of changes only where each reads the one before.
            bucket.word.swap(bucket.empty, Relaxed);
        }
        // Calls learn of the cohort from the circuit's word, which is published after this.
        self.overdue.swap(cohort << COHORT_SHIFT, Relaxed);
    }

    /// Counts as overdue who is so at `now`.
    pub(super) fn turn(&self, now: u64) {
        let (from, to) = (self.first.load(Relaxed), self.first_at(now));
        let cohort = self.overdue.load(Relaxed) >> COHORT_SHIFT;
        // In a long pause each bucket is overdue once.
        for moment in from..to.min(from.saturating_add(BUCKETS)) {
            // The next moment from `to` on that comes round to this bucket.
            let rounds = (to - moment).div_ceil(BUCKETS);
            let next = moment.saturating_add(rounds * BUCKETS);
            let bucket = Bucket::of(&self.buckets, cohort, next);
            // Who comes after this sees the next moment, and goes to the overdue.
            let left = bucket.word.swap(bucket.empty, AcqRel) & CALLS;
            if left != 0 {
                let overdue = Bucket::overdue(&self.overdue, cohort);
                let _ = overdue.change(|word| word.wrapping_add(left));
            }
        }
        self.set_first(to.max(from));
    }

    fn set_first(&self, first: u64) {
        self.first.store(first, Relaxed);
        let begins = first.saturating_mul(1 << self.width.load(Relaxed));
        let due = begins.saturating_add(self.slow_after.load(Relaxed));
        self.due.store(due, Relaxed);
    }

    /// The first moment that is not overdue: as old as a slow call's time, or younger.
    fn first_at(&self, now: u64) -> u64 {
        match now.checked_sub(self.slow_after.load(Relaxed)) {
            Some(latest) => (latest >> self.width.load(Relaxed)) + 1,
            None => 0,
        }
    }

    #[inline]
    fn bucket(&self, cohort: u64, started: u64) -> Bucket<'_> {
        Bucket::of(&self.buckets, cohort, started >> self.width.load(Relaxed))
    }
}

impl<'a> Bucket<'a> {
    #[inline]
    fn of(buckets: &'a [AtomicU64], cohort: u64, moment: u64) -> Self {
        Self {
            word: &buckets[(moment % BUCKETS) as usize],
            empty: cohort << COHORT_SHIFT | ((moment / BUCKETS) & ROUND) << ROUND_SHIFT,
        }
    }

    fn overdue(word: &'a AtomicU64, cohort: u64) -> Self {
        Self {
            word,
            empty: cohort << COHORT_SHIFT,
        }
    }

    #[inline]
    fn add(&self) -> Result<(), u64> {
        self.change(|word| word.wrapping_add(1))
    }

    #[inline]
    fn subtract(&self) -> Result<(), u64> {
        self.change(|word| word.wrapping_sub(1))
    }

    /// Changes the count if it is still this bucket's, or else tells what it found.
    #[inline]
    fn change(&self, change: impl Fn(u64) -> u64) -> Result<(), u64> {
        let mut found = self.word.load(Relaxed);
        while found & !CALLS == self.empty {
            // The count wraps within its own bits: below 0 is possible for the overdue.
            let changed = self.empty | (change(found) & CALLS);
            match self
                .word
                .compare_exchange_weak(found, changed, AcqRel, Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => found = now,
            }
        }
        Err(found)
    }

    fn is_of_cohort(&self, found: u64) -> bool {
        (found ^ self.empty) >> COHORT_SHIFT == 0
    }

    /// Whether the bucket has gone on to a later moment.
    fn is_later(&self, found: u64) -> bool {
        let ahead = (found >> ROUND_SHIFT).wrapping_sub(self.empty >> ROUND_SHIFT) & ROUND;
        ahead <= ROUND / 2
    }
}

#[cfg(all(test, tower_breaker_loom))]
mod loom_tests {
    use super::*;
    use crate::circuit::sync::{Arc, Mutex};
    use loom::thread;

    const COHORT: u64 = 0x10;
    /// Two buckets of 4.
    const SLOW: u64 = 8;

    struct Watched {
        running: Running,
        lock: Mutex<()>,
    }

    impl Watched {
        fn new() -> Arc<Self> {
            let running = Running::new();
            running.begin(COHORT, SLOW, 0);
            let lock = Mutex::new(());
            Arc::new(Self { running, lock })
        }

        fn turn(&self, now: u64) {
            let _lock = self.lock.lock().unwrap();
            self.running.turn(now);
        }

        fn enter(&self, now: u64) {
            self.running.enter(COHORT, now, || self.turn(now));
        }

        fn overdue_at(&self, now: u64) -> u64 {
            self.turn(now);
            self.running.overdue(COHORT)
        }
    }

    fn both(watched: &Arc<Watched>, one: fn(&Watched), other: fn(&Watched)) {
        let theirs = watched.clone();
        let handle = thread::spawn(move || one(&theirs));
        other(watched);
        handle.join().unwrap();
    }

    #[test]
    fn loom_nobody_is_lost_who_enters_while_it_turns() {
        loom::model(|| {
            let watched = Watched::new();
            both(&watched, |w| w.enter(0), |w| w.turn(SLOW + 4));
            assert_eq!(watched.overdue_at(SLOW + 4), 1);
            watched.running.leave(COHORT, 0);
            assert_eq!(watched.overdue_at(100 * SLOW), 0);
        });
    }

    #[test]
    fn loom_nobody_stays_who_leaves_while_it_turns() {
        loom::model(|| {
            let watched = Watched::new();
            watched.enter(0);
            watched.enter(0);
            both(
                &watched,
                |w| w.running.leave(COHORT, 0),
                // Never more than are there, and never a number from below zero.
                |w| assert!((1..=2).contains(&w.overdue_at(SLOW))),
            );
            assert_eq!(watched.overdue_at(SLOW), 1);
            assert_eq!(watched.overdue_at(100 * SLOW), 1);
        });
    }

    #[test]
    fn loom_a_bucket_goes_round_while_two_are_about_it() {
        loom::model(|| {
            let watched = Watched::new();
            // The bucket of 0 is the one of 16 the next time round.
            both(
                &watched,
                |w| {
                    w.enter(0);
                    w.running.leave(COHORT, 0);
                },
                |w| w.enter(16),
            );
            assert_eq!(watched.overdue_at(16 + SLOW), 1);
            watched.running.leave(COHORT, 16);
            assert_eq!(watched.overdue_at(16 + SLOW), 0);
        });
    }

    #[test]
    fn loom_a_call_of_another_cohort_moves_nothing() {
        loom::model(|| {
            let watched = Watched::new();
            watched.enter(0);
            both(
                &watched,
                |w| w.running.leave(COHORT, 0),
                |w| {
                    let _lock = w.lock.lock().unwrap();
                    w.running.begin(COHORT + 1, SLOW, 0);
                },
            );
            watched.running.enter(COHORT + 1, 0, || watched.turn(0));
            watched.turn(SLOW);
            assert_eq!(watched.running.overdue(COHORT + 1), 1);
        });
    }
}

//! The calls that are still running, and how many of them are already slow.
//!
//! A dependency that hangs settles no calls, so the windows would not see it. Where calls can be
//! slow, they are therefore *watched* while they run: time is parted into *moments*, and it is known
//! how many calls began in each, and how many of those have settled. Once a moment is as long ago as
//! a slow call takes, those of it that have not settled are *overdue*.
//!
//! A *brief* call settles in the moment in which it began. The [window of
//! time](super::window::TimeWindow) counts the brief ones apart, and when the moment ends, they are
//! taken from those who began in it: so a brief call costs one access less than any other. (Windows of
//! calls count no brief ones.)
//!
//! Any other call leaves its moment when it settles, and only then enters the window: so it is never
//! counted twice, and between the two it may be missing for a moment. (A rule that is true only with such
//! a call is then found to be so by that very call, as it enters.)
//!
//! Moments are so many that each is between 1/126 and 1/63 of `slow_call_duration` long. A call may
//! become overdue by as much too early: less than a step of the window, unless a slow call takes
//! longer than two monitoring periods.
//!
//! # Why it is exact
//!
//! Calls that begin are counted in one word, with the number of their *cohort*: the calls of one
//! generation that are watched alike. Whoever finds, as it begins, that a moment is over, has that
//! noted down first, under the lock: whoever the word has counted since the last time began in the
//! moment before. So a call that is counted as a moment ends may be taken for one of the next, and
//! become overdue with that. Where it has settled by then, another one that is overdue goes
//! unnoticed until then: for the length of a moment, or for as long as the call was held up between
//! its reading of the clock and its being counted. What has begun and what has left always balance.
//!
//! The present moment, by which a call is brief or not, changes with the window's epoch, so the one access
//! by which a call enters the window is right about that too.
//!
//! Those that leave are counted by moments, each in a word that says for which moment and cohort it
//! is; they change it only as long as it is. A moment that is overdue is closed: its word is taken
//! over by the moment that comes round to it next, in one swap that also says how many have left.
//! Whoever comes later sees so, and leaves the count of the overdue instead, which is a word with the
//! number of the cohort as well. A cohort recurs after 65,536 generations, or after 15 others within one
//! generation (each takes a reconfiguration, or a clock that is set back), and a moment after 2^27 of
//! them: a call would have to last exactly so long to be mistaken.
//!
//! Where the clock is set back by more than a slow call takes, calls begin in a moment that is yet to
//! come, and leave others that are over. None of them is found to hang, and the overdue fall below
//! zero; once they are far below it, a new cohort begins by the new time.

use std::array;

use super::{
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    window::Present,
};

/// A power of two, as is their length: so a moment's word is found without a division. (Four under
/// loom.)
const MOMENTS: u64 = if cfg!(tower_breaker_loom) { 4 } else { 128 };

/// Moments from the one that is not yet overdue to the one that is now: those of a slow call's time,
/// which it need not begin with, and one to spare.
const LIVE: u64 = MOMENTS - 2;

/// Of a moment's word, from the lowest bit up: calls (24 bits), which time round it is on (20), cohort
/// (20). The count of the overdue has the same shape, with nothing for the round.
const CALLS: u64 = (1 << 24) - 1;
const ROUND_SHIFT: u32 = 24;
const ROUND: u64 = (1 << 20) - 1;
const COHORT_SHIFT: u32 = 44;

/// So many cannot be about to be counted as overdue. If as many have left moments that are over, the
/// clock was set back, and calls begin in a moment that is not theirs.
const ASTRAY: u64 = 1 << 16;

/// Of the word of those that begin, below the cohort.
const BEGUN: u64 = (1 << COHORT_SHIFT) - 1;

/// What calls touch.
#[derive(Debug)]
pub(super) struct Running {
    begun: AtomicU64,
    overdue: AtomicU64,
    /// When, by time alone, somebody may become overdue.
    due: AtomicU64,
    /// Nanoseconds per moment, as a power of two.
    length: AtomicU64,
    left: [AtomicU64; MOMENTS as usize],
}

/// What is kept under the circuit's lock: a cohort, and when its calls began.
#[derive(Debug)]
pub(super) struct Cohort {
    slow_after: u64,
    /// The first moment that is not overdue, and the one that calls begin in now.
    first: u64,
    present: u64,
    /// How many calls began in each of the moments that are not overdue.
    begun: [u32; MOMENTS as usize],
}

/// A word for the calls of one moment and cohort.
struct Moment<'a> {
    word: &'a AtomicU64,
    /// The word while it counts nobody.
    empty: u64,
}

impl Running {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            begun: zero(),
            overdue: zero(),
            due: AtomicU64::new(u64::MAX),
            length: zero(),
            left: array::from_fn(|_| zero()),
        }
    }

    // ===== for calls =====

    /// A call begins, at a time for which the lock need not be taken first: see
    /// [`present`](Self::present). False if its cohort is over, so that nobody will ask for it.
    #[inline]
    pub(super) fn enter(&self, cohort: u64) -> bool {
        let mut found = self.begun.load(Relaxed);
        while found >> COHORT_SHIFT == cohort {
            let changed = self
                .begun
                .compare_exchange_weak(found, found + 1, AcqRel, Relaxed);
            match changed {
                Ok(_) => return true,
                Err(now) => found = now,
            }
        }
        false
    }

    /// A call has settled that [entered](Self::enter) at that time.
    #[inline]
    pub(super) fn leave(&self, cohort: u64, started: u64) {
        let moment = started >> self.length.load(Relaxed);
        let moment = Moment::of(&self.left, cohort, moment);
        if let Err(found) = moment.change(1) {
            self.leave_late(&moment, found, cohort);
        }
    }

    #[cold]
    fn leave_late(&self, moment: &Moment<'_>, found: u64, cohort: u64) {
        if (found ^ moment.empty) >> COHORT_SHIFT == 0 {
            let _ = Moment::overdue(&self.overdue, cohort).change(1_u64.wrapping_neg());
            if self.is_astray() {
                // The next settlement is to turn, and so to find that.
                self.due.store(0, Relaxed);
            }
        }
    }

    /// Whether calls are watched by a time that is no longer. Then a new cohort is to begin.
    pub(super) fn is_astray(&self) -> bool {
        let below_zero = self.overdue.load(Relaxed).wrapping_neg() & CALLS;
        (ASTRAY..=CALLS / 2).contains(&below_zero)
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

    /// When, by time alone, somebody may become overdue.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        self.due.load(Relaxed)
    }

    // ===== under the lock =====

    /// How many calls have begun since the last turn.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Acquire) & BEGUN
    }

    /// Watches nobody any more. Returns how many have begun since the last turn.
    pub(super) fn end(&self) -> u64 {
        // There is no cohort 0.
        self.begun.swap(0, AcqRel) & BEGUN
    }

    /// Watches a new cohort from now on, where nobody [is watched](Self::end).
    pub(super) fn begin(&self, cohort: u64, slow_after: u64, now: u64) -> Cohort {
        let length = slow_after.div_ceil(LIVE).next_power_of_two().ilog2();
        self.length.store(length.into(), Relaxed);
        let mut new = Cohort {
            slow_after,
            first: 0,
            present: now >> length,
            begun: [0; MOMENTS as usize],
        };
        new.first = new.first_at(now, length);
        for moment in new.first..new.first.saturating_add(MOMENTS) {
            let moment = Moment::of(&self.left, cohort, moment);
            // Swapped, not stored: calls of the cohort before may be leaving, and loom knows the
            // order of changes only where each reads the one before.
            moment.word.swap(moment.empty, Relaxed);
        }
        // Calls learn of the cohort from the circuit's word, which is published after this.
        self.overdue.swap(cohort << COHORT_SHIFT, Relaxed);
        self.due.store(new.due(length), Relaxed);
        self.begun.swap(cohort << COHORT_SHIFT, AcqRel);
        new
    }

    /// Notes down who has begun by `now`, and counts as overdue who is so. Returns how many have begun
    /// since the last turn.
    pub(super) fn turn(&self, cohort: &mut Cohort, now: u64) -> u64 {
        let word = self.begun.fetch_and(!BEGUN, AcqRel);
        let (number, begun) = (word >> COHORT_SHIFT, word & BEGUN);
        let index = |moment: u64| (moment % MOMENTS) as usize;
        let present = &mut cohort.begun[index(cohort.present)];
        *present = present.wrapping_add(begun as u32);

        let length = self.length.load(Relaxed) as u32;
        let (from, to) = (cohort.first, cohort.first_at(now, length));
        // In a long pause each moment is overdue once.
        for moment in from..to.min(from.saturating_add(MOMENTS)) {
            // The next moment from `to` on that comes round to this word.
            let rounds = (to - moment).div_ceil(MOMENTS);
            // At the end of time the numbers of moments wrap, and so come round to the same words.
            let next = moment.wrapping_add(rounds.wrapping_mul(MOMENTS));
            let next = Moment::of(&self.left, number, next);
            // Who leaves after this sees the next moment, and goes to the overdue.
            let left = next.word.swap(next.empty, AcqRel) & CALLS;
            let entered = std::mem::take(&mut cohort.begun[index(moment)]);
            let running = u64::from(entered).wrapping_sub(left) & CALLS;
            if running != 0 {
                let _ = Moment::overdue(&self.overdue, number).change(running);
            }
        }
        cohort.first = to.max(from);
        cohort.present = cohort.present.max(now >> length);
        self.due.store(cohort.due(length), Relaxed);
        begun
    }

    /// The present moment. It ends when no call is to enter any more before the next
    /// [turn](Self::turn), or when somebody may become overdue.
    pub(super) fn present(&self, cohort: &Cohort) -> Present {
        let length = self.length.load(Relaxed);
        let next = cohort.present.saturating_add(1);
        Present {
            begins: cohort.present << length,
            ends: next.saturating_mul(1 << length).min(self.due()),
            is_overdue: self.overdue.load(Relaxed) & CALLS != 0,
        }
    }
}

impl Cohort {
    /// So many calls began in the present moment and have settled by now, but have not
    /// [left](Running::leave) it: they were counted elsewhere.
    pub(super) fn settled(&mut self, calls: u64) {
        let begun = &mut self.begun[(self.present % MOMENTS) as usize];
        *begun = begun.wrapping_sub(calls as u32);
    }

    /// The first moment that is not overdue: as long ago as a slow call takes, or less.
    fn first_at(&self, now: u64, length: u32) -> u64 {
        match now.checked_sub(self.slow_after) {
            Some(latest) => (latest >> length) + 1,
            None => 0,
        }
    }

    fn due(&self, length: u32) -> u64 {
        let begins = self.first.saturating_mul(1 << length);
        begins.saturating_add(self.slow_after)
    }
}

impl<'a> Moment<'a> {
    #[inline]
    fn of(words: &'a [AtomicU64], cohort: u64, moment: u64) -> Self {
        Self {
            word: &words[(moment % MOMENTS) as usize],
            empty: cohort << COHORT_SHIFT | ((moment / MOMENTS) & ROUND) << ROUND_SHIFT,
        }
    }

    fn overdue(word: &'a AtomicU64, cohort: u64) -> Self {
        Self {
            word,
            empty: cohort << COHORT_SHIFT,
        }
    }

    /// Adds so many if the word is still this moment's, or else tells what it found.
    #[inline]
    fn change(&self, by: u64) -> Result<(), u64> {
        let mut found = self.word.load(Relaxed);
        while found & !CALLS == self.empty {
            // The count wraps within its own bits: below 0 is possible for the overdue.
            let changed = self.empty | (found.wrapping_add(by) & CALLS);
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
}

#[cfg(all(test, tower_breaker_loom))]
mod loom_tests {
    use super::*;
    use crate::circuit::sync::{Arc, Mutex};
    use loom::thread;

    const COHORT: u64 = 0x11;
    /// Two moments of 4.
    const SLOW: u64 = 8;

    struct Watched {
        running: Running,
        cohort: Mutex<Cohort>,
        begun: AtomicU64,
    }

    impl Watched {
        fn new() -> Arc<Self> {
            let running = Running::new();
            let cohort = Mutex::new(running.begin(COHORT, SLOW, 0));
            let begun = AtomicU64::new(0);
            Arc::new(Self {
                running,
                cohort,
                begun,
            })
        }

        fn turn(&self, now: u64) -> u64 {
            let mut cohort = self.cohort.lock().unwrap();
            let begun = self.running.turn(&mut cohort, now);
            self.begun.fetch_add(begun, Relaxed);
            self.running.present(&cohort).ends
        }

        /// A call begins in the first moment, or in a later one, to which it turns.
        fn enter(&self, now: u64) {
            if now >= 4 {
                self.turn(now);
            }
            assert!(self.running.enter(COHORT));
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
            let later = SLOW + 4;
            both(
                &watched,
                |w| w.enter(0),
                |w| assert!(w.turn(SLOW + 4) > SLOW),
            );
            // By the time at which it read the clock, or by that at which it entered.
            assert!(watched.overdue_at(later) <= 1);
            assert_eq!(watched.overdue_at(later + 4 + SLOW), 1);
            assert_eq!(watched.begun.load(Relaxed), 1);
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
    fn loom_a_moment_comes_round_while_two_are_about_it() {
        loom::model(|| {
            let watched = Watched::new();
            // The word of the first moment is that of 16 the next time round.
            both(
                &watched,
                |w| {
                    w.enter(0);
                    w.running.leave(COHORT, 0);
                },
                |w| w.enter(16),
            );
            // One may have been taken for a call of the later moment; both together balance.
            assert_eq!(watched.overdue_at(20 + SLOW), 1);
            watched.running.leave(COHORT, 16);
            assert_eq!(watched.overdue_at(20 + SLOW), 0);
            assert_eq!(watched.begun.load(Relaxed), 2);
        });
    }

    #[test]
    fn loom_a_call_of_another_cohort_moves_nothing() {
        loom::model(|| {
            let watched = Watched::new();
            watched.enter(0);
            both(
                &watched,
                |w| {
                    w.running.leave(COHORT, 0);
                    // Of the cohort that is over, or not counted at all.
                    w.running.enter(COHORT);
                },
                |w| {
                    let mut cohort = w.cohort.lock().unwrap();
                    assert!((1..=2).contains(&w.running.end()));
                    *cohort = w.running.begin(COHORT + 1, SLOW, 0);
                },
            );
            assert!(watched.running.enter(COHORT + 1));
            watched.turn(SLOW);
            assert_eq!(watched.running.overdue(COHORT + 1), 1);
            assert_eq!(watched.begun.load(Relaxed), 1);
        });
    }
}

//! The window of the last so many seconds.
//!
//! Calls are counted in the *current step* of time, in one word, in which each counts at once as
//! settled and, where it is so, as failed and as slow. What the older steps of the window hold is
//! summed up once per step, when the window is turned to the next: so recording a call and knowing
//! what the window holds costs one compare-and-swap, whether ten calls or ten million fell into it,
//! and so does the memory. The window moves in whole steps. A call stays in it for the period or up
//! to one step less. (A step is a whole number of nanoseconds, rounded up, so the period is kept to
//! within 30 ns.)
//!
//! # Why it is exact
//!
//! The [word](super::packed) holds the current step's counts and an *epoch*, which is another one after each turn.
//! Recording reads the word, then everything else it needs (whether its generation is still the
//! present one, when the step ends, the sums of the older steps), and then swaps the word for one
//! that counts the call. If the swap succeeds, the word was the same all along, so there was no turn
//! in between and what was read belongs together: the call is counted, and the window evaluated, at
//! that one point. While a turn is under way the word says *turning*, and whoever sees that waits
//! for the lock under which windows are turned. An epoch recurs after 2^16 turns, of which there is one
//! for each step, for each [moment](super::super::running) where calls can be slow (which makes half a
//! second where a slow call takes a millisecond), for each 512 failed or slow calls, 2,048 or 8,192
//! others, and for each change of generation. A recorder would have to be suspended for exactly so many
//! between its read and its swap, and all the counts be the same again, to be mistaken.

use super::{
    packed::{BAD, BRIEF, BUSY, EPOCH, OLDER_BAD, Settled, Sums, TURNING},
    ring::Ring,
};
use crate::circuit::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// What calls touch.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    current: AtomicU64,
    /// When the current step ends, or the present moment; when that began; and what the steps before
    /// hold. Constant within an epoch.
    ends: AtomicU64,
    begins: AtomicU64,
    older: [AtomicU64; 3],
}

/// The moment in which calls begin now: see [`running`](super::super::running).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    pub(crate) begins: u64,
    pub(crate) ends: u64,
    /// Some calls that still run are slow.
    pub(crate) is_overdue: bool,
}

impl Present {
    /// Where calls are not watched while they run: then all of them are brief.
    pub(crate) const ALWAYS: Self = Self {
        begins: 0,
        ends: u64::MAX,
        is_overdue: false,
    };
}

/// Why a call was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hindered {
    /// It is of another generation or shape.
    Late,
    /// The window has to be turned first.
    Turn,
    /// Another call was counted meanwhile.
    Overtaken,
}

impl TimeWindow {
    /// Without a ring, and not to be recorded in.
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            current: zero(),
            ends: zero(),
            begins: zero(),
            older: [zero(), zero(), zero()],
        }
    }

    /// Gives it an empty ring, which begins at `now`. Like [`clear`](Self::clear), which has to
    /// have come after whatever was recorded before.
    pub(crate) fn begin(&self, period: u64, now: u64, watch: impl FnOnce(u64) -> Present) -> Ring {
        let mut ring = Ring::new(period, now);
        self.replace(&mut ring, |_, sum| *sum = Sums::default(), watch);
        ring
    }

    /// Counts a call that settled at `now`, if `is_current` says that it is of the present
    /// generation, and tells what the window holds right after it. A `now` that lies before the
    /// current step counts in that. `is_brief` is told when the present moment began, and tells whether
    /// the call began in it; if not, it has [left](super::super::running) its own by the time that it
    /// says so. `turn` takes the lock and calls [`turn`](Self::turn).
    #[inline]
    pub(crate) fn record(
        &self,
        call: Settled,
        now: u64,
        mut is_brief: impl FnMut(u64) -> bool,
        is_current: impl Fn() -> bool,
        turn: impl Fn(),
    ) -> Option<Sums> {
        loop {
            match self.try_record(call, now, &mut is_brief, &is_current) {
                Ok(sums) => return Some(sums),
                Err(Hindered::Late) => return None,
                Err(Hindered::Turn) => turn(),
                Err(Hindered::Overtaken) => {}
            }
        }
    }

    /// [`record`](Self::record) for a call that is well and brief, in a window in which all are well. False
    /// if it is not like that, or something is in the way: then nothing was counted.
    #[inline(always)]
    pub(crate) fn record_among_good(
        &self,
        started: u64,
        now: u64,
        is_current: impl Fn() -> bool,
    ) -> bool {
        // The orderings are those of `try_record`, and have the same reasons.
        let mut seen = self.current.load(Acquire);
        while seen & (BUSY | BAD) == 0
            && now < self.ends()
            && started >= self.begins()
            && is_current()
        {
            let counted = seen + Settled::GOOD.one(true);
            match self
                .current
                .compare_exchange_weak(seen, counted, AcqRel, Acquire)
            {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
        false
    }

    /// [`record`](Self::record) as far as one try takes it.
    #[inline(always)]
    fn try_record(
        &self,
        call: Settled,
        now: u64,
        is_brief: impl FnOnce(u64) -> bool,
        is_current: impl Fn() -> bool,
    ) -> Result<Sums, Hindered> {
        // Acquire: what was written before the word, by the turn or the change of generation that
        // made it, is seen by the reads below.
        let seen = self.current.load(Acquire);
        if !is_current() {
            return Err(Hindered::Late);
        }
        if seen & BUSY != 0 || now >= self.ends() {
            return Err(Hindered::Turn);
        }
        let mut sums = self.older();
        let counted = seen + call.one(is_brief(self.begins()));
        // Release: the reads above happen before whatever a turn that sees this writes.
        let swapped = self
            .current
            .compare_exchange(seen, counted, AcqRel, Relaxed);
        if swapped.is_err() {
            return Err(Hindered::Overtaken);
        }
        sums.add(Sums::unpack(counted));
        Ok(sums)
    }

    #[inline]
    fn older(&self) -> Sums {
        let [settled, failed, slow] = self.older.each_ref().map(|older| older.load(Relaxed));
        Sums {
            settled,
            failed,
            slow,
        }
    }

    /// When its current step ends, or the present moment.
    #[inline]
    pub(crate) fn ends(&self) -> u64 {
        self.ends.load(Relaxed)
    }

    #[inline]
    fn begins(&self) -> u64 {
        self.begins.load(Relaxed)
    }

    /// Whether it is to be turned at `now`.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        now >= self.ends() || self.current.load(Acquire) & BUSY != 0
    }

    // In what follows, `watch` is told how many calls have settled that began in the present moment,
    // and tells of the next one.

    /// Moves the window on to `now`. Needs the lock that `ring` is under.
    pub(crate) fn turn(&self, ring: &mut Ring, now: u64, watch: impl FnOnce(u64) -> Present) {
        self.replace(ring, |ring, sum| ring.advance(now, sum), watch);
    }

    /// Empties the window. Needs the lock, and that no generation is present: the old one is no
    /// longer, and the new one is yet to be published.
    pub(crate) fn clear(&self, ring: &mut Ring, watch: impl FnOnce(u64) -> Present) {
        self.replace(ring, Ring::clear, watch);
    }

    /// Goes on in another moment. Needs the lock.
    pub(crate) fn go_on(&self, ring: &mut Ring, watch: impl FnOnce(u64) -> Present) {
        self.replace(ring, |_, _| {}, watch);
    }

    /// What the window holds. Needs the lock.
    pub(crate) fn sums(&self) -> Sums {
        let mut sums = self.older();
        sums.add(Sums::unpack(self.current.load(Acquire)));
        sums
    }

    /// All that was ever counted. Needs the lock.
    pub(crate) fn lifetime(&self, ring: &Ring) -> Sums {
        let mut sums = ring.retired();
        sums.add(self.sums());
        sums
    }

    /// Takes the current counts over into the ring, changes that and the sum of its steps, and begins
    /// a new epoch.
    fn replace(
        &self,
        ring: &mut Ring,
        change: impl FnOnce(&mut Ring, &mut Sums),
        watch: impl FnOnce(u64) -> Present,
    ) {
        // Only here is TURNING set, under the lock, so it is not set now. AcqRel: see `try_record`.
        let seen = self.current.fetch_or(TURNING, AcqRel);
        let counted = Sums::unpack(seen);
        ring.take(counted);
        let mut sum = self.older();
        sum.add(counted);
        change(ring, &mut sum);
        for (older, sum) in self.older.iter().zip([sum.settled, sum.failed, sum.slow]) {
            older.store(sum, Relaxed);
        }
        let present = watch(BRIEF.of(seen));
        self.ends.store(ring.ends().min(present.ends), Relaxed);
        self.begins.store(present.begins, Relaxed);
        let epoch = (seen & !(EPOCH - 1)).wrapping_add(EPOCH);
        let bad = if sum.failed != 0 || sum.slow != 0 || present.is_overdue {
            OLDER_BAD
        } else {
            0
        };
        // Release: publishes the sums to those who read the new word.
        self.current.store(epoch | bad, Release);
    }
}

#[cfg(all(test, not(tower_breaker_loom)))]
mod tests {
    use super::{
        super::{
            Counts,
            packed::{FAILED, LONG, SLOW},
            ring::STEPS,
        },
        *,
    };
    use proptest::prelude::*;

    fn window(period: u64) -> (TimeWindow, Ring) {
        let window = TimeWindow::new();
        let ring = window.begin(period, 0, |_| Present::ALWAYS);
        (window, ring)
    }

    /// What it holds at `now`.
    fn sums(window: &TimeWindow, ring: &mut Ring, now: u64) -> Sums {
        turn(window, ring, now);
        window.sums()
    }

    fn turn(window: &TimeWindow, ring: &mut Ring, now: u64) {
        if window.is_due(now) {
            window.turn(ring, now, |_| Present::ALWAYS);
        }
    }

    fn record(window: &TimeWindow, ring: &mut Ring, bad: bool, now: u64) -> Counts {
        record_both(window, ring, Settled::new(bad, !bad), now).errors()
    }

    fn record_both(window: &TimeWindow, ring: &mut Ring, call: Settled, now: u64) -> Sums {
        let brief = now.is_multiple_of(2);
        if call == Settled::GOOD && brief && window.record_among_good(now, now, || true) {
            let sums = sums(window, ring, now);
            assert_eq!((sums.failed, sums.slow), (0, 0));
            return sums;
        }
        let ring = std::cell::RefCell::new(ring);
        let turn = || turn(window, &mut ring.borrow_mut(), now);
        let sums = window.record(call, now, |_| brief, || true, turn);
        sums.expect("the generation is the present one")
    }

    #[test]
    fn b6_a_call_stays_for_the_period_or_up_to_a_step_less() {
        let period = 300_000;
        let (window, mut ring) = window(period);
        record(&window, &mut ring, true, 0);
        record(&window, &mut ring, true, period / 30 - 1);
        assert_eq!(sums(&window, &mut ring, period - 1).failed, 2);
        assert_eq!(sums(&window, &mut ring, period).failed, 0);
        assert_eq!(window.lifetime(&ring).failed, 2);
    }

    #[test]
    fn b11_a_clock_that_jumps_back_loses_nothing() {
        let (window, mut ring) = window(300);
        record(&window, &mut ring, true, 200);
        record(&window, &mut ring, true, 10);
        assert_eq!(sums(&window, &mut ring, 5).failed, 2);
        assert_eq!(sums(&window, &mut ring, 499).failed, 2);
        assert_eq!(sums(&window, &mut ring, 500).failed, 0);
        assert_eq!(record(&window, &mut ring, true, u64::MAX - 1).bad, 1);
    }

    #[test]
    fn b6_a_field_that_is_full_is_taken_over() {
        for (call, field, now) in [
            (Settled::GOOD, BRIEF, 6),
            (Settled::GOOD, LONG, 7),
            (Settled::new(true, false), FAILED, 7),
            (Settled::new(false, true), SLOW, 7),
        ] {
            let (window, mut ring) = window(300_000);
            let most = (1 << (field.bits - 1)) + 5;
            for i in 1..=most {
                assert_eq!(record_both(&window, &mut ring, call, now).settled, i);
            }
            let sums = record_both(&window, &mut ring, Settled::new(true, true), now);
            let times = |bit| most * u64::from(bit);
            assert_eq!(
                sums,
                Sums {
                    settled: most + 1,
                    failed: times(call.0 & FAILED.one() != 0) + 1,
                    slow: times(call.0 & SLOW.one() != 0) + 1,
                }
            );
        }
    }

    #[test]
    fn b6_good_calls_are_counted_the_short_way_while_there_are_no_others() {
        let (window, mut ring) = window(300);
        let short = |now| window.record_among_good(now, now, || true);
        assert!(short(0) && short(9));
        assert!(!window.record_among_good(9, 9, || false));
        assert!(!short(10), "the step is over");
        let bad = [Settled::new(true, false), Settled::new(false, true)];
        for (now, bad) in [300, 700].into_iter().zip(bad) {
            turn(&window, &mut ring, now);
            assert!(short(now));
            record_both(&window, &mut ring, bad, now);
            assert!(!short(now));
            turn(&window, &mut ring, now + 10);
            assert!(!short(now + 10), "an older step holds it");
        }
        assert_eq!(window.lifetime(&ring).settled, 6);
    }

    #[test]
    fn b6_nothing_is_counted_while_the_window_is_to_be_turned() {
        let (window, _) = window(300);
        for busy in [
            TURNING,
            BRIEF.full(),
            LONG.full(),
            FAILED.full(),
            SLOW.full(),
        ] {
            window.current.store(busy, Relaxed);
            assert!(window.is_due(0));
            assert!(!window.record_among_good(0, 0, || true));
            let hindered = window.try_record(Settled::GOOD, 0, |_| true, || true);
            assert_eq!(hindered, Err(Hindered::Turn));
        }
    }

    proptest! {
        /// The window against a plain list of what was recorded when.
        #[test]
        fn b6_the_window_equals_a_list(
            period in 1_u64..5_000,
            calls in prop::collection::vec((0_u64..400, any::<bool>(), any::<bool>()), 0..400),
        ) {
            let (window, mut ring) = window(period);
            let mut list = Vec::new();
            let step = Ring::step_of(period);
            let mut now = 0;
            for (wait, failed, slow) in calls {
                now += wait;
                let held = record_both(&window, &mut ring, Settled::new(failed, slow), now);
                list.push((now / step, failed, slow));
                let recent = list.iter().filter(|(at, ..)| now / step - at < STEPS);
                let count = |which: fn(&(u64, bool, bool)) -> bool| {
                    recent.clone().filter(|call| which(call)).count() as u64
                };
                let expected = Sums {
                    settled: count(|_| true),
                    failed: count(|call| call.1),
                    slow: count(|call| call.2),
                };
                prop_assert_eq!(held, expected);
                prop_assert_eq!(sums(&window, &mut ring, now), expected);
                let lifetime = window.lifetime(&ring);
                prop_assert_eq!(lifetime.settled, list.len() as u64);
                prop_assert_eq!(lifetime.slow, list.iter().filter(|call| call.2).count() as u64);
            }
        }
    }
}

//! The window of the last so many seconds.
//!
//! Calls are counted in the *current step* of time, in one word. What the older steps of the window
//! hold is summed up once per step, when the window is turned to the next: so recording a call and
//! knowing what the window holds costs one compare-and-swap, whether ten calls or ten million fell
//! into it, and so does the memory. The window moves in whole steps. A call stays in it for the
//! period or up to one step less. (A step is a whole number of nanoseconds, rounded up, so the
//! period is kept to within 30 ns.)
//!
//! # Why it is exact
//!
//! The word holds the current step's counts and an *epoch*, which is another one after each turn.
//! Recording reads the word, then everything else it needs (whether its generation is still the
//! present one, when the step ends, the sum of the older steps), and then swaps the word for one
//! that counts the call. If the swap succeeds, the word was the same all along, so there was no turn
//! in between and what was read belongs together: the call is counted, and the window evaluated, at
//! that one point. While a turn is under way the word says *turning*, and whoever sees that waits
//! for the lock under which windows are turned. An epoch recurs after 2^23 turns; a recorder would
//! have to be suspended for exactly so many between its read and its swap to be mistaken.

use super::Counts;
use crate::circuit::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Steps in the window: as many as let a circuit take no more than 1 KiB. At the default period of
/// 300 s a step is ten seconds. With 300 of them it would be one second, and the circuit would take
/// 3.1 KiB; what a rule sees would hardly differ, since a call is forgotten at 290 to 300 s here, and
/// at 299 to 300 s there.
const STEPS: u64 = 30;

/// The current word, from the lowest bit up: good calls (20 bits), bad ones (20), *turning* (1),
/// the epoch (23). A field that is full has the window turned within its step.
const FIELD: u64 = (1 << 20) - 1;
const GOOD: u64 = 1;
const BAD_SHIFT: u32 = 20;
const TURNING: u64 = 1 << 40;
const EPOCH: u64 = 1 << 41;

/// What calls touch.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    current: AtomicU64,
    /// What the steps before the current one hold, and when that ends. Constant within an epoch.
    older_good: AtomicU64,
    older_bad: AtomicU64,
    ends: AtomicU64,
}

/// What is kept under the circuit's lock: the steps one by one.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Nanoseconds per step, at least 1.
    step: u64,
    /// The number of the current step.
    current: u64,
    /// Step `s` is at `s % STEPS`. The current one holds what earlier turns within it took over.
    steps: [Step; STEPS as usize],
    sum: Counts,
    /// What has left the window, or was cleared from it.
    retired: Counts,
}

/// Half the size of [`Counts`]: no step sees 4 billion calls.
#[derive(Debug, Default, Clone, Copy)]
struct Step {
    good: u32,
    bad: u32,
}

/// Nanoseconds per step.
fn step_of(period: u64) -> u64 {
    period.div_ceil(STEPS).max(1)
}

fn unpack(word: u64) -> Counts {
    Counts {
        good: word & FIELD,
        bad: (word >> BAD_SHIFT) & FIELD,
    }
}

impl TimeWindow {
    /// Without a ring, and not to be recorded in.
    pub(crate) fn new() -> Self {
        Self {
            current: AtomicU64::new(0),
            older_good: AtomicU64::new(0),
            older_bad: AtomicU64::new(0),
            ends: AtomicU64::new(0),
        }
    }

    /// Gives it an empty ring, which begins at `now`. Like [`clear`](Self::clear), which has to
    /// have come after whatever was recorded before.
    pub(crate) fn begin(&self, period: u64, now: u64) -> Ring {
        let step = step_of(period);
        let mut ring = Ring {
            step,
            current: now / step,
            steps: [Step::default(); STEPS as usize],
            sum: Counts::default(),
            retired: Counts::default(),
        };
        self.replace(&mut ring, |_| ());
        ring
    }

    /// Counts a call that settled at `now`, if `is_current` says that it is of the present
    /// generation, and tells what the window holds right after it. A `now` that lies before the
    /// current step counts in that. `turn` takes the lock and calls [`turn`](Self::turn).
    #[inline]
    pub(crate) fn record(
        &self,
        bad: bool,
        now: u64,
        is_current: impl Fn() -> bool,
        turn: impl Fn(),
    ) -> Option<Counts> {
        let shift = if bad { BAD_SHIFT } else { 0 };
        let one = GOOD << shift;
        // Acquire: what was written before the word, by the turn or the change of generation that
        // made it, is seen by the reads below.
        let mut seen = self.current.load(Acquire);
        loop {
            if !is_current() {
                return None;
            }
            let full = (seen >> shift) & FIELD == FIELD;
            if seen & TURNING != 0 || full || now >= self.ends.load(Relaxed) {
                turn();
                seen = self.current.load(Acquire);
                continue;
            }
            let older = Counts {
                good: self.older_good.load(Relaxed),
                bad: self.older_bad.load(Relaxed),
            };
            // Release: the reads above happen before whatever a turn that sees this writes.
            match self
                .current
                .compare_exchange_weak(seen, seen + one, AcqRel, Acquire)
            {
                Ok(_) => {
                    let mut counts = unpack(seen + one);
                    counts.add(older);
                    return Some(counts);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// [`record`](Self::record) for a good call, as far as one try takes it. `None`: nothing was
    /// counted.
    #[inline]
    pub(crate) fn record_good(&self, now: u64, is_current: impl Fn() -> bool) -> Option<Counts> {
        // The orderings are those of `record`, and have the same reasons.
        let seen = self.current.load(Acquire);
        let full = seen & FIELD == FIELD;
        if full || seen & TURNING != 0 || now >= self.ends.load(Relaxed) || !is_current() {
            return None;
        }
        let mut counts = unpack(seen + GOOD);
        counts.good += self.older_good.load(Relaxed);
        counts.bad += self.older_bad.load(Relaxed);
        let counted = self
            .current
            .compare_exchange(seen, seen + GOOD, AcqRel, Relaxed);
        counted.ok().map(|_| counts)
    }

    /// When its current step ends: what it holds changes then by time alone.
    pub(crate) fn ends(&self) -> u64 {
        self.ends.load(Relaxed)
    }

    /// Moves the window on to `now`, if it isn't there yet. Needs the lock that `ring` is under.
    pub(crate) fn turn(&self, ring: &mut Ring, now: u64) {
        let seen = self.current.load(Acquire);
        let counts = unpack(seen);
        let full = counts.good == FIELD || counts.bad == FIELD;
        if full || now >= self.ends.load(Relaxed) {
            self.replace(ring, |ring| ring.advance(now));
        }
    }

    /// Empties the window. Needs the lock, and that no generation is present: the old one is no
    /// longer, and the new one is yet to be published.
    pub(crate) fn clear(&self, ring: &mut Ring) {
        self.replace(ring, Ring::clear);
    }

    /// What the window holds. Needs the lock.
    pub(crate) fn counts(&self, ring: &mut Ring, now: u64) -> Counts {
        self.turn(ring, now);
        let mut counts = ring.sum;
        counts.add(unpack(self.current.load(Acquire)));
        counts
    }

    /// All that was ever counted. Needs the lock.
    pub(crate) fn lifetime(&self, ring: &Ring) -> Counts {
        let mut counts = ring.retired;
        counts.add(ring.sum);
        counts.add(unpack(self.current.load(Acquire)));
        counts
    }

    /// Takes the current counts over into the ring, changes that, and begins a new epoch.
    fn replace(&self, ring: &mut Ring, change: impl FnOnce(&mut Ring)) {
        // Only here is TURNING set, under the lock, so it is not set now. AcqRel: see `record`.
        let seen = self.current.fetch_or(TURNING, AcqRel);
        ring.take(unpack(seen));
        change(ring);
        self.older_good.store(ring.sum.good, Relaxed);
        self.older_bad.store(ring.sum.bad, Relaxed);
        let ends = ring.current.saturating_add(1).saturating_mul(ring.step);
        self.ends.store(ends, Relaxed);
        let epoch = (seen & !(EPOCH - 1)).wrapping_add(EPOCH);
        // Release: publishes the sums to those who read the new word.
        self.current.store(epoch, Release);
    }
}

impl Ring {
    fn slot(&mut self, step: u64) -> &mut Step {
        &mut self.steps[(step % STEPS) as usize]
    }

    fn take(&mut self, counts: Counts) {
        self.sum.add(counts);
        let slot = self.slot(self.current);
        slot.good = slot.good.saturating_add(counts.good as u32);
        slot.bad = slot.bad.saturating_add(counts.bad as u32);
    }

    fn advance(&mut self, now: u64) {
        let target = (now / self.step).max(self.current);
        let first = self.current.saturating_add(1);
        let moved = (target - self.current).min(STEPS);
        for step in first..first.saturating_add(moved) {
            let left = std::mem::take(self.slot(step));
            let left = Counts {
                good: u64::from(left.good),
                bad: u64::from(left.bad),
            };
            self.sum.subtract(left);
            self.retired.add(left);
        }
        self.current = target;
    }

    fn clear(&mut self) {
        self.steps.fill(Step::default());
        self.retired.add(self.sum);
        self.sum = Counts::default();
    }
}

#[cfg(all(test, not(tower_breaker_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(period: u64) -> (TimeWindow, Ring) {
        let window = TimeWindow::new();
        let ring = window.begin(period, 0);
        (window, ring)
    }

    fn record(window: &TimeWindow, ring: &mut Ring, bad: bool, now: u64) -> Counts {
        let good = (!bad).then(|| window.record_good(now, || true));
        if let Some(counts) = good.flatten() {
            return counts;
        }
        let ring = std::cell::RefCell::new(ring);
        let turn = || window.turn(&mut ring.borrow_mut(), now);
        let counts = window.record(bad, now, || true, turn);
        counts.expect("the generation is the present one")
    }

    #[test]
    fn b6_a_call_stays_for_the_period_or_up_to_a_step_less() {
        let period = 300_000;
        let (window, mut ring) = window(period);
        record(&window, &mut ring, true, 0);
        record(&window, &mut ring, true, period / 30 - 1);
        assert_eq!(window.counts(&mut ring, period - 1).bad, 2);
        assert_eq!(window.counts(&mut ring, period).bad, 0);
        assert_eq!(window.lifetime(&ring).bad, 2);
    }

    #[test]
    fn b11_a_clock_that_jumps_back_loses_nothing() {
        let (window, mut ring) = window(300);
        record(&window, &mut ring, true, 200);
        record(&window, &mut ring, true, 10);
        assert_eq!(window.counts(&mut ring, 5).bad, 2);
        assert_eq!(window.counts(&mut ring, 499).bad, 2);
        assert_eq!(window.counts(&mut ring, 500).bad, 0);
        assert_eq!(record(&window, &mut ring, true, u64::MAX - 1).bad, 1);
    }

    #[test]
    fn b6_a_field_that_is_full_is_taken_over() {
        let (window, mut ring) = window(300_000);
        for i in 1..=FIELD + 5 {
            assert_eq!(record(&window, &mut ring, false, 7).good, i);
        }
        let counts = record(&window, &mut ring, true, 7);
        assert_eq!((counts.good, counts.bad), (FIELD + 5, 1));
    }

    proptest! {
        /// The window against a plain list of what was recorded when.
        #[test]
        fn b6_the_window_equals_a_list(
            period in 1_u64..5_000,
            calls in prop::collection::vec((0_u64..400, any::<bool>()), 0..400),
        ) {
            let (window, mut ring) = window(period);
            let mut list = Vec::new();
            let step = step_of(period);
            let mut now = 0;
            for (wait, bad) in calls {
                now += wait;
                let counts = record(&window, &mut ring, bad, now);
                list.push((now / step, bad));
                let recent = list.iter().filter(|(at, _)| now / step - at < STEPS);
                let bad = recent.clone().filter(|(_, bad)| *bad).count() as u64;
                let good = recent.count() as u64 - bad;
                prop_assert_eq!(counts, Counts { good, bad });
                prop_assert_eq!(window.counts(&mut ring, now), counts);
                prop_assert_eq!(window.lifetime(&ring).settled(), list.len() as u64);
            }
        }
    }
}

//! The steps of a [window of time](super::time), one by one.

use super::packed::Sums;

/// Steps in the window: as many as let a circuit take no more than 1 KiB. At the default period of
/// 300 s a step is ten seconds. With 300 of them it would be one second, and the circuit would take
/// 3.1 KiB; what a rule sees would hardly differ, since a call is forgotten at 290 to 300 s here, and
/// at 299 to 300 s there.
pub(super) const STEPS: u64 = 30;

/// What is kept under the circuit's lock: the steps one by one.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Nanoseconds per step, at least 1.
    step: u64,
    /// The number of the current step.
    current: u64,
    /// Step `s` is at `s % STEPS`. The current one holds what earlier turns within it took over.
    steps: [Step; STEPS as usize],
    /// Slow calls likewise, once there was one.
    slow: Option<Box<[u32; STEPS as usize]>>,
    /// What has left the window, or was cleared from it.
    retired: Sums,
}

/// Of half the size that sums have: no step sees 4 billion calls.
#[derive(Debug, Default, Clone, Copy)]
struct Step {
    settled: u32,
    failed: u32,
}

impl Ring {
    /// An empty one, which begins at `now`.
    pub(super) fn new(period: u64, now: u64) -> Self {
        let step = Self::step_of(period);
        Self {
            step,
            current: now / step,
            steps: [Step::default(); STEPS as usize],
            slow: None,
            retired: Sums::default(),
        }
    }

    /// Nanoseconds per step.
    pub(super) fn step_of(period: u64) -> u64 {
        period.div_ceil(STEPS).max(1)
    }

    /// When the current step ends.
    pub(super) fn ends(&self) -> u64 {
        self.current.saturating_add(1).saturating_mul(self.step)
    }

    /// What has left the window.
    pub(super) fn retired(&self) -> Sums {
        self.retired
    }

    /// Counts what was settled in the current step.
    pub(super) fn take(&mut self, counted: Sums) {
        let index = (self.current % STEPS) as usize;
        let step = &mut self.steps[index];
        step.settled = step.settled.saturating_add(counted.settled as u32);
        step.failed = step.failed.saturating_add(counted.failed as u32);
        if counted.slow != 0 {
            let slow = &mut self.slow.get_or_insert_default()[index];
            *slow = slow.saturating_add(counted.slow as u32);
        }
    }

    /// What a step held, which is now over.
    fn leave(&mut self, step: u64) -> Sums {
        let index = (step % STEPS) as usize;
        let Step { settled, failed } = std::mem::take(&mut self.steps[index]);
        let slow = self.slow.as_mut();
        let slow = slow.map_or(0, |steps| std::mem::take(&mut steps[index]));
        Sums {
            settled: settled.into(),
            failed: failed.into(),
            slow: slow.into(),
        }
    }

    /// Moves on to `now`. What leaves the window is taken from `sum`.
    pub(super) fn advance(&mut self, now: u64, sum: &mut Sums) {
        let target = (now / self.step).max(self.current);
        let first = self.current.saturating_add(1);
        let moved = (target - self.current).min(STEPS);
        for step in first..first.saturating_add(moved) {
            let left = self.leave(step);
            sum.subtract(left);
            self.retired.add(left);
        }
        self.current = target;
    }

    /// Empties it, and `sum`.
    pub(super) fn clear(&mut self, sum: &mut Sums) {
        self.steps.fill(Step::default());
        self.slow = None;
        self.retired.add(std::mem::take(sum));
    }
}

//! How calls are counted, each at one access to each rule's own word.

use super::Hot;
use crate::circuit::{
    clock::NEVER,
    state::TripReason,
    sync::Ordering::Relaxed,
    window::{Counts, Kind, Settled},
    word::Word,
};

/// How a call ended, as far as the rules are concerned.
#[derive(Debug, Clone, Copy)]
pub(in crate::circuit) struct End {
    pub(in crate::circuit) started: u64,
    pub(in crate::circuit) now: u64,
    pub(in crate::circuit) ran: u64,
    pub(in crate::circuit) bad: bool,
    /// It is no longer among those that run.
    pub(in crate::circuit) has_left: bool,
}

/// The call is of another generation or shape, and is not counted yet.
#[derive(Debug)]
pub(in crate::circuit) struct Missed;

impl Hot {
    /// Counts a success that changes nothing: it is of the present generation and shape, nothing is
    /// recorded of it but in a window of calls, and that holds none but good ones; and there is no
    /// run to be ended. False if it is not like that.
    #[inline]
    pub(in crate::circuit) fn succeed(&self, word: Word) -> bool {
        !word.records_success()
            && (word.window() != Kind::Calls || self.errors.is_clean())
            // Asked after the window: see `CountWindow::record`. (Who ramps up goes the long way.)
            && self.word() == word
            && self.run.is_empty()
    }

    /// Counts a success that changes nothing beyond that, in a window of time that holds none but good
    /// calls, while none that still runs is slow; of a call that began in the present moment, and so can't
    /// be slow itself. False if it is not like that: then nothing is counted, and it is to be
    /// [settled](Self::settle).
    #[inline(always)]
    pub(in crate::circuit) fn succeed_in_time(&self, word: Word, end: End) -> bool {
        let is_current = || self.word() == word;
        self.time
            .record_among_good(end.started, end.now, is_current)
    }

    /// A call that was watched no longer runs. Before it enters a window, so that it is never counted
    /// twice.
    #[inline(never)]
    pub(in crate::circuit) fn leave(&self, word: Word, end: &mut End) {
        if word.is_watched() && !end.has_left {
            self.running().leave(word.cohort(), end.started);
        }
        end.has_left = true;
    }

    /// Counts how a call ended that was admitted in `word`, a state of whose calls no more is recorded
    /// than whether they failed. Returns the rule that says open, if one does.
    #[inline(always)]
    pub(in crate::circuit) fn settle_untimed(
        &self,
        word: Word,
        bad: bool,
    ) -> Result<Option<TripReason>, Missed> {
        let is_current = || self.word().carried() == word;
        let mut broken = None;
        if word.window() == Kind::Calls {
            let held = self.errors.record(bad, is_current);
            if self.errors.is_broken_by(held.ok_or(Missed)?) {
                broken = Some(TripReason::ErrorRate);
            }
        } else if !is_current() {
            return Err(Missed);
        }
        self.tallies.settled(bad, false, false);
        Ok(self.run_on(word, bad, NEVER).or(broken))
    }

    /// Counts how a call ended that was admitted in `word`, a state whose calls are recorded.
    /// Returns the rule that says open, if one does. `turn` turns the windows on.
    #[inline(always)]
    pub(in crate::circuit) fn settle(
        &self,
        word: Word,
        end: &mut End,
        turn: impl Fn(u64),
    ) -> Result<Option<TripReason>, Missed> {
        let (now, slow) = (end.now, word.is_watched() && self.is_slow(end.ran));
        let counts = if word.is_in_time() {
            let call = Settled::new(end.bad, slow);
            let is_current = || self.word().carried() == word;
            let is_brief = |begins| {
                let is_brief = !end.has_left && end.started >= begins;
                if !is_brief {
                    self.leave(word, end);
                }
                is_brief
            };
            let sums = self
                .time
                .record(call, now, is_brief, is_current, || turn(now));
            let sums = sums.ok_or(Missed)?;
            [sums.errors(), sums.slow()]
        } else {
            self.leave(word, end);
            self.count(word, end.bad, slow)?
        };
        let broken = self.broken_rate(word, counts, now, turn);
        Ok(self.run_on(word, end.bad, now).or(broken))
    }

    /// Counts a call where there is no window of time. Returns what the windows hold.
    #[inline(never)]
    fn count(&self, word: Word, bad: bool, slow: bool) -> Result<[Counts; 2], Missed> {
        let is_current = || self.word().carried() == word;
        let mut counts = [Counts::default(); 2];
        let in_calls = word.window() == Kind::Calls;
        if in_calls && word.keeps_errors() {
            counts[0] = self.errors.record(bad, is_current).ok_or(Missed)?;
        } else if !is_current() {
            return Err(Missed);
        }
        if in_calls
            && word.keeps_slow()
            && let Some(watched) = self.slow()
        {
            match watched.rate.record(slow, is_current) {
                Some(held) => counts[1] = held,
                None if !word.keeps_errors() => return Err(Missed),
                // It was counted above. If it is not current any more, what this window holds has just
                // been cleared away; or the circuit was reconfigured, and it is missing here.
                None => {}
            }
        }
        self.tallies.settled(bad, slow, word.is_counted());
        Ok(counts)
    }

    /// The rate that says open, of failures and of slow calls, if one does. Those that still run are
    /// among the slow ones.
    #[inline(always)]
    fn broken_rate(
        &self,
        word: Word,
        [errors, slow]: [Counts; 2],
        now: u64,
        turn: impl Fn(u64),
    ) -> Option<TripReason> {
        let mut broken = None;
        if word.is_watched()
            && let Some(watched) = self.slow()
        {
            if now >= watched.running.due() {
                turn(now);
            }
            let slow = slow.and_bad(watched.running.overdue(word.cohort()));
            if watched.rate.is_broken_by(slow) {
                broken = Some(TripReason::SlowCalls);
            }
        }
        if self.errors.is_broken_by(errors) {
            broken = Some(TripReason::ErrorRate);
        }
        broken
    }

    /// Prolongs the run or ends it, and remembers when that was. Returns the rule if it says open: that
    /// outranks the rates, because it is the plainest news.
    #[inline(always)]
    fn run_on(&self, word: Word, bad: bool, now: u64) -> Option<TripReason> {
        if !bad {
            self.succeeded(word, now);
            return None;
        }
        let broken = self.run.failure(word.generation());
        if self.word().carried() == word {
            self.tallies.last_failure.store(now, Relaxed);
        }
        broken.then_some(TripReason::ConsecutiveFailures)
    }

    /// What a success does beside its window.
    #[inline(always)]
    pub(in crate::circuit) fn succeeded(&self, word: Word, now: u64) {
        self.run.success(word.generation());
        if word.is_counted() {
            self.last_success.store(now, Relaxed);
        }
    }

    /// Counts a call that is too late to move anything else.
    #[cold]
    pub(in crate::circuit) fn settle_late(&self, ran: u64, bad: bool) {
        self.tallies.settled(bad, self.is_slow(ran), true);
    }

    /// Counts the latency of a call that has succeeded or failed.
    #[inline]
    pub(in crate::circuit) fn took(&self, ran: u64) {
        #[cfg(feature = "latency")]
        if let Some(latencies) = self.latencies.get() {
            latencies.record(ran);
        }
        #[cfg(not(feature = "latency"))]
        let _ = ran;
    }
}

//! Another configuration, in place.
//!
//! Most of a configuration is only looked at when something happens, and simply takes effect from
//! then on. What calls are recorded in is the circuit's [`Shape`]: where that changes, nobody is
//! admitted or recorded for the moment, and calls in flight find out when they settle. The
//! generation stays, so they count all the same, by the new rules.

use super::{Machine, Phase, recording::same_moment};
use crate::circuit::{
    backoff,
    clock::nanos,
    config::{CircuitBreakerConfig, Record},
    hot::Hot,
    shape::{self, Shape, Windows},
    state::TripReason,
    sync::Ordering::Relaxed,
    window::{Kind, Span},
};

impl Machine {
    pub(in crate::circuit) fn reconfigure(
        &mut self,
        hot: &Hot,
        now: u64,
        config: CircuitBreakerConfig,
    ) {
        let old = std::mem::replace(&mut self.config, config);
        self.configure(hot, now, Some(&old));
        self.reschedule(hot, now, &old);
        // What they wait for may have moved.
        self.wake_all();
    }

    /// Has calls recorded as the configuration says. `old` is the one before, if there was one.
    pub(super) fn configure(&mut self, hot: &Hot, now: u64, old: Option<&CircuitBreakerConfig>) {
        hot.make(&self.config);
        let shape = self.next_shape(old);
        if shape.version == self.shape.version && old.is_some() {
            return hot.configure(&self.config, self.generation);
        }
        hot.suspend();
        let begins_to_count = shape.counting != 0 && shape.counting != self.shape.counting;
        let watches_anew = shape.watching != self.shape.watching;
        if watches_anew {
            self.watch_nobody(hot);
        }
        self.shape = shape;
        self.fit_windows(hot, now, old.map(Windows::of).unwrap_or_default());
        if begins_to_count {
            self.count_settled_as_admitted(hot);
        }
        if watches_anew {
            self.watch(hot, now);
        }
        hot.configure(&self.config, self.generation);
        hot.publish(self.word(), self.until());
    }

    /// Has the windows be what the configuration asks for, where they aren't by `old`. Nobody may be
    /// recording.
    fn fit_windows(&mut self, hot: &Hot, now: u64, old: Windows) {
        let new = Windows::of(&self.config);
        let period = |windows: Windows| match windows.span {
            Some(Span::Period(period)) => Some(period),
            _ => None,
        };
        if period(new) != period(old) {
            if let Some(ring) = &mut self.ring {
                hot.time.clear(ring, same_moment(&mut self.cohort, hot));
            }
            // What it has counted for good is no longer to be had from it.
            hot.tallies.keep(self.lifetime(hot));
            self.ring = period(new).map(|period| {
                let watch = same_moment(&mut self.cohort, hot);
                Box::new(hot.time.begin(period, now, watch))
            });
        }
        if let Some(Span::Calls(size)) = new.span {
            let resized = new.span != old.span;
            let changed = [resized || !old.errors, resized || !old.slow];
            for (rate, changed) in self.rates_of_calls(hot).into_iter().zip(changed) {
                if let Some(rate) = rate.filter(|_| changed) {
                    rate.begin(size);
                }
            }
        }
    }

    /// The shape that the configuration asks for; another version if that is another shape.
    fn next_shape(&mut self, old: Option<&CircuitBreakerConfig>) -> Shape {
        let config = &self.config;
        let counted = old.is_some_and(|old| old.record == Record::All);
        let counting = match config.record {
            Record::Rules => 0,
            Record::All if counted => self.shape.counting,
            Record::All => shape::another(&mut self.last_counting, 7),
        };
        let slow_after = old.and_then(|old| old.slow_call_duration);
        // Those who are watched are counted as admitted by that, so both begin anew together.
        let counts_alike = counting == self.shape.counting;
        let watching = match config.slow_call_duration {
            None => 0,
            same if same == slow_after && counts_alike => self.shape.watching,
            Some(_) => shape::another(&mut self.last_watching, 15),
        };
        let windows = Windows::of(config);
        let mut shape = Shape {
            counting,
            timed: shape::is_timed(config),
            watching,
            window: windows.span.map_or(Kind::None, Span::kind),
            errors: windows.errors,
            slow: windows.slow,
            version: self.shape.version,
        };
        if shape != self.shape || old.map(Windows::of) != Some(windows) {
            shape.version = shape.version.wrapping_add(1);
        }
        shape
    }

    /// From here on admissions are counted. Calls that settled before were admitted as well; those
    /// in flight are counted when they settle.
    fn count_settled_as_admitted(&self, hot: &Hot) {
        let tallies = &hot.tallies;
        let settled =
            [&tallies.good, &tallies.bad, &tallies.ignored].map(|count| count.load(Relaxed));
        let counted = self.lifetime(hot).settled;
        let admitted = settled.iter().sum::<u64>() + counted;
        hot.admitted.store(admitted, Relaxed);
    }

    /// Works out anew what was to happen by time.
    fn reschedule(&mut self, hot: &Hot, now: u64, old: &CircuitBreakerConfig) {
        let since = self.since;
        let waits_alike = old.reset_timeout == self.config.reset_timeout
            && old.reset_backoff == self.config.reset_backoff;
        match &mut self.phase {
            // Where the dependency itself has said for how long, that stands.
            Phase::Open { until }
                if !waits_alike && self.reason != Some(TripReason::RetryAfter) =>
            {
                let wait = backoff::wait(&self.config, self.openings.saturating_sub(1));
                *until = since.saturating_add(nanos(wait)).max(self.asked_until);
                hot.set_until(*until);
            }
            Phase::HalfOpen(turn) => {
                if old.half_open_timeout != self.config.half_open_timeout {
                    turn.ends = since.saturating_add(nanos(self.config.half_open_timeout));
                }
                self.decide(hot, now);
            }
            Phase::Closed(Some(ramp)) => {
                let all = self.config.recovery_ramp.map_or(0, nanos);
                ramp.lengthen(all);
                self.expire(hot, now);
            }
            Phase::Closed(None) | Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
    }
}

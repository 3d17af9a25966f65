//! How long calls take.
//!
//! Each settled call is counted in the bucket of its latency, with one atomic addition. Buckets are
//! as wide as 1/32 of the latencies in them (HDR histogram, base 2), so a percentile is at most 3 %
//! too high; it is never too low. They cover everything to 18 minutes; what takes longer counts as
//! that. The longest latency is kept exactly.

use std::{cell::RefCell, time::Duration};

use histogram::{AtomicHistogram, Histogram};

use super::{
    metrics::Latency,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// Buckets per power of two, as a power of two.
const PRECISION: u8 = 5;
/// Latencies below 2^40 ns, 18 minutes. The whole takes 1,152 buckets, 9 KiB.
const RANGE: u8 = 40;

#[derive(Debug)]
pub(super) struct Latencies {
    buckets: AtomicHistogram,
    longest: AtomicU64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            buckets: AtomicHistogram::new(PRECISION, RANGE)
                .expect("the precision is less than the range, which is at most 64"),
            longest: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn record(&self, nanos: u64) {
        // Within the range, so it can't fail.
        let _ = self.buckets.increment(nanos.min((1 << RANGE) - 1));
        if nanos > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanos, Relaxed);
        }
    }

    /// `None` before the first call has settled. Calls go on recording meanwhile.
    pub(super) fn percentiles(&self) -> Option<Latency> {
        let mut buckets = [None, None, None];
        let copied = COPY.try_with(|copy| {
            let copy = &mut *copy.borrow_mut();
            self.buckets.load_into(copy).ok()?;
            copy.quantile_buckets_into(&[0.5, 0.9, 0.99], &mut buckets)
                .ok()
        });
        // Not to be had while the thread ends, and its copy is gone.
        copied.ok().flatten()?;
        let max = self.longest.load(Relaxed);
        // Not beyond the longest, whose bucket may end later.
        let [p50, p90, p99] =
            buckets.map(|bucket| Some(Duration::from_nanos(bucket?.end().min(max))));
        Some(Latency {
            p50: p50?,
            p90: p90?,
            p99: p99?,
            max: Duration::from_nanos(max),
        })
    }
}

thread_local! {
    /// For the buckets of whichever circuit this thread asks, so that asking allocates nothing.
    static COPY: RefCell<Histogram> = RefCell::new(
        Histogram::new(PRECISION, RANGE)
            .expect("the precision is less than the range, which is at most 64"),
    );
}

#[cfg(all(test, not(tower_breaker_loom)))]
mod tests {
    use super::*;

    #[test]
    fn b9_percentiles_are_at_most_3_percent_too_high_and_the_longest_is_exact() {
        let latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        for i in 1..=1000 {
            latencies.record(i * 1_000_003);
        }
        let seen = latencies.percentiles().unwrap();
        for (got, rank) in [(seen.p50, 500), (seen.p90, 900), (seen.p99, 990)] {
            let exact = rank * 1_000_003;
            let got = u64::try_from(got.as_nanos()).unwrap();
            assert!(
                (exact..=exact + exact / 32).contains(&got),
                "{got} for {exact}"
            );
        }
        assert_eq!(seen.max, Duration::from_nanos(1_000_003_000));
    }

    #[test]
    fn b11_no_latency_is_too_long_or_too_short() {
        let latencies = Latencies::new();
        latencies.record(0);
        latencies.record(u64::MAX);
        let seen = latencies.percentiles().unwrap();
        assert_eq!(
            (seen.p50, seen.max),
            (Duration::ZERO, Duration::from_nanos(u64::MAX))
        );
        assert_eq!(seen.p99, Duration::from_nanos((1 << RANGE) - 1));
    }
}

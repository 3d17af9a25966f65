use super::*;
use proptest::prelude::*;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    mem::{size_of, size_of_val},
    sync::Barrier,
    thread,
};

/// What the window should be: a list of the last `size` outcomes.
struct Naive {
    size: usize,
    calls: VecDeque<bool>,
    bad: u64,
}

impl Naive {
    fn new(size: u32) -> Self {
        Self {
            size: size as usize,
            calls: VecDeque::new(),
            bad: 0,
        }
    }

    fn record(&mut self, bad: bool) -> Held {
        if self.calls.len() == self.size {
            self.bad -= u64::from(self.calls.pop_front() == Some(true));
        }
        self.calls.push_back(bad);
        self.bad += u64::from(bad);
        self.counts()
    }

    fn counts(&self) -> Held {
        Held {
            bad: self.bad,
            settled: self.calls.len() as u64,
        }
    }

    fn clear(&mut self) {
        self.calls.clear();
        self.bad = 0;
    }
}

fn held(bad: u64, settled: u64) -> Held {
    Held { bad, settled }
}

fn kept(bad: u64, settled: u64) -> Recorded {
    Recorded::Kept(held(bad, settled))
}

/// A window whose tags are `left` steps before they overflow.
fn about_to_overflow(size: u32, left: u64) -> CountWindow {
    overflowing(CountWindow::new(size), left)
}

fn overflowing(mut window: CountWindow, left: u64) -> CountWindow {
    let tag_shift = window.shift + window.position_mask.count_ones();
    window.head = AtomicU64::new(left.wrapping_neg() << tag_shift);
    for word in &mut window.ring {
        *word = AtomicU64::new(left.wrapping_neg() << OUTCOMES);
    }
    window
}

#[test]
fn b1_it_slides_with_every_call() {
    let window = CountWindow::new(3);
    assert_eq!(window.counts(), held(0, 0));
    assert_eq!(window.record(true, || true), kept(1, 1));
    assert_eq!(window.record(false, || true), kept(1, 2));
    assert_eq!(window.record(true, || true), kept(2, 3));
    assert_eq!(window.record(false, || true), kept(1, 3));
    assert_eq!(window.record(false, || true), kept(1, 3));
    assert_eq!(window.record(false, || true), kept(0, 3));
    assert_eq!(window.record(true, || true), kept(1, 3));
    assert_eq!(window.counts(), held(1, 3));
    window.clear();
    assert_eq!(window.counts(), held(0, 0));
    assert_eq!(window.record(false, || true), kept(0, 1));
}

#[test]
fn b4_a_late_call_counts_nowhere() {
    let window = CountWindow::new(2);
    for bad in [true, false] {
        assert_eq!(window.record(bad, || false), Recorded::Late);
    }
    assert_eq!(window.counts(), held(0, 0));
    window.record(false, || true);
    window.record(false, || true);
    assert_eq!(window.record(false, || false), Recorded::Late);
}

#[test]
fn a_good_call_in_a_clean_full_window_stores_nothing() {
    let window = CountWindow::new(20);
    for _ in 0..25 {
        window.record(false, || true);
    }
    let before = window.head.load(Ordering::Relaxed);
    assert_eq!(window.record(false, || true), kept(0, 20));
    assert_eq!(window.head.load(Ordering::Relaxed), before);
}

/// A call that was about to enter the empty window must fail all the same.
#[test]
fn b4_clearing_an_empty_window_changes_the_head() {
    let window = CountWindow::new(4);
    let before = window.head.load(Ordering::Relaxed);
    window.clear();
    assert_ne!(window.head.load(Ordering::Relaxed), before);
    assert_eq!(window.counts(), held(0, 0));
}

/// A call that finds its generation changed when it has to start again.
#[test]
fn b4_a_call_that_is_overtaken_by_a_clearing_is_late() {
    let window = CountWindow::new(4);
    let asked = AtomicU64::new(0);
    let recorded = window.record(true, || {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            window.clear();
        }
        first
    });
    assert_eq!(recorded, Recorded::Late);
    assert_eq!(window.counts(), held(0, 0));
}

#[test]
#[should_panic(expected = "a count window holds 1 to 1048576 calls")]
fn b1_a_window_of_no_calls_is_refused() {
    CountWindow::new(0);
}

#[test]
#[should_panic(expected = "a count window holds 1 to 1048576 calls")]
fn b1_a_window_beyond_the_largest_is_refused() {
    CountWindow::new(MAX_SIZE + 1);
}

#[test]
fn the_tag_has_the_bits_that_the_docs_say() {
    for (size, bits) in [
        (1, 54),
        (100, 41),
        (1_000, 35),
        (65_535, 27),
        (MAX_SIZE, 21),
    ] {
        let window = CountWindow::new(size);
        let tag_shift = window.shift + window.position_mask.count_ones();
        assert_eq!(u64::BITS - tag_shift, bits, "size {size}");
    }
    for size in 1..=MAX_SIZE {
        let (bad_bits, position_bits) = (bits(size), bits(size - 1));
        let tag_bits = 63 - bad_bits - chunk_of(bad_bits) - position_bits;
        assert!(u64::from(size) << tag_bits >= 1 << 41, "size {size}");
    }
}

#[test]
fn p_a_window_of_100_is_small() {
    let window = CountWindow::new(100);
    let bytes = size_of::<CountWindow>() + size_of_val(&*window.ring);
    assert!(bytes <= 128, "{bytes} bytes");
}

/// Sizes around the ends of words, of powers of two and of the range.
#[test]
fn b1_any_size_holds_just_so_many() {
    for size in [
        1, 2, 3, 15, 16, 17, 31, 32, 33, 100, 127, 128, 129, 65_535, 65_536, 65_537, 1_048_575,
        MAX_SIZE,
    ] {
        let window = about_to_overflow(size, 2);
        let size = u64::from(size);
        for call in 1..=size + 3 {
            let now = call.min(size);
            assert_eq!(window.record(true, || true), kept(now, now));
        }
        for call in 1..=size + 3 {
            let left = size.saturating_sub(call);
            assert_eq!(window.record(false, || true), kept(left, size));
        }
        window.clear();
        assert_eq!(window.record(true, || true), kept(1, 1));
    }
}

/// A write to the ring that a thread has computed and not yet done.
struct Stalled {
    head: u64,
    position: u32,
    word: u64,
}

/// Counts a call whose owner (or helper: they would do the same write) stops right before it writes
/// to the ring, if it has to.
fn record_and_stall(window: &CountWindow, bad: bool, stalled: &mut Vec<Stalled>) -> Recorded {
    let head = window.head.load(Ordering::Relaxed);
    window.finish(head);
    let position = window.position(head);
    let slot = window.slot(position);
    let word = slot.load(Ordering::Relaxed);
    let recorded = window.record(bad, || true);
    if slot.swap(word, Ordering::Relaxed) != word {
        let head = window.head.load(Ordering::Relaxed);
        stalled.push(Stalled {
            head,
            position,
            word,
        });
    }
    recorded
}

#[derive(Debug, Clone)]
enum Step {
    Record(bool),
    /// As many calls of the same outcome.
    Run(bool, usize),
    Stall(bool),
    /// One of those who stalled goes on.
    Resume(prop::sample::Index),
    Late(bool),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<bool>().prop_map(Step::Record),
        2 => (any::<bool>(), 1_usize..40).prop_map(|(bad, calls)| Step::Run(bad, calls)),
        8 => any::<bool>().prop_map(Step::Stall),
        8 => any::<prop::sample::Index>().prop_map(Step::Resume),
        1 => any::<bool>().prop_map(Step::Late),
        1 => Just(Step::Clear),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// The window against a list, from tags that overflow on the way, and with threads that stop
    /// before they write to the ring and go on at any later time, or never.
    #[test]
    fn b6_the_window_equals_a_list(
        size in prop_oneof![1_u32..6, 1_u32..70, Just(256_u32)],
        chunk in prop::sample::select(vec![1_u32, 2, 4, 8]),
        left in 1_u64..20,
        steps in steps(),
    ) {
        // Also the small chunks of the large windows.
        let window = overflowing(CountWindow::with_chunk(size, chunk), left);
        let mut naive = Naive::new(size);
        let mut stalled = Vec::new();
        for step in steps {
            match step {
                Step::Record(bad) => {
                    let expected = Recorded::Kept(naive.record(bad));
                    prop_assert_eq!(window.record(bad, || true), expected);
                }
                Step::Run(bad, calls) => {
                    for _ in 0..calls {
                        let expected = Recorded::Kept(naive.record(bad));
                        prop_assert_eq!(window.record(bad, || true), expected);
                    }
                }
                Step::Stall(bad) => {
                    let expected = Recorded::Kept(naive.record(bad));
                    prop_assert_eq!(record_and_stall(&window, bad, &mut stalled), expected);
                }
                Step::Resume(index) => {
                    if !stalled.is_empty() {
                        let Stalled { head, position, word } =
                            stalled.swap_remove(index.index(stalled.len()));
                        window.write(head, window.slot(position), word, position);
                    }
                }
                Step::Late(bad) => {
                    prop_assert_eq!(window.record(bad, || false), Recorded::Late);
                }
                Step::Clear => {
                    window.clear();
                    naive.clear();
                }
            }
            prop_assert_eq!(window.counts(), naive.counts());
        }
    }

    /// A call that is overtaken between its look at the head and its move, by any number of rounds
    /// and clearings.
    #[test]
    fn b6_a_call_that_is_overtaken_starts_again(
        size in 1_u32..40,
        before in prop::collection::vec(any::<bool>(), 0..80),
        overtaking in prop::collection::vec(prop::option::weighted(0.95, any::<bool>()), 1..80),
        bad: bool,
    ) {
        let window = CountWindow::new(size);
        let naive = RefCell::new(Naive::new(size));
        for bad in before {
            let expected = Recorded::Kept(naive.borrow_mut().record(bad));
            prop_assert_eq!(window.record(bad, || true), expected);
        }
        let first = naive.borrow().counts();

        let overtaken = Cell::new(false);
        let recorded = window.record(bad, || {
            if !overtaken.replace(true) {
                for step in &overtaking {
                    let mut naive = naive.borrow_mut();
                    match *step {
                        Some(bad) => {
                            let expected = Recorded::Kept(naive.record(bad));
                            assert_eq!(window.record(bad, || true), expected);
                        }
                        None => {
                            window.clear();
                            naive.clear();
                        }
                    }
                }
            }
            true
        });
        if !bad && first == held(0, size.into()) {
            // It was counted where it read the head, and changed nothing.
            prop_assert_eq!(recorded, Recorded::Kept(first));
        } else {
            prop_assert_eq!(recorded, Recorded::Kept(naive.borrow_mut().record(bad)));
        }
        prop_assert_eq!(window.counts(), naive.borrow().counts());
    }
}

/// A call as its thread saw it: the head that it made, or read if it changed nothing.
struct Seen {
    head: u64,
    bad: bool,
    generation: u64,
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 11
}

/// Real threads record and one clears. The heads put all that they did in one order, and in that
/// order everything is done again with a list: each call must have been told what the list says,
/// no position may be missing or taken twice, and no call may stand behind a clearing that ended
/// its generation.
#[test]
fn b6_threads_agree_on_one_order_that_a_list_confirms() {
    const THREADS: u64 = 4;
    const CALLS: usize = 30_000;

    // How many in 64 are bad; 0 to 1 passes through clean windows.
    for (size, bad_of_64, clears) in [
        (1, 32, 0),
        (2, 32, 300),
        (3, 8, 300),
        (16, 1, 0),
        (17, 32, 300),
        (100, 1, 300),
        (100, 48, 0),
        (1_000, 32, 30),
    ] {
        let window = CountWindow::new(size);
        // Twice the generation; one more while it changes and the window is being cleared, when
        // no call is admitted.
        let word = AtomicU64::new(0);
        let late = AtomicU64::new(0);
        let barrier = Barrier::new(THREADS as usize + 1);

        let mut seen: Vec<Seen> = thread::scope(|scope| {
            let recorders: Vec<_> = (1..=THREADS)
                .map(|thread| {
                    let (window, word, late, barrier) = (&window, &word, &late, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let mut seed = thread << 32 | 0x9E37_79B9;
                        let mut seen = Vec::with_capacity(CALLS);
                        let mut called = 0;
                        while called < CALLS {
                            let admitted = word.load(Ordering::Acquire);
                            if admitted % 2 == 1 {
                                thread::yield_now();
                                continue;
                            }
                            called += 1;
                            let bad = random(&mut seed) % 64 < bad_of_64;
                            let stop = random(&mut seed).is_multiple_of(64);
                            let entered = window.enter(bad, || {
                                let current = word.load(Ordering::Relaxed) == admitted;
                                if stop {
                                    thread::yield_now();
                                }
                                current
                            });
                            match entered {
                                Some(head) => seen.push(Seen {
                                    head,
                                    bad,
                                    generation: admitted / 2,
                                }),
                                None => _ = late.fetch_add(1, Ordering::Relaxed),
                            }
                            let Held { bad, settled } = window.counts();
                            assert!(bad <= settled && settled <= size.into());
                        }
                        seen
                    })
                })
                .collect();
            barrier.wait();
            for _ in 0..clears {
                for _ in 0..20 {
                    thread::yield_now();
                }
                word.fetch_add(1, Ordering::Release);
                window.clear();
                word.fetch_add(1, Ordering::Release);
            }
            recorders
                .into_iter()
                .flat_map(|recorder| recorder.join().expect("a recorder failed"))
                .collect()
        });
        let late = late.into_inner();
        assert_eq!(seen.len() as u64 + late, THREADS * CALLS as u64);

        let position_bits = window.position_mask.count_ones();
        let place = |head: u64| {
            let tag = head >> window.shift >> position_bits;
            (tag, window.position(head), head & FULL != 0)
        };
        let last = |head: u64| {
            let position = window.position(head).checked_sub(1).unwrap_or(size - 1);
            head >> (window.recent_shift + (position & window.chunk_mask)) & 1 != 0
        };
        let after = |(tag, position, full): (u64, u32, bool)| {
            if position + 1 == size {
                (tag + 1, 0, true)
            } else {
                (tag, position + 1, full)
            }
        };

        seen.sort_by_key(|seen| place(seen.head));
        let mut naive = Naive::new(size);
        let mut at = (0, 0, false);
        let mut generation = 0;
        for same in seen.chunk_by(|a, b| place(a.head) == place(b.head)) {
            let head = same[0].head;
            while after(at) != place(head) {
                // Only clearings can have come between.
                assert!(at.0 < place(head).0, "size {size}: {at:?}, then {head:x}");
                naive.clear();
                generation += 1;
                at = (at.0 + 1, 0, false);
            }
            at = after(at);
            let expected = naive.record(same[0].bad);
            assert_eq!(window.held(head), expected, "size {size}, at {at:?}");
            for seen in same {
                assert_eq!(seen.head, head);
                assert_eq!(seen.bad, last(head));
                assert_eq!(seen.generation, generation, "size {size}, at {at:?}");
            }
            // One of them made this head. The others read it, which is right in a clean window.
            assert!(same.len() == 1 || expected == held(0, size.into()));
        }
        // What is left are clearings that no call followed.
        while at != place(window.head.load(Ordering::Relaxed)) {
            naive.clear();
            generation += 1;
            assert!(generation <= clears);
            at = (at.0 + 1, 0, false);
        }
        assert_eq!(generation, clears);
        assert_eq!(window.counts(), naive.counts());
        println!("size {size}: {} counted, {late} late", seen.len());
    }
}

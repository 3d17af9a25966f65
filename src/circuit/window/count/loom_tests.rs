//! All interleavings, and all stale reads that the memory model allows, of a few threads on the
//! smallest windows, with chunks of one and of two. A word of the ring holds two outcomes here, so
//! three calls need a second one.

use super::*;
use loom::{sync::Arc, thread};
use std::collections::VecDeque;

#[derive(Debug, Clone, Copy)]
enum Step {
    Bad,
    Good,
    Read,
}
use Step::{Bad, Good, Read};

impl Step {
    fn run(self, window: &CountWindow) -> Held {
        let recorded = match self {
            Bad => window.record(true, || true),
            Good => window.record(false, || true),
            Read => Recorded::Kept(window.counts()),
        };
        match recorded {
            Recorded::Kept(held) => held,
            Recorded::Late => unreachable!("always current"),
        }
    }

    fn run_naively(self, size: u32, calls: &mut VecDeque<bool>) -> Held {
        if !matches!(self, Read) {
            if calls.len() == size as usize {
                calls.pop_front();
            }
            calls.push_back(matches!(self, Bad));
        }
        Held {
            bad: calls.iter().filter(|&&bad| bad).count() as u64,
            settled: calls.len() as u64,
        }
    }
}

/// What a thread did and was told.
type Told = Vec<(Step, Held)>;

/// Whether some order of what the threads did explains what each was told.
fn explained(size: u32, calls: &VecDeque<bool>, threads: &mut [&[(Step, Held)]]) -> bool {
    let Some((&last, others)) = threads.split_last() else {
        return true;
    };
    // The last "thread" comes when the others are through.
    if others.iter().all(|told| told.is_empty()) {
        let mut calls = calls.clone();
        return last
            .iter()
            .all(|&(step, held)| step.run_naively(size, &mut calls) == held);
    }
    for i in 0..threads.len() - 1 {
        if let [(step, held), rest @ ..] = threads[i] {
            let mut calls = calls.clone();
            if step.run_naively(size, &mut calls) == *held {
                let whole = std::mem::replace(&mut threads[i], rest);
                if explained(size, &calls, threads) {
                    return true;
                }
                threads[i] = whole;
            }
        }
    }
    false
}

fn run(steps: &[Step], window: &CountWindow) -> Told {
    steps.iter().map(|&step| (step, step.run(window))).collect()
}

/// Explores `threads` on a window in which `before` has been recorded. At the end, good calls push
/// out what the window holds, one by one, which shows the order of its calls.
fn explore(
    preemptions: impl Into<Option<usize>>,
    size: u32,
    before: &'static [Step],
    threads: &'static [&'static [Step]],
) {
    let preemptions = preemptions.into();
    explore_chunks(preemptions, size, 1, before, threads);
    // A window of one never collects more than that.
    if size > 1 {
        explore_chunks(preemptions, size, 2, before, threads);
    }
}

fn explore_chunks(
    preemptions: Option<usize>,
    size: u32,
    chunk: u32,
    before: &'static [Step],
    threads: &'static [&'static [Step]],
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let window = Arc::new(CountWindow::with_chunk(size, chunk));
        let mut calls = VecDeque::new();
        for step in before {
            assert_eq!(step.run(&window), step.run_naively(size, &mut calls));
        }

        let (here, spawned) = threads.split_first().expect("at least one thread");
        let spawned: Vec<_> = spawned
            .iter()
            .map(|steps| {
                let window = Arc::clone(&window);
                thread::spawn(move || run(steps, &window))
            })
            .collect();
        let mut told = vec![run(here, &window)];
        told.extend(spawned.into_iter().map(|thread| thread.join().unwrap()));
        told.push(run(&[Read, Good, Good, Good, Good], &window));

        let mut slices: Vec<_> = told.iter().map(Vec::as_slice).collect();
        assert!(
            explained(size, &calls, &mut slices),
            "size {size} after {before:?}: no order explains {told:?}"
        );
    });
}

#[test]
fn loom_two_calls_on_every_small_window() {
    for size in 1..=3 {
        for before in [
            &[][..],
            &[Bad],
            &[Good, Bad],
            &[Bad, Good, Good, Bad],
            &[Good, Good, Good],
        ] {
            explore(None, size, before, &[&[Bad], &[Good]]);
            explore(None, size, before, &[&[Bad], &[Bad]]);
        }
    }
}

#[test]
fn loom_two_threads_go_round_a_window_of_one() {
    explore(4, 1, &[], &[&[Bad, Good], &[Good, Bad]]);
    explore(4, 1, &[Bad], &[&[Good, Bad], &[Bad, Good]]);
}

#[test]
fn loom_two_threads_go_round_a_window_of_two() {
    explore(4, 2, &[Bad], &[&[Bad, Good], &[Good, Bad]]);
    explore(4, 2, &[Bad, Good], &[&[Good, Bad], &[Bad, Bad]]);
}

#[test]
fn loom_two_threads_go_round_a_window_of_three() {
    explore(None, 3, &[Good, Bad], &[&[Bad, Good], &[Good, Bad]]);
    explore(None, 3, &[Bad, Good, Bad], &[&[Good, Bad], &[Bad, Bad]]);
}

#[test]
fn loom_a_reader_sees_the_order_too() {
    for size in 1..=3 {
        explore(
            None,
            size,
            &[Good, Good, Good],
            &[&[Read, Read], &[Bad, Good]],
        );
    }
}

/// One may be held up before its write, another while it helps, and the third goes on.
#[test]
fn loom_a_stalled_helper_harms_no_later_round_of_one() {
    explore(2, 1, &[Good], &[&[Bad, Good], &[Bad], &[Bad]]);
}

#[test]
fn loom_a_stalled_helper_harms_no_later_round_of_two() {
    explore(2, 2, &[Good, Good], &[&[Bad], &[Bad], &[Good, Good]]);
}

/// As a circuit does it: the generation changes, then the window is cleared. Nothing but the
/// window's own orderings may be needed, so the generation is relaxed.
fn explore_clear(
    preemptions: impl Into<Option<usize>>,
    size: u32,
    before: &'static [Step],
    old: &'static [&'static [bool]],
    new: &'static [Step],
) {
    let preemptions = preemptions.into();
    explore_clear_chunks(preemptions, size, 1, before, old, new);
    if size > 1 {
        explore_clear_chunks(preemptions, size, 2, before, old, new);
    }
}

fn explore_clear_chunks(
    preemptions: Option<usize>,
    size: u32,
    chunk: u32,
    before: &'static [Step],
    old: &'static [&'static [bool]],
    new: &'static [Step],
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let window = Arc::new(CountWindow::with_chunk(size, chunk));
        let generation = Arc::new(AtomicU64::new(0));
        let mut calls = VecDeque::new();
        for step in before {
            assert_eq!(step.run(&window), step.run_naively(size, &mut calls));
        }

        let threads: Vec<_> = old
            .iter()
            .map(|calls| {
                let (window, generation) = (Arc::clone(&window), Arc::clone(&generation));
                thread::spawn(move || -> Told {
                    let record = |&bad: &bool| {
                        let current = || generation.load(Ordering::Relaxed) == 0;
                        match window.record(bad, current) {
                            Recorded::Kept(held) => Some((if bad { Bad } else { Good }, held)),
                            Recorded::Late => None,
                        }
                    };
                    let told: Vec<_> = calls.iter().map(record).collect();
                    // Once late, always late.
                    assert!(told.is_sorted_by_key(Option::is_none));
                    told.into_iter().flatten().collect()
                })
            })
            .collect();

        generation.store(1, Ordering::Relaxed);
        window.clear();
        // What the old calls did is gone, and goes on being gone.
        let mut fresh = VecDeque::new();
        for step in new {
            assert_eq!(step.run(&window), step.run_naively(size, &mut fresh));
        }

        let mut told: Vec<Told> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        for step in [Read, Good, Good, Good, Good] {
            assert_eq!(step.run(&window), step.run_naively(size, &mut fresh));
        }
        // Those that were kept all came before the clearing.
        told.push(Vec::new());
        let mut slices: Vec<_> = told.iter().map(Vec::as_slice).collect();
        assert!(
            explained(size, &calls, &mut slices),
            "size {size} after {before:?}: no order explains {told:?}"
        );
    });
}

#[test]
fn loom_a_late_call_never_follows_the_clearing() {
    for size in 1..=3 {
        for before in [&[][..], &[Good, Good, Good], &[Bad, Good, Bad]] {
            explore_clear(4, size, before, &[&[true, false]], &[Bad, Good, Bad]);
        }
    }
}

#[test]
fn loom_clearing_is_not_disturbed_by_stalled_helpers() {
    explore_clear(3, 2, &[Good, Good], &[&[true], &[true]], &[Good, Bad, Good]);
    explore_clear(3, 1, &[], &[&[true], &[false]], &[Good, Bad]);
}

//! `Fallback` against a naive model: which link is taken, who wakes whom, and what is held (F2, F3, F5, F7).
#![cfg(feature = "fallback")]

use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tokio_test::task::{self, Spawn};
use tower::Service;
use tower_breaker::fallback::{AttemptOutcome, Fallback, FallbackError, Link};

/// What the clones of a link have in common.
#[derive(Default)]
struct Gate {
    is_open: bool,
    is_available: bool,
    fails: bool,
    waiting: Vec<Waker>,
    /// How many instances have been told that they are ready, and not been called since.
    reserved: usize,
    calls: usize,
}

/// A service that is ready while its gate is open. It must be ready when it is called.
struct Gated {
    gate: Arc<Mutex<Gate>>,
    is_reserved: bool,
}

impl Gated {
    fn new(gate: &Arc<Mutex<Gate>>) -> Self {
        Self {
            gate: Arc::clone(gate),
            is_reserved: false,
        }
    }
}

impl Clone for Gated {
    fn clone(&self) -> Self {
        Self::new(&self.gate)
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.gate.lock().unwrap().reserved -= usize::from(self.is_reserved);
    }
}

impl Service<()> for Gated {
    type Response = ();
    type Error = &'static str;
    type Future = Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let mut gate = self.gate.lock().unwrap();
        if !self.is_reserved && !gate.is_open {
            gate.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        gate.reserved += usize::from(!self.is_reserved);
        self.is_reserved = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.is_reserved), "called unready");
        let mut gate = self.gate.lock().unwrap();
        gate.reserved -= 1;
        gate.calls += 1;
        ready(if gate.fails { Err("failed") } else { Ok(()) })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(usize, bool),
    Available(usize, bool),
    Fails(usize, bool),
    Poll,
    Call,
}

fn step() -> impl Strategy<Value = Step> {
    let link = 0..3_usize;
    prop_oneof![
        3 => (link.clone(), any::<bool>()).prop_map(|(link, to)| Step::Open(link, to)),
        2 => (link.clone(), any::<bool>()).prop_map(|(link, to)| Step::Available(link, to)),
        1 => (link, any::<bool>()).prop_map(|(link, to)| Step::Fails(link, to)),
        4 => Just(Step::Poll),
        3 => Just(Step::Call),
    ]
}

/// What the service has been told it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    Pending,
    Chosen(usize),
    Unavailable,
}

/// What `poll_ready` must come to, by the rules alone. No patience.
fn model(gates: &[Arc<Mutex<Gate>>], fail_fast: bool) -> Told {
    let seen = |link: usize| {
        let gate = gates[link].lock().unwrap();
        (gate.is_available, gate.is_open)
    };
    let mut links = 0..gates.len();
    if let Some(link) = links.clone().find(|link| seen(*link) == (true, true)) {
        return Told::Chosen(link);
    }
    // Those that are open and yet unavailable answer for their circuits: nobody wakes us for them.
    if !fail_fast && links.any(|link| !seen(link).1) {
        return Told::Pending;
    }
    Told::Unavailable
}

/// The links that a call is made to from `first` on, the last of which answers, if it answers.
fn called(gates: &[Arc<Mutex<Gate>>], first: usize) -> (Vec<usize>, bool) {
    let mut called = Vec::new();
    for (link, gate) in gates.iter().enumerate().skip(first) {
        let gate = gate.lock().unwrap();
        if link == first || (gate.is_available && gate.is_open) {
            called.push(link);
            if !gate.fails {
                return (called, true);
            }
        }
    }
    (called, false)
}

fn reserved(gates: &[Arc<Mutex<Gate>>]) -> Vec<usize> {
    let all = gates.iter().map(|gate| gate.lock().unwrap().reserved);
    all.collect()
}

fn calls(gates: &[Arc<Mutex<Gate>>]) -> Vec<usize> {
    let all = gates.iter().map(|gate| gate.lock().unwrap().calls);
    all.collect()
}

fn run<L>(fallback: Fallback<L>, gates: &[Arc<Mutex<Gate>>], fail_fast: bool, steps: Vec<Step>)
where
    Fallback<L>: Service<(), Response = (), Error = FallbackError<&'static str>> + Unpin,
{
    let mut service: Spawn<Fallback<L>> = task::spawn(fallback);
    let mut told = Told::Nothing;
    let mut shut = vec![false; gates.len()];
    for step in steps {
        match step {
            Step::Available(link, to) => gates[link].lock().unwrap().is_available = to,
            Step::Fails(link, to) => gates[link].lock().unwrap().fails = to,
            Step::Open(link, to) => {
                let mut gate = gates[link].lock().unwrap();
                let opens = to && !gate.is_open;
                gate.is_open = to;
                let waiting = if to {
                    std::mem::take(&mut gate.waiting)
                } else {
                    Vec::new()
                };
                drop(gate);
                waiting.into_iter().for_each(Waker::wake);
                // F5: whichever of the links opens that were shut, it wakes the one that waits.
                let awaited = told == Told::Pending && shut[link];
                assert!(!(opens && awaited) || service.is_woken());
            }
            Step::Poll => {
                let expected = match told {
                    // F7: ready stays ready.
                    Told::Chosen(_) | Told::Unavailable => told,
                    Told::Nothing | Told::Pending => model(gates, fail_fast),
                };
                let polled = service.enter(|cx, service| service.get_mut().poll_ready(cx));
                assert_eq!(polled.is_pending(), expected == Told::Pending);
                told = expected;
                shut = gates
                    .iter()
                    .map(|gate| !gate.lock().unwrap().is_open)
                    .collect();
            }
            Step::Call => {
                // F3 begins with the chosen link, whatever its gate says by now.
                let (expected, answered) = match told {
                    Told::Chosen(link) => called(gates, link),
                    Told::Unavailable => (Vec::new(), false),
                    Told::Nothing | Told::Pending => continue,
                };
                let before = calls(gates);
                let mut call = task::spawn(service.enter(|_, service| service.get_mut().call(())));
                let Poll::Ready(result) = call.poll() else {
                    panic!("nothing to wait for without patience");
                };
                let mut after = before;
                expected.iter().for_each(|link| after[*link] += 1);
                assert_eq!(calls(gates), after);
                assert_eq!(result.is_ok(), answered);
                if let Err(error) = result {
                    let failed: Vec<_> = error
                        .attempts()
                        .iter()
                        .filter(|attempt| attempt.outcome == AttemptOutcome::Failed)
                        .map(|attempt| attempt.link)
                        .collect();
                    assert_eq!(failed, expected);
                    // F4: every link is accounted for.
                    assert_eq!(error.attempts().len(), gates.len());
                }
                told = Told::Nothing;
            }
        }
        // F7: the chosen link alone is reserved, and only until the call.
        let mut held = vec![0; gates.len()];
        if let Told::Chosen(link) = told {
            held[link] = 1;
        }
        assert_eq!(reserved(gates), held, "after {step:?}");
    }
    drop(service);
    assert_eq!(reserved(gates), [0, 0, 0]);
}

proptest! {
    #[test]
    fn f2_f3_f5_f7_a_chain_does_what_the_rules_say(
        steps in vec(step(), 0..60),
        fail_fast in any::<bool>(),
        nested in any::<bool>(),
    ) {
        let gates: Vec<Arc<Mutex<Gate>>> = (0..3).map(|_| Arc::default()).collect();
        let probe = |link: usize| {
            let gate = Arc::clone(&gates[link]);
            move || match gate.lock().unwrap().is_available {
                true => Ok(()),
                false => Err(None::<Duration>),
            }
        };
        let link = |link: usize| Gated::new(&gates[link]);
        if nested {
            let chain = Fallback::new_link(link(0), probe(0))
                .or_link(link(1), probe(1))
                .or_link(link(2), probe(2));
            let chain = if fail_fast { chain.fail_fast() } else { chain };
            run(chain, &gates, fail_fast, steps);
        } else {
            let chain = Fallback::chain_links((0..3).map(|i| Link::new(link(i)).probe(probe(i))));
            let chain = if fail_fast { chain.fail_fast() } else { chain };
            run(chain, &gates, fail_fast, steps);
        }
    }
}

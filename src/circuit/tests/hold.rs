//! What keeps a circuit, and what goes with its last handle.

use std::sync::{Arc, mpsc};

use super::*;

/// A circuit that this thread keeps a hold of, and what a listener and a subscriber have of it.
fn kept() -> (Circuit, Arc<()>, Events) {
    let (circuit, _clock) = circuit(config());
    let listened = Arc::new(());
    let theirs = listened.clone();
    circuit.on_state_change(move |_| _ = theirs.clone());
    let events = circuit.events();
    settle(&circuit, "s");
    (circuit, listened, events)
}

fn total(circuit: &Circuit) -> Option<u64> {
    circuit.metrics().successful_requests
}

#[test]
fn b10_listeners_and_streams_go_with_the_last_handle() {
    let (circuit, listened, mut events) = kept();
    let other = circuit.clone();
    drop(circuit);
    assert_eq!(Arc::strong_count(&listened), 2);
    assert!(events.next().now_or_never().is_none());
    drop(other);
    assert_eq!(Arc::strong_count(&listened), 1);
    assert_eq!(events.next().now_or_never(), Some(None));
}

#[test]
fn b10_a_call_that_outlives_every_handle_tells_nobody() {
    let (circuit, listened, mut events) = kept();
    let calls = [(); 3].map(|()| circuit.try_acquire().unwrap());
    drop(circuit);
    calls.into_iter().for_each(Permit::failure);
    assert_eq!(Arc::strong_count(&listened), 1);
    assert_eq!(events.next().now_or_never(), Some(None));
}

#[test]
fn b10_what_happened_while_there_was_a_handle_is_told() {
    let (circuit, _clock) = circuit(config());
    let (tell, told) = mpsc::channel();
    let (going_on, go_on) = mpsc::channel();
    let go_on = std::sync::Mutex::new(go_on);
    circuit.on_state_change(move |event| {
        tell.send(event.to).unwrap();
        go_on.lock().unwrap().recv().unwrap();
    });
    let events = circuit.events();
    let calls = [(); 3].map(|()| circuit.try_acquire().unwrap());
    let calling = std::thread::spawn(move || calls.into_iter().for_each(Permit::failure));
    assert_eq!(told.recv(), Ok(CircuitState::Open));

    // That thread has no handle, and is to tell of this as well.
    circuit.force_open();
    drop(circuit);
    (0..2).for_each(|_| going_on.send(()).unwrap());
    calling.join().unwrap();
    assert_eq!(told.recv(), Ok(CircuitState::ForcedOpen));
    assert!(told.recv().is_err(), "the listener is kept");
    assert_eq!(events.collect::<Vec<_>>().now_or_never().unwrap().len(), 2);
}

#[test]
fn b6_calls_of_many_circuits_are_counted_by_their_own() {
    let circuits = [(); 3].map(|()| circuit(config()).0);
    // One after the other, within one another, and one by one out of order.
    for circuit in circuits.iter().chain(&circuits) {
        settle(circuit, "ss");
    }
    let calls = circuits.each_ref().map(|one| one.try_acquire().unwrap());
    let more = circuits.each_ref().map(|one| one.try_acquire().unwrap());
    more.into_iter().rev().for_each(Permit::success);
    calls.into_iter().for_each(Permit::success);
    assert_eq!(circuits.each_ref().map(total), [Some(6); 3]);
}

#[test]
fn b6_a_call_may_end_in_another_thread() {
    let (circuit, _clock) = circuit(config());
    let (begun, to_end) = mpsc::channel::<Permit>();
    let theirs = circuit.clone();
    let ending = std::thread::spawn(move || {
        for permit in to_end {
            permit.success();
            settle(&theirs, "s");
        }
    });
    for _ in 0..100 {
        begun.send(circuit.try_acquire().unwrap()).unwrap();
        settle(&circuit, "s");
    }
    drop(begun);
    ending.join().unwrap();
    assert_eq!(total(&circuit), Some(300));
    assert_eq!(circuit.metrics().in_flight, Some(0));
}

#[test]
fn b7_a_call_may_end_with_its_thread() {
    // Dropped as the thread ends, before or after what the thread keeps.
    thread_local! {
        static CALL: std::cell::Cell<Option<Permit>> = const { std::cell::Cell::new(None) };
    }
    let (circuit, _clock) = circuit(config());
    for call_first in [true, false] {
        let theirs = circuit.clone();
        let thread = std::thread::spawn(move || {
            if !call_first {
                settle(&theirs, "s");
            }
            CALL.set(Some(theirs.try_acquire().unwrap()));
            settle(&theirs, "s");
        });
        thread.join().unwrap();
    }
    let metrics = circuit.metrics();
    assert_eq!(metrics.successful_requests, Some(3));
    assert_eq!(
        (metrics.cancelled_requests, metrics.in_flight),
        (2, Some(0))
    );
}

/// A clock whose end shows that of its circuit.
#[derive(Debug, Clone)]
struct Witness(Arc<AtomicU64>);

impl Clock for Witness {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn call(witness: &Arc<AtomicU64>) {
    let config = config().build().unwrap();
    let circuit = Circuit::with_clock(config, Witness(witness.clone()));
    settle(&circuit, "ss");
}

#[test]
fn b10_a_thread_keeps_the_circuit_that_it_called_last_and_no_other() {
    let witnesses = [(); 3].map(|()| Arc::<AtomicU64>::default());
    let kept = || witnesses.each_ref().map(|one| Arc::strong_count(one) - 1);
    let [first, second, third] = &witnesses;
    call(first);
    assert_eq!(kept(), [1, 0, 0]);
    call(second);
    assert_eq!(kept(), [0, 1, 0]);
    let theirs = third.clone();
    std::thread::spawn(move || call(&theirs)).join().unwrap();
    assert_eq!(kept(), [0, 1, 0], "that thread has ended");
}

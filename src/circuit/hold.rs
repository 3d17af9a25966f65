//! What keeps a circuit: the handles to it, and the calls in flight.
//!
//! A call may outlive every handle and end in another thread than it began in, so it holds its circuit
//! by an [`Arc`]. Counting that up and down would be the dearest thing about a call that stores nothing
//! else, and the one word that all threads write. So a thread that has ended a call keeps that call's
//! hold for the next one that it begins: then nothing is counted. It keeps one, of the circuit whose call
//! it ended last.
//!
//! For that a thread may keep a circuit that nobody has a handle to, until it calls another one or ends.
//! That is some memory, and the clock. What a user may wait for the end of, the listeners and the streams
//! of events, goes with the last handle.

#[cfg(not(tower_breaker_loom))]
use std::cell::Cell;
use std::ops::Deref;

use super::{shared::Shared, sync::Arc};

/// What the handles to a circuit have in common.
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn new(circuit: Shared) -> Self {
        Self(Arc::new(circuit))
    }
}

impl Deref for Handle {
    type Target = Shared;

    #[inline]
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// A hold for a call that begins: the one that this thread keeps, if it is of that circuit.
#[inline(always)]
pub(super) fn take(circuit: &Handle) -> Arc<Shared> {
    let Some(kept) = exchange(None) else {
        return another(circuit);
    };
    if Arc::ptr_eq(&kept, &circuit.0) {
        kept
    } else {
        keep(kept);
        another(circuit)
    }
}

#[cold]
fn another(circuit: &Handle) -> Arc<Shared> {
    circuit.0.clone()
}

/// Keeps the hold of a call that has ended. (A call that is not settled like this drops it, which costs
/// more and is as good.)
#[inline(always)]
pub(super) fn keep(hold: Arc<Shared>) {
    if let Some(before) = exchange(Some(hold)) {
        let_go(before);
    }
}

#[cold]
fn let_go(hold: Arc<Shared>) {
    drop(hold);
}

/// Has this thread keep that, and returns what it has kept. A thread that is ending keeps nothing.
#[cfg(not(tower_breaker_loom))]
#[inline(always)]
fn exchange(hold: Option<Arc<Shared>>) -> Option<Arc<Shared>> {
    thread_local! {
        static KEPT: Cell<Option<Arc<Shared>>> = const { Cell::new(None) };
    }
    KEPT.try_with(|kept| kept.replace(hold)).unwrap_or(None)
}

/// What is loom's doesn't outlive a model.
#[cfg(tower_breaker_loom)]
fn exchange(hold: Option<Arc<Shared>>) -> Option<Arc<Shared>> {
    hold
}

//! Who waits until a call may be admitted.
//!
//! Registering happens under the same lock as the refusal that led to it, and every change takes
//! *all* wakers out under that lock too, to be woken after it. A wake promises nothing: whoever
//! is woken asks again. So no wake-up is lost, whoever is dropped meanwhile: nobody is chosen to
//! pass it on.
//!
//! Wakers are handed in and out by value, so that none is cloned or dropped under the lock:
//! the last waker of a task may own the task, and with it a service that wants this very lock.

use std::{collections::BTreeMap, task::Waker};

/// A name for a waiter, or for a lease; never used twice in a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterId(u64);

#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: u64,
    waiting: BTreeMap<WaiterId, Waker>,
}

impl Waiters {
    pub(super) fn next_id(&mut self) -> WaiterId {
        self.next += 1;
        WaiterId(self.next)
    }

    /// Has `waker` woken at the next change, and returns the one that stood there before.
    pub(super) fn register(&mut self, id: WaiterId, waker: Waker) -> Option<Waker> {
        self.waiting.insert(id, waker)
    }

    pub(super) fn deregister(&mut self, id: WaiterId) -> Option<Waker> {
        self.waiting.remove(&id)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

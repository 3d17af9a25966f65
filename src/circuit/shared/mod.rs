//! A circuit's parts together: the fast way through, and the way round by the lock.

mod admission;
mod seen;
mod settlement;

use std::time::Duration;

use super::{
    clock::{Clock, Timeline},
    config::CircuitBreakerConfig,
    events::{Audience, Event, contain},
    hot::Hot,
    machine::{Lease, Machine, Transition},
    sync::{Mutex, MutexGuard},
    waiters::WaiterId,
};

/// [`Hot`] comes first, beside the count of the `Arc`: both are written by every call.
#[repr(C)]
pub(super) struct Shared {
    pub(super) hot: Hot,
    pub(super) timeline: Timeline,
    pub(super) audience: Audience,
    machine: Mutex<Machine>,
}

/// The answer to a service that asks for readiness.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// It may call; in a half-open circuit with this permit.
    Ready(Option<Lease>),
    /// It may not, and its waker is registered. By time alone that can change after so long.
    Wait(Option<Duration>),
}

impl Shared {
    pub(super) fn new(config: CircuitBreakerConfig, clock: Option<Box<dyn Clock>>) -> Self {
        let hot = Hot::new();
        let machine = Machine::new(config, &hot);
        Self {
            timeline: Timeline::new(clock),
            audience: Audience::default(),
            machine: Mutex::new(machine),
            hot,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.timeline.now()
    }

    pub(super) fn deregister(&self, id: WaiterId) {
        let _waker = self.lock().waiters().deregister(id);
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing panics while it is held, so what it guards is whole.
        self.machine
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the machine, then, with the lock released, wakes and tells whom that concerns.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Machine, &Hot, u64) -> T) -> T {
        let now = self.now();
        let (result, wake, told) = {
            let mut machine = self.lock();
            let result = change(&mut machine, &self.hot, now);
            (
                result,
                machine.take_wakers(),
                machine.next_transition(false),
            )
        };
        for waker in wake {
            contain(|| waker.wake());
        }
        if let Some(transition) = told {
            self.deliver(transition);
        }
        result
    }

    #[cold]
    fn deliver(&self, first: Transition) {
        let mut told = Some(first);
        while let Some(transition) = told {
            self.audience.tell(Event {
                from: transition.from,
                to: transition.to,
                reason: transition.reason,
                at: self.timeline.date(transition.at),
                generation: transition.generation,
            });
            told = self.lock().next_transition(true);
        }
        if self.lock().is_dismissed() {
            self.audience.dismiss();
        }
    }

    /// The last handle is gone: nobody is told any more. But whoever is delivering tells of what has
    /// happened up to now.
    pub(super) fn dismiss(&self) {
        if self.audience.is_made() && !self.lock().dismiss() {
            self.audience.dismiss();
        }
    }
}

//! A service's claim to its next call: waiting for it, holding it, and giving it back.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep};

use crate::circuit::{Circuit, Lease, Permit, Readiness, Rejection, WaiterId};

/// Dropped, it gives back what it holds.
pub(super) struct Reservation {
    circuit: Circuit,
    /// A half-open permit that is kept for the next call. One that has lapsed or belongs to a turn
    /// that is over may be left here: nobody takes it for valid.
    lease: Option<Lease>,
    /// The name under which our waker is registered.
    waiter: Option<WaiterId>,
    /// Fires when time alone may have changed something. `None` while nothing is awaited, so a
    /// closed circuit costs no allocation.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Reservation {
    pub(super) fn new(circuit: Circuit) -> Self {
        Self {
            circuit,
            lease: None,
            waiter: None,
            timer: None,
        }
    }

    pub(super) fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Waits until a call may be made, and reserves a permit for it where they are scarce.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiter.is_none() && self.circuit.admits_all() {
            return Poll::Ready(());
        }
        self.poll_slowly(cx)
    }

    #[cold]
    fn poll_slowly(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let readiness = self
                .circuit
                .poll_reserve(self.lease, &mut self.waiter, cx.waker());
            match readiness {
                Readiness::Ready(lease) => {
                    self.stop_waiting();
                    self.lease = lease;
                    return Poll::Ready(());
                }
                Readiness::Wait(time) => {
                    self.lease = None;
                    // The waker is registered, so a timer is needed only for what time brings.
                    // Made anew each time: what is due next may have moved.
                    self.timer = time.map(|time| Box::pin(sleep(time)));
                    let timer = self.timer.as_mut();
                    if !timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Reserves without waiting, or tells what the next call is to be told.
    #[inline]
    pub(super) fn try_now(&mut self) -> Result<(), Rejection> {
        self.circuit.try_reserve(&mut self.lease)
    }

    /// Spends the reservation, or what can be had without one.
    #[inline]
    pub(super) fn spend(&mut self) -> Result<Permit, Rejection> {
        self.circuit.acquire(&mut self.lease)
    }

    /// Gives up the reservation because the inner service will never be ready.
    pub(super) fn fail(&mut self) {
        self.circuit.readiness_failed(self.lease.take());
    }

    fn stop_waiting(&mut self) {
        self.timer = None;
        if let Some(waiter) = self.waiter.take() {
            self.circuit.deregister(waiter);
        }
    }
}

impl Clone for Reservation {
    /// Clones hold nothing.
    fn clone(&self) -> Self {
        Self::new(self.circuit.clone())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.stop_waiting();
        if let Some(lease) = self.lease.take() {
            self.circuit.release(lease);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("circuit", &self.circuit)
            .field("lease", &self.lease)
            .field("waiting", &self.waiter.is_some())
            .finish()
    }
}

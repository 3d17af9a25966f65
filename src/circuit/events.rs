//! Telling of changes of state.
//!
//! A transition is queued where it happens, under the circuit's lock; whoever finds nobody else
//! at it delivers the queue after the lock is released. So listeners hear of every change, once,
//! in order, and may call back into the circuit; what that leads to is delivered after they
//! return.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};

use super::state::{CircuitState, TripReason};

/// How many events a subscriber may fall behind before it loses the oldest. Changes of state are
/// rare: even a circuit that probes every second takes half a minute to fill it.
const BACKLOG: usize = 64;

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct Event {
    /// The state before.
    pub from: CircuitState,
    /// The state after.
    pub to: CircuitState,
    /// Why the circuit opened, where it did.
    pub reason: Option<TripReason>,
    /// When it happened.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "super::wire::date::serialize")
    )]
    pub at: SystemTime,
    /// The generation that began. Later events have higher ones.
    pub generation: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)?;
        self.reason
            .map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// A subscriber was too slow and lost this many events, the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events were lost", self.0)
    }
}

impl std::error::Error for Lagged {}

/// The changes of a circuit's state from the subscription on, as a [`Stream`]. It ends with the last
/// handle to the circuit.
pub struct Events(BoxStream<'static, Result<Event, Lagged>>);

impl Stream for Events {
    type Item = Result<Event, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// Who is told. Made for the first who listens: many circuits have none.
#[derive(Default)]
pub(super) struct Audience(OnceLock<Box<Mutex<Told>>>);

#[derive(Default, Clone)]
struct Told {
    listeners: Vec<Listener>,
    channel: Option<broadcast::Sender<Event>>,
}

impl Audience {
    pub(super) fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.made().listeners.push(Arc::new(listener));
    }

    pub(super) fn subscribe(&self) -> Events {
        let channel = || broadcast::channel(BACKLOG).0;
        let receiver = self.made().channel.get_or_insert_with(channel).subscribe();
        let events = stream::unfold(receiver, |mut receiver| async {
            let item = match receiver.recv().await {
                Ok(event) => Ok(event),
                Err(RecvError::Lagged(lost)) => Err(Lagged(lost)),
                Err(RecvError::Closed) => return None,
            };
            Some((item, receiver))
        });
        Events(events.boxed())
    }

    pub(super) fn tell(&self, event: Event) {
        let Some(told) = self.0.get() else { return };
        // Cloned, so that a listener may add listeners.
        let Told { listeners, channel } = lock(told).clone();
        if let Some(channel) = channel {
            // An error means that nobody is subscribed.
            contain(|| drop(channel.send(event)));
        }
        for listener in listeners {
            contain(|| listener(&event));
        }
    }

    /// Whether anybody ever listened.
    pub(super) fn is_made(&self) -> bool {
        self.0.get().is_some()
    }

    /// Tells nobody any more.
    pub(super) fn dismiss(&self) {
        if let Some(told) = self.0.get() {
            // Their code runs when they are dropped: not under the lock.
            let dismissed = std::mem::take(&mut *lock(told));
            contain(|| drop(dismissed));
        }
    }

    fn made(&self) -> MutexGuard<'_, Told> {
        lock(self.0.get_or_init(Box::default))
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    // Nothing panics while it is held.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs code of others, whose panic must neither keep the rest from being told nor escape: we may
/// be inside a drop during unwinding, where another panic aborts the process. The panic hook has
/// reported it.
pub(super) fn contain(theirs: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(theirs)) {
        // What was thrown is theirs too. A second one is not given another chance.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        std::mem::forget(dropped);
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audience").finish_non_exhaustive()
    }
}

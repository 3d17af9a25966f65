//! Every change of a circuit's state, for the log and for whoever listens.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::broadcast;
use tower_breaker::{Circuit, CircuitState, Event};

/// How many events a listener may fall behind, and how many a new one is told of.
const BACKLOG: usize = 128;

/// A change of a circuit's state. As JSON in camel case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Change {
    /// Its number in this feed, from 1 on.
    pub(crate) id: u64,
    circuit: String,
    #[serde(flatten)]
    event: Event,
}

/// The changes of all circuits, in the order in which they were told.
#[derive(Clone)]
pub(crate) struct Feed {
    recent: Arc<Mutex<Recent>>,
    sender: broadcast::Sender<Change>,
}

#[derive(Default)]
struct Recent {
    last_id: u64,
    changes: VecDeque<Change>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            recent: Arc::default(),
            sender: broadcast::channel(BACKLOG).0,
        }
    }

    /// Tells of this circuit from now on.
    pub(crate) fn listen(&self, name: &str, circuit: &Circuit) {
        let name: Arc<str> = name.into();
        let feed = self.clone();
        circuit.on_state_change(move |event| feed.tell(&name, event));
    }

    /// The last changes, oldest first, and those that follow.
    pub(crate) fn subscribe(&self) -> (Vec<Change>, broadcast::Receiver<Change>) {
        // Both under the lock, so that none is missing between them and none comes twice.
        let recent = self.lock();
        (
            recent.changes.iter().cloned().collect(),
            self.sender.subscribe(),
        )
    }

    fn tell(&self, name: &Arc<str>, event: &Event) {
        match event.to {
            CircuitState::Open | CircuitState::ForcedOpen => {
                tracing::warn!(circuit = &**name, "{event}");
            }
            _ => tracing::info!(circuit = &**name, "{event}"),
        }
        let mut recent = self.lock();
        recent.last_id += 1;
        let change = Change {
            id: recent.last_id,
            circuit: name.to_string(),
            event: *event,
        };
        if recent.changes.len() == BACKLOG {
            recent.changes.pop_front();
        }
        recent.changes.push_back(change.clone());
        // An error means that nobody listens.
        let _ = self.sender.send(change);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        // Nothing panics while it is held.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

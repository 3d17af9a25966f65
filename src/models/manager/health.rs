//! What is known of the providers without asking them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use serde::{Serialize, Serializer};

use crate::{
    circuit::{Circuit, CircuitBreakerMetrics, CircuitState, TripReason, wall_clock},
    models::{ModelError, ModelErrorKind},
};

/// The state of a provider. As JSON in camel case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProviderHealth {
    /// Its circuit.
    pub circuit_breaker: CircuitHealth,
    /// Set while the provider refuses the key or the account: it can't serve, though it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialTrouble>,
    /// The models that it serves.
    pub models: Vec<String>,
    /// The circuits of those models that have their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_circuit_breakers: BTreeMap<String, CircuitHealth>,
}

/// The state of a circuit. As JSON in camel case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CircuitHealth {
    /// The state.
    pub state: CircuitState,
    /// Whether a request would be admitted now.
    pub available: bool,
    /// Why it opened; absent once it has closed.
    pub reason: Option<TripReason>,
    /// When the state began.
    #[serde(serialize_with = "date")]
    pub since: SystemTime,
    /// When the next probe is due, while it is open.
    #[serde(serialize_with = "optional_date")]
    pub next_probe_at: Option<SystemTime>,
    /// What it has seen.
    pub metrics: CircuitBreakerMetrics,
}

impl CircuitHealth {
    pub(super) fn of(circuit: &Circuit) -> Self {
        let metrics = circuit.metrics();
        Self {
            state: metrics.current_state,
            available: metrics.available,
            reason: metrics.trip_reason,
            since: metrics.state_changed_at,
            next_probe_at: metrics.next_probe_at,
            metrics,
        }
    }
}

/// A provider refuses the key or the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CredentialTrouble {
    /// The status that it answered: 401, 402 or 403.
    pub status: Option<u16>,
    /// What it said, without any key.
    pub message: String,
    /// Since when.
    #[serde(serialize_with = "date")]
    pub since: SystemTime,
}

/// Watches for trouble with one provider's credentials.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    /// Whether there is any, so that a call that went well takes no lock to see that there is not.
    /// It is set and cleared under the lock.
    troubled: AtomicBool,
    trouble: Mutex<Option<CredentialTrouble>>,
}

impl Credentials {
    /// A call has ended with this error, or well.
    pub(super) fn observe(&self, error: Option<&ModelError>) {
        match error {
            // Nothing else is read by this flag, so it orders nothing: `Relaxed`.
            None if !self.0.troubled.load(Ordering::Relaxed) => {}
            None => self.set(|_| None),
            Some(error) if error.kind() == ModelErrorKind::Credentials => {
                self.set(|before| {
                    let since = before.map_or_else(wall_clock, |trouble| trouble.since);
                    Some(CredentialTrouble {
                        status: error.status().map(|status| status.as_u16()),
                        message: error.message().to_owned(),
                        since,
                    })
                });
            }
            Some(_) => {}
        }
    }

    pub(super) fn trouble(&self) -> Option<CredentialTrouble> {
        self.lock().clone()
    }

    fn set(&self, next: impl FnOnce(Option<CredentialTrouble>) -> Option<CredentialTrouble>) {
        let mut trouble = self.lock();
        *trouble = next(trouble.take());
        self.0.troubled.store(trouble.is_some(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<CredentialTrouble>> {
        // Nothing panics while it is held.
        self.0
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn date<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn optional_date<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => date(time, serializer),
        None => serializer.serialize_none(),
    }
}

//! Circuits by key: one for each host, tenant or shard, made when it is first asked for.
//!
//! A [`CircuitBreakerLayer`](crate::CircuitBreakerLayer) has one circuit, which suits one
//! dependency. Where the dependencies are known only at run time, a [`Registry`] keeps a circuit
//! for each, and no more of them than its capacity: keys may come from outside, and memory must
//! not grow with them.
//!
//! # A full registry
//!
//! A new key then takes the place of the circuit that was [got](Registry::get) least recently
//! among those that are *idle*:
//!
//! - it is closed. An open or half-open circuit keeps load off a sick dependency, and one that is
//!   forced open or disabled is somebody's decision; neither is forgotten to make room;
//! - nobody else has a handle to it: no service or layer, no call in flight, no caller. Otherwise
//!   two circuits would judge one dependency, each by a part of its calls. (With
//!   [`Record::Rules`](crate::Record::Rules) it is not known which calls are in flight.)
//!
//! Of these, the ones that have no failed and no slow call in their windows go first. What an
//! evicted circuit has counted is lost: if its key comes back, it counts from zero.
//!
//! If no circuit is idle, a new key is refused with [`RegistryFull`]. The caller decides what that
//! means: to turn the call away, or to make it without a circuit. A dependency that went away for
//! good while its circuit was open keeps its place until somebody [removes](Registry::remove) it.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::circuit::{Circuit, CircuitBreakerConfig, CircuitState};

/// Circuits by key, at most so many. Clones are handles to the same registry.
///
/// ```
/// use std::{io, num::NonZeroUsize};
/// use tower_breaker::{BoxError, CircuitBreakerConfig, CircuitState, Registry};
///
/// const HOSTS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let hosts: Registry<String> = Registry::new(CircuitBreakerConfig::default(), HOSTS);
///
/// for _ in 0..3 {
///     let circuit = hosts.get("orders.example")?;
///     let refused = async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
///     assert!(circuit.call(refused).await.is_err());
/// }
/// assert_eq!(hosts.get("orders.example")?.state(), CircuitState::Open);
/// assert_eq!(hosts.get("stock.example")?.state(), CircuitState::Closed);
/// # Ok(())
/// # }
/// ```
///
/// A circuit from here goes under a Tower service with
/// [`CircuitBreakerLayer::from_circuit`](crate::CircuitBreakerLayer::from_circuit); as long as that
/// service lives, the circuit is not idle.
///
/// `Hash`, `Eq` and `Clone` of the keys run while the registry is locked, and so do the
/// [`Clock`](crate::Clock)s of the circuits: they must not use the registry. Nothing else of the user's
/// does.
pub struct Registry<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    capacity: NonZeroUsize,
    make: Box<dyn Fn(&K) -> Circuit + Send + Sync>,
    entries: Mutex<Entries<K>>,
}

struct Entries<K> {
    by_key: HashMap<K, Entry>,
    /// How often circuits were got: the time by which the least recently used is told.
    gets: u64,
}

struct Entry {
    circuit: Circuit,
    /// The value of `gets` when this one was last got. No two entries have the same.
    got: u64,
}

/// The registry holds as many circuits as it may, none of them is idle, and the key is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryFull {
    /// How many circuits the registry may hold.
    pub capacity: NonZeroUsize,
}

impl<K> Registry<K> {
    /// A registry of at most `capacity` circuits that share one configuration.
    pub fn new(config: CircuitBreakerConfig, capacity: NonZeroUsize) -> Self {
        Self::from_fn(move |_| Circuit::new(config.clone()), capacity)
    }

    /// A registry of at most `capacity` circuits, each made by `make` for its key: with a
    /// configuration or a clock of its own, or a listener that knows the key.
    ///
    /// `make` may use the registry. If several threads ask for a new key at once, each of them
    /// makes a circuit, and all get the same one.
    pub fn from_fn(
        make: impl Fn(&K) -> Circuit + Send + Sync + 'static,
        capacity: NonZeroUsize,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                capacity,
                make: Box::new(make),
                entries: Mutex::new(Entries {
                    by_key: HashMap::new(),
                    gets: 0,
                }),
            }),
        }
    }

    /// How many circuits it may hold.
    pub fn capacity(&self) -> NonZeroUsize {
        self.shared.capacity
    }

    /// How many circuits it holds.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K>> {
        // Only the keys' own code can panic while it is held, and the map bears that.
        self.shared
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Registry<K> {
    /// The circuit of `key`, which is made if there is none.
    ///
    /// A miss in a full registry looks at every circuit, to find the one to evict.
    ///
    /// # Errors
    ///
    /// [`RegistryFull`] if the key is new, the registry is full, and no circuit in it is idle.
    pub fn get<Q>(&self, key: &Q) -> Result<Circuit, RegistryFull>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(circuit) = self.lock().get(key) {
            return Ok(circuit);
        }
        let key = key.to_owned();
        let made = (self.shared.make)(&key);

        let mut entries = self.lock();
        // Another thread may have been here meanwhile.
        if let Some(circuit) = entries.get(key.borrow()) {
            drop(entries); // before `made`, which may own a listener
            return Ok(circuit);
        }
        let evicted = if entries.by_key.len() < self.shared.capacity.get() {
            None
        } else if let Some(evicted) = entries.evict() {
            Some(evicted)
        } else {
            drop(entries); // likewise
            return Err(RegistryFull {
                capacity: self.shared.capacity,
            });
        };
        entries.insert(key, made.clone());
        drop(entries);
        drop(evicted);
        Ok(made)
    }

    /// The circuit of `key`, if there is one. It doesn't count as used.
    pub fn peek<Q>(&self, key: &Q) -> Option<Circuit>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entries = self.lock();
        Some(entries.by_key.get(key)?.circuit.clone())
    }

    /// Forgets the circuit of `key`, whatever its state. Who has a handle to it keeps it; the
    /// next [`get`](Self::get) makes a new one.
    pub fn remove<Q>(&self, key: &Q) -> Option<Circuit>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = self.lock().by_key.remove_entry(key);
        removed.map(|(_key, entry)| entry.circuit)
    }

    /// What it holds at this moment, in no particular order. They don't count as used, but none of
    /// them is idle as long as the iterator has it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (K, Circuit)> + use<K>
    where
        K: Clone,
    {
        let entries = self.lock();
        let held = entries.by_key.iter();
        let held: Vec<_> = held
            .map(|(key, entry)| (key.clone(), entry.circuit.clone()))
            .collect();
        held.into_iter()
    }
}

impl<K: Hash + Eq> Entries<K> {
    fn get<Q>(&mut self, key: &Q) -> Option<Circuit>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entry = self.by_key.get_mut(key)?;
        self.gets += 1;
        entry.got = self.gets;
        Some(entry.circuit.clone())
    }

    fn insert(&mut self, key: K, circuit: Circuit) {
        self.gets += 1;
        let got = self.gets;
        self.by_key.insert(key, Entry { circuit, got });
    }

    /// Takes out the idle circuit that was got least recently, one that is well if there is any.
    fn evict(&mut self) -> Option<(K, Entry)>
    where
        K: Clone,
    {
        let mut first: Option<(Health, u64, &K)> = None;
        for (key, entry) in &mut self.by_key {
            // The cheap question first: nothing goes before an older one that is well.
            if first.is_some_and(|(health, got, _)| health == Health::Well && got < entry.got) {
                continue;
            }
            let Some(health) = entry.health() else {
                continue;
            };
            if first.is_none_or(|(other, got, _)| (health, entry.got) < (other, got)) {
                first = Some((health, entry.got, key));
            }
        }
        let (_, _, key) = first?;
        let key = key.clone();
        self.by_key.remove_entry(&key)
    }
}

/// What an idle circuit's window holds, in the order in which circuits are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// No failed and no slow calls.
    Well,
    /// Some.
    Unwell,
}

impl Entry {
    /// `None` unless the circuit is idle. As long as the registry is locked it stays so: nobody can
    /// get hold of it.
    fn health(&mut self) -> Option<Health> {
        if self.circuit.state() != CircuitState::Closed {
            return None;
        }
        let well = self.circuit.rests_well()?;
        Some(if well { Health::Well } else { Health::Unwell })
    }
}

impl<K> Clone for Registry<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> fmt::Debug for Registry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RegistryFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the registry is full: none of its {} circuits is idle",
            self.capacity
        )
    }
}

impl std::error::Error for RegistryFull {}

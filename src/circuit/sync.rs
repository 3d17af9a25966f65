//! Atomics and locks: std's, or loom's where the models are checked (`--cfg tower_breaker_loom`).

#[cfg(tower_breaker_loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(tower_breaker_loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

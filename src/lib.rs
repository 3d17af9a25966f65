//! A circuit breaker for Tower.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "models")]
pub mod models;

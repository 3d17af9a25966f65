//! A circuit breaker for Tower.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod circuit;
pub mod classify;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "models")]
pub mod models;
#[cfg(feature = "http")]
mod rejected;
pub mod service;

#[cfg(feature = "fallback")]
#[doc(inline)]
pub use self::fallback::{Fallback, FallbackError, FallbackLayer};
#[doc(inline)]
pub use self::{
    circuit::{
        Circuit, CircuitBreakerConfig, CircuitBreakerConfigBuilder, CircuitBreakerMetrics,
        CircuitState, Clock, ConfigError, DefaultClock, Event, Events, Lagged, ManualClock,
        OnCancel, Open, Outcome, Permit, RetryAfterPolicy, TripReason,
    },
    classify::{Classified, Classify, ErrorsAsFailures},
    service::{CircuitBreaker, CircuitBreakerLayer, Error, Timeout},
};
#[cfg(feature = "http")]
#[doc(inline)]
pub use self::{classify::HttpClassifier, rejected::Rejected};

/// An error of any type, as Tower has it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

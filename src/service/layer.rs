//! [`CircuitBreakerLayer`].

use std::marker::PhantomData;

use tower_layer::Layer;

use super::{
    CircuitBreaker,
    reply::{FailFast, Wait},
};
use crate::{
    circuit::{Circuit, CircuitBreakerConfig},
    classify::ErrorsAsFailures,
};

/// Puts a circuit breaker in front of services.
///
/// The circuit belongs to the layer: its clones, and every service that they make, share one.
/// That is what servers need, which apply a layer once per route and again per connection; a new
/// circuit is a new layer.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
///
/// # let inner = tower::service_fn(|_: ()| async { Ok::<_, std::io::Error>(()) });
/// let layer = CircuitBreakerLayer::new(CircuitBreakerConfig::default()).fail_fast();
/// let circuit = layer.circuit().clone();
/// let service = ServiceBuilder::new().layer(layer).service(inner);
///
/// assert!(circuit.is_available());
/// ```
#[derive(Debug)]
pub struct CircuitBreakerLayer<C = ErrorsAsFailures, M = Wait> {
    circuit: Circuit,
    classify: C,
    mode: PhantomData<fn() -> M>,
}

impl CircuitBreakerLayer {
    /// A layer with a new circuit. While that is open, services wait in `poll_ready`.
    pub fn new(config: CircuitBreakerConfig) -> Self {
        Self::from_circuit(Circuit::new(config))
    }

    /// A layer over a circuit that exists already.
    pub fn from_circuit(circuit: Circuit) -> Self {
        Self {
            circuit,
            classify: ErrorsAsFailures,
            mode: PhantomData,
        }
    }
}

impl<C, M> CircuitBreakerLayer<C, M> {
    /// The circuit that all services of this layer share.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Sets what tells failures from successes; default: [`ErrorsAsFailures`].
    pub fn classify<D>(self, classify: D) -> CircuitBreakerLayer<D, M> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classify,
            mode: PhantomData,
        }
    }

    /// Rejects calls with [`Error::Open`](crate::Error::Open) while the circuit is open, instead
    /// of being pending.
    pub fn fail_fast(self) -> CircuitBreakerLayer<C, FailFast> {
        self.mode()
    }

    fn mode<N>(self) -> CircuitBreakerLayer<C, N> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classify: self.classify,
            mode: PhantomData,
        }
    }
}

#[cfg(feature = "http")]
impl<M> CircuitBreakerLayer<ErrorsAsFailures, M> {
    /// Answers calls with `503` and `Retry-After` while the circuit is open, and with `504` when
    /// they miss their deadline; see [`HttpReply`](crate::service::HttpReply).
    ///
    /// Responses are judged by [`HttpClassifier`](crate::HttpClassifier), unless
    /// [`classify`](Self::classify) is called *after* this.
    pub fn http(
        self,
    ) -> CircuitBreakerLayer<crate::classify::HttpClassifier, super::reply::HttpReply> {
        self.classify(crate::classify::HttpClassifier).mode()
    }
}

impl<C: Clone, M> Clone for CircuitBreakerLayer<C, M> {
    fn clone(&self) -> Self {
        Self {
            circuit: self.circuit.clone(),
            classify: self.classify.clone(),
            mode: PhantomData,
        }
    }
}

impl<S, C: Clone, M> Layer<S> for CircuitBreakerLayer<C, M> {
    type Service = CircuitBreaker<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.circuit.clone(), self.classify.clone())
    }
}

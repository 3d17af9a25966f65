//! [`CircuitBreakerLayer`].

use tower_layer::Layer;

use super::{
    CircuitBreaker,
    mode::{FailFast, Wait},
};
#[cfg(feature = "http")]
use super::{
    body::{BodyConfig, BodyMode, SettleAtEnd},
    reply::{GrpcReply, HttpReply},
};
#[cfg(feature = "http")]
use crate::classify::{GrpcClassifier, HttpClassifier};
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
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer<C = ErrorsAsFailures, M = Wait> {
    circuit: Circuit,
    classify: C,
    mode: M,
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
            mode: Wait,
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
            mode: self.mode,
        }
    }

    fn mode<N>(self, mode: N) -> CircuitBreakerLayer<C, N> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classify: self.classify,
            mode,
        }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Rejects calls with [`Error::Open`](crate::Error::Open) while the circuit is open, instead
    /// of being pending.
    pub fn fail_fast(self) -> CircuitBreakerLayer<C, FailFast> {
        self.mode(FailFast)
    }
}

#[cfg(feature = "http")]
impl CircuitBreakerLayer {
    /// Answers calls with `503` and `Retry-After` while the circuit is open, and with `504` when
    /// they miss their deadline; see [`HttpReply`].
    ///
    /// Responses are judged by [`HttpClassifier`], unless [`classify`](Self::classify) is called
    /// *after* this.
    pub fn http(self) -> CircuitBreakerLayer<HttpClassifier, HttpReply> {
        self.classify(HttpClassifier).mode(HttpReply)
    }

    /// Answers calls with `grpc-status: 14` and the wait in `grpc-retry-pushback-ms` while the
    /// circuit is open, and with `grpc-status: 4` when they miss their deadline; see
    /// [`GrpcReply`].
    ///
    /// Responses are judged by [`GrpcClassifier`], unless [`classify`](Self::classify) is called
    /// *after* this; and because gRPC tells how a call went when it is over, calls are settled at
    /// the end of their bodies. [`body`](Self::body) sets deadlines for that.
    pub fn grpc(self) -> CircuitBreakerLayer<GrpcClassifier, SettleAtEnd<GrpcReply>> {
        let mode = SettleAtEnd::new(BodyConfig::new());
        self.classify(GrpcClassifier).mode(mode)
    }
}

#[cfg(feature = "http")]
impl<C, M: BodyMode> CircuitBreakerLayer<C, M> {
    /// Settles the calls of HTTP services when the *body* of their response has ended, and sets its
    /// deadlines. To be called after the mode has been chosen; see [`SettleAtEnd`].
    ///
    /// The responses become `Response<`[`SettledBody`](super::SettledBody)`<B>>`. Without this, a
    /// call is settled at the head of its response: then a stream that breaks is still a success.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::get};
    /// use tower_breaker::{BodyConfig, CircuitBreakerConfig, CircuitBreakerLayer};
    ///
    /// # async fn events() {}
    /// let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::default())
    ///     .http()
    ///     .body(BodyConfig::new().idle_timeout(Duration::from_secs(30)));
    /// let app: Router = Router::new().route("/events", get(events)).layer(breaker);
    /// ```
    pub fn body(self, config: BodyConfig) -> CircuitBreakerLayer<C, SettleAtEnd<M::Plain>> {
        self.mode(SettleAtEnd::new(config))
    }
}

impl<S, C: Clone, M: Clone> Layer<S> for CircuitBreakerLayer<C, M> {
    type Service = CircuitBreaker<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        let classify = self.classify.clone();
        CircuitBreaker::new(inner, self.circuit.clone(), classify, self.mode.clone())
    }
}

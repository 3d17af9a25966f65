//! The layer that times calls and puts spans around them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "metrics")]
use crate::circuit::{Clock, DefaultClock};
use crate::{
    circuit::Outcome,
    classify::{Classified, Classify, ErrorsAsFailures},
};

pub(super) const SUCCESS: &str = "success";
pub(super) const FAILURE: &str = "failure";
pub(super) const IGNORED: &str = "ignored";
const CANCELLED: &str = "cancelled";

/// Observes each call that reaches a dependency: with the `tracing` feature in a span, with the
/// `metrics` feature by its duration.
///
/// It goes inside the circuit breaker. There it sees no rejections, whose durations would say
/// nothing about the dependency, and a call that the breaker's `timeout` ends is `cancelled`. From
/// outside, a rejection would look like a failure that took no time.
///
/// A duration is the time from the call to the head of the response, by the
/// [`DefaultClock`](crate::DefaultClock). Calls that panic are told as `cancelled` too.
///
/// ```
/// use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, telemetry::ObserveLayer};
///
/// let service = tower::ServiceBuilder::new()
///     .layer(CircuitBreakerLayer::new(CircuitBreakerConfig::default()))
///     .layer(ObserveLayer::new("payments"))
///     .service_fn(async |_: ()| Ok::<_, std::io::Error>("paid"));
/// ```
#[derive(Debug, Clone)]
pub struct ObserveLayer<C = ErrorsAsFailures> {
    name: Arc<str>,
    classify: C,
}

impl ObserveLayer {
    /// Calls are told under this name, the circuit's.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into().into(),
            classify: ErrorsAsFailures,
        }
    }
}

impl<C> ObserveLayer<C> {
    /// What counts as a failure: what the circuit breaker was given. Default:
    /// [`ErrorsAsFailures`]. A response whose end would decide counts as a success here.
    pub fn classify<D>(self, classify: D) -> ObserveLayer<D> {
        ObserveLayer {
            name: self.name,
            classify,
        }
    }
}

impl<S, C: Clone> Layer<S> for ObserveLayer<C> {
    type Service = Observe<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe {
            inner,
            name: Arc::clone(&self.name),
            classify: self.classify.clone(),
        }
    }
}

/// A service whose calls are observed, made by an [`ObserveLayer`].
#[derive(Debug, Clone)]
pub struct Observe<S, C = ErrorsAsFailures> {
    inner: S,
    name: Arc<str>,
    classify: C,
}

impl<S, C, Req> Service<Req> for Observe<S, C>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let call = Call::begin(&self.name);
        let inner = call.within(|| self.inner.call(request));
        ResponseFuture {
            inner,
            classify: self.classify.clone(),
            call,
        }
    }
}

pin_project! {
    /// The future of [`Observe`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the call is told as `cancelled`.
    #[derive(Debug)]
    pub struct ResponseFuture<F, C = ErrorsAsFailures> {
        #[pin]
        inner: F,
        classify: C,
        call: Call,
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = ready!(this.call.within(|| this.inner.poll(cx)));
        let outcome = match this.classify.classify(result.as_ref()) {
            Classified::Done(Outcome::Failure { .. }) => FAILURE,
            Classified::Done(Outcome::Ignored) => IGNORED,
            Classified::Done(Outcome::Success) | Classified::AtEnd(_) => SUCCESS,
        };
        this.call.end(outcome);
        Poll::Ready(result)
    }
}

/// A call that is told of once: when it ends, or when it is dropped.
#[derive(Debug)]
struct Call {
    ended: bool,
    #[cfg(feature = "tracing")]
    span: ::tracing::Span,
    #[cfg(feature = "metrics")]
    name: Arc<str>,
    #[cfg(feature = "metrics")]
    begun: u64,
}

impl Call {
    fn begin(name: &Arc<str>) -> Self {
        Self {
            ended: false,
            #[cfg(feature = "tracing")]
            span: super::tracing::span(name),
            #[cfg(feature = "metrics")]
            name: Arc::clone(name),
            #[cfg(feature = "metrics")]
            begun: DefaultClock.now(),
        }
    }

    /// Runs a piece of the call.
    fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        run()
    }

    fn end(&mut self, outcome: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        #[cfg(feature = "tracing")]
        super::tracing::end(&self.span, outcome);
        #[cfg(feature = "metrics")]
        {
            let nanos = DefaultClock.now().saturating_sub(self.begun);
            super::metrics::record_duration(&self.name, outcome, nanos);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
}

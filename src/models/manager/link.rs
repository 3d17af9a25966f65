//! One link of a model's chain: a provider, asked for one of its models, behind its circuit.

use std::{
    borrow::Cow,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::util::BoxCloneSyncService;
use tower_layer::Layer;
use tower_service::Service;

use super::health::Credentials;
use crate::{
    circuit::{Circuit, Outcome},
    classify::{Classified, Classify},
    fallback::{self, Attempts, Fallback, Policy, Probe},
    models::{Completion, Health, ModelError, ModelErrorKind, ModelRequest, ProviderRequest},
    service::{CircuitBreaker, CircuitBreakerLayer, Error, FailFast},
};

/// What a chain is asked.
pub(super) type ChainRequest = Arc<ModelRequest>;

/// The links of a model, and their names for the record.
pub(super) struct Chain {
    pub(super) service: Fallback<Vec<Link>, FallsBack, fn(&Attempts, &mut Answer)>,
    pub(super) members: Vec<Member>,
}

/// A link by its name.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) model: Arc<str>,
    pub(super) provider: Arc<str>,
    pub(super) circuit: Circuit,
}

type Link = fallback::Link<CircuitBreaker<ModelService, ByKind, FailFast>, CircuitProbe>;

pub(super) type BoxedProvider = BoxCloneSyncService<ProviderRequest, Completion, ModelError>;

impl Chain {
    pub(super) fn new(links: Vec<ModelService>) -> Self {
        let members = links.iter().map(|service| service.member.clone());
        let members = members.collect();
        let links = links.into_iter().map(|service| {
            let circuit = service.member.circuit.clone();
            let layer = CircuitBreakerLayer::from_circuit(circuit.clone());
            let service = layer.fail_fast().classify(ByKind).layer(service);
            fallback::Link::new(service).probe(CircuitProbe(circuit))
        });
        let keep: fn(&Attempts, &mut Answer) =
            |attempts, answer| answer.attempts = attempts.clone();
        let service = Fallback::chain_links(links).policy(FallsBack).record(keep);
        Self { service, members }
    }
}

/// A provider, asked for one of its models.
#[derive(Clone)]
pub(super) struct ModelService {
    pub(super) member: Member,
    /// What the provider calls the model.
    pub(super) upstream: Arc<str>,
    pub(super) provider: BoxedProvider,
    pub(super) credentials: Credentials,
}

/// What one link answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) completion: Completion,
    pub(super) member: Member,
    pub(super) attempts: Attempts,
}

impl Service<ChainRequest> for ModelService {
    type Response = Answer;
    type Error = ModelError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, ModelError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        self.provider.poll_ready(cx)
    }

    fn call(&mut self, request: ChainRequest) -> Self::Future {
        let call = self
            .provider
            .call(ProviderRequest::new(request, self.upstream.clone()));
        let member = self.member.clone();
        let credentials = self.credentials.clone();
        Box::pin(async move {
            let result = call.await;
            credentials.observe(&result);
            Ok(Answer {
                completion: result?,
                member,
                attempts: Attempts::default(),
            })
        })
    }
}

/// What counts against a provider: [`ModelError::counts_as`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ByKind;

impl<T> Classify<T, ModelError> for ByKind {
    type AtEnd = Infallible;

    fn classify(&self, result: Result<&T, &ModelError>) -> Classified {
        let Err(error) = result else {
            return Classified::Done(Outcome::Success);
        };
        Classified::Done(match error.counts_as() {
            Health::Failure => Outcome::Failure {
                retry_after: error.retry_after(),
            },
            Health::Success => Outcome::Success,
            Health::Ignored => Outcome::Ignored,
        })
    }
}

/// What another provider is asked for: [`ModelError::falls_back`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FallsBack;

impl<T> Policy<T, Error<ModelError>> for FallsBack {
    fn failure(&self, result: Result<&T, &Error<ModelError>>) -> Option<Cow<'static, str>> {
        match result {
            Ok(_) => None,
            Err(Error::Inner(error)) if !error.falls_back() => None,
            Err(error) => Some(error.to_string().into()),
        }
    }
}

/// Shows an open circuit, which a service that fails fast doesn't.
#[derive(Debug, Clone)]
pub(super) struct CircuitProbe(Circuit);

impl Probe for CircuitProbe {
    fn check(&self) -> Result<(), Option<Duration>> {
        self.0.check()
    }
}

/// What the breaker's own errors are among those of models.
pub(super) fn flatten(error: Error<ModelError>) -> ModelError {
    match error {
        Error::Inner(error) => error,
        Error::Open(open) => ModelError::new(ModelErrorKind::CircuitOpen, open.to_string())
            .with_retry_after(open.retry_after)
            .with_source(open),
        Error::Timeout(timeout) => {
            ModelError::new(ModelErrorKind::Timeout, timeout.to_string()).with_source(timeout)
        }
    }
}

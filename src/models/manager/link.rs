//! One link of a model's chain: a provider, asked for one of its models, behind its circuit.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::util::BoxCloneSyncService;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    deadlines::Deadlines,
    health::Credentials,
    open::{Opened, StreamService},
};
use crate::{
    circuit::{Circuit, Outcome},
    classify::{Classified, Classify},
    fallback::{self, Attempts, Fallback, Policy, Probe},
    models::{
        Completion, Health, ModelError, ModelErrorKind, ModelRequest, ProviderRequest,
        stream::ProviderStream,
    },
    service::{CircuitBreaker, CircuitBreakerLayer, Error, FailFast},
};

/// What a chain is asked.
pub(super) type ChainRequest = Arc<ModelRequest>;

/// A provider that answers as a whole.
pub(super) type BoxedProvider = BoxCloneSyncService<ProviderRequest, Completion, ModelError>;

/// A provider that answers as a stream.
pub(super) type BoxedStreams = BoxCloneSyncService<ProviderRequest, ProviderStream, ModelError>;

/// A model at its place in a chain, with all that it takes to ask it.
pub(super) struct Member {
    /// Its alias.
    pub(super) model: Arc<str>,
    pub(super) provider: Arc<str>,
    /// The circuit that decides, its provider's or its own.
    pub(super) circuit: Circuit,
    /// What the provider calls the model.
    pub(super) upstream: Arc<str>,
    pub(super) whole: BoxedProvider,
    pub(super) streams: BoxedStreams,
    pub(super) credentials: Credentials,
    pub(super) deadlines: Deadlines,
    pub(super) max_tokens: Option<NonZeroU32>,
    /// Whether its answers are marked as degraded.
    pub(super) degraded: bool,
}

impl Member {
    /// The request as this member is asked.
    pub(super) fn request(&self, mut request: ChainRequest) -> ProviderRequest {
        if let Some(cap) = self.max_tokens
            && request.max_tokens.is_none_or(|asked| asked > cap)
        {
            Arc::make_mut(&mut request).max_tokens = Some(cap);
        }
        ProviderRequest::new(request, self.upstream.clone())
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("model", &self.model)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// The links of a model, asked for whole answers.
pub(super) type Chain = Fallback<Vec<WholeLink>, FallsBack, fn(&Attempts, &mut Answer)>;

/// The links of a model, asked for streams.
pub(super) type StreamChain = Fallback<Vec<StreamLink>, FallsBack, fn(&Attempts, &mut Opened)>;

type WholeLink = fallback::Link<CircuitBreaker<ModelService, ByKind, FailFast>, CircuitProbe>;
type StreamLink = fallback::Link<StreamService, CircuitProbe>;

pub(super) fn chain(members: &[Arc<Member>]) -> Chain {
    let links = members.iter().map(|member| {
        let layer = CircuitBreakerLayer::from_circuit(member.circuit.clone());
        let layer = layer.fail_fast().classify(ByKind);
        link(member, layer.layer(ModelService::new(member.clone())))
    });
    let keep: fn(&Attempts, &mut Answer) = |attempts, answer| answer.attempts = attempts.clone();
    Fallback::chain_links(links).policy(FallsBack).record(keep)
}

pub(super) fn stream_chain(members: &[Arc<Member>]) -> StreamChain {
    let links = members
        .iter()
        .map(|member| link(member, StreamService::new(member.clone())));
    let keep: fn(&Attempts, &mut Opened) = |attempts, opened| opened.attempts = attempts.clone();
    Fallback::chain_links(links).policy(FallsBack).record(keep)
}

fn link<S>(member: &Member, service: S) -> fallback::Link<S, CircuitProbe> {
    let link = fallback::Link::new(service).probe(CircuitProbe(member.circuit.clone()));
    if member.degraded {
        link.degraded()
    } else {
        link
    }
}

/// A provider, asked for whole answers of one of its models.
pub(super) struct ModelService {
    member: Arc<Member>,
    /// The provider's service as it was polled: most links of a chain are never asked, and then need
    /// none of their own.
    ready: Option<BoxedProvider>,
}

impl ModelService {
    fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            ready: None,
        }
    }
}

impl Clone for ModelService {
    fn clone(&self) -> Self {
        Self::new(self.member.clone())
    }
}

/// What one link answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) completion: Completion,
    pub(super) member: Arc<Member>,
    pub(super) attempts: Attempts,
}

impl Service<ChainRequest> for ModelService {
    type Response = Answer;
    type Error = ModelError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, ModelError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        let provider = &self.member.whole;
        self.ready
            .get_or_insert_with(|| provider.clone())
            .poll_ready(cx)
    }

    fn call(&mut self, request: ChainRequest) -> Self::Future {
        let member = self.member.clone();
        let mut provider = self.ready.take().unwrap_or_else(|| member.whole.clone());
        let call = provider.call(member.request(request));
        Box::pin(async move {
            let result = call.await;
            member.credentials.observe(result.as_ref().err());
            Ok(Answer {
                completion: result?,
                member,
                attempts: Attempts::default(),
            })
        })
    }
}

/// What counts against a provider: [`ModelError::counts_as`].
pub(super) fn outcome(error: Option<&ModelError>) -> Outcome {
    let Some(error) = error else {
        return Outcome::Success;
    };
    match error.counts_as() {
        Health::Failure => Outcome::Failure {
            retry_after: error.retry_after(),
        },
        Health::Success => Outcome::Success,
        Health::Ignored => Outcome::Ignored,
    }
}

/// Judges by [`outcome`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ByKind;

impl<T> Classify<T, ModelError> for ByKind {
    type AtEnd = Infallible;

    fn classify(&self, result: Result<&T, &ModelError>) -> Classified {
        Classified::Done(outcome(result.err()))
    }
}

/// Why a link was not asked though its circuit admitted calls a moment before: others have taken
/// the last of its probes, or have brought it to open.
pub(super) const REJECTED: &str = "the circuit did not admit the request";

/// What another provider is asked for: [`ModelError::falls_back`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FallsBack;

impl<T> Policy<T, ModelError> for FallsBack {
    fn failure(&self, result: Result<&T, &ModelError>) -> Option<Cow<'static, str>> {
        let error = result.err()?;
        match error.kind() {
            ModelErrorKind::CircuitOpen => Some(REJECTED.into()),
            _ => error.falls_back().then(|| error.to_string().into()),
        }
    }
}

impl<T> Policy<T, Error<ModelError>> for FallsBack {
    fn failure(&self, result: Result<&T, &Error<ModelError>>) -> Option<Cow<'static, str>> {
        match result {
            Ok(_) => None,
            Err(Error::Inner(error)) if !error.falls_back() => None,
            Err(Error::Open(_)) => Some(REJECTED.into()),
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
        Error::Open(open) => rejected(open),
        Error::Timeout(timeout) => {
            ModelError::new(ModelErrorKind::Timeout, timeout.to_string()).with_source(timeout)
        }
    }
}

/// What an open circuit is among the errors of models.
pub(super) fn rejected(open: crate::circuit::Open) -> ModelError {
    ModelError::new(ModelErrorKind::CircuitOpen, open.to_string())
        .with_retry_after(open.retry_after)
        .with_source(open)
}

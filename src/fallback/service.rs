use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{
    AnyError, Attempts, ByClone, Chain, CloneRequest, FallbackError, Link, Links, NoRecord, Policy,
    Probe, Record, ResponseFuture,
    future::Rest,
    select::{Chosen, Selection},
};
#[cfg(feature = "http")]
use super::{HttpFailures, InExtensions};

/// What a chain is told beside its links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<P, R, C> {
    pub(super) policy: P,
    pub(super) record: R,
    pub(super) clone_request: C,
    pub(super) patience: Duration,
    pub(super) fail_fast: bool,
}

impl Default for Settings<AnyError, NoRecord, ByClone> {
    fn default() -> Self {
        Self {
            policy: AnyError,
            record: NoRecord,
            clone_request: ByClone,
            patience: Duration::ZERO,
            fail_fast: false,
        }
    }
}

impl<P, R, C> Settings<P, R, C> {
    pub(super) fn policy<P2>(self, policy: P2) -> Settings<P2, R, C> {
        Settings {
            policy,
            record: self.record,
            clone_request: self.clone_request,
            patience: self.patience,
            fail_fast: self.fail_fast,
        }
    }

    pub(super) fn record<R2>(self, record: R2) -> Settings<P, R2, C> {
        Settings {
            policy: self.policy,
            record,
            clone_request: self.clone_request,
            patience: self.patience,
            fail_fast: self.fail_fast,
        }
    }

    pub(super) fn clone_request<C2>(self, clone_request: C2) -> Settings<P, R, C2> {
        Settings {
            policy: self.policy,
            record: self.record,
            clone_request,
            patience: self.patience,
            fail_fast: self.fail_fast,
        }
    }
}

/// A chain of services: the first that is available answers, and the next one where it fails.
///
/// See the [module](super) for the rules. `L` is the chain, `P` the [policy](Policy), `R` the
/// [record](Record), `C` the [copy of requests](CloneRequest).
///
/// A clone shares nothing that the links don't share, and starts with no link chosen. Policy and
/// hooks are cloned into each call, so what they capture is best kept small, or in an `Arc`.
///
/// # Panics
///
/// `poll_ready` and the future panic where a timer is needed and there is no Tokio runtime with its
/// timer enabled: to wait for a busy link with [`patience`](Self::patience), or beside a link whose
/// [`Probe`] tells its wait.
///
/// # Cancel safety
///
/// Dropping the service gives back what `poll_ready` reserved. Dropping the future drops the call
/// that is running; the links after it are not called.
pub struct Fallback<L, P = AnyError, R = NoRecord, C = ByClone> {
    links: L,
    selection: Selection,
    settings: Settings<P, R, C>,
}

impl<L> Fallback<L> {
    fn from_links(links: L) -> Self {
        Self::with_settings(links, Settings::default())
    }
}

impl<S> Fallback<Link<S>> {
    /// A chain of one service so far, known by its readiness alone.
    ///
    /// The errors of later links convert into this one's. Where they don't, map it to what all of
    /// them convert into: `Fallback::new(primary.map_err(BoxError::from))`.
    pub fn new(primary: S) -> Self {
        Self::from_links(Link::new(primary))
    }
}

impl<S, Q: Probe> Fallback<Link<S, Q>> {
    /// A chain of one service so far, with a probe of its availability.
    pub fn new_link(primary: S, probe: Q) -> Self {
        Self::from_links(Link::new(primary).probe(probe))
    }
}

impl<S> Fallback<Vec<Link<S>>> {
    /// A chain of services of one type, known at run time only.
    ///
    /// Without any, each call ends in [`FallbackError::Unavailable`].
    pub fn chain(services: impl IntoIterator<Item = S>) -> Self {
        Self::from_links(services.into_iter().map(Link::new).collect())
    }
}

impl<S, Q: Probe> Fallback<Vec<Link<S, Q>>> {
    /// A chain of links of one type, known at run time only.
    ///
    /// Without any, each call ends in [`FallbackError::Unavailable`].
    pub fn chain_links(links: impl IntoIterator<Item = Link<S, Q>>) -> Self {
        Self::from_links(links.into_iter().collect())
    }
}

impl<L, P, R, C> Fallback<L, P, R, C> {
    pub(super) fn with_settings(links: L, settings: Settings<P, R, C>) -> Self {
        Self {
            links,
            selection: Selection::default(),
            settings,
        }
    }

    fn push<B>(self, last: B) -> Fallback<Chain<L, B>, P, R, C> {
        Fallback::with_settings(Chain::new(self.links, last), self.settings)
    }

    /// Adds a service to the end of the chain, known by its readiness alone.
    pub fn or<S>(self, service: S) -> Fallback<Chain<L, Link<S>>, P, R, C> {
        self.push(Link::new(service))
    }

    /// Adds a service to the end of the chain, with a probe of its availability.
    pub fn or_link<S, Q: Probe>(
        self,
        service: S,
        probe: Q,
    ) -> Fallback<Chain<L, Link<S, Q>>, P, R, C> {
        self.push(Link::new(service).probe(probe))
    }

    /// Adds a service whose answers are marked as [degraded](Link::degraded).
    pub fn or_degraded<S>(self, service: S) -> Fallback<Chain<L, Link<S>>, P, R, C> {
        self.push(Link::new(service).degraded())
    }

    /// How long a busy link is waited for while a later one is available. Default: not at all.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// Has the call fail at once while no link is available, with the shortest known wait in
    /// [`Unavailable`](super::Unavailable). Default: `poll_ready` is Pending as long as any link
    /// can still become ready.
    ///
    /// The wait is known for links that bring a [`Probe`] which tells it.
    #[must_use]
    pub fn fail_fast(mut self) -> Self {
        self.settings.fail_fast = true;
        self
    }

    /// What counts as a failure. Default: [`AnyError`].
    pub fn policy<P2>(self, policy: P2) -> Fallback<L, P2, R, C> {
        Fallback::with_settings(self.links, self.settings.policy(policy))
    }

    /// Puts the attempts into each response. Default: [`NoRecord`].
    pub fn record<Res, F>(self, hook: F) -> Fallback<L, P, F, C>
    where
        F: Fn(&Attempts, &mut Res),
    {
        Fallback::with_settings(self.links, self.settings.record(hook))
    }

    /// How a request is copied; `None` ends the chain at the link that is about to be called.
    /// Default: [`ByClone`].
    ///
    /// A request that can't be sent twice, such as one whose body is a stream, still goes to the
    /// first link that is available:
    ///
    /// ```
    /// use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
    /// use tower_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, fallback::Fallback};
    ///
    /// struct Upload;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::default());
    /// let here = service_fn(async |_: Upload| Ok::<_, BoxError>("here"));
    /// let there = service_fn(async |_: Upload| Ok::<_, BoxError>("there"));
    /// let mut stores = Fallback::new(breaker.layer(here))
    ///     .or(there)
    ///     .clone_request(|_: &Upload| None);
    ///
    /// assert_eq!(stores.ready().await?.call(Upload).await?, "here");
    /// breaker.circuit().force_open();
    /// assert_eq!(stores.ready().await?.call(Upload).await?, "there");
    /// # Ok(())
    /// # }
    /// ```
    pub fn clone_request<Req, F>(self, hook: F) -> Fallback<L, P, R, F>
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Fallback::with_settings(self.links, self.settings.clone_request(hook))
    }

    /// For HTTP: [`HttpFailures`] as the policy, and the attempts in the response's extensions.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn http(self) -> Fallback<L, HttpFailures, InExtensions, C> {
        let settings = self.settings.policy(HttpFailures).record(InExtensions);
        Fallback::with_settings(self.links, settings)
    }
}

impl<L, P, R, C, Req> Service<Req> for Fallback<L, P, R, C>
where
    L: Links<Req> + Clone,
    P: Policy<L::Response, L::Error> + Clone,
    R: Record<L::Response> + Clone,
    C: CloneRequest<Req> + Clone,
{
    type Response = L::Response;
    type Error = FallbackError<L::Error>;
    type Future = ResponseFuture<L, Req, P, R, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.selection.poll(&mut self.links, &self.settings, cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = self.settings.clone();
        let (link, attempts) = match self.selection.take() {
            Some(Chosen::Link(link, attempts)) => (link, attempts),
            Some(Chosen::None(unavailable)) => {
                return ResponseFuture::unavailable(unavailable, settings);
            }
            None => {
                let links = self.links.clone();
                return ResponseFuture::asking(Rest::Open { links, request }, settings);
            }
        };
        let rest = Rest::beside(&self.links, link, &request, &settings.clone_request);
        let degraded = self.links.is_degraded(link);
        let call = self.links.call(link, request);
        ResponseFuture::calling(call, link, degraded, rest, attempts, settings)
    }
}

impl<L: Clone, P: Clone, R: Clone, C: Clone> Clone for Fallback<L, P, R, C> {
    fn clone(&self) -> Self {
        Self::with_settings(self.links.clone(), self.settings.clone())
    }
}

impl<L: fmt::Debug, P, R, C> fmt::Debug for Fallback<L, P, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("links", &self.links)
            .field("selection", &self.selection)
            .field("patience", &self.settings.patience)
            .field("fail_fast", &self.settings.fail_fast)
            .finish_non_exhaustive()
    }
}

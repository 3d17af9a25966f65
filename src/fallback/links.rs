use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_service::Service;

/// Tells whether a link is available, without asking its service.
///
/// A link that answers for an open circuit instead of being Pending is always ready, so its
/// readiness says nothing; a probe does. Closures
/// `Fn() -> Result<(), Option<Duration>> + Clone` fit.
///
/// It is asked often and reserves nothing: keep it cheap and free of blocking.
pub trait Probe: Clone {
    /// Whether a call is worth trying now.
    ///
    /// # Errors
    ///
    /// The link is unavailable, for so long if that is known.
    fn check(&self) -> Result<(), Option<Duration>>;
}

/// Always available as far as is known: the link's readiness alone decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn check(&self) -> Result<(), Option<Duration>> {
        Ok(())
    }
}

impl<F> Probe for F
where
    F: Fn() -> Result<(), Option<Duration>> + Clone,
{
    fn check(&self) -> Result<(), Option<Duration>> {
        self()
    }
}

/// One service of a chain, with its probe.
#[derive(Clone)]
pub struct Link<S, P = NoProbe> {
    service: S,
    probe: P,
    degraded: bool,
}

impl<S> Link<S> {
    /// A link that is known by its readiness alone.
    pub fn new(service: S) -> Self {
        Self {
            service,
            probe: NoProbe,
            degraded: false,
        }
    }
}

impl<S, P> Link<S, P> {
    /// The same link with a probe of its availability.
    #[must_use]
    pub fn probe<Q: Probe>(self, probe: Q) -> Link<S, Q> {
        Link {
            service: self.service,
            probe,
            degraded: self.degraded,
        }
    }

    /// Marks what this link answers as degraded: cached, canned, or from a smaller model.
    ///
    /// The mark is read with [`Attempts::degraded`](super::Attempts::degraded).
    #[must_use]
    pub fn degraded(mut self) -> Self {
        self.degraded = true;
        self
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Link<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("service", &self.service)
            .field("degraded", &self.degraded)
            .finish_non_exhaustive()
    }
}

/// Some links, then one more: what [`Fallback::or`](super::Fallback::or) makes.
#[derive(Clone, Debug)]
pub struct Chain<L, B> {
    head: L,
    last: B,
}

impl<L, B> Chain<L, B> {
    pub(super) fn new(head: L, last: B) -> Self {
        Self { head, last }
    }
}

mod sealed {
    pub trait Sealed {}
}

impl<S, P> sealed::Sealed for Link<S, P> {}
impl<L, B> sealed::Sealed for Chain<L, B> {}
impl<S, P> sealed::Sealed for Vec<Link<S, P>> {}

/// Links in order, by their index: one [`Link`], a [`Chain`], or a `Vec<Link<S, P>>`.
///
/// Sealed. It lets one algorithm serve chains known at compile time and at run time alike.
/// An index is always less than [`len`](Links::len).
pub trait Links<Req>: sealed::Sealed {
    /// What all links answer with.
    type Response;
    /// The first link's error; later ones convert into it.
    type Error;
    /// The future of a call to any of them.
    type Future: Future<Output = Result<Self::Response, Self::Error>>;

    /// How many links there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks a link's probe.
    ///
    /// # Errors
    ///
    /// The link is unavailable, for so long if that is known.
    fn check(&self, index: usize) -> Result<(), Option<Duration>>;

    /// Whether a link's answers are marked as degraded.
    fn is_degraded(&self, index: usize) -> bool;

    /// Polls a link's service for readiness.
    fn poll_ready(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Calls a link's service, which must be ready.
    fn call(&mut self, index: usize, request: Req) -> Self::Future;

    /// Puts a fresh clone in place of a link's service.
    ///
    /// A service that was polled and not called may hold a reservation, or a place in a queue that
    /// turns into one, for as long as it lives. A clone holds none, by Tower's contract.
    fn renew(&mut self, index: usize);
}

impl<S, P, Req> Links<Req> for Link<S, P>
where
    S: Service<Req> + Clone,
    P: Probe,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn len(&self) -> usize {
        1
    }

    fn check(&self, _: usize) -> Result<(), Option<Duration>> {
        self.probe.check()
    }

    fn is_degraded(&self, _: usize) -> bool {
        self.degraded
    }

    fn poll_ready(&mut self, _: usize, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, _: usize, request: Req) -> S::Future {
        self.service.call(request)
    }

    fn renew(&mut self, _: usize) {
        self.service = self.service.clone();
    }
}

impl<S, P, Req> Links<Req> for Vec<Link<S, P>>
where
    S: Service<Req> + Clone,
    P: Probe,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn check(&self, index: usize) -> Result<(), Option<Duration>> {
        self[index].probe.check()
    }

    fn is_degraded(&self, index: usize) -> bool {
        self[index].degraded
    }

    fn poll_ready(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self[index].service.poll_ready(cx)
    }

    fn call(&mut self, index: usize, request: Req) -> S::Future {
        self[index].service.call(request)
    }

    fn renew(&mut self, index: usize) {
        Links::<Req>::renew(&mut self[index], 0);
    }
}

impl<L, B, Req> Links<Req> for Chain<L, B>
where
    L: Links<Req>,
    B: Links<Req, Response = L::Response>,
    B::Error: Into<L::Error>,
{
    type Response = L::Response;
    type Error = L::Error;
    type Future = ChainFuture<L::Future, B::Future>;

    fn len(&self) -> usize {
        self.head.len() + self.last.len()
    }

    fn check(&self, index: usize) -> Result<(), Option<Duration>> {
        match index.checked_sub(self.head.len()) {
            None => self.head.check(index),
            Some(index) => self.last.check(index),
        }
    }

    fn is_degraded(&self, index: usize) -> bool {
        match index.checked_sub(self.head.len()) {
            None => self.head.is_degraded(index),
            Some(index) => self.last.is_degraded(index),
        }
    }

    fn poll_ready(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), L::Error>> {
        match index.checked_sub(self.head.len()) {
            None => self.head.poll_ready(index, cx),
            Some(index) => self.last.poll_ready(index, cx).map_err(Into::into),
        }
    }

    fn call(&mut self, index: usize, request: Req) -> Self::Future {
        let either = match index.checked_sub(self.head.len()) {
            None => Either::Head {
                future: self.head.call(index, request),
            },
            Some(index) => Either::Last {
                future: self.last.call(index, request),
            },
        };
        ChainFuture { either }
    }

    fn renew(&mut self, index: usize) {
        match index.checked_sub(self.head.len()) {
            None => self.head.renew(index),
            Some(index) => self.last.renew(index),
        }
    }
}

pin_project! {
    /// The future of a call to one link of a [`Chain`].
    #[derive(Debug)]
    pub struct ChainFuture<A, B> {
        #[pin]
        either: Either<A, B>,
    }
}

pin_project! {
    #[project = EitherProj]
    #[derive(Debug)]
    enum Either<A, B> {
        Head { #[pin] future: A },
        Last { #[pin] future: B },
    }
}

impl<A, B, Res, E, F> Future for ChainFuture<A, B>
where
    A: Future<Output = Result<Res, E>>,
    B: Future<Output = Result<Res, F>>,
    F: Into<E>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().either.project() {
            EitherProj::Head { future } => future.poll(cx),
            EitherProj::Last { future } => future.poll(cx).map_err(Into::into),
        }
    }
}

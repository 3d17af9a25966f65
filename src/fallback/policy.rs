use std::{borrow::Cow, fmt::Display};

use super::Attempts;

/// Decides whether a link's result is a failure, after which the next link gets the request.
///
/// Closures `Fn(Result<&Res, &E>) -> bool` fit, with the type of their argument written out:
/// `true` means failure. Implement the trait to give a reason of your own.
pub trait Policy<Res, E> {
    /// `Some` if the next link is to be asked, and why, for the [record](Attempts).
    fn failure(&self, result: Result<&Res, &E>) -> Option<Cow<'static, str>>;
}

/// The default policy: any `Err` is a failure, and its text the reason; any response is an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyError;

impl<Res, E: Display> Policy<Res, E> for AnyError {
    fn failure(&self, result: Result<&Res, &E>) -> Option<Cow<'static, str>> {
        result.err().map(|error| error.to_string().into())
    }
}

impl<F, Res, E> Policy<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> bool,
{
    fn failure(&self, result: Result<&Res, &E>) -> Option<Cow<'static, str>> {
        let reason = match result {
            Ok(_) => "the response counts as a failure",
            Err(_) => "the error counts as a failure",
        };
        self(result).then_some(Cow::Borrowed(reason))
    }
}

/// The policy for HTTP: an `Err`, a response with status 5xx or 429, or one that is marked as
/// [`Rejected`](crate::Rejected) is a failure.
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpFailures;

#[cfg(feature = "http")]
impl<B, E: Display> Policy<http::Response<B>, E> for HttpFailures {
    fn failure(&self, result: Result<&http::Response<B>, &E>) -> Option<Cow<'static, str>> {
        let response = match result {
            Ok(response) => response,
            Err(error) => return Some(error.to_string().into()),
        };
        // Before the status: a rejected gRPC call answers 200, and for HTTP it says more.
        if response.extensions().get::<crate::Rejected>().is_some() {
            return Some(Cow::Borrowed("rejected by an open circuit"));
        }
        let status = response.status();
        let failed = status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS;
        failed.then(|| status.to_string().into())
    }
}

/// Makes the copy of a request that another link may need.
///
/// Closures `Fn(&Req) -> Option<Req>` fit; `None` means that the request can't be sent twice.
pub trait CloneRequest<Req> {
    /// A copy, or `None` to end the chain at the link that is about to be called.
    fn clone_request(&self, request: &Req) -> Option<Req>;
}

/// The default: the request's own [`Clone`].
///
/// Requests without it need a hook, be it `|_: &Req| None`; until then the fallback is no service
/// for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClone;

impl<Req: Clone> CloneRequest<Req> for ByClone {
    fn clone_request(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<F, Req> CloneRequest<Req> for F
where
    F: Fn(&Req) -> Option<Req>,
{
    fn clone_request(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

/// Puts the attempts into a response, in whatever way suits its type.
///
/// Closures `Fn(&Attempts, &mut Res)` fit.
pub trait Record<Res> {
    /// Whether there is nothing to tell, so that the first link's answer needs no list.
    #[doc(hidden)]
    const SILENT: bool = false;

    /// Called once for each response, before it is returned.
    fn record(&self, attempts: &Attempts, response: &mut Res);
}

/// The default: responses carry no record. Errors always do.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecord;

impl<Res> Record<Res> for NoRecord {
    const SILENT: bool = true;

    fn record(&self, _: &Attempts, _: &mut Res) {}
}

impl<F, Res> Record<Res> for F
where
    F: Fn(&Attempts, &mut Res),
{
    fn record(&self, attempts: &Attempts, response: &mut Res) {
        self(attempts, response);
    }
}

/// Puts the [`Attempts`] into the extensions of an HTTP response.
///
/// A response that comes from a fallback within the chain has that one's attempts there; they are
/// replaced, but for the mark of a [degraded](super::Link::degraded) answer.
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct InExtensions;

#[cfg(feature = "http")]
impl<B> Record<http::Response<B>> for InExtensions {
    fn record(&self, attempts: &Attempts, response: &mut http::Response<B>) {
        let mut attempts = attempts.clone();
        let inner = response.extensions().get::<Attempts>();
        if inner.is_some_and(Attempts::degraded) {
            attempts.mark_degraded();
        }
        response.extensions_mut().insert(attempts);
    }
}

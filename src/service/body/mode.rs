//! [`SettleAtEnd`]: the mode that leaves the settling to the body.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use http::{HeaderMap, Response};
use http_body::Body;

use super::{BodyConfig, Deadlines, Ending, SettledBody};
use crate::{
    circuit::{Open, Outcome, Permit},
    classify::{Classified, ClassifyEnd},
    service::{
        error::Timeout,
        mode::{FailFast, Mode, Wait, sealed},
        reply::{GrpcReply, HttpReply, status_of},
    },
};

/// One of the other modes, with HTTP responses that settle at the end of their bodies.
///
/// A response that is a failure by its head is settled there. Otherwise the call is settled
///
/// - when the body ends, as a success, and when it fails, as a failure, unless the classifier
///   judges the end by itself: see [`ClassifyEnd`];
/// - when the body panics, or misses a deadline of [`BodyConfig`], as a failure;
/// - when the body is dropped half-way, as [`OnCancel`](crate::OnCancel) says. Bodies that have
///   been read to their last byte are not half-way, also where nobody has asked for more; nor is a
///   body that nobody has asked for anything (as with `HEAD`), unless the classifier needs its end.
///
/// `OnCancel::FailAfter` counts from the call. Where clients leave streams when they have seen
/// enough, it would hold that against the dependency; an idle timeout is what finds the silent ones.
///
/// A probe is settled at the end of its body as well, so a half-open circuit can't close before that,
/// and streams that go on for ever never close it. Where all calls are of that kind, leave this out:
/// then their heads decide.
#[derive(Debug, Clone)]
pub struct SettleAtEnd<M> {
    /// `None` if there are no deadlines, so that it costs nothing to clone.
    config: Option<Arc<BodyConfig>>,
    mode: PhantomData<fn() -> M>,
}

impl<M> SettleAtEnd<M> {
    pub(in crate::service) fn new(config: BodyConfig) -> Self {
        Self {
            config: (config != BodyConfig::default()).then(|| Arc::new(config)),
            mode: PhantomData,
        }
    }
}

impl<M> sealed::Sealed for SettleAtEnd<M> {}

/// A mode, as far as bodies are concerned.
pub trait BodyMode: sealed::Sealed {
    /// The mode by itself, without [`SettleAtEnd`].
    type Plain: BodyMode;

    /// The trailers by which a body tells that it has missed a deadline. `None`: it fails.
    fn end_late(timeout: &Timeout) -> Option<HeaderMap> {
        let _ = timeout;
        None
    }
}

impl BodyMode for Wait {
    type Plain = Self;
}

impl BodyMode for FailFast {
    type Plain = Self;
}

impl BodyMode for HttpReply {
    type Plain = Self;
}

impl BodyMode for GrpcReply {
    type Plain = Self;

    fn end_late(timeout: &Timeout) -> Option<HeaderMap> {
        Some(status_of(timeout))
    }
}

impl<M: BodyMode> BodyMode for SettleAtEnd<M> {
    type Plain = M;
}

impl<M, B, E, A> Mode<Response<B>, E, A> for SettleAtEnd<M>
where
    M: Mode<Response<SettledBody<B, A>>, E, A, Response = Response<SettledBody<B, A>>> + BodyMode,
    B: Body,
    A: ClassifyEnd<B::Error>,
{
    type Response = Response<SettledBody<B, A>>;
    type Error = M::Error;
    const WAITS: bool = M::WAITS;

    fn inner(error: E) -> Self::Error {
        M::inner(error)
    }

    fn open(open: Open) -> Result<Self::Response, Self::Error> {
        M::open(open)
    }

    fn timeout(timeout: Timeout) -> Result<Self::Response, Self::Error> {
        M::timeout(timeout)
    }

    fn begin(&self, permit: &mut Permit) {
        if self.total_timeout().is_some() {
            permit.start_clock();
        }
    }

    fn total_timeout(&self) -> Option<Duration> {
        self.config.as_ref()?.total_timeout
    }

    fn settle(
        &self,
        response: Response<B>,
        judged: Classified<A>,
        permit: &mut Permit,
    ) -> Self::Response {
        let (head, body) = response.into_parts();
        let deadlines = Deadlines::new(self.config.clone(), permit);
        let judge = match judged {
            Classified::Done(Outcome::Success) => None,
            Classified::AtEnd(judge) => Some(judge),
            Classified::Done(outcome) => {
                permit.end(outcome);
                None
            }
        };
        let includes_body = self
            .config
            .as_ref()
            .is_some_and(|config| config.slow_by_end);
        let mut ending = Ending::new(permit.take(), judge, includes_body, &head.headers);
        ending.look(&body);
        Response::from_parts(
            head,
            SettledBody {
                inner: Some(body),
                timer: None,
                deadlines,
                end_late: M::end_late,
                ending,
            },
        )
    }
}

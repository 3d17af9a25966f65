//! How a body ends, told to the circuit once.

use bytes::Buf;
use http::{HeaderMap, header};
use http_body::{Body, Frame};

use crate::{
    circuit::{Outcome, Permit, Ran},
    classify::ClassifyEnd,
    service::future::FailOnUnwind,
};

/// Dropped, it settles a call whose body has not ended.
#[derive(Debug)]
pub(super) struct Ending<A> {
    /// Of a call that may be settled already.
    pub(super) permit: Permit,
    /// What judges the end; `None`: an end that is no error is a success.
    judge: Option<A>,
    /// How long the call took, where the body is no part of that.
    ran: Option<Ran>,
    /// The body has been asked for something.
    pub(super) begun: bool,
    /// Bytes to come, by the `Content-Length`: bodies that are made of a stream don't know, and
    /// servers that do don't ask them for what comes after the last.
    left: Option<u64>,
}

impl<A> Default for Ending<A> {
    fn default() -> Self {
        Self {
            permit: Permit::none(),
            judge: None,
            ran: None,
            begun: false,
            left: None,
        }
    }
}

impl<A> Ending<A> {
    /// At the head of the response.
    pub(super) fn new(
        mut permit: Permit,
        judge: Option<A>,
        includes_body: bool,
        headers: &HeaderMap,
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        Self {
            ran: if includes_body {
                None
            } else {
                permit.answered()
            },
            permit,
            judge,
            begun: false,
            left: length.and_then(|length| length.to_str().ok()?.parse().ok()),
        }
    }

    /// A frame has passed.
    pub(super) fn pass<D: Buf, E>(&mut self, frame: &Frame<D>)
    where
        A: ClassifyEnd<E>,
    {
        if let Some(data) = frame.data_ref() {
            let passed = data.remaining() as u64;
            self.left = self.left.map(|left| left.saturating_sub(passed));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.end(Ok(Some(trailers)));
        }
    }

    /// Ends here if nothing can follow that matters.
    pub(super) fn look<B>(&mut self, body: &B)
    where
        B: Body,
        A: ClassifyEnd<B::Error>,
    {
        let no_bytes_left = || self.left == Some(0) || body.size_hint().exact() == Some(0);
        if body.is_end_stream() || (self.judge.is_none() && no_bytes_left()) {
            self.end(Ok(None));
        }
    }

    /// The body has ended, or failed.
    pub(super) fn end<E>(&mut self, end: Result<Option<&HeaderMap>, &E>)
    where
        A: ClassifyEnd<E>,
    {
        if self.permit.is_settled() {
            return;
        }
        let outcome = match (self.judge.take(), end) {
            (Some(judge), end) => {
                let guard = FailOnUnwind(&mut self.permit);
                let outcome = judge.classify_end(end);
                guard.disarm();
                outcome
            }
            (None, Ok(_)) => Outcome::Success,
            (None, Err(_)) => Outcome::FAILURE,
        };
        self.took();
        self.permit.end(outcome);
    }

    pub(super) fn time_out(&mut self) {
        self.took();
        self.permit.end_late();
    }

    fn took(&mut self) {
        if let Some(ran) = self.ran.take() {
            self.permit.took(ran);
        }
    }
}

impl<A> Drop for Ending<A> {
    fn drop(&mut self) {
        if self.permit.is_settled() {
            return;
        }
        if self.begun || self.judge.is_some() {
            let ran = self.ran.take();
            self.permit.cancel_answered(ran);
        } else {
            // The head was well, and nobody has seen anything else.
            self.took();
            self.permit.end(Outcome::Success);
        }
    }
}

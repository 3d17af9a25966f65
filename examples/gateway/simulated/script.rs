//! What goes over the wire, and when: a response's body, step by step.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
    response::Response,
};
use futures_util::stream;

use super::Arrival;

/// An event of a stream, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) bytes: Bytes,
    pub(super) part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Frame,
    /// Something of the answer itself.
    Content,
    /// Without these the answer is not complete.
    Finish,
}

impl Event {
    pub(super) fn new(text: impl Into<Bytes>) -> Self {
        Self {
            bytes: text.into(),
            part: Part::Frame,
        }
    }

    pub(super) fn content(self) -> Self {
        let part = Part::Content;
        Self { part, ..self }
    }

    pub(super) fn finish(self) -> Self {
        let part = Part::Finish;
        Self { part, ..self }
    }
}

/// A step of a body.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    /// Nothing more, and no end.
    Hang,
    /// The connection ends, whatever had been promised.
    Break,
}

/// A response with the status 200.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) content_type: &'static str,
    /// What the head promises; without it the body comes in chunks.
    pub(super) length: Option<usize>,
    pub(super) steps: Vec<Step>,
    /// Whether this is an answer that a client can use.
    pub(super) whole: bool,
}

impl Script {
    pub(super) fn perform(self, arrival: Arrival) -> Response {
        let steps = self.steps.into_iter();
        let body = stream::unfold((steps, Some(arrival)), move |state| next(state, self.whole));
        let mut response = Response::builder()
            .header(CONTENT_TYPE, self.content_type)
            .header(CACHE_CONTROL, "no-cache");
        if let Some(length) = self.length {
            response = response.header(CONTENT_LENGTH, length);
        }
        let response = response.body(Body::from_stream(body));
        response.expect("the head is made of constants")
    }
}

type State = (std::vec::IntoIter<Step>, Option<Arrival>);

async fn next((mut steps, mut arrival): State, whole: bool) -> Option<(io::Result<Bytes>, State)> {
    let item = loop {
        match steps.next()? {
            Step::Send(bytes) => break Ok(bytes),
            Step::Wait(time) => tokio::time::sleep(time).await,
            // A client that goes away drops this future.
            Step::Hang => {
                if let Some(arrival) = &arrival {
                    arrival.shutdown().await;
                }
                break Err(io::ErrorKind::ConnectionAborted.into());
            }
            Step::Break => {
                // hyper writes what it has when the body has nothing more at once; an error that came right away
                // would end the connection before that was sent.
                tokio::task::yield_now().await;
                break Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    };
    // With the last step, because hyper doesn't ask for more than was promised.
    if steps.len() == 0
        && let Some(arrival) = arrival.take()
    {
        arrival.settle(whole);
    }
    Some((item, (steps, arrival)))
}

//! A body that does what it was told to, step by step.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// What a [`Script`] does next.
#[derive(Debug)]
pub enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    Fail,
    Panic,
    Wait(Duration),
    Hang,
}

/// Trailers of one header.
pub fn trailers(name: &'static str, value: &'static str) -> Step {
    let (name, value) = (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    Step::Trailers(HeaderMap::from_iter([(name, value)]))
}

/// The error of a body that was told to fail.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off")
    }
}

impl std::error::Error for Broken {}

/// A body made of steps.
#[derive(Debug)]
pub struct Script {
    steps: VecDeque<Step>,
    waits: Option<Pin<Box<Sleep>>>,
    /// Whether it knows its end and its size, as bodies that are made of a stream don't.
    knows: bool,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            waits: None,
            knows: true,
        }
    }

    /// One that knows nothing of its end until it is there.
    pub fn unknowing(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            knows: false,
            ..Self::new(steps)
        }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(waits) = &mut self.waits {
                ready!(waits.as_mut().poll(cx));
                self.waits = None;
            }
            let frame = match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Data(data)) => Frame::data(Bytes::from_static(data.as_bytes())),
                Some(Step::Trailers(trailers)) => Frame::trailers(trailers),
                Some(Step::Fail) => return Poll::Ready(Some(Err(Broken))),
                Some(Step::Panic) => panic!("expected: the body panics"),
                Some(Step::Wait(time)) => {
                    self.waits = Some(Box::pin(sleep(time)));
                    continue;
                }
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.knows {
            return SizeHint::new();
        }
        let bytes = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            // What never comes was promised all the same.
            Step::Fail | Step::Panic | Step::Hang => 1,
            Step::Trailers(_) | Step::Wait(_) => 0,
        });
        SizeHint::with_exact(bytes.sum())
    }
}

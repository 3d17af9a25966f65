//! A streamed answer as the body of a response.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use bytes::BytesMut;
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tower_breaker::models::{ModelError, ModelStream, StreamEvent};

use super::{ask::Question, caller::tell_who_answered};

/// Writes a streamed answer in a client's format.
pub(super) trait Writer: Send + Unpin + 'static {
    /// Writes an event. After the finish the body is complete.
    fn event(&mut self, event: &StreamEvent, out: &mut BytesMut);

    /// Writes that the answer has failed, which is the last that is written.
    fn error(&mut self, error: &ModelError, out: &mut BytesMut);

    /// Writes a sign of life that means nothing.
    fn keep_alive(&mut self, out: &mut BytesMut);

    /// Writes how the answer came about, right before its finish.
    fn metadata(&mut self, answer: &ModelStream, out: &mut BytesMut);
}

/// How much is collected before it is written though there is more, in bytes: what fits into a few packets.
const ENOUGH: usize = 16 * 1024;

/// The response to a request for a stream, which has begun.
pub(super) async fn respond(
    question: Question,
    answer: ModelStream,
    writer: impl Writer,
) -> Response {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx would collect the events otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    tell_who_answered(
        headers,
        answer.provider(),
        answer.model(),
        answer.is_degraded(),
        answer.attempts(),
    );
    let mut events = Events {
        silence: Silence::new(question.keep_alive()),
        question,
        answer,
        writer,
        events: VecDeque::new(),
        out: BytesMut::new(),
        fresh: false,
        over: false,
        failed: false,
    };
    // What is there goes out in one write with the head.
    poll_fn(|cx| events.poll_collect(cx)).await;
    response.map(|()| Body::new(events))
}

/// The events, as many in one frame as are there: each frame is a write.
///
/// It reads on only when hyper wants more, so a slow client slows the provider down. Dropped before its end, because
/// the client is gone, it takes the connection to the provider with it.
struct Events<W> {
    question: Question,
    answer: ModelStream,
    writer: W,
    events: VecDeque<StreamEvent>,
    /// What is to be written next.
    out: BytesMut,
    /// Something has been added to it since the last look for more.
    fresh: bool,
    silence: Silence,
    over: bool,
    failed: bool,
}

impl<W: Writer> Events<W> {
    /// Ready with all that there is, or at the end.
    ///
    /// hyper hands the chunks of the provider's body over one by one, from a task of its own. So when there is no
    /// more, that task gets a turn before what has been collected is written: this costs far less than a write.
    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.over && self.out.len() < ENOUGH {
            match self.answer.poll_ready_events(cx, &mut self.events) {
                Poll::Ready(Some(Ok(()))) => self.write(),
                Poll::Ready(Some(Err(error))) => {
                    (self.over, self.failed) = (true, true);
                    self.writer.error(&error, &mut self.out);
                }
                Poll::Ready(None) => self.over = true,
                Poll::Pending if std::mem::take(&mut self.fresh) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    fn write(&mut self) {
        (self.fresh, self.silence.broken) = (true, true);
        while let Some(mut event) = self.events.pop_front() {
            match &mut event {
                // Clients know the model by its alias.
                StreamEvent::Start { model, .. } => self.answer.model().clone_into(model),
                StreamEvent::Finish(_) => {
                    self.writer.metadata(&self.answer, &mut self.out);
                    self.over = true;
                }
                _ => {}
            }
            self.writer.event(&event, &mut self.out);
        }
    }
}

impl<W: Writer> http_body::Body for Events<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.poll_collect(cx).is_pending() {
            if !this.out.is_empty() {
                return Poll::Pending;
            }
            ready!(this.silence.poll(cx));
            this.writer.keep_alive(&mut this.out);
        }
        let out = std::mem::take(&mut this.out).freeze();
        Poll::Ready((!out.is_empty()).then(|| Ok(Frame::data(out))))
    }

    /// With the last event the body is over, so hyper sends its end along.
    fn is_end_stream(&self) -> bool {
        self.over && self.out.is_empty()
    }
}

impl<W> Drop for Events<W> {
    fn drop(&mut self) {
        let answered_by = if self.failed {
            ""
        } else {
            self.answer.provider()
        };
        self.question.count(answered_by, self.answer.attempts());
    }
}

/// Notices when nothing has been written for a while. Its timer is set once per silence that is worth it, and not
/// with each event.
struct Silence {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Something has been written since the timer was set.
    broken: bool,
}

impl Silence {
    fn new(longest: Duration) -> Self {
        Self {
            longest,
            timer: None,
            broken: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            self.broken = false;
            Box::pin(sleep(self.longest))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            timer.set(sleep(self.longest));
            if !std::mem::take(&mut self.broken) {
                return Poll::Ready(());
            }
        }
    }
}

//! A streamed answer as the body of a response.

use std::{
    collections::VecDeque,
    convert::Infallible,
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

/// How long a client hears nothing, at least, before it is told that there is still somebody; at most twice as long.
/// Proxies give up after 60 seconds by default.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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

/// The response to a request for a stream, which has begun.
pub(super) fn respond(question: Question, answer: ModelStream, writer: impl Writer) -> Response {
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
    response.map(|()| {
        Body::new(Events {
            question,
            answer,
            writer,
            events: VecDeque::new(),
            silence: Silence::default(),
            over: false,
            failed: false,
        })
    })
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
    silence: Silence,
    over: bool,
    failed: bool,
}

impl<W: Writer> Events<W> {
    fn write(&mut self, out: &mut BytesMut) {
        while let Some(mut event) = self.events.pop_front() {
            match &mut event {
                // Clients know the model by its alias.
                StreamEvent::Start { model, .. } => self.answer.model().clone_into(model),
                StreamEvent::Finish(_) => {
                    self.writer.metadata(&self.answer, out);
                    self.over = true;
                }
                _ => {}
            }
            self.writer.event(&event, out);
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
        if this.over {
            return Poll::Ready(None);
        }
        let mut out = BytesMut::new();
        match this.answer.poll_ready_events(cx, &mut this.events) {
            Poll::Ready(Some(Ok(()))) => {
                this.silence.broken = true;
                this.write(&mut out);
            }
            Poll::Ready(Some(Err(error))) => {
                (this.over, this.failed) = (true, true);
                this.writer.error(&error, &mut out);
            }
            Poll::Ready(None) => {
                this.over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {
                ready!(this.silence.poll(cx));
                this.writer.keep_alive(&mut out);
            }
        }
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }

    /// With the last event the body is over, so hyper sends its end along.
    fn is_end_stream(&self) -> bool {
        self.over
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
#[derive(Default)]
struct Silence {
    timer: Option<Pin<Box<Sleep>>>,
    /// Something has been written since the timer was set.
    broken: bool,
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            self.broken = false;
            Box::pin(sleep(KEEP_ALIVE))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            timer.set(sleep(KEEP_ALIVE));
            if !std::mem::take(&mut self.broken) {
                return Poll::Ready(());
            }
        }
    }
}

//! A provider that does as its scripts say, and a codec so plain that a script reads like a stream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tower::{Service, service_fn};
use tower_breaker::models::{
    Completion, FinishReason, ModelError, ModelErrorKind, ModelRequest, Provider, StreamDecoder,
    StreamEvent, Usage,
};

/// What the provider does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends this, all at once.
    Say(&'static str),
    Wait(Duration),
    /// Breaks the connection.
    Cut,
    /// Never does anything again.
    Hang,
    /// In the first place: answers with this status.
    Status(u16),
    /// In the first place: never answers.
    NoHead,
}

/// The provider. Each call plays the next script, and the last one for ever.
#[derive(Clone, Default)]
pub(crate) struct Remote(Arc<Inner>);

#[derive(Default)]
struct Inner {
    scripts: Mutex<VecDeque<Vec<Step>>>,
    calls: Mutex<Vec<String>>,
    steps: AtomicUsize,
    abandoned: AtomicUsize,
}

impl Remote {
    /// Plays this one after those before it.
    pub(crate) fn then(self, script: impl Into<Vec<Step>>) -> Self {
        self.0.scripts.lock().unwrap().push_back(script.into());
        self
    }

    /// One that sends this, and ends.
    pub(crate) fn says(text: &'static str) -> Self {
        Self::default().then([Step::Say(text)])
    }

    /// What it was asked so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// How many steps it has made.
    pub(crate) fn steps(&self) -> usize {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// How many answers were dropped before their end.
    pub(crate) fn abandoned(&self) -> usize {
        self.0.abandoned.load(Ordering::Relaxed)
    }

    /// It, as an HTTP service.
    pub(crate) fn http(
        &self,
    ) -> impl Service<
        Request<Full<Bytes>>,
        Response = Response<UnsyncBoxBody<Bytes, io::Error>>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + use<> {
        let it = self.0.clone();
        service_fn(move |request: Request<Full<Bytes>>| {
            let it = it.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                it.calls
                    .lock()
                    .unwrap()
                    .push(String::from_utf8(body.to_vec()).unwrap());
                let mut script = {
                    let mut scripts = it.scripts.lock().unwrap();
                    match scripts.len() {
                        0 | 1 => scripts[0].clone(),
                        _ => scripts.pop_front().unwrap(),
                    }
                };
                let mut status = 200;
                match script.first() {
                    Some(Step::Status(code)) => {
                        status = *code;
                        script.remove(0);
                    }
                    Some(Step::NoHead) => std::future::pending().await,
                    _ => {}
                }
                let playing = Playing {
                    it,
                    left: script.into(),
                };
                let body = StreamBody::new(stream::unfold(playing, Playing::next));
                Ok(Response::builder()
                    .status(status)
                    .body(body.boxed_unsync())
                    .unwrap())
            }
        })
    }
}

struct Playing {
    it: Arc<Inner>,
    left: VecDeque<Step>,
}

impl Playing {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, io::Error>, Self)> {
        loop {
            let step = self.left.front()?.clone();
            match step {
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Hang => std::future::pending().await,
                _ => {}
            }
            self.left.pop_front();
            self.it.steps.fetch_add(1, Ordering::Relaxed);
            match step {
                Step::Say(text) => {
                    return Some((Ok(Frame::data(Bytes::from_static(text.as_bytes()))), self));
                }
                Step::Cut => {
                    self.left.clear();
                    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Some((Err(cut), self));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        if !self.left.is_empty() {
            self.it.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A codec for lines of a word and its text, such as `text Hello`. The sign for a space at either
/// end of the text is `_`.
#[derive(Debug, Clone)]
pub(crate) struct Lines(pub(crate) http::Uri);

impl Default for Lines {
    fn default() -> Self {
        Self(http::Uri::from_static("http://localhost/"))
    }
}

impl Provider for Lines {
    fn encode(&self, request: &ModelRequest, model: &str) -> Result<Request<Bytes>, ModelError> {
        let mut text = format!("{model}: {}", request.messages[0].content.text());
        if !request.stream {
            text += ", whole";
        }
        if let Some(cap) = request.max_tokens {
            text += &format!(", at most {cap}");
        }
        if let Some(begun) = &request.continue_from {
            text += &format!(", after `{begun}`");
        }
        let request = Request::post(self.0.clone()).body(text.into());
        Ok(request.unwrap())
    }

    fn decode(
        &self,
        status: StatusCode,
        _: &HeaderMap,
        body: &Bytes,
    ) -> Result<Completion, ModelError> {
        let text = String::from_utf8_lossy(body);
        match ModelErrorKind::from_status(status) {
            Some(kind) => Err(ModelError::new(kind, text).with_status(status)),
            None => Ok(Completion::new(text)),
        }
    }

    fn stream_decoder(
        &self,
        _: &ModelRequest,
        _: StatusCode,
        _: &HeaderMap,
    ) -> Box<dyn StreamDecoder> {
        Box::new(Decoder::default())
    }
}

#[derive(Default)]
struct Decoder {
    finished: bool,
}

impl StreamDecoder for Decoder {
    fn feed(&mut self, bytes: &[u8], events: &mut VecDeque<StreamEvent>) -> Result<(), ModelError> {
        for line in std::str::from_utf8(bytes).unwrap().lines() {
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let text = rest.replace('_', " ");
            let mut words = rest.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            events.push_back(match word {
                "" | "ping" => continue,
                "start" => StreamEvent::Start {
                    id: next(),
                    model: next(),
                },
                "text" => StreamEvent::Text(text),
                "thought" => StreamEvent::Reasoning(text),
                "signature" => StreamEvent::ReasoningSignature(text),
                "tool" => StreamEvent::ToolCall {
                    index: 0,
                    id: "call".to_owned(),
                    name: text,
                },
                "arguments" => StreamEvent::ToolArguments {
                    index: 0,
                    json: text,
                },
                "usage" => {
                    let mut tokens = || next().parse().unwrap();
                    StreamEvent::Usage(Usage::new(tokens(), tokens()))
                }
                "finish" => {
                    self.finished = true;
                    StreamEvent::Finish(FinishReason::Stop)
                }
                "overloaded" => return Err(ModelError::new(ModelErrorKind::Overloaded, text)),
                "invalid" => return Err(ModelError::new(ModelErrorKind::InvalidRequest, text)),
                "busy" => {
                    let error = ModelError::new(ModelErrorKind::RateLimited, "");
                    return Err(
                        error.with_retry_after(Duration::from_secs(next().parse().unwrap()))
                    );
                }
                _ => panic!("a codec's mistake"),
            });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ModelError> {
        if self.finished {
            return Ok(());
        }
        let message = "the stream ended without its finish";
        Err(ModelError::new(ModelErrorKind::Malformed, message))
    }
}

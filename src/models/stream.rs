//! A provider's answer as a stream of events, and the service that makes it.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    content::Reasoning,
    error::{ModelError, ModelErrorKind},
    event::{StreamDecoder, StreamEvent},
    provider::Provider,
    response::Completion,
    service::ProviderRequest,
    transport,
};
use crate::BoxError;

/// A [`Provider`] over an HTTP service, asked for streams: what
/// [`ProviderService`](super::ProviderService) is for whole answers.
#[derive(Debug, Clone)]
pub(super) struct ProviderStreams<H> {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) http: H,
    pub(super) body_limit: usize,
}

impl<H, B> Service<ProviderRequest> for ProviderStreams<H>
where
    H: Service<Request<Full<Bytes>>, Response = Response<B>>,
    H::Error: Into<BoxError>,
    H::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = ProviderStream;
    type Error = ModelError;
    type Future = Pin<Box<dyn Future<Output = Result<ProviderStream, ModelError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        self.http
            .poll_ready(cx)
            .map_err(|error| transport::before_the_head(error.into()))
    }

    fn call(&mut self, request: ProviderRequest) -> Self::Future {
        let call = self
            .provider
            .encode(&request.request, &request.model)
            .map(|http| self.http.call(http.map(Full::new)));
        let (provider, limit) = (self.provider.clone(), self.body_limit);
        Box::pin(async move {
            let response = call?.await;
            let response = response.map_err(|error| transport::before_the_head(error.into()))?;
            let (head, body) = response.into_parts();
            if ModelErrorKind::from_status(head.status).is_none() {
                let request = &request.request;
                let decoder = provider.stream_decoder(request, head.status, &head.headers);
                return Ok(ProviderStream(Box::pin(Reader {
                    decoder,
                    limit,
                    left: limit,
                    body,
                })));
            }
            // The head says what is wrong; without the body only the words are lost.
            let body = Limited::new(body, limit).collect().await;
            let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            let completion = provider.decode(head.status, &head.headers, &body)?;
            Ok(completion.into())
        })
    }
}

/// A provider's answer that is still coming.
///
/// It reads the provider's body only when it is polled, so whoever reads slowly slows the provider
/// down. It knows no deadline and no circuit. Dropping it drops the body, and with it the
/// connection to the provider.
pub(super) struct ProviderStream(Pin<Box<dyn ReadEvents>>);

/// What a poll of a [`ProviderStream`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something came: events, or a sign of life that is none.
    Alive,
    /// The answer is complete.
    Finished,
}

trait ReadEvents: Send {
    fn poll_events(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>>;
}

impl ProviderStream {
    /// Reads on, and appends what came. Not to be polled again once it has failed or finished.
    pub(super) fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        self.0.as_mut().poll_events(cx, events)
    }
}

pin_project! {
    /// An answer that comes as the body of a response.
    struct Reader<B> {
        decoder: Box<dyn StreamDecoder>,
        limit: usize,
        // How much more may come: an answer that never ends is none.
        left: usize,
        #[pin]
        body: B,
    }
}

impl<B> ReadEvents for Reader<B>
where
    B: Body + Send,
    B::Error: Into<BoxError>,
{
    fn poll_events(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        let mut this = self.project();
        let Some(frame) = ready!(this.body.as_mut().poll_frame(cx)) else {
            this.decoder.end()?;
            return Poll::Ready(Ok(Progress::Finished));
        };
        let frame = frame.map_err(|error| transport::in_the_body(error.into(), *this.limit))?;
        // Trailers say nothing about an answer.
        let Ok(mut data) = frame.into_data() else {
            return Poll::Ready(Ok(Progress::Alive));
        };
        *this.left = match this.left.checked_sub(data.remaining()) {
            Some(left) => left,
            None => return Poll::Ready(Err(transport::too_large(*this.limit))),
        };
        while data.has_remaining() {
            let chunk = data.chunk();
            this.decoder.feed(chunk, events)?;
            data.advance(chunk.len());
        }
        // The finish comes last.
        if !matches!(events.back(), Some(StreamEvent::Finish(_))) {
            return Poll::Ready(Ok(Progress::Alive));
        }
        // A body that is read to its end gives its connection back to the pool. The end comes with
        // the finish, as a rule, and is not worth waiting for.
        let _ = this.body.poll_frame(cx);
        Poll::Ready(Ok(Progress::Finished))
    }
}

/// An answer that came whole, as if it had come in pieces.
impl From<Completion> for ProviderStream {
    fn from(completion: Completion) -> Self {
        Self(Box::pin(Whole(Some(completion))))
    }
}

struct Whole(Option<Completion>);

impl ReadEvents for Whole {
    fn poll_events(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        events: &mut VecDeque<StreamEvent>,
    ) -> Poll<Result<Progress, ModelError>> {
        if let Some(completion) = self.0.take() {
            events.extend(pieces(completion));
        }
        Poll::Ready(Ok(Progress::Finished))
    }
}

/// A whole answer in the pieces that a stream would bring.
pub(super) fn pieces(completion: Completion) -> impl Iterator<Item = StreamEvent> {
    let blocks = completion.reasoning_blocks;
    // The blocks hold the same thoughts.
    let plain = completion.reasoning.filter(|_| blocks.is_empty());
    let reasoning = blocks.into_iter().flat_map(|block| match block {
        Reasoning::Text { text, signature } => [
            Some(StreamEvent::Reasoning(text)),
            signature.map(StreamEvent::ReasoningSignature),
        ],
        Reasoning::Redacted(data) => [Some(StreamEvent::RedactedReasoning(data)), None],
    });
    let calls = (0..).zip(completion.tool_calls).flat_map(|(index, call)| {
        [
            StreamEvent::ToolCall {
                index,
                id: call.id,
                name: call.name,
            },
            StreamEvent::ToolArguments {
                index,
                json: call.arguments,
            },
        ]
    });
    let start = StreamEvent::Start {
        id: completion.id,
        model: completion.model,
    };
    let end = [
        StreamEvent::Usage(completion.usage),
        StreamEvent::Finish(completion.finish_reason),
    ];
    let content = plain
        .map(StreamEvent::Reasoning)
        .into_iter()
        .chain(reasoning.flatten())
        .chain([StreamEvent::Text(completion.text)])
        .chain(calls);
    // Nothing comes in empty pieces.
    let content = content.filter(|event| match event {
        StreamEvent::Text(text) | StreamEvent::Reasoning(text) => !text.is_empty(),
        StreamEvent::ToolArguments { json, .. } => !json.is_empty(),
        _ => true,
    });
    std::iter::once(start).chain(content).chain(end)
}

impl fmt::Debug for ProviderStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderStream").finish_non_exhaustive()
    }
}

//! `POST /v1/chat/completions` and `POST /v1/messages`: the forms of OpenAI and Anthropic, for whoever has an SDK of
//! theirs.

use std::time::SystemTime;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use bytes::BytesMut;
use tower_breaker::models::{
    ClientRequest, ModelError, ModelStream, ReplyContext, StreamEncoder, StreamEvent,
};

use super::{
    ask::Question,
    caller::{Caller, attempts_as_json, tell_who_answered},
    error::ApiError,
    read,
    stream::{self, Writer},
};
use crate::app::App;

/// Answers in the format that the path stands for.
pub(super) async fn answer(State(app): State<App>, request: Request) -> Response {
    let caller = Caller::new(request.uri().path(), request.headers());
    match try_to_answer(app, &caller, request).await {
        Ok(response) => caller.sign(response),
        Err(error) => error.respond(&caller),
    }
}

async fn try_to_answer(app: App, caller: &Caller, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = read::bytes(&app, body).await?;
    let ClientRequest {
        mut request,
        include_usage,
        ..
    } = caller.format.decode_request(&body)?;
    drop(body);
    request.headers = app.running().passed_on(&head.headers);
    let context = ReplyContext {
        request_id: caller.request_id(),
        created: now(),
        include_usage,
    };
    if request.stream {
        let (question, answer) = Question::stream(app, request).await?;
        let encoder = caller.format.stream_encoder(&context);
        return Ok(stream::respond(question, answer, encoder).await);
    }
    let answer = Question::answer(app, request).await?;
    let body = caller.format.encode_response(&answer, &context);
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let metadata = &answer.metadata;
    tell_who_answered(
        headers,
        &answer.provider,
        &answer.model,
        metadata.degraded,
        &metadata.attempts,
    );
    Ok(response)
}

impl Writer for StreamEncoder {
    fn event(&mut self, event: &StreamEvent, out: &mut BytesMut) {
        Self::event(self, event, out);
    }

    fn error(&mut self, error: &ModelError, out: &mut BytesMut) {
        Self::error(self, error, out);
    }

    fn keep_alive(&mut self, out: &mut BytesMut) {
        Self::keep_alive(self, out);
    }

    /// SDKs read over comments; whoever looks at the stream itself finds it there.
    fn metadata(&mut self, answer: &ModelStream, out: &mut BytesMut) {
        if !answer.joins().is_empty() {
            let attempts = attempts_as_json(answer.attempts());
            out.extend_from_slice(format!(": x-gateway-attempts: {attempts}\n\n").as_bytes());
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "answers carry the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

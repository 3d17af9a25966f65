//! `POST /v1/process`: the gateway's own form of a request, and the answer with all its metadata.
//!
//! With `"stream": true` the answer comes as server-sent events, each with a name and one line of JSON:
//!
//! | event | data |
//! |---|---|
//! | `start` | `id`, `model`, `provider`: who answers |
//! | `text`, `reasoning` | `text`: more of it |
//! | `finish` | `finishReason`, `usage`, `model`, `provider`, `metadata`: the answer is complete |
//! | `error` | `error`, `metadata`, as in an answer that isn't streamed: it is not, and never will be |
//!
//! A stream that ends with neither `finish` nor `error` was cut off.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use serde_json::{Value, json};
use tower_breaker::models::{
    ClientFormat, ModelError, ModelRequest, ModelStream, StreamEvent, Usage,
};

use super::{
    ask::Question,
    caller::{Caller, tell_who_answered},
    error::ApiError,
    read,
    stream::{self, Writer},
};
use crate::app::App;

pub(super) async fn process(State(app): State<App>, request: Request) -> Response {
    let caller = Caller::new(request.uri().path(), request.headers());
    match try_to_process(app, request).await {
        Ok(response) => caller.sign(response),
        Err(error) => error.respond_to_process(&caller),
    }
}

async fn try_to_process(app: App, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let mut request: ModelRequest = read::json(&app, body).await?;
    request.headers = app.running().passed_on(&head.headers);
    if request.stream {
        let (question, answer) = Question::stream(app, request).await?;
        let writer = Own {
            provider: answer.provider().to_owned(),
            usage: Usage::default(),
            end: Value::Null,
        };
        return Ok(stream::respond(question, answer, writer).await);
    }
    let answer = Question::answer(app, request).await?;
    let mut response = Json(&answer).into_response();
    tell_who_answered(
        response.headers_mut(),
        &answer.provider,
        &answer.model,
        answer.metadata.degraded,
        &answer.metadata.attempts,
    );
    Ok(response)
}

/// Writes the events that the module describes.
struct Own {
    provider: String,
    usage: Usage,
    /// What the last event tells besides its own.
    end: Value,
}

impl Writer for Own {
    fn event(&mut self, event: &StreamEvent, out: &mut BytesMut) {
        let (name, data) = match event {
            StreamEvent::Start { id, model } => (
                "start",
                json!({ "id": id, "model": model, "provider": self.provider }),
            ),
            StreamEvent::Text(text) => ("text", json!({ "text": text })),
            StreamEvent::Reasoning(text) => ("reasoning", json!({ "text": text })),
            StreamEvent::Usage(usage) => {
                self.usage = *usage;
                return;
            }
            StreamEvent::Finish(reason) => {
                let mut end = self.end.take();
                end["finishReason"] = json!(reason);
                end["usage"] = json!(self.usage);
                ("finish", end)
            }
            // What only a provider could make something of; and this form knows no tools.
            _ => return,
        };
        write(name, &data, out);
    }

    fn error(&mut self, error: &ModelError, out: &mut BytesMut) {
        let (_, body) = ClientFormat::OpenAi.encode_error(error, "");
        let error = ApiError::from(error.clone());
        write("error", &error.with_metadata(&body), out);
    }

    fn keep_alive(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b": keep-alive\n\n");
    }

    fn metadata(&mut self, answer: &ModelStream, _: &mut BytesMut) {
        self.end = json!({
            "model": answer.model(),
            "provider": answer.provider(),
            "metadata": answer.metadata(),
        });
    }
}

fn write(name: &str, data: &Value, out: &mut BytesMut) {
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}

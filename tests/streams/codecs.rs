//! The real codecs over real HTTP: each can go on where another has broken off.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::State, http::Uri, response::Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tower_breaker::models::{
    Anthropic, ApiKey, DeepSeek, HttpClient, MidStream, Model, ModelErrorKind, ModelManager,
    ModelRequest, OpenAi, StreamEvent,
};

use super::{defaults, metrics, read};

const CLAUDE: [&str; 2] = [
    r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"The sky"}}

"#,
    r#"event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" is blue."}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":9}}

event: message_stop
data: {"type":"message_stop"}

"#,
];

/// What comes before the second piece of one that goes on.
const CLAUDE_STARTS: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_2","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

"#;

const OVERLOADED: &str = r#"event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}

"#;

const CHAT: [&str; 2] = [
    r#": keep-alive

data: {"id":"chat_1","object":"chat.completion.chunk","created":1,"model":"chat-x","choices":[{"index":0,"delta":{"role":"assistant","content":"The sky"},"finish_reason":null}]}

"#,
    r#"data: {"id":"chat_1","object":"chat.completion.chunk","created":1,"model":"chat-x","choices":[{"index":0,"delta":{"content":" is blue."},"finish_reason":null}]}

data: {"id":"chat_1","object":"chat.completion.chunk","created":1,"model":"chat-x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"id":"chat_1","object":"chat.completion.chunk","created":1,"model":"chat-x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}

data: [DONE]

"#,
];

/// A provider that sends the first piece, and the second when it is told to.
struct Server {
    url: String,
    go: watch::Sender<bool>,
    asked: Arc<Mutex<Vec<(Uri, Value)>>>,
}

#[derive(Clone)]
struct Script {
    pieces: [&'static str; 2],
    go: watch::Receiver<bool>,
    asked: Arc<Mutex<Vec<(Uri, Value)>>>,
}

impl Server {
    async fn start(pieces: [&'static str; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (go, told) = watch::channel(false);
        let asked = Arc::default();
        let script = Script {
            pieces,
            go: told,
            asked: Arc::clone(&asked),
        };
        let app = Router::new().fallback(answer).with_state(script);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, go, asked }
    }

    fn asked(&self) -> (String, Value) {
        let (uri, body) = self.asked.lock().unwrap()[0].clone();
        (uri.path().to_owned(), body)
    }
}

async fn answer(State(mut script): State<Script>, uri: Uri, body: Body) -> Response {
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    script.asked.lock().unwrap().push((uri, body));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(script.pieces[0]).await;
        let _ = script.go.wait_for(|go| *go).await;
        let _ = sender.send(script.pieces[1]).await;
    });
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece: &'static str = receiver.recv().await?;
        let piece = Bytes::from_static(piece.as_bytes());
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    let body = Body::from_stream(pieces);
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(body).unwrap()
}

fn manager(claude: &Server, deepseek: &Server, open_ai: &Server) -> ModelManager {
    let key = || ApiKey::new("sk-secret").unwrap();
    let http = HttpClient::new().unwrap();
    let on = |model: Model| model.mid_stream(MidStream::Continue);
    ModelManager::builder()
        .provider(
            "claude",
            Anthropic::new(key()).base_url(&claude.url).unwrap(),
            http.clone(),
            defaults(),
        )
        .provider(
            "deepseek",
            DeepSeek::new(key()).base_url(&deepseek.url).unwrap(),
            http.clone(),
            defaults(),
        )
        .provider(
            "openai",
            OpenAi::new(key()).base_url(&open_ai.url).unwrap(),
            http,
            defaults(),
        )
        .model("claude", on(Model::new("claude", "c").or("deepseek")))
        .model("deepseek", on(Model::new("deepseek", "d").or("claude")))
        .model("openai", on(Model::new("openai", "o").or("claude")))
        .model("to-openai", on(Model::new("claude", "c").or("openai")))
        .build()
        .unwrap()
}

#[tokio::test]
async fn m5_every_provider_goes_on_where_another_has_broken_off() {
    for (model, from, to) in [
        ("claude", "claude", "deepseek"),
        ("deepseek", "deepseek", "claude"),
        ("openai", "openai", "claude"),
        ("to-openai", "claude", "openai"),
    ] {
        let chat = |name| match name == from {
            true => [CHAT[0], ""],
            false => [CHAT[1], ""],
        };
        let claude = Server::start(match from {
            "claude" => [CLAUDE[0], OVERLOADED],
            _ => [CLAUDE_STARTS, CLAUDE[1]],
        });
        let claude = claude.await;
        let deepseek = Server::start(chat("deepseek")).await;
        let open_ai = Server::start(chat("openai")).await;
        let manager = manager(&claude, &deepseek, &open_ai);
        let request = ModelRequest::prompt("Why?").preferred_model(model);
        let stream = manager.stream(request).await.unwrap();
        assert_eq!(stream.provider(), from);
        for server in [&claude, &deepseek, &open_ai] {
            server.go.send_replace(true);
        }
        let got = read(stream).await;
        assert!(got.is_whole(), "{model}: {:?}, {:?}", got.events, got.error);
        assert_eq!(got.text(), "The sky is blue.", "{model}");
        assert_eq!(got.stream.provider(), to);
        assert_eq!(got.stream.metadata().joins[0].at, "The sky".len());
        assert_eq!(
            got.stream.usage().output_tokens,
            if from == "claude" { 10 } else { 9 }
        );
        assert_eq!(metrics(&manager, from).failed_requests, 1);
        assert_eq!(metrics(&manager, to).failed_requests, 0);

        let (path, asked) = match to {
            "claude" => claude.asked(),
            "deepseek" => deepseek.asked(),
            _ => open_ai.asked(),
        };
        assert_eq!(asked["stream"], true);
        let messages = asked["messages"].as_array().unwrap();
        let begun = messages.iter().find(|m| m["role"] == "assistant").unwrap();
        let begun = begun["content"].to_string();
        assert!(begun.contains("The sky"), "{path}: {asked}");
    }
}

#[tokio::test]
async fn m5_an_error_event_mid_stream_ends_the_answer_with_what_the_provider_said() {
    let claude = Server::start([CLAUDE[0], OVERLOADED]).await;
    let other = Server::start(CHAT).await;
    let manager = ModelManager::builder()
        .provider(
            "claude",
            Anthropic::new(ApiKey::new("sk-secret").unwrap())
                .base_url(&claude.url)
                .unwrap(),
            HttpClient::new().unwrap(),
            defaults(),
        )
        .provider(
            "deepseek",
            DeepSeek::new(ApiKey::new("sk-secret").unwrap())
                .base_url(&other.url)
                .unwrap(),
            HttpClient::new().unwrap(),
            defaults(),
        )
        .model("claude", Model::new("claude", "c").or("deepseek"))
        .model("deepseek", Model::new("deepseek", "d"))
        .build()
        .unwrap();
    let mut stream = manager.stream(ModelRequest::prompt("Why?")).await.unwrap();
    let start = stream.next().await.unwrap().unwrap();
    assert!(matches!(start, StreamEvent::Start { id, .. } if id == "msg_1"));
    claude.go.send_replace(true);
    let got = read(stream).await;
    assert_eq!(got.text(), "The sky");
    let error = got.error.unwrap();
    assert_eq!(error.kind(), ModelErrorKind::Overloaded);
    assert_eq!(error.message(), "Overloaded");
    assert!(other.asked.lock().unwrap().is_empty());
    let health = serde_json::to_value(manager.health_check()).unwrap();
    assert_eq!(
        health["claude"]["circuitBreaker"]["metrics"]["failedRequests"],
        json!(1)
    );
}

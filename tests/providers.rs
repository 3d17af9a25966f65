//! M3, M4: a provider over real HTTP: what it is sent, and what each way to fail becomes.
//!
//! The providers are servers on loopback: axum where the answer is HTTP, a bare socket where it
//! must break.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_breaker::models::{
    Anthropic, ApiKey, Completion, DeepSeek, Health, HttpClient, ModelError, ModelErrorKind,
    ModelRequest, OpenAi, Provider, ProviderRequest, ProviderService,
};

const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x",
    "content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,
    "usage":{"input_tokens":3,"output_tokens":5}}"#;

const CHAT: &str = r#"

{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"deepseek-chat",
    "choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#;

fn key() -> ApiKey {
    ApiKey::new("sk-secret").unwrap()
}

async fn ask(provider: impl Provider + 'static) -> Result<Completion, ModelError> {
    let request = ModelRequest::prompt("Why is the sky blue?").system("Be brief.");
    let service = ProviderService::new(provider, HttpClient::new().unwrap()).body_limit(100_000);
    let answer = service.oneshot(ProviderRequest::new(request, "a-model"));
    // Nothing here takes long; a test that hangs should say so.
    tokio::time::timeout(Duration::from_secs(20), answer)
        .await
        .expect("no answer in 20 s")
}

/// A provider that answers everything alike, and tells what it was sent.
async fn provider(
    answer: impl IntoResponse + Clone + Send + Sync + 'static,
) -> (
    String,
    mpsc::UnboundedReceiver<(http::request::Parts, Value)>,
) {
    let (told, hears) = mpsc::unbounded_channel();
    let app = Router::new().fallback(move |request: Request| {
        let (answer, told) = (answer.clone(), told.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            told.send((head, serde_json::from_slice(&body).unwrap()))
                .unwrap();
            answer
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, hears)
}

/// A socket that reads one request, answers with these bytes and closes.
async fn socket(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            // The whole request: a socket closed over unread bytes resets what it has sent.
            while !seen.ends_with(br#""Be brief."}"#) {
                if stream.read_buf(&mut seen).await.unwrap() == 0 {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    url
}

async fn anthropic(url: &str) -> Result<Completion, ModelError> {
    ask(Anthropic::new(key()).base_url(url).unwrap()).await
}

#[tokio::test]
async fn m3_anthropic_is_asked_and_understood() {
    let (url, mut hears) = provider(MESSAGE).await;
    let completion = anthropic(&format!("{url}/")).await.unwrap();
    assert_eq!(
        (completion.text.as_str(), completion.model.as_str()),
        ("Hello", "claude-x")
    );

    let (head, body) = hears.recv().await.unwrap();
    assert_eq!(
        (head.method.as_str(), head.uri.path()),
        ("POST", "/v1/messages")
    );
    assert_eq!(head.headers["host"], url.trim_start_matches("http://"));
    assert_eq!(head.headers["x-api-key"], "sk-secret");
    assert_eq!(head.headers["anthropic-version"], "2023-06-01");
    assert_eq!(head.headers["content-type"], "application/json");
    assert!(head.headers.contains_key("content-length"));
    assert_eq!(
        body,
        json!({
            "model": "a-model",
            "max_tokens": 4096,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        })
    );
}

#[tokio::test]
async fn m3_openai_and_deepseek_are_asked_and_understood() {
    let (url, mut hears) = provider(CHAT).await;
    let answers = [
        ask(OpenAi::new(key()).base_url(format!("{url}/v1")).unwrap()).await,
        ask(DeepSeek::new(key()).base_url(&url).unwrap()).await,
    ];
    for (answer, path) in answers
        .into_iter()
        .zip(["/v1/chat/completions", "/chat/completions"])
    {
        let completion = answer.unwrap();
        assert_eq!(
            (completion.text.as_str(), completion.usage.output_tokens),
            ("Hello", 5)
        );
        let (head, body) = hears.recv().await.unwrap();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", path));
        assert_eq!(head.headers["authorization"], "Bearer sk-secret");
        assert_eq!(
            body,
            json!({
                "model": "a-model",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Why is the sky blue?"},
                ],
            })
        );
    }
}

#[tokio::test]
async fn m4_429_carries_its_retry_after() {
    let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}"#;
    let (url, _hears) =
        provider((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "17")], body)).await;
    let error = anthropic(&url).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ModelErrorKind::RateLimited, "Slow down")
    );
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn m4_each_status_arrives_as_its_kind() {
    for (status, kind) in [
        (400, ModelErrorKind::InvalidRequest),
        (401, ModelErrorKind::Credentials),
        (404, ModelErrorKind::Rejected),
        (500, ModelErrorKind::Server),
        (529, ModelErrorKind::Overloaded),
    ] {
        let (url, _hears) = provider(StatusCode::from_u16(status).unwrap()).await;
        assert_eq!(anthropic(&url).await.unwrap_err().kind(), kind, "{status}");
    }
}

#[tokio::test]
async fn m4_rubbish_is_malformed() {
    let (url, _hears) = provider("<html>It works!</html>").await;
    let error = anthropic(&url).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.counts_as()),
        (ModelErrorKind::Malformed, Health::Failure)
    );

    let error = anthropic(&socket("SSH-2.0-OpenSSH_9.6\r\n").await)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Malformed, "{error:?}");
}

#[tokio::test]
async fn m4_an_answer_cut_off_anywhere_is_malformed() {
    for answer in [
        // The connection closes with no answer at all.
        "",
        "HTTP/1.1 200 OK\r\ncontent-",
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"id\":\"msg_1\",",
        // A whole answer, as far as JSON goes, with more promised.
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"content\":[]}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ne\r\n{\"content\":[]}\r\n",
        // The end of the connection is the end of the body, and it comes too early.
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"id\":\"msg_1\",",
    ] {
        let error = anthropic(&socket(answer).await).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ModelErrorKind::Malformed,
            "{answer}: {error:?}"
        );
        assert!(error.falls_back());
    }
}

#[tokio::test]
async fn m4_an_answer_beyond_the_limit_is_malformed() {
    let (url, _hears) = provider("x".repeat(100_001)).await;
    let error = anthropic(&url).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert_eq!(error.message(), "the answer is larger than 100000 bytes");
}

#[tokio::test]
async fn m4_who_can_not_be_reached_is_not_connected() {
    // A port that was free a moment ago refuses.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = anthropic(&format!("http://{address}")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.counts_as()),
        (ModelErrorKind::Connect, Health::Failure)
    );
    assert!(!format!("{error:?}").contains("secret"));

    // TLS with someone who doesn't speak it.
    let (url, _hears) = provider(MESSAGE).await;
    let error = anthropic(&url.replace("http:", "https:"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Connect, "{error:?}");
}

#[tokio::test]
async fn m4_a_redirect_is_not_followed() {
    let (elsewhere, mut hears) = provider(MESSAGE).await;
    let location = [("location", elsewhere)];
    let (url, _hears) = provider((StatusCode::TEMPORARY_REDIRECT, location)).await;
    let error = anthropic(&url).await.unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(hears.try_recv().is_err());
}

//! What the gateway's answers look like on the wire, in the forms of OpenAI and Anthropic and in its own. What the
//! stock SDKs make of them is tested in `sdk.rs`.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{PATIENCE, gateway::Gateway, http};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/messages", "/v1/process"];

/// With the configuration that a file has under this name; each test has its own.
async fn start(name: &str, config: &str) -> Gateway {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forms-{name}.toml"));
    fs::write(&file, config).unwrap();
    let listen = [("GATEWAY_LISTEN", "127.0.0.1:0")];
    Gateway::start(&["--config", file.to_str().unwrap()], &listen).await
}

/// A request that the form of this path understands.
fn request(path: &str, stream: bool) -> Value {
    let messages = json!([{ "role": "user", "content": "Why?" }]);
    match path {
        "/v1/process" => json!({ "prompt": "Why?", "stream": stream }),
        _ => json!({
            "model": "claude-3.5-sonnet", "max_tokens": 100, "messages": messages, "stream": stream,
        }),
    }
}

async fn post(url: &str) {
    assert_eq!(http::request("POST", url, &[], "").await.status, 200);
}

#[tokio::test]
async fn g2_a_request_keeps_its_id_or_gets_one() {
    let gateway = start("ids", "").await;
    for path in PATHS {
        for (stream, model) in [
            (false, "claude-3.5-sonnet"),
            (true, "claude-3.5-sonnet"),
            (false, "gpt-9"),
        ] {
            let mut request = request(path, stream);
            request[if path == "/v1/process" {
                "preferredModel"
            } else {
                "model"
            }] = json!(model);
            let ask = async |headers: &[(&str, &str)]| {
                http::request("POST", &gateway.at(path), headers, request.to_string()).await
            };
            for name in ["x-request-id", "request-id"] {
                let response = ask(&[(name, "mine-1")]).await;
                assert_eq!(response.header("x-request-id"), "mine-1", "{path} {model}");
                assert_eq!(response.header("request-id"), "mine-1", "{path} {model}");
            }
            let ids = [ask(&[]).await, ask(&[("x-request-id", "two words")]).await];
            let ids = ids.map(|response| response.header("x-request-id").to_owned());
            assert!(ids.iter().all(|id| id.starts_with("req_")), "{ids:?}");
            assert_ne!(ids[0], ids[1]);
        }
    }
}

#[tokio::test]
async fn g2_errors_and_models_come_in_the_shape_of_who_asks() {
    let gateway = start("shapes", "").await;
    let version = [("anthropic-version", "2023-06-01")];
    let open_ai = http::get(&gateway.at("/v1/models")).await.json();
    assert_eq!(open_ai["object"], "list");
    let anthropic = http::request("GET", &gateway.at("/v1/models"), &version, "")
        .await
        .json();
    assert_eq!(anthropic["has_more"], false);
    assert_eq!(anthropic["first_id"], "claude-3.5-sonnet");
    assert_eq!(anthropic["data"][1]["type"], "model");
    let one = http::get(&gateway.at("/v1/models/deepseek-chat"))
        .await
        .json();
    assert_eq!(one, open_ai["data"][1]);
    let none = http::get(&gateway.at("/v1/models/gpt-9")).await.json();
    assert_eq!(none["error"]["code"], "model_not_found", "{none}");

    for (path, headers) in [
        ("/v1/messages", &[][..]),
        ("/v1/messages/count_tokens", &[]),
        ("/v1/models/gpt-9", &version),
    ] {
        let method = if path == "/v1/messages" { "PUT" } else { "GET" };
        let body = http::request(method, &gateway.at(path), headers, "")
            .await
            .json();
        assert_eq!(body["type"], "error", "{path}: {body}");
        assert!(
            body["error"]["type"].is_string() && body["request_id"].is_string(),
            "{body}"
        );
    }
    for (body, param) in [
        (json!({ "messages": [] }), Some("model")),
        (
            json!({ "model": "m", "messages": [{ "role": "oracle" }] }),
            Some("messages[0].role"),
        ),
        (json!([]), None),
    ] {
        let url = gateway.at("/v1/chat/completions");
        let error = http::request("POST", &url, &[], body.to_string())
            .await
            .json();
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
        assert_eq!(error["error"]["param"], json!(param), "{error}");
    }
}

#[tokio::test]
async fn g2_an_answer_that_is_no_stream_tells_its_length() {
    let gateway = start("length", "").await;
    for path in PATHS {
        for (body, status) in [(request(path, false).to_string(), 200), ("{".into(), 400)] {
            let response = http::request("POST", &gateway.at(path), &[], body).await;
            assert_eq!(response.status, status, "{path}");
            let length = response.body.len().to_string();
            assert_eq!(response.header("content-length"), length, "{path}");
        }
    }
}

/// Sends a request by hand, and reads until this ends the response, for as long as a test may take.
async fn read_until(gateway: &Gateway, path: &str, end: &str) -> String {
    let address = gateway.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = request(path, true).to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let mut received = Vec::new();
    let reading = async {
        while !received.ends_with(end.as_bytes()) {
            if stream.read_buf(&mut received).await.unwrap() == 0 {
                break;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE / 2, reading).await;
    let received = String::from_utf8(received).unwrap();
    assert!(in_time.is_ok(), "no end of {received}");
    received
}

#[tokio::test]
async fn g2_after_the_last_event_the_body_ends_at_once() {
    let gateway = start("ends", "").await;
    // The provider says all it has to say, and then holds the connection.
    post(&format!(
        "{}/fault/no-end",
        gateway.simulated("claude").await
    ))
    .await;
    for path in PATHS {
        let received = read_until(&gateway, path, "0\r\n\r\n").await;
        let last = received.trim_end_matches("\r\n0\r\n\r\n");
        let event = match path {
            "/v1/chat/completions" => "data: [DONE]\n\n",
            "/v1/messages" => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            _ => "\"usage\":{\"inputTokens\":1,\"outputTokens\":8}}\n\n",
        };
        assert!(last.ends_with(event), "{path}: {last}");
    }
    let health = http::get(&gateway.at("/health")).await.json();
    let metrics = &health["claude"]["circuitBreaker"]["metrics"];
    assert_eq!(metrics["successfulRequests"], 3, "{metrics}");
}

#[tokio::test]
async fn m5_a_silent_stream_is_kept_alive_in_its_own_form() {
    let gateway = start("alive", "limits.keep_alive = '20ms'").await;
    let claude = gateway.simulated("claude").await;
    post(&format!("{claude}/fault/stall")).await;
    for (path, sign) in [
        ("/v1/chat/completions", ": keep-alive\n\n\r\n"),
        (
            "/v1/messages",
            "event: ping\ndata: {\"type\": \"ping\"}\n\n\r\n",
        ),
        ("/v1/process", ": keep-alive\n\n\r\n"),
    ] {
        let received = read_until(&gateway, path, sign).await;
        assert!(
            received.contains("This"),
            "once the answer has begun: {received}"
        );
    }
}

#[tokio::test]
async fn g2_the_gateways_own_form_streams_named_events() {
    let gateway = start("own", "").await;
    let response = http::post_json(&gateway.at("/v1/process"), &request("/v1/process", true)).await;
    assert!(
        response
            .header("content-type")
            .starts_with("text/event-stream")
    );
    let text = response.text();
    let events: Vec<(&str, Value)> = text
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (
                name.strip_prefix("event: ").unwrap(),
                serde_json::from_str(data).unwrap(),
            )
        })
        .collect();
    let (name, start) = &events[0];
    assert_eq!(
        (*name, &start["model"]),
        ("start", &json!("claude-3.5-sonnet"))
    );
    assert_eq!(start["provider"], "claude");
    let said: String = events
        .iter()
        .filter(|(name, _)| *name == "text")
        .map(|(_, data)| data["text"].as_str().unwrap())
        .collect();
    assert_eq!(said, "Hello! This is claude, simulated. You said: Why?");
    let (name, end) = events.last().unwrap();
    assert_eq!((*name, &end["finishReason"]), ("finish", &json!("stop")));
    assert_eq!(end["usage"], json!({ "inputTokens": 1, "outputTokens": 8 }));
    assert_eq!(end["metadata"]["attempts"][0]["outcome"], "answered");
    assert_eq!(end["metadata"]["circuitBreaker"]["currentState"], "CLOSED");
}

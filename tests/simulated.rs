//! The simulated providers of the gateway's embedded default: their wire formats and their faults, over real HTTP.

#[path = "../examples/gateway/simulated.rs"]
mod simulated;
mod support;

use serde_json::{Value, json};
use simulated::{Kind, Simulated};
use support::{
    PATIENCE, eventually,
    http::{Error, Response, get, post_json, request, try_request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ANTHROPIC: [(&str, &str); 2] = [("x-api-key", "any"), ("anthropic-version", "2023-06-01")];
const DEEPSEEK: [(&str, &str); 1] = [("authorization", "Bearer any")];

async fn claude() -> Simulated {
    Simulated::start(Kind::Anthropic, "claude").await.unwrap()
}

async fn deepseek() -> Simulated {
    Simulated::start(Kind::DeepSeek, "deepseek").await.unwrap()
}

fn question() -> Value {
    json!({
        "model": "some-model",
        "max_tokens": 100,
        "messages": [
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "content": "Yes?" },
            { "role": "user", "content": "What is a fuse?" },
        ],
    })
}

/// Asks with the right path and headers for its kind.
async fn try_ask(kind: Kind, provider: &Simulated, question: &Value) -> Result<Response, Error> {
    let (path, headers): (_, &[_]) = match kind {
        Kind::Anthropic => ("/v1/messages", &ANTHROPIC),
        Kind::DeepSeek => ("/chat/completions", &DEEPSEEK),
    };
    try_request(
        "POST",
        &format!("{}{path}", provider.url()),
        headers,
        question.to_string(),
    )
    .await
}

async fn ask(kind: Kind, provider: &Simulated, question: &Value) -> Response {
    try_ask(kind, provider, question).await.unwrap()
}

async fn break_down(provider: &Simulated, fault: &str) {
    let response = request(
        "POST",
        &format!("{}/fault/{fault}", provider.control()),
        &[],
        "",
    )
    .await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// What has happened; without the list of all faults, which is always the same.
async fn stats(provider: &Simulated) -> Value {
    let mut stats = get(&format!("{}/stats", provider.control())).await.json();
    let faults = stats.as_object_mut().unwrap().remove("faults").unwrap();
    assert!(faults.as_array().unwrap().contains(&json!("hang")));
    stats
}

/// A connection on which a request has been sent by hand.
async fn send_raw(provider: &Simulated) -> TcpStream {
    let address = provider.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = question().to_string();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: any\r\nanthropic-version: 2023-06-01\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn anthropic_answers_in_its_format() {
    let claude = claude().await;
    let response = ask(Kind::Anthropic, &claude, &question()).await;
    assert_eq!(response.status, 200);
    assert!(response.header("request-id").starts_with("req_"));
    let body = response.json();
    assert_eq!(body["type"], "message");
    assert_eq!(body["role"], "assistant");
    assert_eq!(body["model"], "some-model");
    assert_eq!(body["stop_reason"], "end_turn");
    let text = "Hello! This is claude, simulated. You said: What is a fuse?";
    assert_eq!(body["content"], json!([{ "type": "text", "text": text }]));
    assert_eq!(body["usage"]["input_tokens"], 6);
    assert_eq!(body["usage"]["output_tokens"], 11);
}

#[tokio::test]
async fn deepseek_answers_in_its_format_on_both_paths() {
    let deepseek = deepseek().await;
    for path in ["/chat/completions", "/v1/chat/completions"] {
        let url = format!("{}{path}", deepseek.url());
        let response = request("POST", &url, &DEEPSEEK, question().to_string()).await;
        assert_eq!(response.status, 200);
        let body = response.json();
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["model"], "some-model");
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(choice["message"]["role"], "assistant");
        assert_eq!(
            choice["message"]["content"],
            "Hello! This is deepseek, simulated. You said: What is a fuse?"
        );
        assert_eq!(body["usage"]["prompt_tokens"], 6);
        assert_eq!(body["usage"]["completion_tokens"], 11);
        assert_eq!(body["usage"]["total_tokens"], 17);
    }
}

#[tokio::test]
async fn content_may_come_in_parts_and_answers_stop_at_max_tokens() {
    let question = json!({
        "model": "m",
        "max_tokens": 3,
        "system": [{ "type": "text", "text": "be brief" }],
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "one two" }, { "type": "text", "text": "three" }] }],
    });
    let (claude, deepseek) = (claude().await, deepseek().await);
    let body = ask(Kind::Anthropic, &claude, &question).await.json();
    assert_eq!(body["content"][0]["text"], "Hello! This is");
    assert_eq!(body["stop_reason"], "max_tokens");
    assert_eq!(body["usage"]["input_tokens"], 5);
    assert_eq!(body["usage"]["output_tokens"], 3);
    let body = ask(Kind::DeepSeek, &deepseek, &question).await.json();
    assert_eq!(body["choices"][0]["finish_reason"], "length");
}

/// Checks a refusal of Anthropic's in every part.
#[track_caller]
fn assert_anthropic_error(response: &Response, status: u16, kind: &str, names: &str) {
    assert_eq!(response.status, status, "{names}");
    let body = response.json();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], kind, "{names}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains(names), "{message}");
    assert_eq!(body["request_id"], response.header("request-id"));
}

#[tokio::test]
async fn anthropic_refuses_missing_headers_in_its_format() {
    let claude = claude().await;
    let url = format!("{}/v1/messages", claude.url());
    let [key, version] = ANTHROPIC;
    let keyless = request("POST", &url, &[version], question().to_string()).await;
    assert_anthropic_error(&keyless, 401, "authentication_error", "x-api-key");
    let unversioned = request("POST", &url, &[key], question().to_string()).await;
    assert_anthropic_error(
        &unversioned,
        400,
        "invalid_request_error",
        "anthropic-version",
    );
    assert_eq!(stats(&claude).await["failed"], 2);
}

#[tokio::test]
async fn anthropic_refuses_bad_bodies_in_its_format() {
    let claude = claude().await;
    for field in ["model", "max_tokens", "messages"] {
        let mut question = question();
        question.as_object_mut().unwrap().remove(field);
        let response = ask(Kind::Anthropic, &claude, &question).await;
        assert_anthropic_error(&response, 400, "invalid_request_error", field);
    }
    let wrong = [
        ("model", json!("")),
        ("max_tokens", json!(0)),
        ("messages", json!([])),
        ("temperature", json!(1.5)),
        ("messages", json!([{ "role": "system", "content": "a" }])),
        ("messages", json!([{ "role": "user", "content": "" }])),
        (
            "messages",
            json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b " }]),
        ),
        (
            "messages",
            json!([{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "x" }] }]),
        ),
    ];
    for (field, value) in wrong {
        let mut question = question();
        question[field] = value;
        let response = ask(Kind::Anthropic, &claude, &question).await;
        assert_anthropic_error(&response, 400, "invalid_request_error", field);
    }
    let url = format!("{}/v1/messages", claude.url());
    let response = request("POST", &url, &ANTHROPIC, "{").await;
    assert_anthropic_error(&response, 400, "invalid_request_error", "JSON");
    assert_eq!(stats(&claude).await["failed"], 12);
}

#[tokio::test]
async fn deepseek_refuses_bad_requests_in_its_format() {
    let deepseek = deepseek().await;
    let url = format!("{}/chat/completions", deepseek.url());
    let keyless = post_json(&url, &question()).await;
    assert_eq!(keyless.status, 401);
    assert_eq!(keyless.json()["error"]["type"], "authentication_error");
    let empty = request("POST", &url, &DEEPSEEK, r#"{"model":"m","messages":[]}"#).await;
    assert_eq!(empty.status, 400);
    assert_eq!(empty.json()["error"]["type"], "invalid_request_error");
    assert!(
        empty.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("messages")
    );
    let elsewhere = post_json(&format!("{}/v1/messages", deepseek.url()), &question()).await;
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.json()["error"]["message"].is_string());
}

#[tokio::test]
async fn each_fault_has_its_status_and_its_error_type() {
    let cases = [
        ("server-error", (500, "api_error"), (500, "server_error")),
        (
            "unavailable",
            (503, "api_error"),
            (503, "service_unavailable_error"),
        ),
        (
            "overloaded",
            (529, "overloaded_error"),
            (503, "service_unavailable_error"),
        ),
        (
            "rate-limited",
            (429, "rate_limit_error"),
            (429, "rate_limit_error"),
        ),
        (
            "bad-key",
            (401, "authentication_error"),
            (401, "authentication_error"),
        ),
        ("no-balance", (402, "billing_error"), (402, "unknown_error")),
        (
            "bad-request",
            (400, "invalid_request_error"),
            (400, "invalid_request_error"),
        ),
    ];
    let (claude, deepseek) = (claude().await, deepseek().await);
    for (fault, as_anthropic, as_deepseek) in cases {
        for (kind, provider, (status, error)) in [
            (Kind::Anthropic, &claude, as_anthropic),
            (Kind::DeepSeek, &deepseek, as_deepseek),
        ] {
            break_down(provider, fault).await;
            let response = ask(kind, provider, &question()).await;
            assert_eq!(response.status, status, "{fault} of {kind:?}");
            assert_eq!(
                response.json()["error"]["type"],
                error,
                "{fault} of {kind:?}"
            );
            assert_eq!(
                response.header("retry-after"),
                "",
                "only when it is asked for"
            );
        }
    }
}

#[tokio::test]
async fn retry_after_is_sent_when_it_is_given() {
    let claude = claude().await;
    for fault in ["unavailable", "rate-limited"] {
        break_down(&claude, &format!("{fault}?retry_after=7")).await;
        let response = ask(Kind::Anthropic, &claude, &question()).await;
        assert_eq!(response.header("retry-after"), "7");
    }
    let wrong = request(
        "POST",
        &format!("{}/fault/unavailable?retry_after=soon", claude.url()),
        &[],
        "",
    )
    .await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("retry_after"));
}

#[tokio::test]
async fn an_unknown_fault_is_told_the_known_ones() {
    let claude = claude().await;
    let response = request("POST", &format!("{}/fault/gremlins", claude.url()), &[], "").await;
    assert_eq!(response.status, 404);
    let body = response.json();
    assert!(body["error"].as_str().unwrap().contains("gremlins"));
    let known = body["faults"].as_array().unwrap();
    assert_eq!(known.len(), 20);
    assert!(known.contains(&json!("server-error")) && known.contains(&json!("hang")));
    assert_eq!(
        stats(&claude).await["fault"],
        Value::Null,
        "nothing was switched on"
    );
}

#[tokio::test]
async fn faults_heal_and_stats_count_model_requests_alone() {
    let claude = claude().await;
    break_down(&claude, "server-error").await;
    ask(Kind::Anthropic, &claude, &question()).await;
    let broken = json!({
        "name": "claude", "fault": "server-error", "requests": 1, "answered": 0, "failed": 1, "abandoned": 0,
    });
    assert_eq!(stats(&claude).await, broken);
    let healed = request("DELETE", &format!("{}/fault", claude.url()), &[], "").await;
    assert_eq!(healed.status, 200);
    assert_eq!(ask(Kind::Anthropic, &claude, &question()).await.status, 200);
    let whole = json!({
        "name": "claude", "fault": null, "requests": 2, "answered": 1, "failed": 1, "abandoned": 0,
    });
    assert_eq!(stats(&claude).await, whole);
}

// ===== streams =====

/// The data of a stream's events; Anthropic's names of events are checked against their types.
#[track_caller]
fn events(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(
        response
            .header("content-type")
            .starts_with("text/event-stream")
    );
    let text = response.text();
    let frames = text.split("\n\n").filter(|frame| !frame.is_empty());
    let events = frames.filter_map(|frame| {
        let (name, data) = frame.split_once("data: ")?;
        if data == "[DONE]" {
            return Some(json!("[DONE]"));
        }
        let data: Value = serde_json::from_str(data).unwrap();
        if !name.is_empty() {
            assert_eq!(name, format!("event: {}\n", data["type"].as_str().unwrap()));
        }
        Some(data)
    });
    events.collect()
}

/// Everything that the deltas of a stream say under this name, joined.
fn said(events: &[Value], field: &str) -> String {
    let deltas = events.iter().map(|event| {
        let open_ai = &event["choices"][0]["delta"];
        let delta = if open_ai.is_object() {
            open_ai
        } else {
            &event["delta"]
        };
        let arguments = &delta["tool_calls"][0]["function"]["arguments"];
        delta[field]
            .as_str()
            .or(arguments.as_str().filter(|_| field == "arguments"))
    });
    deltas.flatten().collect()
}

fn with(fields: Value) -> Value {
    let mut question = question();
    let Value::Object(fields) = fields else {
        panic!("fields are an object")
    };
    question.as_object_mut().unwrap().extend(fields);
    question
}

#[tokio::test]
async fn anthropic_streams_in_its_format() {
    let claude = claude().await;
    let question = with(json!({ "stream": true, "thinking": { "type": "enabled" } }));
    let events = events(&ask(Kind::Anthropic, &claude, &question).await);
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let text = "Hello! This is claude, simulated. You said: What is a fuse?";
    assert_eq!(said(&events, "text"), text);
    assert!(said(&events, "thinking").starts_with("They said"));
    assert!(!said(&events, "signature").is_empty());
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 6);
    let last = &events[events.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], "end_turn");
    assert_eq!(last["usage"]["output_tokens"], 11 + 7);
    assert_eq!(stats(&claude).await["answered"], 1);
}

#[tokio::test]
async fn deepseek_streams_in_its_format() {
    let deepseek = deepseek().await;
    for include in [true, false] {
        let question = with(json!({
            "stream": true, "model": "deepseek-reasoner", "stream_options": { "include_usage": include },
        }));
        let response = ask(Kind::DeepSeek, &deepseek, &question).await;
        assert!(response.text().starts_with(": keep-alive\n\n"));
        let events = events(&response);
        let text = "Hello! This is deepseek, simulated. You said: What is a fuse?";
        assert_eq!(said(&events, "content"), text);
        assert!(said(&events, "reasoning_content").starts_with("They said"));
        assert_eq!(events.last().unwrap(), "[DONE]");
        let usage = &events[events.len() - 2];
        if include {
            assert_eq!(usage["choices"], json!([]));
            assert_eq!(usage["usage"]["completion_tokens"], 11 + 7);
            assert_eq!(usage["usage"]["total_tokens"], 6 + 11 + 7);
        } else {
            assert!(usage.get("usage").is_none());
            assert_eq!(usage["choices"][0]["finish_reason"], "stop");
        }
    }
}

#[tokio::test]
async fn a_tool_is_called_when_the_question_has_it_in_mind_and_its_result_is_told() {
    let (claude, deepseek) = (claude().await, deepseek().await);
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let weather = json!([{ "role": "user", "content": "What is the weather in Paris?" }]);
    let flat = json!([{ "name": "get_weather", "input_schema": schema }]);
    let nested = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": schema } }]);
    for stream in [false, true] {
        let question = with(json!({ "messages": weather, "tools": flat, "stream": stream }));
        let response = ask(Kind::Anthropic, &claude, &question).await;
        if stream {
            let events = events(&response);
            assert_eq!(said(&events, "partial_json"), r#"{"city":"Paris"}"#);
            assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
        } else {
            let block = &response.json()["content"][0];
            assert_eq!(block["input"], json!({ "city": "Paris" }));
        }
        let question = with(json!({ "messages": weather, "tools": nested, "stream": stream }));
        let response = ask(Kind::DeepSeek, &deepseek, &question).await;
        if stream {
            assert_eq!(said(&events(&response), "arguments"), r#"{"city":"Paris"}"#);
        } else {
            let choice = &response.json()["choices"][0];
            assert_eq!(choice["finish_reason"], "tool_calls");
            let call = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(call["arguments"], r#"{"city":"Paris"}"#);
        }
    }
    let answered = json!([
        weather[0],
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t1", "name": "get_weather", "input": {} }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t1", "content": "Rain" }] },
    ]);
    let question = with(json!({ "messages": answered, "tools": flat }));
    let answer = ask(Kind::Anthropic, &claude, &question).await.json();
    assert_eq!(
        answer["content"][0]["text"],
        "Hello! This is claude, simulated. The tool said: Rain"
    );
    let answered = json!([
        weather[0],
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "t1", "type": "function", "function": {} }] },
        { "role": "tool", "tool_call_id": "t1", "content": "Rain" },
    ]);
    let question = with(json!({ "messages": answered, "tools": nested }));
    let answer = ask(Kind::DeepSeek, &deepseek, &question).await.json();
    let text = "Hello! This is deepseek, simulated. The tool said: Rain";
    assert_eq!(answer["choices"][0]["message"]["content"], text);
    // Nobody means the tool, or nobody may call it.
    let question = with(json!({ "tools": flat }));
    let answer = ask(Kind::Anthropic, &claude, &question).await.json();
    assert_eq!(answer["content"][0]["type"], "text");
    let question = with(json!({ "tools": nested, "messages": weather, "tool_choice": "none" }));
    let answer = ask(Kind::DeepSeek, &deepseek, &question).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn an_answer_that_was_begun_is_continued_by_whoever_is_asked() {
    let (claude, deepseek) = (claude().await, deepseek().await);
    let begun = "Hello! This is deepseek, simulated. You";
    let user = json!({ "role": "user", "content": "Go" });
    let prefix = json!({ "role": "assistant", "content": begun, "prefix": true });
    let before = json!({ "role": "assistant", "content": begun });
    let in_words = json!({ "role": "user", "content": "You were cut off." });
    for (kind, provider, field, messages) in [
        (Kind::Anthropic, &claude, "text", json!([user, prefix])),
        (Kind::DeepSeek, &deepseek, "content", json!([user, prefix])),
        (
            Kind::DeepSeek,
            &deepseek,
            "content",
            json!([user, before, in_words]),
        ),
    ] {
        let question = with(json!({ "messages": messages, "stream": true }));
        let events = events(&ask(kind, provider, &question).await);
        let joined = format!("{begun}{}", said(&events, field));
        assert_eq!(joined, "Hello! This is deepseek, simulated. You said: Go");
    }
}

#[tokio::test]
async fn a_stop_sequence_ends_an_answer() {
    let claude = claude().await;
    let question = with(json!({ "stop_sequences": ["said", "nowhere"] }));
    let answer = ask(Kind::Anthropic, &claude, &question).await.json();
    assert_eq!(
        answer["content"][0]["text"],
        "Hello! This is claude, simulated. You"
    );
    assert_eq!(answer["stop_reason"], "stop_sequence");
    assert_eq!(answer["stop_sequence"], "said");
    assert_eq!(answer["usage"]["output_tokens"], 6);
}

// ===== faults of connections and bodies =====

#[tokio::test]
async fn refused_cuts_what_there_is_and_refuses_the_rest_until_it_is_healed() {
    let claude = claude().await;
    let address = claude.url().strip_prefix("http://").unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    // Whole once it has been accepted: then it is on the books of what has to be cut.
    idle.write_all(b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);
    break_down(&claude, "refused").await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let cut = tokio::time::timeout(PATIENCE, idle.read(&mut [0; 4096]))
        .await
        .expect("it ends");
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stats(&claude).await["requests"], 0);
    let healed = request("DELETE", &format!("{}/fault", claude.control()), &[], "").await;
    assert_eq!(healed.status, 200);
    assert_eq!(ask(Kind::Anthropic, &claude, &question()).await.status, 200);
}

#[tokio::test]
async fn reset_comes_after_the_request() {
    let claude = claude().await;
    break_down(&claude, "reset").await;
    let mut stream = send_raw(&claude).await;
    let mut received = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received));
    let ended = ended.await.expect("the connection ends");
    assert_eq!(
        ended.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(received.is_empty());
    assert_eq!(stats(&claude).await["requests"], 1);
}

#[tokio::test]
async fn streams_fail_where_they_are_told_to() {
    let question = with(json!({ "stream": true }));
    let (claude, deepseek) = (claude().await, deepseek().await);
    for (kind, provider, field) in [
        (Kind::Anthropic, &claude, "text"),
        (Kind::DeepSeek, &deepseek, "content"),
    ] {
        break_down(provider, "error-first").await;
        let first = events(&ask(kind, provider, &question).await);
        assert_eq!(first.len(), 1);
        assert!(first[0]["error"]["message"].is_string());

        break_down(provider, "error-mid-stream?after=2").await;
        let broken = events(&ask(kind, provider, &question).await);
        assert_eq!(said(&broken, field), "Hello! This");
        assert!(broken.last().unwrap()["error"]["type"].is_string());

        break_down(provider, "no-finish?after=100").await;
        let unfinished = events(&ask(kind, provider, &question).await);
        assert!(said(&unfinished, field).ends_with("fuse?"));
        let ends = |event: &Value| event == "[DONE]" || event["type"] == "message_stop";
        assert!(!unfinished.iter().any(ends));

        for fault in ["cut-mid-stream", "cut"] {
            break_down(provider, fault).await;
            assert!(try_ask(kind, provider, &question).await.is_err(), "{fault}");
        }
        break_down(provider, "trickle?gap_ms=1").await;
        let slow = events(&ask(kind, provider, &question).await);
        assert!(said(&slow, field).ends_with("fuse?"));
        let stats = stats(provider).await;
        assert_eq!(
            (&stats["answered"], &stats["failed"]),
            (&json!(1), &json!(5))
        );
    }
}

#[tokio::test]
async fn silence_and_stall_say_what_they_say_and_no_more() {
    let claude = claude().await;
    for (fault, said) in [("silence", false), ("stall", true)] {
        break_down(&claude, fault).await;
        let mut stream = send_raw(&claude).await;
        let mut received = Vec::new();
        eventually("the head", async || {
            stream.read_buf(&mut received).await.unwrap();
            received
                .windows(4)
                .any(|at| at == b"\r\n\r\n")
                .then_some(())
        })
        .await;
        if said {
            eventually("half of the body", async || {
                if received.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut received).await.unwrap();
                }
                String::from_utf8_lossy(&received)
                    .contains("{\"")
                    .then_some(())
            })
            .await;
        } else {
            assert!(received.ends_with(b"\r\n\r\n"));
        }
    }
    tokio::time::timeout(PATIENCE, claude.shutdown())
        .await
        .expect("the shutdown isn't held up");
}

#[tokio::test]
async fn the_pace_can_be_set() {
    let claude = claude().await;
    let url = format!("{}/pace", claude.control());
    let set = request("POST", &format!("{url}?first_ms=1&gap_ms=0"), &[], "").await;
    assert_eq!(set.status, 200);
    assert_eq!(ask(Kind::Anthropic, &claude, &question()).await.status, 200);
    let wrong = request("POST", &format!("{url}?gap_ms=slow"), &[], "").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("gap_ms"));
}

#[tokio::test]
async fn rubbish_is_a_200_that_is_no_json() {
    let deepseek = deepseek().await;
    break_down(&deepseek, "rubbish").await;
    let response = ask(Kind::DeepSeek, &deepseek, &question()).await;
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").starts_with("text/html"));
    assert!(response.text().contains("<html>"));
}

#[tokio::test]
async fn cut_sends_half_of_what_it_promised() {
    let claude = claude().await;
    break_down(&claude, "cut").await;
    let mut stream = send_raw(&claude).await;
    let mut received = Vec::new();
    // Both a reset and an early end are abrupt.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received))
        .await
        .expect("the connection ends");
    let received = String::from_utf8(received).unwrap();
    let (head, body) = received.split_once("\r\n\r\n").expect("the head has come");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    // A client that knows HTTP sees an error, not a short answer.
    assert!(
        try_ask(Kind::Anthropic, &claude, &question())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn hang_ends_when_the_client_goes_away() {
    let claude = claude().await;
    break_down(&claude, "hang").await;
    let stream = send_raw(&claude).await;
    let arrived = async || (stats(&claude).await["requests"] == 1).then_some(());
    eventually("the request's arrival", arrived).await;
    assert_eq!(stats(&claude).await["failed"], 0, "it is still hanging");
    drop(stream);
    eventually("the end of the request", async || {
        (stats(&claude).await["abandoned"] == 1).then_some(())
    })
    .await;
    assert_eq!(stats(&claude).await["failed"], 1);
}

#[tokio::test]
async fn hang_ends_with_the_shutdown() {
    let claude = claude().await;
    break_down(&claude, "hang").await;
    let mut stream = send_raw(&claude).await;
    eventually("the request's arrival", async || {
        (stats(&claude).await["requests"] == 1).then_some(())
    })
    .await;
    tokio::time::timeout(PATIENCE, claude.shutdown())
        .await
        .expect("the shutdown isn't held up");
    let mut received = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut received))
        .await
        .expect("the connection ends")
        .unwrap();
    assert!(received.starts_with("HTTP/1.1 503"), "{received}");
}

#[tokio::test]
async fn shutdown_frees_the_port_though_a_client_stays_connected() {
    let claude = claude().await;
    let url = claude.url().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(PATIENCE, claude.shutdown())
        .await
        .expect("the shutdown is bounded");
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn dropping_a_provider_stops_it() {
    let claude = claude().await;
    let url = claude.url().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    drop(claude);
    let refused = async || TcpStream::connect(address).await.is_err().then_some(());
    eventually("the port to be free", refused).await;
}

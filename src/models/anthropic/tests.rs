use std::num::NonZeroU32;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::models::{
    FinishReason, Message, ModelErrorKind::*, Part, Reasoning, Role, ToolCall, Usage,
};

/// The documentation's example of an answer, with a thought and a tool call put in.
const ANSWER: &str = r#"{
  "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
  "type": "message",
  "role": "assistant",
  "model": "claude-sonnet-4-5-20250929",
  "content": [
    {"type": "thinking", "thinking": "They greet me.", "signature": "EqQBCgIYAhIM"},
    {"type": "text", "text": "Hello", "citations": null},
    {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {"zone": "UTC"}},
    {"type": "text", "text": "!"}
  ],
  "stop_reason": "end_turn",
  "stop_sequence": null,
  "usage": {
    "input_tokens": 12,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 1000,
    "output_tokens": 6,
    "service_tier": "standard"
  }
}"#;

const OVERLOADED: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}"#;

fn codec() -> Anthropic {
    Anthropic::new(ApiKey::new("sk-ant-secret").unwrap())
}

fn decode(status: u16, body: &str) -> Result<Completion, ModelError> {
    let status = StatusCode::from_u16(status).unwrap();
    codec().decode(
        status,
        &HeaderMap::new(),
        &Bytes::copy_from_slice(body.as_bytes()),
    )
}

fn encoded(request: &ModelRequest) -> Value {
    let http = codec().encode(request, "claude-sonnet-4-5").unwrap();
    serde_json::from_slice(http.body()).unwrap()
}

#[test]
fn m3_a_request_goes_where_and_how_the_api_wants_it() {
    let http = codec()
        .encode(&ModelRequest::prompt("hi"), "claude-sonnet-4-5")
        .unwrap();
    assert_eq!(http.method(), http::Method::POST);
    assert_eq!(http.uri(), "https://api.anthropic.com/v1/messages");
    let headers = http.headers();
    assert_eq!(headers["x-api-key"], "sk-ant-secret");
    assert!(headers["x-api-key"].is_sensitive());
    assert_eq!(headers["anthropic-version"], "2023-06-01");
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert_eq!(
        serde_json::from_slice::<Value>(http.body()).unwrap(),
        json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": "hi"}],
        })
    );
}

#[test]
fn m3_every_field_of_a_request_is_written() {
    let parts = vec![Part::Text("one".into()), Part::Text("two".into())];
    let request = ModelRequest::messages(vec![
        Message {
            role: Role::User,
            content: parts.into(),
        },
        Message::assistant("and"),
        Message::user("three"),
    ])
    .system("be brief")
    .preferred_model("an-alias")
    .max_tokens(NonZeroU32::new(7).unwrap())
    .temperature(0.5)
    .top_p(0.9)
    .stop(["END"]);
    assert_eq!(
        encoded(&request),
        json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 7,
            "system": "be brief",
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
                ]},
                {"role": "assistant", "content": "and"},
                {"role": "user", "content": "three"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "stop_sequences": ["END"],
        })
    );
}

#[test]
fn a_temperature_beyond_this_api_is_sent_as_its_highest() {
    let request = ModelRequest::prompt("hi").temperature(1.7);
    assert_eq!(encoded(&request)["temperature"], 1.0);
}

#[test]
fn a_request_that_can_not_be_expressed_is_not_written() {
    let request = ModelRequest::prompt("hi").temperature(f64::NAN);
    let error = codec().encode(&request, "m").unwrap_err();
    assert_eq!(error.kind(), InvalidRequest);
    assert!(error.message().contains("`temperature`"));
}

#[test]
fn m3_an_answer_is_read_whole() {
    let completion = decode(200, ANSWER).unwrap();
    assert_eq!(completion.id, "msg_01XFDUDYJgAACzvnptvVoYEL");
    assert_eq!(completion.model, "claude-sonnet-4-5-20250929");
    assert_eq!(completion.text, "Hello!");
    assert_eq!(completion.reasoning.as_deref(), Some("They greet me."));
    assert_eq!(
        completion.reasoning_blocks,
        [Reasoning::Text {
            text: "They greet me.".into(),
            signature: Some("EqQBCgIYAhIM".into()),
        }]
    );
    assert_eq!(
        completion.tool_calls,
        [ToolCall {
            id: "toolu_1".into(),
            name: "get_time".into(),
            arguments: r#"{"zone": "UTC"}"#.into(),
        }]
    );
    assert_eq!(completion.finish_reason, FinishReason::Stop);
    assert_eq!(
        completion.usage,
        Usage {
            cache_read_tokens: 1000,
            cache_write_tokens: 100,
            ..Usage::new(1112, 6)
        }
    );
}

#[test]
fn every_stop_reason_has_its_finish_reason() {
    let table = [
        ("\"end_turn\"", FinishReason::Stop),
        ("\"stop_sequence\"", FinishReason::Stop),
        ("\"max_tokens\"", FinishReason::Length),
        ("\"model_context_window_exceeded\"", FinishReason::Length),
        ("\"tool_use\"", FinishReason::ToolCalls),
        ("\"refusal\"", FinishReason::ContentFilter),
        ("\"pause_turn\"", FinishReason::Other("pause_turn".into())),
        ("null", FinishReason::unknown()),
    ];
    for (word, expected) in table {
        let completion = decode(200, &ANSWER.replace("\"end_turn\"", word)).unwrap();
        assert_eq!(completion.finish_reason, expected);
    }
}

#[test]
fn an_answer_is_read_whatever_its_bill_says() {
    for usage in [
        r#""usage": null"#,
        r#""usage": {"input_tokens": -1}"#,
        r#""other": 1"#,
    ] {
        let body = format!(r#"{{"content": [], "stop_reason": "end_turn", {usage}}}"#);
        let completion = decode(200, &body).unwrap();
        assert_eq!(
            (completion.text.as_str(), completion.usage),
            ("", Usage::default())
        );
    }
}

#[test]
fn m4_what_is_no_answer_is_an_error_of_its_kind() {
    let error =
        |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"words"}}}}"#);
    let table = [
        (529, OVERLOADED.to_owned(), Overloaded, "Overloaded"),
        // The answer had begun, so the status says nothing.
        (200, OVERLOADED.to_owned(), Overloaded, "Overloaded"),
        (200, error("api_error"), Server, "words"),
        (400, error("invalid_request_error"), InvalidRequest, "words"),
        (401, error("authentication_error"), Credentials, "words"),
        (402, error("billing_error"), Credentials, "words"),
        (403, error("permission_error"), Credentials, "words"),
        (404, error("not_found_error"), Rejected, "words"),
        (413, error("request_too_large"), Rejected, "words"),
        (429, error("rate_limit_error"), RateLimited, "words"),
        (500, error("api_error"), Server, "words"),
        (504, error("timeout_error"), Server, "words"),
        (
            200,
            "{}".to_owned(),
            Malformed,
            "the answer has no `content`",
        ),
        (200, "null".to_owned(), Malformed, ""),
        (200, String::new(), Malformed, "the JSON is cut off"),
        (
            200,
            ANSWER[..ANSWER.len() / 2].to_owned(),
            Malformed,
            "the JSON is cut off",
        ),
        (
            200,
            format!("{ANSWER}}}"),
            Malformed,
            "the body is not JSON",
        ),
        (200, "<html>".to_owned(), Malformed, "the body is not JSON"),
        (
            200,
            r#"{"content":"text"}"#.to_owned(),
            Malformed,
            "the JSON is not what",
        ),
        (
            200,
            r#"{"content":[{"type":"text"}]}"#.to_owned(),
            Malformed,
            "the JSON is not what",
        ),
        (302, String::new(), Malformed, ""),
    ];
    for (status, body, kind, message) in table {
        let error = decode(status, &body).expect_err(&body);
        assert_eq!(error.kind(), kind, "{status} {body}");
        assert!(error.message().starts_with(message), "{error}");
        assert_eq!(error.status().unwrap().as_u16(), status);
    }
}

#[test]
fn m4_retry_after_is_kept() {
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("17"));
    let status = StatusCode::TOO_MANY_REQUESTS;
    let error = codec().decode(status, &headers, &Bytes::new()).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
}

#[test]
fn g5_the_key_is_in_no_debug_output_and_no_error() {
    assert!(!format!("{:?}", codec()).contains("secret"));
    let http = codec().encode(&ModelRequest::prompt("hi"), "m").unwrap();
    assert!(!format!("{:?}", http.headers()).contains("secret"));
    for body in [
        r#"{"type":"error","error":{"type":"authentication_error","message":"bad sk-ant-secret"}}"#,
        r#"{"content":"sk-ant-secret"}"#,
        r#""sk-ant-secret""#,
    ] {
        for status in [200, 401] {
            let error = decode(status, body).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("secret"),
                "{error:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_without_a_panic(
        status in 100u16..1000,
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let _ = codec().decode(status, &HeaderMap::new(), &body.into());
    }

    #[test]
    fn a_mutated_answer_decodes_without_a_panic(
        answer in prop_oneof![Just(ANSWER), Just(OVERLOADED)],
        at in any::<prop::sample::Index>(),
        replace in any::<u8>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = answer.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = replace;
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let short = body.len() < answer.len();
        let result = codec().decode(StatusCode::OK, &HeaderMap::new(), &body.into());
        // Cut off anywhere, it is no answer.
        prop_assert!(!short || result.is_err());
    }
}

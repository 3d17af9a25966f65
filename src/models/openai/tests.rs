use std::num::NonZeroU32;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::models::{
    Content, FinishReason, Message, ModelErrorKind::*, Part, Role, ToolCall, Usage,
};

/// The documentation's example of an answer.
const ANSWER: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
  "object": "chat.completion",
  "created": 1741569952,
  "model": "gpt-4.1-2025-04-14",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Hello!",
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}
  },
  "service_tier": "default"
}"#;

fn codec() -> OpenAi {
    OpenAi::new(ApiKey::new("sk-secret").unwrap())
}

fn decode(status: u16, body: &str) -> Result<Completion, ModelError> {
    let status = StatusCode::from_u16(status).unwrap();
    codec().decode(
        status,
        &HeaderMap::new(),
        &Bytes::copy_from_slice(body.as_bytes()),
    )
}

fn message(message: Value, finish: Value) -> String {
    json!({"choices": [{"message": message, "finish_reason": finish}]}).to_string()
}

#[test]
fn m3_a_request_goes_where_and_how_the_api_wants_it() {
    let http = codec()
        .encode(&ModelRequest::prompt("hi"), "gpt-4.1")
        .unwrap();
    assert_eq!(http.method(), http::Method::POST);
    assert_eq!(http.uri(), "https://api.openai.com/v1/chat/completions");
    assert_eq!(http.headers()[AUTHORIZATION], "Bearer sk-secret");
    assert!(http.headers()[AUTHORIZATION].is_sensitive());
    assert_eq!(
        serde_json::from_slice::<Value>(http.body()).unwrap(),
        json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]})
    );
}

#[test]
fn m3_every_field_of_a_request_is_written() {
    let parts = vec![Part::Text("one ".into()), Part::Text("two".into())];
    let request = ModelRequest::messages(vec![
        Message {
            role: Role::User,
            content: Content::from(parts),
        },
        Message::assistant("and"),
    ])
    .system("be brief")
    .max_tokens(NonZeroU32::new(7).unwrap())
    .temperature(1.5)
    .top_p(0.9)
    .stop(["END"]);
    let http = codec().encode(&request, "gpt-4.1").unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(http.body()).unwrap(),
        json!({
            "model": "gpt-4.1",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "one two"},
                {"role": "assistant", "content": "and"},
            ],
            "max_completion_tokens": 7,
            "temperature": 1.5,
            "top_p": 0.9,
            "stop": ["END"],
        })
    );
}

#[test]
fn the_limit_has_the_name_that_the_address_knows() {
    let request = ModelRequest::prompt("hi").max_tokens(NonZeroU32::MIN);
    let name = |codec: OpenAi| {
        let http = codec.encode(&request, "m").unwrap();
        let body: Value = serde_json::from_slice(http.body()).unwrap();
        match (body.get("max_tokens"), body.get("max_completion_tokens")) {
            (Some(_), None) => "max_tokens",
            (None, Some(_)) => "max_completion_tokens",
            both => panic!("{both:?}"),
        }
    };
    let at = |url| codec().base_url(url).unwrap();
    assert_eq!(name(codec()), "max_completion_tokens");
    assert_eq!(
        name(at("https://me.openai.azure.com/openai/v1")),
        "max_completion_tokens"
    );
    assert_eq!(name(at("http://localhost:8000/v1/")), "max_tokens");
    assert_eq!(name(at("https://notopenai.com/v1")), "max_tokens");
    assert_eq!(name(codec().max_completion_tokens(false)), "max_tokens");
    let told = at("http://localhost/v1").max_completion_tokens(true);
    assert_eq!(name(told), "max_completion_tokens");
}

#[test]
fn m3_an_answer_is_read_whole() {
    let completion = decode(200, ANSWER).unwrap();
    assert_eq!(completion.id, "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT");
    assert_eq!(completion.model, "gpt-4.1-2025-04-14");
    assert_eq!(completion.text, "Hello!");
    assert_eq!(completion.reasoning, None);
    assert_eq!(completion.finish_reason, FinishReason::Stop);
    assert_eq!(completion.usage, Usage::new(19, 10));
}

#[test]
fn m3_the_shapes_that_compatible_apis_answer_in_are_read() {
    use FinishReason::{ContentFilter, Length, Other, Stop, ToolCalls};
    let table = [
        (json!({"content": "a"}), json!("length"), "a", Length),
        (
            json!({"content": null, "tool_calls": []}),
            json!("tool_calls"),
            "",
            ToolCalls,
        ),
        (
            json!({"content": null}),
            json!("function_call"),
            "",
            ToolCalls,
        ),
        (
            json!({"content": ""}),
            json!("content_filter"),
            "",
            ContentFilter,
        ),
        (
            json!({"content": null, "refusal": "No."}),
            json!("stop"),
            "No.",
            ContentFilter,
        ),
        (
            json!({"content": "a", "refusal": ""}),
            json!("stop"),
            "a",
            Stop,
        ),
        (
            json!({"content": "a"}),
            json!("eos"),
            "a",
            Other("eos".into()),
        ),
        (
            json!({"content": "a"}),
            json!(null),
            "a",
            FinishReason::unknown(),
        ),
        (
            json!({"content": [{"type": "text", "text": "a"}, {"type": "x"}, {"text": "b"}]}),
            json!("stop"),
            "ab",
            Stop,
        ),
    ];
    for (answer, finish, text, reason) in table {
        let completion = decode(200, &message(answer.clone(), finish)).unwrap();
        assert_eq!(
            (completion.text.as_str(), completion.finish_reason),
            (text, reason),
            "{answer}"
        );
    }
    let routed = message(json!({"content": "a", "reasoning": "hm"}), json!("stop"));
    assert_eq!(
        decode(200, &routed).unwrap().reasoning.as_deref(),
        Some("hm")
    );
}

#[test]
fn m3_calls_of_tools_are_read() {
    let function = |name: &str, arguments: &str| json!({"name": name, "arguments": arguments});
    let calls = json!({"content": null, "tool_calls": [
        {"id": "call_a", "type": "function", "function": function("get_weather", "{\"a\":1}")},
        {"type": "function", "function": function("get_time", " ")},
        {"id": "call_c", "type": "custom", "custom": {"name": "x", "input": "y"}},
    ]});
    let completion = decode(200, &message(calls, json!("tool_calls"))).unwrap();
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assert_eq!(
        completion.tool_calls,
        [
            call("call_a", "get_weather", "{\"a\":1}"),
            call("call_1", "get_time", "{}"),
        ]
    );
    let nameless = json!({"tool_calls": [{"function": {"arguments": "{}"}}]});
    let error = decode(200, &message(nameless, json!("tool_calls"))).unwrap_err();
    assert_eq!(error.kind(), Malformed);
}

#[test]
fn m4_what_is_no_answer_is_an_error_of_its_kind() {
    let error = r#"{"error":{"message":"words","type":"some_error","param":null,"code":null}}"#;
    let routed = r#"{"error":{"message":"words","code":429}}"#;
    let table = [
        (400, error, InvalidRequest, "words"),
        (401, error, Credentials, "words"),
        (402, error, Credentials, "words"),
        (404, error, Rejected, "words"),
        (408, error, Timeout, "words"),
        (422, error, InvalidRequest, "words"),
        (429, error, RateLimited, "words"),
        (500, error, Server, "words"),
        (503, error, Overloaded, "words"),
        (200, error, Server, "words"),
        (200, routed, RateLimited, "words"),
        (
            200,
            "{}",
            Malformed,
            "the answer has no `choices[0].message`",
        ),
        (200, r#"{"choices":[]}"#, Malformed, "the answer has no"),
        (200, r#"{"choices":[{}]}"#, Malformed, "the answer has no"),
        (
            200,
            r#"{"choices":[{"message":{"content":5}}]}"#,
            Malformed,
            "the JSON is not what",
        ),
        (200, "", Malformed, "the JSON is cut off"),
        (200, &ANSWER[..100], Malformed, "the JSON is cut off"),
        (200, "data: {}", Malformed, "the body is not JSON"),
        (302, "", Malformed, ""),
    ];
    for (status, body, kind, message) in table {
        let error = decode(status, body).expect_err(body);
        assert_eq!(error.kind(), kind, "{status} {body}");
        assert!(error.message().starts_with(message), "{error}");
    }
}

#[test]
fn g5_the_key_is_in_no_debug_output_and_no_error() {
    assert!(!format!("{:?}", codec()).contains("secret"));
    for body in [r#"{"error":{"message":"bad sk-secret"}}"#, r#""sk-secret""#] {
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
        at in any::<prop::sample::Index>(),
        replace in any::<u8>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = ANSWER.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = replace;
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let short = body.len() < ANSWER.len();
        let result = codec().decode(StatusCode::OK, &HeaderMap::new(), &body.into());
        // Cut off anywhere, it is no answer.
        prop_assert!(!short || result.is_err());
    }
}

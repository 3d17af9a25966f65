use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::models::stream_support::run;
use crate::models::{
    Anthropic, ApiKey, Content, Effort, Image, Json, Message, ModelErrorKind, OpenAi, Part,
    Provider, ResponseFormat, Thinking, Tool, ToolChoice, ToolResult,
};

const BOTH: [ClientFormat; 2] = [ClientFormat::OpenAi, ClientFormat::Anthropic];

fn context() -> ReplyContext<'static> {
    ReplyContext {
        request_id: "req_1",
        created: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        include_usage: true,
    }
}

/// The provider that speaks the client's format.
fn provider(format: ClientFormat) -> Box<dyn Provider> {
    let key = ApiKey::new("sk-secret").unwrap();
    match format {
        ClientFormat::OpenAi => Box::new(OpenAi::new(key)),
        ClientFormat::Anthropic => Box::new(Anthropic::new(key)),
    }
}

fn decode(format: ClientFormat, body: &Value) -> Result<ClientRequest, FormatError> {
    format.decode_request(body.to_string().as_bytes())
}

fn json_of(text: &str) -> Json {
    Json::new(text).unwrap()
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall {
        id: id.into(),
        name: "get_weather".into(),
        arguments: arguments.into(),
    }
}

#[test]
fn g2_every_field_of_openai_is_read() {
    let asked = decode(
        ClientFormat::OpenAi,
        &json!({
            "model": "gpt",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "name": "ann", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}},
                ]},
                {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
                    {"id": "2", "type": "function", "function": {"name": "get_weather", "arguments": "{\"a\":1}"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "rain"},
                {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "sun"}]},
                {"role": "system", "content": [{"type": "text", "text": "In English."}]},
                {"role": "assistant", "content": ""},
                {"role": "user", "content": "So?"},
            ],
            "max_completion_tokens": 9,
            "max_tokens": 8,
            "temperature": 1.5,
            "top_p": 0.5,
            "stop": "END",
            "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": false},
            "tools": [{"type": "function", "function": {
                "name": "get_weather", "description": "Tells.", "parameters": {"type": "object"}, "strict": true,
            }}],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
            "parallel_tool_calls": false,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"z": 1, "a": 2}}},
            "reasoning_effort": "low",
            "seed": -3,
            "frequency_penalty": -2,
            "presence_penalty": 2.0,
            "user": "ann",
            "n": 1, "logprobs": false, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"],
            "audio": null, "functions": null, "store": false, "metadata": {"a": "b"}, "new_field": [1],
        }),
    )
    .unwrap();
    let result = |id: &str, text: &str| {
        Part::ToolResult(ToolResult {
            id: id.into(),
            content: text.into(),
            is_error: false,
        })
    };
    let mut expected = ModelRequest::messages(vec![
        Message::user(vec![
            Part::Text("What is this?".into()),
            Part::Image(Image::Url("https://a.example/b.png".into())),
            Part::Image(Image::Base64 {
                media_type: "image/png".into(),
                data: "iVBOR".into(),
            }),
        ]),
        Message::assistant(vec![
            Part::Reasoning(Reasoning::Text {
                text: "Hm.".into(),
                signature: None,
            }),
            Part::ToolCall(call("1", "{}")),
            Part::ToolCall(call("2", "{\"a\":1}")),
        ]),
        Message::user(vec![result("1", "rain"), result("2", "sun")]),
        Message::user("So?"),
    ])
    .system("Be brief.\n\nIn English.")
    .preferred_model("gpt")
    .temperature(1.5)
    .top_p(0.5)
    .stop(["END"])
    .stream(true)
    .tool_choice(ToolChoice::Tool("get_weather".into()))
    .max_tokens(9.try_into().unwrap());
    let mut tool = Tool::new("get_weather")
        .description("Tells.")
        .parameters(json_of(r#"{"type":"object"}"#));
    tool.strict = Some(true);
    expected.tools = vec![tool];
    expected.parallel_tool_calls = Some(false);
    expected.response_format = Some(ResponseFormat::JsonSchema {
        name: "n".into(),
        // As it was written, which `json!` has sorted already.
        schema: json_of(r#"{"a":2,"z":1}"#),
        strict: None,
    });
    expected.effort = Some(Effort::Low);
    expected.seed = Some(-3);
    expected.frequency_penalty = Some(-2.0);
    expected.presence_penalty = Some(2.0);
    expected.user = Some("ann".into());
    assert_eq!(asked.request, expected);
    assert!(asked.include_usage);
}

#[test]
fn g2_every_field_of_anthropic_is_read() {
    let asked = decode(
        ClientFormat::Anthropic,
        &json!({
            "model": "claude",
            "max_tokens": 9,
            "system": [
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "In English."},
            ],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                    {"type": "thinking", "thinking": "Ha.", "signature": ""},
                    {"type": "redacted_thinking", "data": "abc"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"a": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "1", "is_error": true, "content": [
                        {"type": "text", "text": "rain"},
                        {"type": "image", "source": {"type": "url", "url": "https://a.example/c.png"}},
                    ]},
                    {"type": "tool_result", "tool_use_id": "2"},
                    {"type": "tool_result", "tool_use_id": "3", "content": "sun"},
                ]},
                {"role": "system", "content": "And kind."},
            ],
            "temperature": 1,
            "top_p": 0.5,
            "top_k": 40,
            "stop_sequences": ["END"],
            "stream": true,
            "tools": [
                {"name": "get_weather", "description": "Tells.", "input_schema": {"type": "object"}},
                {"type": "custom", "name": "other", "input_schema": {}},
            ],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
            "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"a": 1}}},
            "metadata": {"user_id": "ann"},
            "service_tier": "auto", "new_field": {},
        }),
    )
    .unwrap();
    let result = |id: &str, content: Content, is_error| {
        Part::ToolResult(ToolResult {
            id: id.into(),
            content,
            is_error,
        })
    };
    let thought = |text: &str, signature: Option<&str>| {
        Part::Reasoning(Reasoning::Text {
            text: text.into(),
            signature: signature.map(Into::into),
        })
    };
    let seen = vec![
        Part::Text("rain".into()),
        Part::Image(Image::Url("https://a.example/c.png".into())),
    ];
    let mut expected = ModelRequest::messages(vec![
        Message::user(vec![
            Part::Text("What is this?".into()),
            Part::Image(Image::Url("https://a.example/b.png".into())),
            Part::Image(Image::Base64 {
                media_type: "image/png".into(),
                data: "iVBOR".into(),
            }),
            Part::Text("words".into()),
        ]),
        Message::assistant(vec![
            thought("Hm.", Some("sig")),
            thought("Ha.", None),
            Part::Reasoning(Reasoning::Redacted("abc".into())),
            Part::Text("Let me see.".into()),
            Part::ToolCall(call("1", "{\"a\":1}")),
        ]),
        Message::user(vec![
            result("1", seen.into(), true),
            result("2", Content::default(), false),
            result("3", "sun".into(), false),
        ]),
    ])
    .system("Be brief.\n\nIn English.\n\nAnd kind.")
    .preferred_model("claude")
    .temperature(1.0)
    .top_p(0.5)
    .stop(["END"])
    .stream(true)
    .tool_choice(ToolChoice::Required)
    .tool(
        Tool::new("get_weather")
            .description("Tells.")
            .parameters(json_of(r#"{"type":"object"}"#)),
    )
    .tool(Tool::new("other").parameters(json_of("{}")))
    .max_tokens(9.try_into().unwrap());
    expected.top_k = Some(40);
    expected.parallel_tool_calls = Some(false);
    expected.thinking = Some(Thinking::Budget(2000));
    expected.show_thinking = Some(false);
    expected.effort = Some(Effort::Max);
    expected.response_format = Some(ResponseFormat::JsonSchema {
        name: "answer".into(),
        schema: json_of(r#"{"a":1}"#),
        strict: Some(true),
    });
    expected.user = Some("ann".into());
    expected.cache_system = true;
    assert_eq!(asked.request, expected);
}

#[test]
fn g2_schemas_pass_through_in_their_own_order() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"a"}],
        "tools":[{"type":"function","function":{"name":"f","parameters":{"z":1,  "a":[true]}}}]}"#;
    let request = ClientFormat::OpenAi.decode_request(body).unwrap().request;
    for format in BOTH {
        let http = provider(format).encode(&request, "m").unwrap();
        let text = std::str::from_utf8(http.body()).unwrap();
        assert!(text.contains(r#"{"z":1,  "a":[true]}"#), "{text}");
    }
}

/// A minimal request, changed at this place.
fn changed(format: ClientFormat, pointer: &str, value: Value) -> Value {
    let mut request = match format {
        ClientFormat::OpenAi => {
            json!({"model": "m", "messages": [{"role": "user", "content": "a"}]})
        }
        ClientFormat::Anthropic => json!({
            "model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}],
        }),
    };
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match request.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[field.parse::<usize>().unwrap()] = value,
        parent => parent[field] = value,
    }
    request
}

#[test]
fn g6_what_is_wrong_is_told_by_its_field() {
    use ClientFormat::{Anthropic, OpenAi};
    let image = |url: &str| json!([{"type": "image_url", "image_url": {"url": url}}]);
    let table = [
        (OpenAi, "/model", json!(null), "model"),
        (OpenAi, "/messages", json!([]), "messages"),
        (
            OpenAi,
            "/messages",
            json!([{"role": "system", "content": "a"}]),
            "messages",
        ),
        (
            OpenAi,
            "/messages",
            json!([{"content": "a"}]),
            "messages[0].role",
        ),
        (
            OpenAi,
            "/messages/0",
            json!({"role": "bot"}),
            "messages[0].role",
        ),
        (
            OpenAi,
            "/messages/0",
            json!({"role": "user"}),
            "messages[0].content",
        ),
        (
            OpenAi,
            "/messages/0",
            json!({"role": "user", "content": " "}),
            "messages[0].content",
        ),
        (
            OpenAi,
            "/messages/0",
            json!({"role": "user", "content": 5}),
            "messages[0].content",
        ),
        (
            OpenAi,
            "/messages/0",
            json!({"role": "tool", "content": "a"}),
            "messages[0].tool_call_id",
        ),
        (
            OpenAi,
            "/messages/0/content",
            json!([{"text": "a"}]),
            "messages[0].content[0].type",
        ),
        (
            OpenAi,
            "/messages/0/content",
            json!([{"type": "text"}]),
            "messages[0].content[0].text",
        ),
        (
            OpenAi,
            "/messages/0/content",
            json!([{"type": "input_audio"}]),
            "messages[0].content[0].type",
        ),
        (
            OpenAi,
            "/messages/0/content",
            image("file:///etc/passwd"),
            "messages[0].content[0].image_url.url",
        ),
        (
            OpenAi,
            "/messages/0/content",
            image("data:text/html;base64,aa"),
            "messages[0].content[0].image_url.url",
        ),
        (OpenAi, "/temperature", json!(2.1), "temperature"),
        (OpenAi, "/temperature", json!("hot"), "temperature"),
        (OpenAi, "/top_p", json!(-1), "top_p"),
        (OpenAi, "/max_tokens", json!(0), "max_tokens"),
        (
            OpenAi,
            "/max_completion_tokens",
            json!(1.5),
            "max_completion_tokens",
        ),
        (OpenAi, "/frequency_penalty", json!(3), "frequency_penalty"),
        (OpenAi, "/presence_penalty", json!(-3), "presence_penalty"),
        (OpenAi, "/stop", json!(["a", 5]), "stop[1]"),
        (OpenAi, "/stop", json!(""), "stop"),
        (OpenAi, "/n", json!(2), "n"),
        (OpenAi, "/logprobs", json!(true), "logprobs"),
        (OpenAi, "/logit_bias", json!({"50256": -100}), "logit_bias"),
        (
            OpenAi,
            "/modalities",
            json!(["text", "audio"]),
            "modalities",
        ),
        (OpenAi, "/functions", json!([]), "functions"),
        (
            OpenAi,
            "/tools",
            json!([{"type": "web_search"}]),
            "tools[0].type",
        ),
        (
            OpenAi,
            "/tools",
            json!([{"type": "function", "function": {}}]),
            "tools[0].function.name",
        ),
        (OpenAi, "/tool_choice", json!("always"), "tool_choice"),
        (OpenAi, "/tool_choice", json!("required"), "tool_choice"),
        (
            OpenAi,
            "/tool_choice",
            json!({"type": "function", "function": {"name": "x"}}),
            "tool_choice",
        ),
        (
            OpenAi,
            "/tool_choice",
            json!({"type": "allowed_tools"}),
            "tool_choice",
        ),
        (
            OpenAi,
            "/response_format",
            json!({"type": "xml"}),
            "response_format.type",
        ),
        (
            OpenAi,
            "/response_format",
            json!({"type": "json_schema"}),
            "response_format.json_schema",
        ),
        (
            OpenAi,
            "/reasoning_effort",
            json!("heroic"),
            "reasoning_effort",
        ),
        (OpenAi, "/stream", json!("yes"), "stream"),
        (Anthropic, "/max_tokens", json!(null), "max_tokens"),
        (Anthropic, "/max_tokens", json!(0), "max_tokens"),
        (Anthropic, "/messages", json!([]), "messages"),
        (Anthropic, "/messages/0/role", json!("system"), "messages"),
        (
            Anthropic,
            "/messages/0/role",
            json!("bot"),
            "messages[0].role",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!(""),
            "messages[0].content",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!([]),
            "messages[0].content",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!([{"type": "tool_use"}]),
            "messages[0].content[0].type",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}]),
            "messages[0].content[0].source.type",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!([{"type": "tool_result"}]),
            "messages[0].content[0].tool_use_id",
        ),
        (
            Anthropic,
            "/messages/0/content",
            json!([{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text"}]}]),
            "messages[0].content[0].content[0].text",
        ),
        (
            Anthropic,
            "/system",
            json!([{"type": "image"}]),
            "system[0].type",
        ),
        (Anthropic, "/temperature", json!(1.5), "temperature"),
        (Anthropic, "/stop_sequences", json!("END"), "stop_sequences"),
        (
            Anthropic,
            "/tools",
            json!([{"type": "web_search_20250305", "name": "web_search"}]),
            "tools[0].type",
        ),
        (
            Anthropic,
            "/tools",
            json!([{"name": "x"}]),
            "tools[0].input_schema",
        ),
        (
            Anthropic,
            "/tool_choice",
            json!({"type": "tool"}),
            "tool_choice.name",
        ),
        (
            Anthropic,
            "/tool_choice",
            json!({"type": "tool", "name": "x"}),
            "tool_choice",
        ),
        (
            Anthropic,
            "/thinking",
            json!({"type": "enabled"}),
            "thinking.budget_tokens",
        ),
        (
            Anthropic,
            "/output_config",
            json!({"format": {"type": "xml"}}),
            "output_config.format.type",
        ),
        (Anthropic, "/container", json!("c"), "container"),
        (Anthropic, "/mcp_servers", json!([{}]), "mcp_servers"),
    ];
    for (format, pointer, value, param) in table {
        let body = changed(format, pointer, value);
        let error = decode(format, &body).expect_err(&body.to_string());
        assert_eq!(error.param(), Some(param), "{body}: {error}");
        assert_eq!(error.status(), 400);
        assert!(error.message().starts_with(param), "{error}");
    }
    for format in BOTH {
        // A field that is missing and not null.
        let error = format.decode_request(b"{}").unwrap_err();
        assert_eq!(error.param(), Some("model"));
        for rubbish in ["", "{", "null", "[]", "\u{1}", "{} {}", "{\"model\": 'a'}"] {
            let error = format.decode_request(rubbish.as_bytes()).unwrap_err();
            assert!(error.message().len() > 10, "{rubbish}: {error}");
        }
        let valid = changed(format, "/stream", json!(false));
        let error = format
            .decode_request(format!("{valid} x").as_bytes())
            .unwrap_err();
        assert_eq!(error.param(), None);
    }
}

#[test]
fn g2_answers_are_written_in_both_formats() {
    let mut completion = Completion::new("Rain.");
    completion.id = "id_1".into();
    completion.model = "some-model".into();
    completion.reasoning = Some("Hm.".into());
    completion.tool_calls = vec![call("1", "{\"a\":1}")];
    completion.finish_reason = FinishReason::ToolCalls;
    completion.usage = Usage {
        cache_read_tokens: 2,
        cache_write_tokens: 1,
        reasoning_tokens: 4,
        ..Usage::new(10, 20)
    };
    let written = |format: ClientFormat, completion: &Completion| -> Value {
        let bytes = format.encode_response(completion, &context());
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(
        written(ClientFormat::OpenAi, &completion),
        json!({
            "id": "id_1", "object": "chat.completion", "created": 1_700_000_000, "model": "some-model",
            "choices": [{
                "index": 0,
                "message": {
                    "role": "assistant", "content": "Rain.", "refusal": null,
                    "reasoning_content": "Hm.",
                    "tool_calls": [{"id": "1", "type": "function",
                        "function": {"name": "get_weather", "arguments": "{\"a\":1}"}}],
                },
                "logprobs": null,
                "finish_reason": "tool_calls",
            }],
            "usage": {
                "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
        })
    );
    assert_eq!(
        written(ClientFormat::Anthropic, &completion),
        json!({
            "id": "id_1", "type": "message", "role": "assistant", "model": "some-model",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Rain."},
                {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {
                "input_tokens": 7, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2,
                "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 4},
            },
        })
    );

    // What has no id gets one, a call without words has no content, and cut-off arguments are told.
    let mut completion = Completion::new("");
    completion.tool_calls = vec![call("1", "{\"a\":")];
    let openai = written(ClientFormat::OpenAi, &completion);
    assert_eq!(openai["id"], "chatcmpl-req_1");
    assert_eq!(openai["choices"][0]["message"]["content"], Value::Null);
    let anthropic = written(ClientFormat::Anthropic, &completion);
    assert_eq!(anthropic["id"], "msg_req_1");
    assert_eq!(
        anthropic["content"][0]["input"],
        json!({"INVALID_JSON": "{\"a\":"})
    );
}

#[test]
fn g2_every_finish_has_a_word_that_the_client_knows() {
    let table = [
        (FinishReason::Stop, "stop", "end_turn"),
        (
            FinishReason::StopSequence("END".into()),
            "stop",
            "stop_sequence",
        ),
        (FinishReason::Length, "length", "max_tokens"),
        (FinishReason::ToolCalls, "tool_calls", "tool_use"),
        (FinishReason::ContentFilter, "content_filter", "refusal"),
        (
            FinishReason::Other("pause_turn".into()),
            "stop",
            "pause_turn",
        ),
        (FinishReason::Other("eos".into()), "stop", "end_turn"),
    ];
    for (reason, openai, anthropic) in table {
        let mut completion = Completion::new("a");
        completion.finish_reason = reason;
        let text = |format: ClientFormat| {
            let bytes = format.encode_response(&completion, &context());
            serde_json::from_slice::<Value>(&bytes).unwrap()
        };
        assert_eq!(
            text(ClientFormat::OpenAi)["choices"][0]["finish_reason"],
            openai
        );
        assert_eq!(text(ClientFormat::Anthropic)["stop_reason"], anthropic);
    }
}

#[test]
fn g2_an_error_has_the_status_and_the_shape_of_the_clients_own_provider() {
    use ModelErrorKind::*;
    // The kind, the provider's status, and what each client gets.
    let table = [
        (
            InvalidRequest,
            400,
            (400, "invalid_request_error"),
            (400, "invalid_request_error"),
        ),
        (
            InvalidRequest,
            422,
            (422, "invalid_request_error"),
            (422, "invalid_request_error"),
        ),
        (
            InvalidRequest,
            0,
            (400, "invalid_request_error"),
            (400, "invalid_request_error"),
        ),
        (
            Unsupported,
            0,
            (400, "invalid_request_error"),
            (400, "invalid_request_error"),
        ),
        (
            UnknownModel,
            0,
            (404, "invalid_request_error"),
            (404, "not_found_error"),
        ),
        (
            Credentials,
            401,
            (401, "invalid_request_error"),
            (401, "authentication_error"),
        ),
        (
            Credentials,
            402,
            (402, "invalid_request_error"),
            (402, "billing_error"),
        ),
        (
            Credentials,
            403,
            (403, "invalid_request_error"),
            (403, "permission_error"),
        ),
        (
            Credentials,
            429,
            (429, "insufficient_quota"),
            (400, "invalid_request_error"),
        ),
        (
            Credentials,
            400,
            (429, "insufficient_quota"),
            (400, "invalid_request_error"),
        ),
        (
            Rejected,
            404,
            (404, "invalid_request_error"),
            (404, "not_found_error"),
        ),
        (
            Rejected,
            409,
            (409, "invalid_request_error"),
            (409, "conflict_error"),
        ),
        (
            Rejected,
            413,
            (413, "invalid_request_error"),
            (413, "request_too_large"),
        ),
        (
            Timeout,
            408,
            (408, "invalid_request_error"),
            (408, "timeout_error"),
        ),
        (Timeout, 0, (504, "server_error"), (504, "timeout_error")),
        (
            RateLimited,
            429,
            (429, "rate_limit_error"),
            (429, "rate_limit_error"),
        ),
        (
            RateLimited,
            200,
            (429, "rate_limit_error"),
            (429, "rate_limit_error"),
        ),
        (Server, 500, (500, "server_error"), (500, "api_error")),
        (Server, 200, (502, "server_error"), (502, "api_error")),
        (
            Overloaded,
            503,
            (503, "server_error"),
            (529, "overloaded_error"),
        ),
        (
            Overloaded,
            529,
            (503, "server_error"),
            (529, "overloaded_error"),
        ),
        (
            Overloaded,
            200,
            (503, "server_error"),
            (529, "overloaded_error"),
        ),
        (Connect, 0, (502, "server_error"), (502, "api_error")),
        (Malformed, 302, (502, "server_error"), (502, "api_error")),
        (Malformed, 200, (502, "server_error"), (502, "api_error")),
        (Unavailable, 0, (503, "server_error"), (503, "api_error")),
        (CircuitOpen, 0, (503, "server_error"), (503, "api_error")),
    ];
    for (kind, status, openai, anthropic) in table {
        let mut error = ModelError::new(kind, "words");
        if status > 0 {
            error = error.with_status(StatusCode::from_u16(status).unwrap());
        }
        for (format, (status, word)) in BOTH.into_iter().zip([openai, anthropic]) {
            let (got, body) = format.encode_error(&error, "req_1");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (got.as_u16(), &body["error"]["type"]),
                (status, &json!(word)),
                "{error:?}"
            );
            assert!(
                body["error"]["message"]
                    .as_str()
                    .unwrap()
                    .ends_with("words")
            );
            assert!(body["error"]["code"].is_string());
        }
    }
    let error = ModelError::new(UnknownModel, "no `x`");
    let (_, body) = ClientFormat::OpenAi.encode_error(&error, "req_1");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"error": {
            "message": "no such model is configured: no `x`", "type": "invalid_request_error",
            "param": "model", "code": "model_not_found",
        }})
    );
    let (_, body) = ClientFormat::Anthropic.encode_error(&error, "req_1");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({
            "type": "error",
            "error": {
                "type": "not_found_error", "message": "no such model is configured: no `x`",
                "code": "model_not_found",
            },
            "request_id": "req_1",
        })
    );
}

fn streamed(format: ClientFormat, events: &[StreamEvent]) -> String {
    let mut encoder = format.stream_encoder(&context());
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

fn start() -> StreamEvent {
    StreamEvent::Start {
        id: "id_1".into(),
        model: "some-model".into(),
    }
}

fn tool_call(index: u32) -> StreamEvent {
    StreamEvent::ToolCall {
        index,
        id: format!("call_{index}"),
        name: "get_weather".into(),
    }
}

fn arguments(index: u32, json: &str) -> StreamEvent {
    StreamEvent::ToolArguments {
        index,
        json: json.into(),
    }
}

#[test]
fn g2_a_stream_is_written_in_openais_format() {
    let events = [
        start(),
        StreamEvent::Reasoning("Hm".into()),
        StreamEvent::ReasoningSignature("sig".into()),
        StreamEvent::Text("A \"quote\"\n".into()),
        tool_call(0),
        arguments(0, "{}"),
        StreamEvent::Usage(Usage::new(1, 2)),
        StreamEvent::Finish(FinishReason::ToolCalls),
    ];
    let head = r#"data: {"id":"id_1","object":"chat.completion.chunk","created":1700000000,"model":"some-model","choices":"#;
    let delta = |delta: &str| {
        format!(
            "{head}[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    };
    let expected = [
        delta(r#"{"role":"assistant","content":"","refusal":null}"#),
        delta(r#"{"reasoning_content":"Hm"}"#),
        delta(r#"{"content":"A \"quote\"\n"}"#),
        delta(
            r#"{"tool_calls":[{"index":0,"id":"call_0","type":"function","function":{"name":"get_weather","arguments":""}}]}"#,
        ),
        delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#),
        format!(
            "{head}[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}}],\"usage\":null}}\n\n"
        ),
        format!(
            "{head}[],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,\"prompt_tokens_details\":{{\"cached_tokens\":0,\"cache_write_tokens\":0}},\"completion_tokens_details\":{{\"reasoning_tokens\":0}}}}}}\n\n"
        ),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(streamed(ClientFormat::OpenAi, &events), expected.concat());

    let context = ReplyContext {
        include_usage: false,
        ..context()
    };
    let mut encoder = ClientFormat::OpenAi.stream_encoder(&context);
    let mut out = BytesMut::new();
    for event in &events {
        encoder.event(event, &mut out);
    }
    assert!(!String::from_utf8_lossy(&out).contains("usage"));
}

#[test]
fn g2_a_stream_is_written_in_anthropics_format() {
    let events = [
        start(),
        StreamEvent::Usage(Usage::new(9, 1)),
        StreamEvent::Reasoning("Hm".into()),
        StreamEvent::ReasoningSignature("sig".into()),
        StreamEvent::RedactedReasoning("abc".into()),
        StreamEvent::Text("A \"quote\"\n".into()),
        StreamEvent::Text("!".into()),
        tool_call(0),
        arguments(0, "{\"a\":"),
        arguments(0, "1}"),
        tool_call(1),
        arguments(1, "{}"),
        StreamEvent::Usage(Usage::new(9, 7)),
        StreamEvent::Finish(FinishReason::StopSequence("END".into())),
    ];
    let event = |name: &str, data: &str| format!("event: {name}\ndata: {data}\n\n");
    let begin = |index: u32, block: &str| {
        let data =
            format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#);
        event("content_block_start", &data)
    };
    let delta = |index: u32, delta: &str| {
        let data = format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":{delta}}}}}"#
        );
        event("content_block_delta", &data)
    };
    let end = |index: u32| {
        let data = format!(r#"{{"type":"content_block_stop","index":{index}}}"#);
        event("content_block_stop", &data)
    };
    let expected = [
        event(
            "message_start",
            r#"{"type":"message_start","message":{"id":"id_1","type":"message","role":"assistant","model":"some-model","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}"#,
        ),
        begin(0, r#"{"type":"thinking","thinking":"","signature":""}"#),
        delta(0, r#""thinking_delta","thinking":"Hm""#),
        delta(0, r#""signature_delta","signature":"sig""#),
        end(0),
        begin(1, r#"{"type":"redacted_thinking","data":"abc"}"#),
        end(1),
        begin(2, r#"{"type":"text","text":""}"#),
        delta(2, r#""text_delta","text":"A \"quote\"\n""#),
        delta(2, r#""text_delta","text":"!""#),
        end(2),
        begin(
            3,
            r#"{"type":"tool_use","id":"call_0","name":"get_weather","input":{}}"#,
        ),
        delta(3, r#""input_json_delta","partial_json":"{\"a\":""#),
        delta(3, r#""input_json_delta","partial_json":"1}""#),
        end(3),
        begin(
            4,
            r#"{"type":"tool_use","id":"call_1","name":"get_weather","input":{}}"#,
        ),
        delta(4, r#""input_json_delta","partial_json":"{}""#),
        end(4),
        event(
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"},"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":7}}"#,
        ),
        event("message_stop", r#"{"type":"message_stop"}"#),
    ];
    assert_eq!(
        streamed(ClientFormat::Anthropic, &events),
        expected.concat()
    );
}

#[test]
fn m5_a_stream_that_fails_ends_with_the_formats_own_error_and_no_end() {
    let error = ModelError::new(ModelErrorKind::Malformed, "the answer was cut off");
    for format in BOTH {
        let mut encoder = format.stream_encoder(&context());
        let mut out = BytesMut::new();
        encoder.event(&start(), &mut out);
        encoder.event(&StreamEvent::Text("a".into()), &mut out);
        encoder.keep_alive(&mut out);
        encoder.error(&error, &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let end = match format {
            ClientFormat::OpenAi => {
                ": keep-alive\n\ndata: {\"error\":{\"message\":\"the provider's answer can not be read: the answer was cut off\",\"type\":\"server_error\",\"param\":null,\"code\":\"provider_answer_unreadable\"}}\n\n"
            }
            ClientFormat::Anthropic => {
                "event: ping\ndata: {\"type\": \"ping\"}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the provider's answer can not be read: the answer was cut off\",\"code\":\"provider_answer_unreadable\"},\"request_id\":\"req_1\"}\n\n"
            }
        };
        assert!(text.ends_with(end), "{text}");
        assert!(!text.contains("[DONE]") && !text.contains("message_stop"));
        // What our own decoder makes of it is the failure again.
        let request = ModelRequest::prompt("hi");
        let decoder = provider(format).stream_decoder(&request, StatusCode::OK, &HeaderMap::new());
        let (_, end) = run(decoder, [text.as_bytes()]);
        assert_eq!(end.unwrap_err().kind(), ModelErrorKind::Server);
    }
}

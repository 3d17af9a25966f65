//! Every client with every provider: what one side says is what the other one hears.

use std::time::UNIX_EPOCH;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::models::stream_support::run;
use crate::models::{
    Anthropic, ApiKey, Content, DeepSeek, Effort, Image, Json, Message, ModelErrorKind, OpenAi,
    Part, Provider, Thinking, Tool, ToolChoice, ToolResult,
};

const BOTH: [ClientFormat; 2] = [ClientFormat::OpenAi, ClientFormat::Anthropic];

fn key() -> ApiKey {
    ApiKey::new("sk-secret").unwrap()
}

/// The provider that speaks the client's format.
fn twin(format: ClientFormat) -> Box<dyn Provider> {
    match format {
        ClientFormat::OpenAi => Box::new(OpenAi::new(key())),
        ClientFormat::Anthropic => Box::new(Anthropic::new(key())),
    }
}

fn context() -> ReplyContext<'static> {
    ReplyContext {
        request_id: "req_1",
        created: UNIX_EPOCH,
        include_usage: true,
    }
}

fn encoded(provider: &dyn Provider, request: &ModelRequest) -> Value {
    let http = provider.encode(request, "upstream").unwrap();
    serde_json::from_slice(http.body()).unwrap()
}

fn asked(format: ClientFormat, body: &Value) -> ModelRequest {
    let asked = format.decode_request(body.to_string().as_bytes()).unwrap();
    asked.request
}

fn openai_request() -> Value {
    json!({
        "model": "alias",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the weather here?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"a\":1}"}},
                {"id": "2", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "tool", "tool_call_id": "2", "content": "sun"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "get_weather", "description": "Tells.", "parameters": {"type": "object"}, "strict": true,
        }}],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "temperature": 1.2,
        "stop": ["END"],
        "max_completion_tokens": 9,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "seed": 3,
        "frequency_penalty": 0.5,
        "user": "ann",
        "stream": true,
    })
}

fn anthropic_request() -> Value {
    json!({
        "model": "alias",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "What is the weather here?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "abc"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "Here:"},
                {"type": "tool_result", "tool_use_id": "1", "content": "rain", "is_error": true},
            ]},
        ],
        "tools": [{"name": "get_weather", "description": "Tells.", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": true},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
        "output_config": {"effort": "max"},
        "top_k": 40,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ann"},
        "cache_control": {"type": "ephemeral"},
        "stream": true,
    })
}

#[test]
fn m3_what_an_openai_client_asks_reaches_every_provider() {
    let request = asked(ClientFormat::OpenAi, &openai_request());

    let mut same = openai_request();
    same["model"] = json!("upstream");
    same["stream_options"] = json!({"include_usage": true});
    // Nobody but DeepSeek wants thoughts back.
    same["messages"][2]
        .as_object_mut()
        .unwrap()
        .remove("reasoning_content");
    assert_eq!(encoded(&OpenAi::new(key()), &request), same);

    let mut deepseek = same.clone();
    deepseek["messages"][2]["reasoning_content"] = json!("Hm.");
    deepseek["max_tokens"] = json!(9);
    let fields = deepseek.as_object_mut().unwrap();
    for field in [
        "max_completion_tokens",
        "seed",
        "user",
        "parallel_tool_calls",
    ] {
        fields.remove(field).unwrap();
    }
    let function = deepseek["tools"][0]["function"].as_object_mut().unwrap();
    function.remove("strict");
    assert_eq!(encoded(&DeepSeek::new(key()), &request), deepseek);

    assert_eq!(
        encoded(&Anthropic::new(key()), &request),
        json!({
            "model": "upstream",
            "max_tokens": 9,
            "system": "Be brief.\n\nAnswer with one JSON object and nothing else: no words around it, no code fence.",
            "messages": [
                {"role": "user", "content": "What is the weather here?"},
                {"role": "assistant", "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"a": 1}},
                    {"type": "tool_use", "id": "2", "name": "get_weather", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "2", "content": "sun"},
                ]},
            ],
            "tools": [{"name": "get_weather", "description": "Tells.", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "temperature": 1.0,
            "stop_sequences": ["END"],
            "metadata": {"user_id": "ann"},
            "stream": true,
        })
    );
}

#[test]
fn m3_what_an_anthropic_client_asks_reaches_every_provider() {
    let request = asked(ClientFormat::Anthropic, &anthropic_request());

    let mut same = anthropic_request();
    same["model"] = json!("upstream");
    // Where the API wants them.
    let blocks = same["messages"][2]["content"].as_array_mut().unwrap();
    blocks.swap(0, 1);
    assert_eq!(encoded(&Anthropic::new(key()), &request), same);

    let openai = json!({
        "model": "upstream",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the weather here?"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"a\":1}"}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "user", "content": "Here:"},
        ],
        "max_completion_tokens": 9,
        "tools": [{"type": "function", "function": {
            "name": "get_weather", "description": "Tells.", "parameters": {"type": "object"},
        }}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": false,
        "reasoning_effort": "max",
        "stop": ["END"],
        "user": "ann",
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(encoded(&OpenAi::new(key()), &request), openai);

    let mut deepseek = openai;
    deepseek["messages"][2]["reasoning_content"] = json!("Hm.");
    deepseek["thinking"] = json!({"type": "enabled"});
    deepseek["reasoning_effort"] = json!("max");
    deepseek["max_tokens"] = json!(9);
    let fields = deepseek.as_object_mut().unwrap();
    for field in ["max_completion_tokens", "user", "parallel_tool_calls"] {
        fields.remove(field).unwrap();
    }
    assert_eq!(encoded(&DeepSeek::new(key()), &request), deepseek);
}

#[test]
fn m3_anthropic_is_told_of_tools_that_were_called_before() {
    let mut body = openai_request();
    for field in ["tools", "tool_choice"] {
        body.as_object_mut().unwrap().remove(field);
    }
    let request = asked(ClientFormat::OpenAi, &body);
    let written = encoded(&Anthropic::new(key()), &request);
    let tool = json!({"name": "get_weather", "input_schema": {"type": "object"}});
    assert_eq!(written["tools"], json!([tool]));
    assert_eq!(written["tool_choice"], json!({"type": "none"}));
    let written = encoded(&OpenAi::new(key()), &request);
    assert_eq!(
        (&written["tools"], &written["tool_choice"]),
        (&json!(null), &json!(null))
    );
}

#[test]
fn m3_what_an_anthropic_client_has_cached_stays_cached() {
    let mark = json!({"type": "ephemeral"});
    let plain =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    let write = |request: &Value| {
        encoded(
            &Anthropic::new(key()),
            &asked(ClientFormat::Anthropic, request),
        )
    };

    let mut system = plain.clone();
    system["system"] = json!([{"type": "text", "text": "b", "cache_control": mark}]);
    system["tools"] = json!([{"name": "t", "input_schema": {}}]);
    let written = write(&system);
    assert_eq!(
        (&written["system"], &written["tools"]),
        (&system["system"], &system["tools"])
    );
    assert_eq!(written["cache_control"], Value::Null);

    let mut tools = plain.clone();
    tools["tools"] = json!([{"name": "t", "input_schema": {}, "cache_control": mark}]);
    assert_eq!(write(&tools)["tools"], tools["tools"]);

    let mut message = plain.clone();
    message["messages"][0]["content"] =
        json!([{"type": "text", "text": "a", "cache_control": mark}]);
    assert_eq!(write(&message)["cache_control"], mark);
    assert!(!write(&plain).to_string().contains("cache_control"));
}

#[test]
fn m3_images_go_where_they_are_taken() {
    let request = ModelRequest::messages(vec![Message::user(vec![
        Part::ToolResult(ToolResult {
            id: "1".into(),
            content: vec![
                Part::Text("a map".into()),
                Part::Image(Image::Url("https://a.example/b.png".into())),
            ]
            .into(),
            is_error: false,
        }),
        Part::Text("And this?".into()),
        Part::Image(Image::Base64 {
            media_type: "image/png".into(),
            data: "iVBOR".into(),
        }),
    ])]);
    let by_url = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    assert_eq!(
        encoded(&OpenAi::new(key()), &request)["messages"],
        json!([
            {"role": "tool", "tool_call_id": "1", "content": "a map"},
            {"role": "user", "content": [
                by_url("https://a.example/b.png"),
                {"type": "text", "text": "And this?"},
                by_url("data:image/png;base64,iVBOR"),
            ]},
        ])
    );
    let url = json!({"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}});
    let data = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}});
    assert_eq!(
        encoded(&Anthropic::new(key()), &request)["messages"],
        json!([{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a map"}, url]},
            {"type": "text", "text": "And this?"},
            data,
        ]}])
    );
    let error = DeepSeek::new(key()).encode(&request, "m").unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unsupported);
    assert!(
        error.message().starts_with("`messages[0].content`"),
        "{error}"
    );
}

#[test]
fn m3_what_one_provider_can_not_express_another_may() {
    let schema = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": true}},
    });
    let request = asked(ClientFormat::OpenAi, &schema);
    let error = DeepSeek::new(key()).encode(&request, "m").unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unsupported);
    assert!(error.message().starts_with("`response_format`"), "{error}");
    assert!(error.falls_back());
    assert_eq!(
        encoded(&Anthropic::new(key()), &request)["output_config"],
        json!({"format": {"type": "json_schema", "schema": {"a": 1}}})
    );
    assert_eq!(
        encoded(&OpenAi::new(key()), &request)["response_format"],
        schema["response_format"]
    );

    let request = ModelRequest::prompt("a").stop(["END", "\n"]);
    let error = Anthropic::new(key()).encode(&request, "m").unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Unsupported);
    assert!(error.message().starts_with("`stop[1]`"), "{error}");
}

#[test]
fn m5_the_next_provider_is_given_the_beginning_of_the_answer() {
    let request = ModelRequest::prompt("Why?").continue_from("Because \n");
    let mut thinking = request.clone();
    thinking.thinking = Some(Thinking::Budget(2000));
    let why = json!({"role": "user", "content": "Why?"});
    let begun = json!({"role": "assistant", "content": "Because"});

    let prefilled = encoded(&Anthropic::new(key()), &thinking);
    assert_eq!(prefilled["messages"], json!([why, begun]));
    assert_eq!(prefilled["thinking"], Value::Null);

    for asked_to_go_on in [
        encoded(&Anthropic::new(key()).prefill(false), &thinking),
        encoded(&OpenAi::new(key()), &request),
    ] {
        let messages = asked_to_go_on["messages"].as_array().unwrap();
        assert_eq!(messages[..2], [why.clone(), begun.clone()]);
        assert_eq!((messages.len(), &messages[2]["role"]), (3, &json!("user")));
    }

    let deepseek = DeepSeek::new(key());
    assert_eq!(
        encoded(&deepseek, &request)["messages"],
        json!([why, {"role": "assistant", "content": "Because \n", "prefix": true}])
    );
    let at = |codec: &DeepSeek, request: &ModelRequest| {
        codec.encode(request, "m").unwrap().uri().to_string()
    };
    assert_eq!(
        at(&deepseek, &request),
        "https://api.deepseek.com/beta/chat/completions"
    );
    for (base, beta) in [
        (
            "http://localhost:1",
            "http://localhost:1/beta/chat/completions",
        ),
        (
            "http://localhost:1/v1/",
            "http://localhost:1/beta/chat/completions",
        ),
        (
            "http://localhost:1/x",
            "http://localhost:1/x/beta/chat/completions",
        ),
    ] {
        let codec = DeepSeek::new(key()).base_url(base).unwrap();
        assert_eq!(at(&codec, &request), beta);
        assert!(!at(&codec, &ModelRequest::prompt("Why?")).contains("beta"));
    }

    // An answer that the caller had begun itself, or of which there is nothing yet to send.
    let mut prefilled = request.clone();
    prefilled.messages.push(Message::assistant("Well. "));
    let blank = ModelRequest::prompt("Why?").continue_from(" \n");
    let codecs: [&dyn Provider; 2] = [&Anthropic::new(key()), &OpenAi::new(key())];
    for codec in codecs {
        let messages = &encoded(codec, &prefilled)["messages"];
        assert_eq!(
            messages[1],
            json!({"role": "assistant", "content": "Well. Because"})
        );
        assert_eq!(encoded(codec, &blank)["messages"], json!([why]));
    }
}

/// An answer, whatever the pieces that it came in.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    id: String,
    model: String,
    text: String,
    thoughts: Vec<Reasoning>,
    calls: Vec<ToolCall>,
    usage: Usage,
    finish: Option<FinishReason>,
}

fn heard(events: &[StreamEvent]) -> Heard {
    let mut heard = Heard::default();
    let mut signed = true;
    for event in events {
        match event {
            StreamEvent::Start { id, model } => {
                heard.id.clone_from(id);
                heard.model.clone_from(model);
            }
            StreamEvent::Text(text) => heard.text.push_str(text),
            StreamEvent::Reasoning(more) => match heard.thoughts.last_mut() {
                Some(Reasoning::Text { text, .. }) if !signed => text.push_str(more),
                _ => {
                    signed = false;
                    heard.thoughts.push(Reasoning::Text {
                        text: more.clone(),
                        signature: None,
                    });
                }
            },
            StreamEvent::ReasoningSignature(sign) => {
                if signed {
                    heard.thoughts.push(Reasoning::Text {
                        text: String::new(),
                        signature: None,
                    });
                }
                signed = true;
                if let Some(Reasoning::Text { signature, .. }) = heard.thoughts.last_mut() {
                    *signature = Some(sign.clone());
                }
            }
            StreamEvent::RedactedReasoning(data) => {
                signed = true;
                heard.thoughts.push(Reasoning::Redacted(data.clone()));
            }
            StreamEvent::ToolCall { index, id, name } => {
                assert_eq!(*index as usize, heard.calls.len());
                heard.calls.push(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                });
            }
            StreamEvent::ToolArguments { index, json } => {
                heard.calls[*index as usize].arguments.push_str(json);
            }
            StreamEvent::Usage(usage) => heard.usage = *usage,
            StreamEvent::Finish(reason) => {
                assert_eq!(heard.finish, None);
                heard.finish = Some(reason.clone());
            }
        }
    }
    heard
}

/// What is left of an answer in OpenAI's format.
fn without_what_openai_has_no_place_for(mut heard: Heard) -> Heard {
    let text: String = heard
        .thoughts
        .iter()
        .filter_map(|thought| match thought {
            Reasoning::Text { text, .. } => Some(text.as_str()),
            Reasoning::Redacted(_) => None,
        })
        .collect();
    heard.thoughts.clear();
    if !text.is_empty() {
        let signature = None;
        heard.thoughts.push(Reasoning::Text { text, signature });
    }
    if let Some(FinishReason::StopSequence(_)) = heard.finish {
        heard.finish = Some(FinishReason::Stop);
    }
    heard
}

fn expected_by(format: ClientFormat, heard: Heard) -> Heard {
    match format {
        ClientFormat::OpenAi => without_what_openai_has_no_place_for(heard),
        ClientFormat::Anthropic => heard,
    }
}

/// What the client hears of these events: our own decoder stands in for its SDK.
fn through(format: ClientFormat, events: &[StreamEvent]) -> Heard {
    let mut encoder = format.stream_encoder(&context());
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event, &mut out);
    }
    let request = ModelRequest::prompt("hi");
    let decoder = twin(format).stream_decoder(&request, StatusCode::OK, &HeaderMap::new());
    let (events, end) = run(decoder, [&out[..]]);
    end.unwrap();
    heard(&events)
}

fn text() -> impl Strategy<Value = String> {
    // Quotes, line ends, characters beyond one byte and such that JSON escapes.
    prop::collection::vec(
        prop::sample::select(vec![
            'a', ' ', '"', '\\', '\n', '\r', 'ü', '☀', '\u{1}', '{', '}', '\u{2028}',
        ]),
        1..12,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

/// Events of an answer as providers send them: calls after the words.
fn answers() -> impl Strategy<Value = Vec<StreamEvent>> {
    let thought = prop_oneof![
        3 => text().prop_map(StreamEvent::Reasoning),
        1 => text().prop_map(StreamEvent::ReasoningSignature),
        1 => text().prop_map(StreamEvent::RedactedReasoning),
    ];
    let calls = prop::collection::vec(
        (
            prop_oneof![Just("{}"), Just("{\"a\":\"ü\"}"), Just(" {\"b\": [1, 2]}")],
            1usize..4,
        ),
        0..4,
    );
    let finish = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::ToolCalls),
        Just(FinishReason::ContentFilter),
        text().prop_map(FinishReason::StopSequence),
    ];
    let usage =
        (0..99u64, 0..99u64, 0..99u64, 0..99u64).prop_map(|(plain, read, write, output)| Usage {
            cache_read_tokens: read,
            cache_write_tokens: write,
            reasoning_tokens: output / 2,
            ..Usage::new(plain + read + write, output)
        });
    (
        prop::collection::vec(thought, 0..5),
        prop::collection::vec(text().prop_map(StreamEvent::Text), 0..5),
        calls,
        usage,
        finish,
    )
        .prop_map(|(thoughts, texts, calls, usage, finish)| {
            let start = StreamEvent::Start {
                id: "id_1".into(),
                model: "some-model".into(),
            };
            let mut events = vec![start];
            events.extend(thoughts);
            events.extend(texts);
            let pieces = |index: u32, (json, size): &(&str, usize)| -> Vec<StreamEvent> {
                let chars: Vec<char> = json.chars().collect();
                let call = StreamEvent::ToolCall {
                    index,
                    id: format!("call_{index}"),
                    name: "get_weather".into(),
                };
                let arguments = chars.chunks(*size).map(|chars| StreamEvent::ToolArguments {
                    index,
                    json: chars.iter().collect(),
                });
                std::iter::once(call).chain(arguments).collect()
            };
            let calls: Vec<_> = (0..)
                .zip(&calls)
                .map(|(at, call)| pieces(at, call).into_iter())
                .collect();
            events.extend(calls.into_iter().flatten());
            events.push(StreamEvent::Usage(usage));
            events.push(StreamEvent::Finish(finish));
            events
        })
}

/// Requests that both formats can express.
fn requests() -> impl Strategy<Value = ModelRequest> {
    let image = prop_oneof![
        Just(Image::Url("https://a.example/b.png".into())),
        Just(Image::Base64 {
            media_type: "image/png".into(),
            data: "iVBOR".into()
        }),
    ];
    // Words around it, so that it is never blank.
    let words = || text().prop_map(|text| format!("a{text}b"));
    let said = prop_oneof![
        3 => words().prop_map(Content::from),
        1 => (words(), image).prop_map(|(text, image)| vec![Part::Text(text), Part::Image(image)].into()),
    ];
    let turn = (said, words(), any::<bool>()).prop_map(|(said, answer, calls)| {
        if !calls {
            return vec![Message::user(said), Message::assistant(answer)];
        }
        let call = ToolCall {
            id: "call_1".into(),
            name: "get_weather".into(),
            arguments: "{\"a\":1}".into(),
        };
        let result = ToolResult {
            id: "call_1".into(),
            content: answer.clone().into(),
            is_error: false,
        };
        vec![
            Message::user(said),
            Message::assistant(vec![Part::Text(answer), Part::ToolCall(call)]),
            Message::user(Content::from(Part::ToolResult(result))),
        ]
    });
    let choice = prop::option::of(prop_oneof![
        Just(ToolChoice::Auto),
        Just(ToolChoice::None),
        Just(ToolChoice::Required),
        Just(ToolChoice::Tool("get_weather".into())),
    ]);
    (
        prop::collection::vec(turn, 1..4),
        prop::option::of(words()),
        // Of a few bits: the last one of a decimal fraction is lost in JSON.
        prop::option::of((0..=8u8).prop_map(|eighths| f64::from(eighths) / 8.0)),
        prop::collection::vec(words(), 0..3),
        any::<bool>(),
        choice,
        1u32..9999,
    )
        .prop_map(
            |(turns, system, temperature, stop, stream, choice, max_tokens)| {
                let mut request = ModelRequest::messages(turns.concat())
                    .preferred_model("upstream")
                    .stop(stop)
                    .stream(stream)
                    .tool(
                        Tool::new("get_weather")
                            .description("Tells.")
                            .parameters(Json::new("{\"type\": \"object\"}").unwrap()),
                    )
                    .max_tokens(max_tokens.try_into().unwrap());
                request.system = system;
                request.temperature = temperature;
                request.tool_choice = choice;
                request
            },
        )
}

proptest! {
    #[test]
    fn m3_a_request_survives_either_format(request in requests()) {
        for format in BOTH {
            let http = twin(format).encode(&request, "upstream").unwrap();
            let asked = format.decode_request(http.body()).unwrap();
            prop_assert_eq!(&asked.request, &request);
        }
    }

    #[test]
    fn g2_a_stream_survives_either_format(events in answers()) {
        for format in BOTH {
            let expected = expected_by(format, heard(&events));
            prop_assert_eq!(through(format, &events), expected);
        }
    }

    #[test]
    fn g2_a_whole_answer_survives_either_format(events in answers()) {
        let Heard { id, model, text, thoughts, calls, usage, finish } = heard(&events);
        let mut completion = Completion::new(text);
        completion.id = id;
        completion.model = model;
        completion.reasoning = (!thoughts.is_empty()).then(|| {
            thoughts.iter().filter_map(|thought| match thought {
                Reasoning::Text { text, .. } => Some(text.as_str()),
                Reasoning::Redacted(_) => None,
            }).collect()
        });
        // Whole, a block has a signature, if only an empty one.
        completion.reasoning_blocks = thoughts.into_iter().map(|thought| match thought {
            Reasoning::Text { text, signature } => Reasoning::Text {
                text,
                signature: Some(signature.unwrap_or_default()),
            },
            redacted => redacted,
        }).collect();
        completion.tool_calls = calls;
        completion.usage = usage;
        completion.finish_reason = finish.unwrap();
        for format in BOTH {
            let body = format.encode_response(&completion, &context());
            let decoded = twin(format).decode(StatusCode::OK, &HeaderMap::new(), &body).unwrap();
            let mut expected = completion.clone();
            match format {
                ClientFormat::OpenAi => {
                    expected.reasoning_blocks.clear();
                    if let FinishReason::StopSequence(_) = expected.finish_reason {
                        expected.finish_reason = FinishReason::Stop;
                    }
                }
                ClientFormat::Anthropic => {
                    let only_redacted = !expected.reasoning_blocks.iter()
                        .any(|block| matches!(block, Reasoning::Text { .. }));
                    if only_redacted {
                        expected.reasoning = None;
                    }
                    for call in &mut expected.tool_calls {
                        call.arguments = call.arguments.trim().to_owned();
                    }
                }
            }
            prop_assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn g6_any_bytes_are_read_as_a_request_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        replace in any::<u8>(),
    ) {
        for (format, valid) in BOTH.into_iter().zip([openai_request(), anthropic_request()]) {
            let _ = format.decode_request(&bytes);
            let mut mutated = valid.to_string().into_bytes();
            let at = at.index(mutated.len());
            mutated[at] = replace;
            if let Err(error) = format.decode_request(&mutated) {
                prop_assert!(!error.message().is_empty());
            }
        }
    }
}

#[test]
fn m3_every_providers_stream_reaches_every_client() {
    use crate::models::{anthropic, openai};
    let fixtures: [(Box<dyn Provider>, &str); 3] = [
        (Box::new(Anthropic::new(key())), anthropic::STREAM),
        (Box::new(OpenAi::new(key())), openai::STREAM),
        (Box::new(DeepSeek::new(key())), openai::DEEPSEEK),
    ];
    for (provider, stream) in fixtures {
        let request = ModelRequest::prompt("hi");
        let decoder = provider.stream_decoder(&request, StatusCode::OK, &HeaderMap::new());
        let (events, end) = run(decoder, [stream.as_bytes()]);
        end.unwrap();
        for format in BOTH {
            let expected = expected_by(format, heard(&events));
            assert_eq!(
                through(format, &events),
                expected,
                "{provider:?} {format:?}"
            );
        }
    }
}

#[test]
fn m3_effort_is_told_in_each_providers_own_words() {
    let table = [
        (Effort::None, json!("none"), json!(null), json!(null)),
        (
            Effort::Minimal,
            json!("minimal"),
            json!("minimal"),
            json!("low"),
        ),
        (
            Effort::XHigh,
            json!("xhigh"),
            json!("xhigh"),
            json!("xhigh"),
        ),
        (Effort::Max, json!("max"), json!("max"), json!("max")),
    ];
    for (effort, openai, deepseek, anthropic) in table {
        let mut request = ModelRequest::prompt("a");
        request.effort = Some(effort);
        assert_eq!(
            encoded(&Anthropic::new(key()), &request)["output_config"],
            json!(null)
        );
        request.thinking = Some(Thinking::Adaptive);
        assert_eq!(
            encoded(&OpenAi::new(key()), &request)["reasoning_effort"],
            openai
        );
        assert_eq!(
            encoded(&DeepSeek::new(key()), &request)["reasoning_effort"],
            deepseek
        );
        let written = encoded(&Anthropic::new(key()), &request);
        assert_eq!(written["output_config"]["effort"], anthropic);
        assert_eq!(written["thinking"], json!({"type": "adaptive"}));
    }
    // OpenAI's way to switch thinking off is DeepSeek's and Anthropic's too.
    let body = json!({
        "model": "m", "messages": [{"role": "user", "content": "a"}], "reasoning_effort": "none",
    });
    let request = asked(ClientFormat::OpenAi, &body);
    assert_eq!(
        encoded(&DeepSeek::new(key()), &request)["thinking"]["type"],
        "disabled"
    );
    assert_eq!(
        encoded(&Anthropic::new(key()), &request)["thinking"]["type"],
        "disabled"
    );
}

use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::models::deepseek::DeepSeek;
use crate::models::stream_support::{run, splits};
use crate::models::{FinishReason, ModelErrorKind::*, StreamEvent, StreamEvent::*, Usage};

/// The documentation's chunks, with a call of a tool after the text.
pub(in crate::models) const STREAM: &str = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"Hellö"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" \"☀️\"\n"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"get_weather","arguments":""}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"get_time","arguments":""}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

data: {"id":"chatcmpl-123","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":7,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}}}

data: [DONE]

"#;

/// What the reasoning model sends, once its turn in the queue has come.
pub(in crate::models) const DEEPSEEK: &str = r#": keep-alive

: keep-alive


data: {"id":"1f6","object":"chat.completion.chunk","created":1718345013,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"role":"assistant","reasoning_content":"Hm"},"finish_reason":null,"logprobs":null}]}

: keep-alive

data: {"id":"1f6","choices":[{"index":0,"delta":{"content":null,"reasoning_content":", so"},"finish_reason":null}]}

data: {"id":"1f6","choices":[{"index":0,"delta":{"content":"Nine.","reasoning_content":null},"finish_reason":null}]}

data: {"id":"1f6","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":17,"completion_tokens":9,"total_tokens":26,"prompt_cache_hit_tokens":5}}

data: [DONE]

"#;

fn decoder_for(request: &ModelRequest, headers: &HeaderMap) -> Box<dyn StreamDecoder> {
    let codec = OpenAi::new(ApiKey::new("sk-secret").unwrap());
    codec.stream_decoder(request, StatusCode::OK, headers)
}

fn decoder() -> Box<dyn StreamDecoder> {
    decoder_for(&ModelRequest::prompt("hi"), &HeaderMap::new())
}

fn read(text: &str) -> (Vec<StreamEvent>, Result<(), ModelError>) {
    run(decoder(), [text.as_bytes()])
}

/// Each of these as the delta of a chunk.
fn deltas(deltas: &[&str]) -> String {
    let chunk = |delta| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
    deltas.iter().map(chunk).collect()
}

fn arguments(index: u32, json: &str) -> StreamEvent {
    ToolArguments {
        index,
        json: json.into(),
    }
}

fn call(index: u32, id: &str, name: &str) -> StreamEvent {
    ToolCall {
        index,
        id: id.into(),
        name: name.into(),
    }
}

#[test]
fn m3_a_stream_is_read_wherever_it_is_split() {
    let expected = [
        Start {
            id: "chatcmpl-123".into(),
            model: "gpt-4o-mini".into(),
        },
        Text("Hellö".into()),
        Text(" \"☀️\"\n".into()),
        call(0, "call_a", "get_weather"),
        arguments(0, "{\"a\":"),
        // The other one had begun.
        arguments(0, "1}"),
        call(1, "call_b", "get_time"),
        StreamEvent::Usage(Usage {
            cache_read_tokens: 7,
            reasoning_tokens: 3,
            ..Usage::new(19, 10)
        }),
        arguments(1, "{}"),
        Finish(FinishReason::ToolCalls),
    ];
    for pieces in splits(STREAM) {
        let (events, end) = run(decoder(), pieces);
        end.unwrap();
        assert_eq!(events, expected);
    }
}

#[test]
fn m3_deepseek_keeps_alive_and_thinks_aloud() {
    let expected = [
        Start {
            id: "1f6".into(),
            model: "deepseek-reasoner".into(),
        },
        Reasoning("Hm".into()),
        Reasoning(", so".into()),
        Text("Nine.".into()),
        StreamEvent::Usage(Usage {
            cache_read_tokens: 5,
            ..Usage::new(17, 9)
        }),
        Finish(FinishReason::Stop),
    ];
    let codec = DeepSeek::new(ApiKey::new("sk-secret").unwrap());
    for pieces in splits(DEEPSEEK) {
        let request = ModelRequest::prompt("hi");
        let decoder = codec.stream_decoder(&request, StatusCode::OK, &HeaderMap::new());
        let (events, end) = run(decoder, pieces);
        end.unwrap();
        assert_eq!(events, expected);
    }
    let broken = DEEPSEEK.replace("\"stop\"", "\"insufficient_system_resource\"");
    assert_eq!(read(&broken).1.unwrap_err().kind(), Overloaded);
}

#[test]
fn m5_a_stream_without_its_finish_is_broken_wherever_it_is_cut() {
    for at in 0..STREAM.len() {
        let (events, end) = run(decoder(), [&STREAM.as_bytes()[..at]]);
        assert_eq!(end.unwrap_err().kind(), Malformed);
        assert!(!events.iter().any(|event| matches!(event, Finish(_))));
    }
}

#[test]
fn m4_an_error_in_place_of_a_chunk_is_a_failure_of_its_kind() {
    let table = [
        (
            r#"{"message":"a sk-secret","type":"server_error","code":null}"#,
            Server,
        ),
        (r#"{"message":"a sk-secret","code":429}"#, RateLimited),
        (
            r#"{"message":"a sk-secret","code":"rate_limit_exceeded"}"#,
            RateLimited,
        ),
        (
            r#"{"message":"a sk-secret","type":"insufficient_quota"}"#,
            Credentials,
        ),
        (
            r#"{"message":"a sk-secret","type":"overloaded_error"}"#,
            Overloaded,
        ),
        (r#""a sk-secret""#, Server),
    ];
    for (error, kind) in table {
        for before in [String::new(), deltas(&[r#"{"content":"a"}"#])] {
            let (_, end) = read(&format!("{before}data: {{\"error\":{error}}}\n\n"));
            let error = end.unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, "a ***"));
        }
    }
}

#[test]
fn m3_the_calls_that_compatible_apis_make_are_read() {
    let table: [(&[&str], &[StreamEvent]); 5] = [
        // Whole, without an index or an id.
        (
            &[
                r#"{"tool_calls":[{"function":{"name":"a","arguments":"{}"}},{"function":{"name":"b","arguments":"{}"}}]}"#,
            ],
            &[
                call(0, "call_0", "a"),
                arguments(0, "{}"),
                call(1, "call_1", "b"),
                arguments(1, "{}"),
            ],
        ),
        // Without an index, with the id in each.
        (
            &[
                r#"{"tool_calls":[{"id":"x","function":{"name":"a","arguments":"{"}}]}"#,
                r#"{"tool_calls":[{"id":"x","function":{"arguments":"}"}}]}"#,
                r#"{"tool_calls":[{"id":"y","function":{"name":"a","arguments":"{}"}}]}"#,
            ],
            &[
                call(0, "x", "a"),
                arguments(0, "{"),
                arguments(0, "}"),
                call(1, "y", "a"),
                arguments(1, "{}"),
            ],
        ),
        // Without an index, the rest without an id.
        (
            &[
                r#"{"tool_calls":[{"id":"x","function":{"name":"a","arguments":"{"}}]}"#,
                r#"{"tool_calls":[{"function":{"arguments":"}"}}]}"#,
            ],
            &[call(0, "x", "a"), arguments(0, "{"), arguments(0, "}")],
        ),
        // Id and name in every chunk, and an index that begins elsewhere.
        (
            &[
                r#"{"tool_calls":[{"index":7,"id":"x","function":{"name":"a","arguments":"{"}}]}"#,
                r#"{"tool_calls":[{"index":7,"id":"x","function":{"name":"a","arguments":"}"}}]}"#,
            ],
            &[call(0, "x", "a"), arguments(0, "{"), arguments(0, "}")],
        ),
        (
            &[
                r#"{"content":null,"tool_calls":null}"#,
                r#"{"content":[{"type":"text","text":"a"}]}"#,
            ],
            &[Text("a".into())],
        ),
    ];
    for (chunks, expected) in table {
        let (events, _) = read(&deltas(chunks));
        assert_eq!(events[1..], *expected, "{chunks:?}");
    }
}

#[test]
fn m3_calls_that_come_interleaved_are_told_one_after_the_other() {
    let tool = |index: u32, name: &str, arguments: &str| {
        let function = json!({"name": (!name.is_empty()).then_some(name), "arguments": arguments});
        json!({"tool_calls": [{"index": index, "function": function}]}).to_string()
    };
    let chunks = [
        tool(0, "a", ""),
        tool(1, "b", ""),
        tool(2, "c", "{\"c\":"),
        tool(1, "", "{\"b\":[1]}"),
        // Brackets and quotes that are none.
        tool(0, "", "{\"a\": \"}]\\\"\", "),
        tool(2, "", "3}"),
        tool(0, "", "\"z\": {}}"),
        tool(3, "d", ""),
    ];
    let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
    let (events, end) = read(&(deltas(&chunks) + "data: [DONE]\n\n"));
    end.unwrap();
    let expected = [
        call(0, "call_0", "a"),
        arguments(0, "{\"a\": \"}]\\\"\", "),
        arguments(0, "\"z\": {}}"),
        call(1, "call_1", "b"),
        arguments(1, "{\"b\":[1]}"),
        call(2, "call_2", "c"),
        arguments(2, "{\"c\":3}"),
        call(3, "call_3", "d"),
        arguments(3, "{}"),
        Finish(FinishReason::unknown()),
    ];
    assert_eq!(events[1..], expected);
    // Each was told as soon as the one before it was over.
    let (events, _) = read(&deltas(&chunks));
    assert_eq!(events[1..], expected[..8]);

    // The first never ends, and nobody keeps the others for ever.
    let more = tool(1, "", &"x".repeat(100_000));
    let mut chunks = vec![tool(0, "a", "{"), tool(1, "b", "")];
    chunks.resize(13, more);
    let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
    let (_, end) = read(&deltas(&chunks));
    assert_eq!(
        end.unwrap_err().message(),
        "the calls of tools that wait exceed 1048576 bytes"
    );
}

#[test]
fn m3_a_refusal_is_the_text_and_the_reason() {
    let refusal = deltas(&[r#"{"refusal":"I can't"}"#, r#"{"refusal":"."}"#]);
    let stop =
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let (events, end) = read(&format!("{refusal}{stop}"));
    end.unwrap();
    assert_eq!(events[1], Text("I can't".into()));
    assert_eq!(events[3], Finish(FinishReason::ContentFilter));
}

#[test]
fn m4_rubbish_is_malformed() {
    let calls: String = (0..200)
        .map(|at| {
            format!("{{\"tool_calls\":[{{\"index\":{at},\"function\":{{\"name\":\"a\"}}}}]}}")
        })
        .map(|delta| deltas(&[&delta]))
        .collect();
    let table = [
        "data: {\n\n".to_owned(),
        "data: <html>\n\n".to_owned(),
        "data: {\"choices\":5}\n\n".to_owned(),
        "data: [DONE]\n\n".to_owned(),
        "<html></html>\n\n".to_owned(),
        deltas(&[r#"{"content":5}"#]),
        deltas(&[r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#]),
        calls,
    ];
    for stream in table {
        let (_, end) = read(&stream);
        assert_eq!(end.unwrap_err().kind(), Malformed, "{stream}");
    }
}

#[test]
fn m4_plain_json_in_place_of_a_stream_is_an_error_of_its_kind() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let decoder = decoder_for(&ModelRequest::prompt("hi"), &headers);
    let body = r#"{"error":{"message":"busy","code":503}}"#;
    let (_, end) = run(decoder, [body.as_bytes()]);
    assert_eq!(end.unwrap_err().kind(), Overloaded);
}

/// Events of one shape, of which this byte of this one is something else.
fn similar(texts: &[String], at: usize, byte: usize, replace: u8, spaced: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let json = json!({"choices": [{"delta": {"content": text}}]});
        let mut json = json.to_string().into_bytes();
        if index == at {
            // Not the first, after which there may be spaces.
            let byte = 1 + byte % (json.len() - 1);
            json[byte] = replace;
        }
        if spaced {
            // Of no meaning, and no two alike.
            json.splice(1..1, vec![b' '; index]);
        }
        stream.extend_from_slice(b"data: ");
        stream.extend(json);
        stream.extend_from_slice(b"\n\n");
    }
    stream
}

proptest! {
    #[test]
    fn m3_words_that_come_in_the_same_shape_are_read_as_any_others(
        texts in prop::collection::vec("[a-z\"\\\\\n\u{1}ü☀ {}]{0,4}", 1..8),
        at in 0usize..8,
        byte in any::<usize>(),
        replace in any::<u8>(),
    ) {
        let read = |spaced| run(decoder(), [&similar(&texts, at, byte, replace, spaced)[..]]);
        let (same, end) = read(false);
        let (different, end_of_different) = read(true);
        prop_assert_eq!(same, different);
        prop_assert_eq!(end.unwrap_err().kind(), end_of_different.unwrap_err().kind());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = run(decoder(), bytes.chunks(7));
    }

    #[test]
    fn a_mutated_stream_is_read_without_a_panic_and_the_same_in_pieces(
        at in any::<prop::sample::Index>(),
        replace in any::<u8>(),
        size in 1usize..64,
    ) {
        let mut bytes = STREAM.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = replace;
        let (whole, end) = run(decoder(), [&bytes[..]]);
        let (pieces, end_of_pieces) = run(decoder(), bytes.chunks(size));
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(end.is_ok(), end_of_pieces.is_ok());
    }
}

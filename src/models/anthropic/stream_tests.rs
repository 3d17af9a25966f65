use http::header::{CONTENT_TYPE, RETRY_AFTER};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::models::stream_support::{run, splits};
use crate::models::{FinishReason, ModelErrorKind::*, StreamEvent, StreamEvent::*, Usage};

/// The documentation's example, with thinking before the text and a tool after it.
pub(in crate::models) const STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","content":[],"model":"claude-sonnet-4-5-20250929","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"cache_read_input_tokens":100,"output_tokens":2}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"The wéather."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwK"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"Okay, \"let's\" "}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"chéck ☀️"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_01","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"location\": \"San"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":" Francisco\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

event: content_block_start
data: {"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_02","name":"get_time","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":4}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn decoder_for(request: &ModelRequest, headers: &HeaderMap) -> Box<dyn StreamDecoder> {
    let codec = Anthropic::new(ApiKey::new("sk-ant-secret").unwrap());
    codec.stream_decoder(request, StatusCode::OK, headers)
}

fn decoder() -> Box<dyn StreamDecoder> {
    decoder_for(&ModelRequest::prompt("hi"), &HeaderMap::new())
}

fn read(text: &str) -> (Vec<StreamEvent>, Result<(), ModelError>) {
    run(decoder(), [text.as_bytes()])
}

/// Each of these as an event, in a stream that has begun.
fn begun(events: &[&str]) -> String {
    let start = r#"{"type":"message_start","message":{"id":"m","model":"c"}}"#;
    let events = std::iter::once(&start).chain(events);
    events.map(|event| format!("data: {event}\n\n")).collect()
}

fn expected() -> Vec<StreamEvent> {
    let usage = |output| Usage {
        cache_read_tokens: 100,
        ..Usage::new(572, output)
    };
    vec![
        Start {
            id: "msg_01".into(),
            model: "claude-sonnet-4-5-20250929".into(),
        },
        StreamEvent::Usage(usage(2)),
        Reasoning("The wéather.".into()),
        ReasoningSignature("EqQB".into()),
        RedactedReasoning("EmwK".into()),
        Text("Okay, \"let's\" ".into()),
        Text("chéck ☀️".into()),
        ToolCall {
            index: 0,
            id: "toolu_01".into(),
            name: "get_weather".into(),
        },
        ToolArguments {
            index: 0,
            json: "{\"location\": \"San".into(),
        },
        ToolArguments {
            index: 0,
            json: " Francisco\"}".into(),
        },
        ToolCall {
            index: 1,
            id: "toolu_02".into(),
            name: "get_time".into(),
        },
        // There were none.
        ToolArguments {
            index: 1,
            json: "{}".into(),
        },
        StreamEvent::Usage(usage(89)),
        Finish(FinishReason::ToolCalls),
    ]
}

#[test]
fn m3_a_stream_is_read_wherever_it_is_split() {
    for pieces in splits(STREAM) {
        let (events, end) = run(decoder(), pieces);
        end.unwrap();
        assert_eq!(events, expected());
    }
    let with_returns = STREAM.replace('\n', "\r\n");
    assert_eq!(read(&with_returns).0, expected());
}

#[test]
fn m5_a_stream_without_its_finish_is_broken_wherever_it_is_cut() {
    let complete = STREAM.trim_end().len() + "\n\n".len();
    for at in 0..STREAM.len() {
        let (events, end) = run(decoder(), [&STREAM.as_bytes()[..at]]);
        let error = end.expect_err(&STREAM[..STREAM.floor_char_boundary(at)]);
        assert_eq!(error.kind(), Malformed);
        assert_eq!(error.message(), "the stream ended without its finish");
        assert!(!events.iter().any(|event| matches!(event, Finish(_))));
    }
    assert_eq!(complete, STREAM.len());
}

#[test]
fn m4_an_error_event_is_a_failure_of_its_kind_first_or_in_the_middle() {
    let table = [
        ("overloaded_error", Overloaded),
        ("api_error", Server),
        ("rate_limit_error", RateLimited),
        ("timeout_error", Timeout),
        ("authentication_error", Credentials),
        ("invalid_request_error", InvalidRequest),
    ];
    for (word, kind) in table {
        let event = format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{word}\",\"message\":\"No sk-ant-secret\"}}}}\n\n"
        );
        let text =
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
        for (before, came) in [(String::new(), 0), (begun(&[text]), 2)] {
            let (events, end) = read(&format!("{before}{event}"));
            let error = end.unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, "No ***"));
            assert_eq!(events.len(), came);
        }
    }
}

#[test]
fn m3_what_does_not_exist_yet_is_read_over() {
    let stream = begun(&[
        r#"{"type":"something_new","delta":"of another shape","index":"one"}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
        r#"{"type":"message_stop"}"#,
        "nobody reads this",
    ]);
    let (events, end) = read(&stream);
    end.unwrap();
    assert_eq!(events[1..], [Finish(FinishReason::Stop)]);
}

#[test]
fn m4_rubbish_is_malformed() {
    let table = [
        "data: {\n\n".to_owned(),
        "data: []\n\n".to_owned(),
        "data: {\"delta\":{}}\n\n".to_owned(),
        begun(&[r#"{"type":"content_block_delta","index":0,"delta":{"text":5}}"#]),
        begun(&[r#"{"type":"content_block_delta"}"#]),
        begun(&[r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}"#]),
        "data: {\"type\":\"message_stop\"}\n\n".to_owned(),
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n".to_owned(),
    ];
    for stream in table {
        let (_, end) = read(&stream);
        assert_eq!(end.unwrap_err().kind(), Malformed, "{stream}");
    }
}

#[test]
fn m4_plain_json_in_place_of_a_stream_is_an_error_of_its_kind() {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for (body, kind) in [(error, Overloaded), ("{}", Malformed), ("", Malformed)] {
        let decoder = decoder_for(&ModelRequest::prompt("hi"), &headers);
        let (events, end) = run(decoder, body.as_bytes().chunks(9));
        assert_eq!(end.unwrap_err().kind(), kind);
        assert_eq!(events, []);
    }
}

#[test]
fn m5_white_space_at_the_seam_does_not_come_twice() {
    let text = |text: &str| {
        format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
        )
    };
    let table: [(&str, &[&str], &str); 6] = [
        ("The sky ", &[" is blue"], "is blue"),
        ("The sky ", &["is blue"], "is blue"),
        ("The sky", &[" is blue"], " is blue"),
        ("One.\n\n", &["\\n", "\\n", "\\nTwo."], "\nTwo."),
        ("One.\n\n", &["\\n Two."], " Two."),
        (" ", &[" is"], "is"),
    ];
    for (beginning, texts, rest) in table {
        let request = ModelRequest::prompt("hi").continue_from(beginning);
        let deltas: Vec<_> = texts.iter().map(|t| text(t)).collect();
        let deltas: Vec<_> = deltas.iter().map(String::as_str).collect();
        let decoder = decoder_for(&request, &HeaderMap::new());
        let (events, _) = run(decoder, [begun(&deltas).as_bytes()]);
        let got: String = events
            .iter()
            .filter_map(|event| match event {
                Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(got, rest, "{beginning:?} {texts:?}");
        assert!(!events.contains(&Text(String::new())));
    }
}

/// Events of one shape, of which this byte of this one is something else.
fn similar(texts: &[String], at: usize, byte: usize, replace: u8, spaced: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let json = json!({"type": "content_block_delta", "delta": {"text": text}});
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
        let read = |spaced| run(decoder(), [begun(&[]).as_bytes(), &similar(&texts, at, byte, replace, spaced)[..]]);
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

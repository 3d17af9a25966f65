use std::num::NonZeroU32;

use serde_json::Value;

use super::*;
use crate::models::ModelErrorKind::*;
use crate::models::{FinishReason, Usage};

/// An answer of the reasoning model that has queued, as documented.
const ANSWER: &str = r#"


{"id":"930c60df-bf64-41c9-a88e-3ec75f81e00e","object":"chat.completion","created":1705651092,
"model":"deepseek-reasoner","choices":[{"index":0,"message":{"role":"assistant",
"content":"9.8 is greater.","reasoning_content":"0.8 is more than 0.11."},
"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":10,
"total_tokens":26,"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":16,
"completion_tokens_details":{"reasoning_tokens":5}},"system_fingerprint":"fp_a49d71b8a1"}"#;

fn codec() -> DeepSeek {
    DeepSeek::new(ApiKey::new("sk-secret").unwrap())
}

fn decode(status: u16, body: &str) -> Result<Completion, ModelError> {
    let status = StatusCode::from_u16(status).unwrap();
    codec().decode(
        status,
        &HeaderMap::new(),
        &Bytes::copy_from_slice(body.as_bytes()),
    )
}

#[test]
fn m3_a_request_goes_to_deepseek_under_the_old_name_of_the_limit() {
    let request = ModelRequest::prompt("hi").max_tokens(NonZeroU32::MIN);
    let http = codec().encode(&request, "deepseek-chat").unwrap();
    assert_eq!(http.uri(), "https://api.deepseek.com/chat/completions");
    assert_eq!(http.headers()["authorization"], "Bearer sk-secret");
    let body: Value = serde_json::from_slice(http.body()).unwrap();
    assert_eq!(
        (&body["model"], &body["max_tokens"]),
        (&"deepseek-chat".into(), &1.into())
    );

    for url in ["http://localhost:1/v1", "http://localhost:1/v1/"] {
        let http = codec()
            .base_url(url)
            .unwrap()
            .encode(&request, "m")
            .unwrap();
        assert_eq!(http.uri(), "http://localhost:1/v1/chat/completions");
    }
}

#[test]
fn m3_blank_lines_before_the_answer_and_its_reasoning_are_read() {
    let completion = decode(200, ANSWER).unwrap();
    assert_eq!(completion.text, "9.8 is greater.");
    assert_eq!(
        completion.reasoning.as_deref(),
        Some("0.8 is more than 0.11.")
    );
    assert_eq!(completion.finish_reason, FinishReason::Stop);
    assert_eq!(
        completion.usage,
        Usage {
            reasoning_tokens: 5,
            ..Usage::new(16, 10)
        }
    );
}

#[test]
fn m4_an_empty_balance_is_no_ill_health_and_an_answer_broken_off_is() {
    let balance = r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#;
    let error = decode(402, balance).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Credentials, "Insufficient Balance")
    );

    let broken = ANSWER.replace("\"stop\"", "\"insufficient_system_resource\"");
    assert_eq!(decode(200, &broken).unwrap_err().kind(), Overloaded);
    // A body of keep-alives alone: the queue ended with no answer.
    assert_eq!(decode(200, "\n\n\n").unwrap_err().kind(), Malformed);
}

//! What a request and each piece of a streamed answer cost, apart from the network.
//!
//! `cargo bench --bench codecs`

use std::{collections::VecDeque, time::UNIX_EPOCH};

use bytes::BytesMut;
use divan::{Bencher, black_box, counter::ItemsCount};
use http::{HeaderMap, StatusCode};
use tower_breaker::models::{
    Anthropic, ApiKey, ClientFormat, ModelRequest, OpenAi, Provider, ReplyContext, StreamEvent,
};

fn main() {
    divan::main();
}

/// A stream as the gateway's benchmark has it: 35 events.
const WORDS: usize = 32;

fn openai() -> String {
    let head = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":"#;
    let chunk = |delta: &str, finish: &str| {
        format!(
            "{head}[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let mut stream = chunk(r#"{"role":"assistant","content":""}"#, "null");
    for word in 0..WORDS {
        stream += &chunk(&format!("{{\"content\":\" word {word}\"}}"), "null");
    }
    stream += &chunk("{}", "\"stop\"");
    stream
        + head
        + "[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":32}}\n\ndata: [DONE]\n\n"
}

fn anthropic() -> String {
    let event =
        |name: &str, rest: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n");
    let mut stream = event(
        "message_start",
        r#","message":{"id":"msg_01","type":"message","role":"assistant","content":[],"model":"claude","stop_reason":null,"usage":{"input_tokens":9,"output_tokens":1}}"#,
    );
    stream += &event(
        "content_block_start",
        r#","index":0,"content_block":{"type":"text","text":""}"#,
    );
    for word in 0..WORDS {
        let delta =
            format!(",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word {word}\"}}");
        stream += &event("content_block_delta", &delta);
    }
    stream += &event("content_block_stop", ",\"index\":0");
    stream += &event(
        "message_delta",
        r#","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":32}"#,
    );
    stream + &event("message_stop", "")
}

fn provider(format: ClientFormat) -> (Box<dyn Provider>, String) {
    let key = ApiKey::new("a-key").expect("it is visible ASCII");
    match format {
        ClientFormat::OpenAi => (Box::new(OpenAi::new(key)), openai()),
        ClientFormat::Anthropic => (Box::new(Anthropic::new(key)), anthropic()),
    }
}

const FORMATS: [ClientFormat; 2] = [ClientFormat::OpenAi, ClientFormat::Anthropic];

fn decode(provider: &dyn Provider, stream: &str, events: &mut VecDeque<StreamEvent>) {
    let request = ModelRequest::prompt("hi");
    let mut decoder = provider.stream_decoder(&request, StatusCode::OK, &HeaderMap::new());
    // Each event by itself, as a slow provider sends them.
    for event in stream.split_inclusive("\n\n") {
        decoder
            .feed(event.as_bytes(), events)
            .expect("it is a stream");
    }
    decoder.end().expect("it is whole");
}

fn encode(format: ClientFormat, events: &VecDeque<StreamEvent>, out: &mut BytesMut) {
    let mut encoder = format.stream_encoder(&ReplyContext {
        request_id: "req_1",
        created: UNIX_EPOCH,
        include_usage: true,
    });
    for event in events {
        encoder.event(event, out);
    }
}

/// A stream of 32 words, read from the provider.
#[divan::bench(args = FORMATS)]
fn stream_in(bencher: Bencher<'_, '_>, format: ClientFormat) {
    let (provider, stream) = provider(format);
    let mut events = VecDeque::new();
    bencher.counter(ItemsCount::new(WORDS)).bench_local(|| {
        events.clear();
        decode(&*provider, black_box(&stream), &mut events);
    });
}

/// The same stream, written for the client.
#[divan::bench(args = FORMATS)]
fn stream_out(bencher: Bencher<'_, '_>, format: ClientFormat) {
    let (provider, stream) = provider(format);
    let mut events = VecDeque::new();
    decode(&*provider, &stream, &mut events);
    let mut out = BytesMut::with_capacity(64 * 1024);
    bencher.counter(ItemsCount::new(WORDS)).bench_local(|| {
        out.clear();
        encode(format, black_box(&events), &mut out);
    });
}

/// A short conversation from the client, and the same to the provider.
#[divan::bench(args = FORMATS)]
fn request_in_and_out(bencher: Bencher<'_, '_>, format: ClientFormat) {
    let (provider, _) = provider(format);
    let body = br#"{"model":"alias","max_tokens":200,"stream":true,"messages":[
        {"role":"user","content":"Why is the sky blue?"},
        {"role":"assistant","content":"Because of Rayleigh scattering."},
        {"role":"user","content":"And in the evening?"}]}"#;
    bencher.bench_local(|| {
        let asked = format
            .decode_request(black_box(body))
            .expect("it is a request");
        provider
            .encode(&asked.request, "upstream")
            .expect("it can be expressed")
    });
}

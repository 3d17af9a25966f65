//! What a client gets, and what the failing provider is sent, for each way to fail: over real HTTP, from a client through
//! the gateway to simulated providers.
//!
//! One of the two fails and the other is well, either way round, because each has a wire format of its own. "Before"
//! are the requests until the circuit of the one that fails opens, "after" those that follow.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{
    eventually,
    gateway::Gateway,
    http::{self, Response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Deadlines that tests can wait for, and circuits that a test resets by itself. Each provider has a model whose streams
/// break, and one whose streams are continued; both fall back on the other provider's.
const CONFIG: &str = r#"
    default_model = "claude-breaks"

    [circuit_breaker]
    failure_threshold = 3
    timeout = "600ms"
    reset_timeout = "10m"

    [deadlines]
    first_token = "600ms"
    idle = "600ms"

    [providers.claude]
    kind = "anthropic"
    simulated = true

    [providers.deepseek]
    kind = "deepseek"
    simulated = true

    [models.claude-breaks]
    provider = "claude"
    fallbacks = ["deepseek-breaks"]

    [models.claude-goes-on]
    provider = "claude"
    fallbacks = ["deepseek-breaks"]
    mid_stream = "continue"

    [models.deepseek-breaks]
    provider = "deepseek"
    fallbacks = ["claude-breaks"]

    [models.deepseek-goes-on]
    provider = "deepseek"
    fallbacks = ["claude-breaks"]
    mid_stream = "continue"

    [models.last]
    provider = "claude"
    degraded = ["cached", { message = "Come back later." }]
"#;

/// How many requests are sent once the circuit should be open.
const AFTER: u64 = 3;

/// The fault, how many requests fail before the circuit opens, and how many of them the provider sees: one that refuses
/// connections sees none.
const FALLS_BACK: [(&str, u64, u64); 15] = [
    ("refused", 3, 0),
    ("reset", 3, 3),
    ("hang", 3, 3),
    ("server-error", 3, 3),
    ("unavailable", 3, 3),
    ("unavailable?retry_after=60", 1, 1),
    ("overloaded", 3, 3),
    ("rate-limited", 3, 3),
    // It has asked to be left alone.
    ("rate-limited?retry_after=60", 1, 1),
    ("rubbish", 3, 3),
    ("cut", 3, 3),
    ("error-first", 3, 3),
    ("silence", 3, 3),
    ("stall?after=0", 3, 3),
    ("no-finish?after=0", 3, 3),
];

/// What breaks a stream whose client has seen some of it.
const MID_STREAM: [&str; 4] = ["error-mid-stream", "cut-mid-stream", "stall", "no-finish"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Chat,
    Messages,
    Process,
}

const FORMS: [Form; 3] = [Form::Chat, Form::Messages, Form::Process];

/// What a client has made of a response.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: u16,
    text: String,
    /// It has come to its end, and tells so.
    complete: bool,
    /// The error, in the form's own place.
    error: Value,
}

struct Setup {
    gateway: Gateway,
    /// The switches of the provider that fails, and of the other one.
    failing: Provider,
    well: Provider,
}

struct Provider {
    name: &'static str,
    url: String,
}

impl Provider {
    async fn break_with(&self, fault: &str) {
        post(&format!("{}/fault/{fault}", self.url)).await;
    }

    async fn stats(&self) -> Value {
        http::get(&format!("{}/stats", self.url)).await.json()
    }

    /// How many requests have reached it, by its own count.
    async fn requests(&self) -> u64 {
        self.stats().await["requests"].as_u64().unwrap()
    }

    /// Its whole answer.
    fn whole(&self) -> Answer {
        Answer {
            status: 200,
            text: format!("Hello! This is {}, simulated. You said: Why?", self.name),
            complete: true,
            error: Value::Null,
        }
    }

    /// Its model whose streams break.
    fn breaks(&self) -> String {
        format!("{}-breaks", self.name)
    }

    /// Its model whose streams are continued.
    fn goes_on(&self) -> String {
        format!("{}-goes-on", self.name)
    }
}

impl Setup {
    /// `test` keeps the files of tests that run at the same time apart.
    async fn start(test: &str, failing: &'static str) -> Self {
        let name = format!("faults-{test}-{failing}.toml");
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&config, CONFIG).unwrap();
        let listen = [("GATEWAY_LISTEN", "127.0.0.1:0")];
        let gateway = Gateway::start(&["--config", config.to_str().unwrap()], &listen).await;
        let provider = async |name| Provider {
            name,
            url: gateway.simulated(name).await,
        };
        let well = if failing == "claude" {
            "deepseek"
        } else {
            "claude"
        };
        let (failing, well) = (provider(failing).await, provider(well).await);
        for provider in [&failing, &well] {
            post(&format!("{}/pace?gap_ms=0", provider.url)).await;
        }
        Self {
            gateway,
            failing,
            well,
        }
    }

    /// One provider is broken in this way, and every circuit is closed.
    async fn with(&self, fault: &str) {
        self.failing.break_with(fault).await;
        post(&self.gateway.at("/admin/circuit-breakers/reset")).await;
    }

    /// As [`with`](Self::with), and there is time to see the first words before the rest fails.
    async fn with_time(&self, fault: &str) {
        post(&format!("{}/pace?gap_ms=20", self.failing.url)).await;
        self.with(fault).await;
    }

    async fn ask(&self, form: Form, model: &str, stream: bool) -> (Answer, Response) {
        let messages = json!([{ "role": "user", "content": "Why?" }]);
        let body = match form {
            Form::Chat => json!({ "model": model, "messages": messages, "stream": stream }),
            Form::Messages => {
                json!({ "model": model, "max_tokens": 100, "messages": messages, "stream": stream })
            }
            Form::Process => json!({ "preferredModel": model, "prompt": "Why?", "stream": stream }),
        };
        let response = http::post_json(&self.gateway.at(form.path()), &body).await;
        (form.read(&response), response)
    }

    async fn health(&self) -> Value {
        let health = http::get(&self.gateway.at("/health")).await.json();
        health[self.failing.name].clone()
    }

    async fn circuit(&self) -> Value {
        self.health().await["circuitBreaker"].clone()
    }

    async fn failures(&self) -> u64 {
        self.circuit().await["metrics"]["failedRequests"]
            .as_u64()
            .unwrap()
    }
}

async fn post(url: &str) {
    let response = http::request("POST", url, &[], "").await;
    assert_eq!(response.status, 200, "{}", response.text());
}

impl Form {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Process => "/v1/process",
        }
    }

    fn read(self, response: &Response) -> Answer {
        let mut answer = Answer {
            status: response.status.as_u16(),
            ..Answer::default()
        };
        if response
            .header("content-type")
            .starts_with("text/event-stream")
        {
            for frame in response.text().split("\n\n") {
                if let Some((_, data)) = frame.split_once("data: ") {
                    self.read_event(data, &mut answer);
                }
            }
            return answer;
        }
        let body = response.json();
        let text = match self {
            Self::Chat => &body["choices"][0]["message"]["content"],
            Self::Messages => &body["content"][0]["text"],
            Self::Process => &body["text"],
        };
        answer.text = text.as_str().unwrap_or_default().to_owned();
        answer.complete = text.is_string();
        answer.error = body["error"].clone();
        answer
    }

    fn read_event(self, data: &str, answer: &mut Answer) {
        assert!(!answer.complete, "nothing follows the end: {data}");
        assert_eq!(
            answer.error,
            Value::Null,
            "nothing follows an error: {data}"
        );
        if data == "[DONE]" {
            answer.complete = true;
            return;
        }
        let data: Value = serde_json::from_str(data).unwrap();
        let text = match self {
            Self::Chat => &data["choices"][0]["delta"]["content"],
            Self::Messages => &data["delta"]["text"],
            Self::Process => &data["text"],
        };
        answer.text += text.as_str().unwrap_or_default();
        answer.error = data["error"].clone();
        answer.complete = match self {
            Self::Chat => false,
            Self::Messages => data["type"] == "message_stop",
            Self::Process => data["finishReason"].is_string(),
        };
    }
}

/// Sends requests while the circuit is closed, and after it has opened: a client never gets less than the whole answer.
async fn falls_back(failing: &'static str, stream: bool) {
    let it = Setup::start(if stream { "streams" } else { "whole" }, failing).await;
    let (model, other) = (it.failing.breaks(), it.well.breaks());
    for (row, (fault, before, seen)) in FALLS_BACK.into_iter().enumerate() {
        it.with(fault).await;
        let (requests, failures) = (it.failing.requests().await, it.failures().await);
        for index in 0..before + AFTER {
            let form = FORMS[(row + usize::try_from(index).unwrap()) % FORMS.len()];
            let (answer, response) = it.ask(form, &model, stream).await;
            let what = format!("{fault} of {failing}, {form:?}, stream: {stream}, request {index}");
            assert_eq!(answer, it.well.whole(), "{what}: {}", response.text());
            assert_eq!(
                response.header("x-gateway-provider"),
                it.well.name,
                "{what}"
            );
            assert_eq!(response.header("x-gateway-model"), other, "{what}");
            let attempts = response.header("x-gateway-attempts");
            let attempts: Value = serde_json::from_str(attempts).unwrap();
            let outcome = if index < before { "failed" } else { "skipped" };
            assert_eq!(attempts[0]["outcome"], outcome, "{what}: {attempts}");
            assert_eq!(attempts[0]["model"], model, "{what}: {attempts}");
            assert!(attempts[0]["reason"].is_string(), "{what}: {attempts}");
            assert_eq!(attempts[1]["outcome"], "answered", "{what}: {attempts}");
            let open = it.circuit().await["state"] == "OPEN";
            assert_eq!(open, index + 1 >= before, "{what}");
        }
        assert_eq!(
            it.failing.requests().await - requests,
            seen,
            "{fault} of {failing}"
        );
        assert_eq!(
            it.failures().await - failures,
            before,
            "{fault} of {failing}"
        );
    }
}

#[tokio::test]
async fn m4_a_whole_answer_comes_from_the_other_provider_whatever_the_fault_of_claude() {
    falls_back("claude", false).await;
}

#[tokio::test]
async fn m4_a_whole_answer_comes_from_the_other_provider_whatever_the_fault_of_deepseek() {
    falls_back("deepseek", false).await;
}

#[tokio::test]
async fn m5_a_stream_that_fails_before_its_first_content_falls_back_unseen_from_claude() {
    falls_back("claude", true).await;
}

#[tokio::test]
async fn m5_a_stream_that_fails_before_its_first_content_falls_back_unseen_from_deepseek() {
    falls_back("deepseek", true).await;
}

#[tokio::test]
async fn m4_a_bad_key_falls_back_each_time_and_a_bad_request_never() {
    for failing in ["claude", "deepseek"] {
        let it = Setup::start("keys", failing).await;
        let model = it.failing.breaks();
        for (fault, status) in [("bad-key", 401), ("no-balance", 402)] {
            it.with(fault).await;
            let before = it.failing.requests().await;
            for stream in [false, true, false, true, false, true] {
                let (answer, _) = it.ask(Form::Chat, &model, stream).await;
                assert_eq!(answer, it.well.whole(), "{fault} of {failing}");
            }
            let seen = it.failing.requests().await - before;
            assert_eq!(seen, 6, "{fault} of {failing}: the circuit stays closed");
            let health = it.health().await;
            assert_eq!(health["circuitBreaker"]["state"], "CLOSED");
            assert_eq!(health["credentials"]["status"], status);
        }
        it.with("bad-request").await;
        let (failing, well) = (it.failing.requests().await, it.well.requests().await);
        for (form, stream) in FORMS
            .into_iter()
            .flat_map(|form| [(form, false), (form, true)])
        {
            let (answer, _) = it.ask(form, &model, stream).await;
            assert_eq!((answer.status, answer.complete), (400, false), "{form:?}");
            assert_eq!(answer.error["type"], "invalid_request_error", "{form:?}");
        }
        assert_eq!(it.failing.requests().await - failing, 6);
        assert_eq!(it.well.requests().await, well, "it is the caller's own");
        assert_eq!(it.circuit().await["state"], "CLOSED");
    }
}

#[tokio::test]
async fn m5_a_stream_that_breaks_ends_with_an_error_and_without_its_end() {
    for failing in ["claude", "deepseek"] {
        let it = Setup::start("breaks", failing).await;
        let model = it.failing.breaks();
        for fault in MID_STREAM {
            it.with_time(fault).await;
            let before = it.failing.requests().await;
            for (index, form) in FORMS.into_iter().enumerate() {
                let (answer, response) = it.ask(form, &model, true).await;
                let what = format!("{fault} of {failing}, {form:?}: {}", response.text());
                assert_eq!((answer.status, answer.complete), (200, false), "{what}");
                assert!(answer.error["message"].is_string(), "{what}");
                assert_eq!(answer.text, "Hello! This is", "{what}");
                assert_eq!(response.header("x-gateway-provider"), failing, "{what}");
                assert_eq!(it.circuit().await["state"] == "OPEN", index == 2, "{what}");
            }
            // Nobody else has to see it.
            for form in FORMS {
                let (answer, _) = it.ask(form, &model, true).await;
                assert_eq!(answer, it.well.whole(), "{fault} of {failing}, {form:?}");
            }
            assert_eq!(
                it.failing.requests().await - before,
                3,
                "{fault} of {failing}"
            );
        }
    }
}

#[tokio::test]
async fn m5_a_stream_that_breaks_is_continued_where_that_is_wanted() {
    for failing in ["claude", "deepseek"] {
        let it = Setup::start("continued", failing).await;
        let model = it.failing.goes_on();
        for fault in MID_STREAM {
            it.with_time(fault).await;
            let before = it.failing.requests().await;
            for (index, form) in FORMS.into_iter().enumerate() {
                let (answer, response) = it.ask(form, &model, true).await;
                let text = response.text();
                let what = format!("{fault} of {failing}, {form:?}: {text}");
                // Three words come from the one and the rest from the other.
                assert_eq!(answer, it.well.whole(), "{what}");
                let once =
                    |word: &str| assert_eq!(text.matches(word).count(), 1, "{word} in {what}");
                match form {
                    Form::Chat => {
                        once("\"finish_reason\":\"stop\"");
                        once(": x-gateway-attempts: ");
                        let mut ids: Vec<_> = text
                            .lines()
                            .filter_map(|line| line.split_once("\"id\":\"")?.1.split('"').next())
                            .collect();
                        ids.dedup();
                        assert_eq!(ids.len(), 1, "{what}");
                    }
                    Form::Messages => {
                        once("event: message_start");
                        once("event: message_delta");
                    }
                    Form::Process => {
                        once("\"joins\":[{");
                        once("event: finish");
                    }
                }
                assert_eq!(it.circuit().await["state"] == "OPEN", index == 2, "{what}");
            }
            assert_eq!(
                it.failing.requests().await - before,
                3,
                "{fault} of {failing}"
            );
        }
    }
}

#[tokio::test]
async fn m5_a_slow_answer_is_a_whole_one() {
    for failing in ["claude", "deepseek"] {
        let it = Setup::start("slow", failing).await;
        // Longer than the time to the first word, and than a silence; each pause for itself is not.
        it.with("trickle?gap_ms=150").await;
        let (answer, _) = it.ask(Form::Chat, &it.failing.breaks(), true).await;
        assert_eq!(answer, it.failing.whole());
        assert_eq!(it.failures().await, 0);
    }
}

#[tokio::test]
async fn m5_a_client_that_goes_away_is_no_failure_and_takes_the_providers_request_with_it() {
    let it = Setup::start("gone", "claude").await;
    post(&format!("{}/pace?gap_ms=10000", it.failing.url)).await;
    let body =
        r#"{"model":"claude-breaks","messages":[{"role":"user","content":"Why?"}],"stream":true}"#;
    for begun in [false, true] {
        if begun {
            post(&format!("{}/pace?gap_ms=0", it.failing.url)).await;
            post(&format!("{}/fault/stall", it.failing.url)).await;
        }
        let before = it.failing.requests().await;
        let address = it.gateway.url().strip_prefix("http://").unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        eventually("the request to arrive", async || {
            (it.failing.requests().await > before).then_some(())
        })
        .await;
        if begun {
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        }
        drop(client);
        eventually("the provider to see that its client is gone", async || {
            let stats = it.failing.stats().await;
            (stats["abandoned"] == 1 + u64::from(begun)).then_some(())
        })
        .await;
    }
    let metrics = &it.circuit().await["metrics"];
    assert_eq!(metrics["failedRequests"], 0, "{metrics}");
    assert_eq!(metrics["cancelledRequests"], 2, "{metrics}");
    assert_eq!(it.well.requests().await, 0, "nobody is left to be answered");
}

#[tokio::test]
async fn f6_a_degraded_answer_is_marked_as_such_in_every_form() {
    let it = Setup::start("degraded", "claude").await;
    let (fresh, _) = it.ask(Form::Chat, "last", false).await;
    assert_eq!(fresh, it.failing.whole());
    it.with("server-error").await;
    for (form, stream) in FORMS
        .into_iter()
        .flat_map(|form| [(form, false), (form, true)])
    {
        let (answer, response) = it.ask(form, "last", stream).await;
        // Of Anthropic's requests this is the first: it has a limit, which makes it another one.
        let expected = match form {
            Form::Messages => Answer {
                text: "Come back later.".to_owned(),
                ..it.failing.whole()
            },
            _ => it.failing.whole(),
        };
        assert_eq!(answer, expected, "{form:?}: {}", response.text());
        assert_eq!(response.header("x-gateway-degraded"), "true");
        if form == Form::Process && !stream {
            assert_eq!(response.json()["metadata"]["degraded"], true);
        }
    }
}

#[tokio::test]
async fn g2_with_every_circuit_open_each_form_is_told_so_at_once() {
    let it = Setup::start("open", "claude").await;
    for name in ["claude", "deepseek"] {
        post(
            &it.gateway
                .at(&format!("/admin/circuit-breakers/{name}/force-open")),
        )
        .await;
    }
    for (form, stream) in FORMS
        .into_iter()
        .flat_map(|form| [(form, false), (form, true)])
    {
        let (answer, response) = it.ask(form, "claude-breaks", stream).await;
        assert_eq!(answer.status, 503, "{form:?}");
        assert_eq!(answer.error["code"], "all_circuits_open", "{form:?}");
        assert_eq!(response.header("x-should-retry"), "false", "{form:?}");
        let id = response.header("x-request-id");
        assert!(
            !id.is_empty() && id == response.header("request-id"),
            "{form:?}"
        );
    }
    assert_eq!(it.failing.requests().await + it.well.requests().await, 0);
}

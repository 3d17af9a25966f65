//! What a client gets, and what the failing provider is sent, for each way to fail: over real HTTP, from a client through
//! the gateway to simulated providers.
//!
//! Claude fails and DeepSeek is well. "Before" are the requests until Claude's circuit opens, "after" those that follow.

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

/// Deadlines that tests can wait for, and a circuit that a test resets by itself. `unbroken` is the same model as
/// `brittle`, but its streams are continued.
const CONFIG: &str = r#"
    default_model = "brittle"

    [circuit_breaker]
    failure_threshold = 3
    timeout = "500ms"
    reset_timeout = "10m"

    [deadlines]
    first_token = "500ms"
    idle = "500ms"

    [providers.claude]
    kind = "anthropic"
    simulated = true

    [providers.deepseek]
    kind = "deepseek"
    simulated = true

    [models.brittle]
    provider = "claude"
    fallbacks = ["standby"]

    [models.unbroken]
    provider = "claude"
    fallbacks = ["standby"]
    mid_stream = "continue"

    [models.standby]
    provider = "deepseek"

    [models.last]
    provider = "claude"
    degraded = ["cached", { message = "Come back later." }]
"#;

/// How many requests are sent once the circuit should be open.
const AFTER: u64 = 3;

/// The fault, how many requests Claude is sent before its circuit opens, and how many of them it sees: one that refuses
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
    claude: String,
    deepseek: String,
}

impl Setup {
    /// `name` keeps the files of tests that run at the same time apart.
    async fn start(name: &str) -> Self {
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{name}.toml"));
        fs::write(&config, CONFIG).unwrap();
        let listen = [("GATEWAY_LISTEN", "127.0.0.1:0")];
        let gateway = Gateway::start(&["--config", config.to_str().unwrap()], &listen).await;
        let it = Self {
            claude: gateway.simulated("claude").await,
            deepseek: gateway.simulated("deepseek").await,
            gateway,
        };
        for provider in [&it.claude, &it.deepseek] {
            post(&format!("{provider}/pace?gap_ms=0")).await;
        }
        it
    }

    /// Claude is broken in this way, and every circuit is closed.
    async fn with(&self, fault: &str) {
        post(&format!("{}/fault/{fault}", self.claude)).await;
        post(&self.gateway.at("/admin/circuit-breakers/reset")).await;
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

    async fn circuit(&self) -> Value {
        let health = http::get(&self.gateway.at("/health")).await.json();
        health["claude"]["circuitBreaker"].clone()
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

/// How many requests have reached a provider, by its own count.
async fn requests(provider: &str) -> u64 {
    let stats = http::get(&format!("{provider}/stats")).await.json();
    stats["requests"].as_u64().unwrap()
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

/// The whole answer of this provider.
fn whole(provider: &str) -> Answer {
    Answer {
        status: 200,
        text: format!("Hello! This is {provider}, simulated. You said: Why?"),
        complete: true,
        error: Value::Null,
    }
}

/// Sends requests while the circuit is closed, and after it has opened: a client never gets less than the whole answer.
async fn falls_back(it: &Setup, stream: bool) {
    for (row, (fault, before, seen)) in FALLS_BACK.into_iter().enumerate() {
        it.with(fault).await;
        let (requests_before, failures_before) = (requests(&it.claude).await, it.failures().await);
        for index in 0..before + AFTER {
            let form = FORMS[(row + usize::try_from(index).unwrap()) % FORMS.len()];
            let (answer, response) = it.ask(form, "brittle", stream).await;
            let what = format!("{fault}, {form:?}, stream: {stream}, request {index}");
            assert_eq!(answer, whole("deepseek"), "{what}: {}", response.text());
            assert_eq!(response.header("x-gateway-provider"), "deepseek", "{what}");
            assert_eq!(response.header("x-gateway-model"), "standby", "{what}");
            let attempts: Value =
                serde_json::from_str(response.header("x-gateway-attempts")).unwrap();
            let outcome = if index < before { "failed" } else { "skipped" };
            assert_eq!(attempts[0]["outcome"], outcome, "{what}: {attempts}");
            assert_eq!(attempts[0]["model"], "brittle", "{what}: {attempts}");
            assert!(attempts[0]["reason"].is_string(), "{what}: {attempts}");
            assert_eq!(attempts[1]["outcome"], "answered", "{what}: {attempts}");
            let open = it.circuit().await["state"] == "OPEN";
            assert_eq!(open, index + 1 >= before, "{what}");
        }
        assert_eq!(
            requests(&it.claude).await - requests_before,
            seen,
            "{fault}"
        );
        assert_eq!(it.failures().await - failures_before, before, "{fault}");
    }
}

#[tokio::test]
async fn m4_a_whole_answer_comes_from_the_other_provider_whatever_the_fault() {
    falls_back(&Setup::start("whole").await, false).await;
}

#[tokio::test]
async fn m5_a_stream_that_fails_before_its_first_content_is_answered_by_the_other_unseen() {
    falls_back(&Setup::start("streams").await, true).await;
}

#[tokio::test]
async fn m4_a_bad_key_falls_back_each_time_and_a_bad_request_never() {
    let it = Setup::start("keys").await;
    for (fault, status) in [("bad-key", 401), ("no-balance", 402)] {
        it.with(fault).await;
        let before = requests(&it.claude).await;
        for stream in [false, true, false, true, false, true] {
            let (answer, _) = it.ask(Form::Chat, "brittle", stream).await;
            assert_eq!(answer, whole("deepseek"), "{fault}");
        }
        assert_eq!(
            requests(&it.claude).await - before,
            6,
            "{fault}: the circuit stays closed"
        );
        assert_eq!(it.circuit().await["state"], "CLOSED");
        let health = http::get(&it.gateway.at("/health")).await.json();
        assert_eq!(health["claude"]["credentials"]["status"], status);
    }
    it.with("bad-request").await;
    let (claude, deepseek) = (requests(&it.claude).await, requests(&it.deepseek).await);
    for (form, stream) in FORMS
        .into_iter()
        .flat_map(|form| [(form, false), (form, true)])
    {
        let (answer, _) = it.ask(form, "brittle", stream).await;
        assert_eq!((answer.status, answer.complete), (400, false), "{form:?}");
        assert_eq!(answer.error["type"], "invalid_request_error", "{form:?}");
    }
    assert_eq!(requests(&it.claude).await - claude, 6);
    assert_eq!(
        requests(&it.deepseek).await,
        deepseek,
        "it is the caller's own"
    );
    assert_eq!(it.circuit().await["state"], "CLOSED");
}

#[tokio::test]
async fn m5_a_stream_that_breaks_ends_with_an_error_and_without_its_end() {
    let it = Setup::start("breaks").await;
    for fault in MID_STREAM {
        it.with(fault).await;
        let before = requests(&it.claude).await;
        for (index, form) in FORMS.into_iter().enumerate() {
            let (answer, response) = it.ask(form, "brittle", true).await;
            let what = format!("{fault}, {form:?}: {}", response.text());
            assert_eq!((answer.status, answer.complete), (200, false), "{what}");
            assert!(answer.error["message"].is_string(), "{what}");
            let said = whole("claude").text;
            assert!(
                !answer.text.is_empty() && said.starts_with(&answer.text),
                "{what}"
            );
            assert_eq!(response.header("x-gateway-provider"), "claude", "{what}");
            let open = it.circuit().await["state"] == "OPEN";
            assert_eq!(open, index == 2, "{what}");
        }
        // Nobody else has to see it.
        for form in FORMS {
            let (answer, _) = it.ask(form, "brittle", true).await;
            assert_eq!(answer, whole("deepseek"), "{fault}, {form:?}");
        }
        assert_eq!(requests(&it.claude).await - before, 3, "{fault}");
    }
}

#[tokio::test]
async fn m5_a_stream_that_breaks_is_continued_where_that_is_wanted() {
    let it = Setup::start("continued").await;
    for fault in MID_STREAM {
        it.with(fault).await;
        let before = requests(&it.claude).await;
        for (index, form) in FORMS.into_iter().enumerate() {
            let (answer, response) = it.ask(form, "unbroken", true).await;
            let what = format!("{fault}, {form:?}: {}", response.text());
            // Three words are Claude's and the rest is DeepSeek's.
            assert_eq!(answer, whole("deepseek"), "{what}");
            let text = response.text();
            let once = |word: &str| assert_eq!(text.matches(word).count(), 1, "{word} in {what}");
            match form {
                Form::Chat => {
                    once("\"finish_reason\":\"stop\"");
                    let ids = text.lines().filter_map(|line| {
                        let data: Value =
                            serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
                        Some(data["id"].clone())
                    });
                    let mut ids: Vec<_> = ids.collect();
                    ids.dedup();
                    assert_eq!(ids.len(), 1, "{what}");
                    once(": x-gateway-attempts: ");
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
        assert_eq!(requests(&it.claude).await - before, 3, "{fault}");
    }
}

#[tokio::test]
async fn m5_a_client_that_goes_away_is_no_failure_and_takes_the_providers_request_with_it() {
    let it = Setup::start("gone").await;
    post(&format!("{}/pace?gap_ms=10000", it.claude)).await;
    let body = r#"{"model":"brittle","messages":[{"role":"user","content":"Why?"}],"stream":true}"#;
    for begun in [false, true] {
        if begun {
            post(&format!("{}/pace?gap_ms=0", it.claude)).await;
            post(&format!("{}/fault/stall", it.claude)).await;
        }
        let before = requests(&it.claude).await;
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
            (requests(&it.claude).await > before).then_some(())
        })
        .await;
        if begun {
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        }
        drop(client);
        eventually("the provider to see that its client is gone", async || {
            let stats = http::get(&format!("{}/stats", it.claude)).await.json();
            (stats["abandoned"] == 1 + u64::from(begun)).then_some(())
        })
        .await;
    }
    let metrics = &it.circuit().await["metrics"];
    assert_eq!(metrics["failedRequests"], 0, "{metrics}");
    assert_eq!(metrics["cancelledRequests"], 2, "{metrics}");
    assert_eq!(
        requests(&it.deepseek).await,
        0,
        "nobody is left to be answered"
    );
}

#[tokio::test]
async fn f6_a_degraded_answer_is_marked_as_such_in_every_form() {
    let it = Setup::start("degraded").await;
    let (fresh, _) = it.ask(Form::Chat, "last", false).await;
    assert_eq!(fresh, whole("claude"));
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
                ..whole("claude")
            },
            _ => whole("claude"),
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
    let it = Setup::start("open").await;
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
        let (answer, response) = it.ask(form, "brittle", stream).await;
        assert_eq!(answer.status, 503, "{form:?}");
        assert_eq!(answer.error["code"], "all_circuits_open", "{form:?}");
        assert_eq!(response.header("x-should-retry"), "false", "{form:?}");
        let id = response.header("x-request-id");
        assert!(
            !id.is_empty() && id == response.header("request-id"),
            "{form:?}"
        );
    }
    assert_eq!(requests(&it.claude).await + requests(&it.deepseek).await, 0);
}

//! The gateway as its users have it: a process of its own, driven over HTTP.

mod support;

use serde_json::{Value, json};
use support::{
    eventually,
    gateway::{self, Gateway},
    http::{self, Response},
};

/// The design's own configuration at a sixtieth of its times.
const SCALED: &str = r#"{"failureThreshold":3,"resetTimeout":2000,"monitoringPeriod":5000,
    "halfOpenRequests":2,"timeout":750,"volumeThreshold":5,"errorThresholdPercentage":60}"#;

/// A gateway with its two simulated providers.
struct Setup {
    gateway: Gateway,
    claude: Provider,
    deepseek: Provider,
}

/// A simulated provider, from its own side.
struct Provider(String);

impl Setup {
    async fn start(env: &[(&str, &str)]) -> Self {
        let mut all = vec![("GATEWAY_LISTEN", "127.0.0.1:0")];
        all.extend(env);
        let gateway = Gateway::start(&[], &all).await;
        Self {
            claude: Provider(gateway.simulated("claude").await),
            deepseek: Provider(gateway.simulated("deepseek").await),
            gateway,
        }
    }

    async fn scaled() -> Self {
        Self::start(&[("GATEWAY_CIRCUIT_BREAKER", SCALED)]).await
    }

    async fn process(&self) -> Response {
        let request = json!({"prompt": "hello", "preferredModel": "claude-3.5-sonnet"});
        http::post_json(&self.gateway.at("/v1/process"), &request).await
    }

    async fn try_process(&self) -> Result<Response, http::Error> {
        let url = self.gateway.at("/v1/process");
        http::try_request("POST", &url, &[], r#"{"prompt":"hello"}"#).await
    }

    async fn chat(&self) -> Response {
        let request = json!({
            "model": "claude-3.5-sonnet", "messages": [{"role": "user", "content": "hello"}],
        });
        http::post_json(&self.gateway.at("/v1/chat/completions"), &request).await
    }

    async fn answered_by(&self) -> String {
        let response = self.process().await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()["provider"].as_str().unwrap().to_owned()
    }

    async fn health(&self) -> Value {
        http::get(&self.gateway.at("/health")).await.json()
    }

    async fn state(&self, provider: &str) -> String {
        let state = &self.health().await[provider]["circuitBreaker"]["state"];
        state.as_str().unwrap().to_owned()
    }

    async fn reset(&self) {
        let url = self.gateway.at("/admin/circuit-breakers/reset");
        assert_eq!(http::request("POST", &url, &[], "").await.status, 200);
    }

    /// Waits until a probe of this provider is due.
    async fn probe_is_due(&self, provider: &str) {
        eventually("the reset timeout to pass", async || {
            let circuit = &self.health().await[provider]["circuitBreaker"];
            (circuit["available"] == true).then_some(())
        })
        .await;
    }

    async fn metrics(&self) -> Metrics {
        Metrics(http::get(&self.gateway.at("/metrics")).await.text())
    }
}

impl Provider {
    async fn break_with(&self, fault: &str) {
        let url = format!("{}/fault/{fault}", self.0);
        let response = http::request("POST", &url, &[], "").await;
        assert_eq!(response.status, 200, "{}", response.text());
    }

    async fn repair(&self) {
        let url = format!("{}/fault", self.0);
        assert_eq!(http::request("DELETE", &url, &[], "").await.status, 200);
    }

    /// How many requests have reached it.
    async fn requests(&self) -> u64 {
        let stats = http::get(&format!("{}/stats", self.0)).await.json();
        stats["requests"].as_u64().unwrap()
    }
}

/// Prometheus text.
struct Metrics(String);

impl Metrics {
    fn value(&self, series: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series));
        let value = line.unwrap_or_else(|| panic!("no {series} in\n{}", self.0));
        value.trim().parse().unwrap()
    }
}

// ===== the story =====

#[tokio::test]
async fn a_provider_fails_its_circuit_opens_the_other_answers_it_recovers_its_circuit_closes() {
    let it = Setup::scaled().await;
    assert_eq!(it.answered_by().await, "claude");

    // It fails: five requests are all answered, by the other one.
    it.claude.break_with("server-error").await;
    for _ in 0..5 {
        assert_eq!(it.answered_by().await, "deepseek");
    }
    assert_eq!(it.state("claude").await, "OPEN");
    assert_eq!(it.state("deepseek").await, "CLOSED");
    assert_eq!(it.claude.requests().await, 1 + 3);

    // While open it gets no request.
    for _ in 0..5 {
        assert_eq!(it.answered_by().await, "deepseek");
    }
    assert_eq!(it.claude.requests().await, 4);
    let claude = &it.health().await["claude"]["circuitBreaker"];
    assert_eq!(claude["available"], false);
    assert_eq!(claude["reason"], "CONSECUTIVE_FAILURES");
    assert!(claude["nextProbeAt"].is_string());

    // It recovers: two probes close the circuit.
    it.claude.repair().await;
    it.probe_is_due("claude").await;
    assert_eq!(it.state("claude").await, "OPEN"); // B14: looking changes nothing
    assert_eq!(it.answered_by().await, "claude");
    assert_eq!(it.state("claude").await, "HALF_OPEN");
    assert_eq!(it.answered_by().await, "claude");
    assert_eq!(it.state("claude").await, "CLOSED");
    assert_eq!(it.claude.requests().await, 6);

    // It fails again, and so does the probe: open again, after that one request.
    it.claude.break_with("server-error").await;
    for _ in 0..3 {
        assert_eq!(it.answered_by().await, "deepseek");
    }
    assert_eq!(it.state("claude").await, "OPEN");
    it.probe_is_due("claude").await;
    assert_eq!(it.answered_by().await, "deepseek");
    assert_eq!(it.answered_by().await, "deepseek");
    assert_eq!(it.state("claude").await, "OPEN");
    assert_eq!(it.claude.requests().await, 6 + 3 + 1);

    // An administrator closes it at once.
    it.claude.repair().await;
    it.reset().await;
    assert_eq!(it.state("claude").await, "CLOSED");
    assert_eq!(it.answered_by().await, "claude");

    // The metrics tell the same story, in numbers that add up.
    let metrics = it.metrics().await;
    let calls = |circuit: &str, outcome: &str| {
        metrics.value(&format!(
            "circuit_breaker_calls_total{{circuit=\"{circuit}\",outcome=\"{outcome}\"}}"
        ))
    };
    let transitions = |kind: &str| {
        metrics.value(&format!(
            "circuit_breaker_transitions_total{{circuit=\"claude\",kind=\"{kind}\"}}"
        ))
    };
    let attempts = |provider: &str, outcome: &str| {
        metrics.value(&format!(
            "gateway_attempts_total{{outcome=\"{outcome}\",provider=\"{provider}\"}}"
        ))
    };
    let answered_by = |provider: &str| {
        metrics.value(&format!(
            "gateway_requests_total{{answered_by=\"{provider}\",model=\"claude-3.5-sonnet\"}}"
        ))
    };
    assert_eq!(calls("claude", "success"), 4.0);
    assert_eq!(calls("claude", "failure"), 7.0);
    assert_eq!(it.claude.requests().await, 4 + 7);
    assert_eq!(
        calls("deepseek", "success") as u64,
        it.deepseek.requests().await
    );
    assert_eq!(transitions("opened"), 3.0);
    assert_eq!(transitions("recovered"), 1.0);
    assert_eq!(transitions("recovery_failed"), 1.0);
    assert_eq!(attempts("claude", "answered"), 4.0);
    assert_eq!(attempts("claude", "failed"), 7.0);
    assert_eq!(attempts("claude", "skipped") + 7.0, answered_by("deepseek"));
    assert_eq!(answered_by("claude"), 4.0);
    assert_eq!(
        attempts("claude", "skipped"),
        metrics.value("circuit_breaker_rejected_total{circuit=\"claude\"}")
    );
    assert_eq!(attempts("deepseek", "answered"), answered_by("deepseek"));
    assert_eq!(
        metrics.value("circuit_breaker_state{circuit=\"claude\",state=\"CLOSED\"}"),
        1.0
    );
    assert_eq!(
        metrics.value("circuit_breaker_state{circuit=\"claude\",state=\"OPEN\"}"),
        0.0
    );

    // And so does the log.
    let ended = it.gateway.terminate().await;
    assert!(ended.status.success());
    for change in ["CLOSED -> OPEN", "OPEN -> HALF_OPEN", "HALF_OPEN -> CLOSED"] {
        assert!(ended.stderr.contains(change), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn with_both_circuits_open_the_answer_is_503_at_once_and_nobody_is_asked() {
    let it = Setup::start(&[]).await;
    it.claude.break_with("unavailable?retry_after=30").await;
    it.deepseek.break_with("unavailable?retry_after=90").await;
    // M4: a 503 with Retry-After opens a circuit at once, for that time.
    let last = it.process().await;
    assert_eq!(last.status, 503);
    assert_eq!(last.json()["error"]["code"], "provider_overloaded");
    assert_eq!(last.header("retry-after"), "90");
    assert_eq!(it.state("claude").await, "OPEN");
    assert_eq!(it.state("deepseek").await, "OPEN");

    for response in [it.process().await, it.chat().await] {
        assert_eq!(response.status, 503);
        let wait: u64 = response.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&wait), "the shortest wait, not {wait}");
        assert_eq!(response.header("x-should-retry"), "false");
        let body = response.json();
        assert_eq!(body["error"]["code"], "all_circuits_open");
        assert_eq!(body["metadata"]["attempts"][0]["outcome"], "skipped");
    }
    assert_eq!(it.claude.requests().await, 1);
    assert_eq!(it.deepseek.requests().await, 1);
    let ready = http::get(&it.gateway.at("/health/ready")).await;
    assert_eq!(ready.status, 503);
    let live = http::get(&it.gateway.at("/health/live")).await;
    assert_eq!(live.status, 200);
}

#[tokio::test]
async fn g2_with_every_circuit_forced_open_a_client_is_told_when_to_come_back_all_the_same() {
    let it = Setup::start(&[]).await;
    for name in ["claude", "deepseek"] {
        let path = format!("/admin/circuit-breakers/{name}/force-open");
        http::request("POST", &it.gateway.at(&path), &[], "").await;
    }
    for response in [it.process().await, it.chat().await] {
        assert_eq!(response.status, 503);
        assert_eq!(response.header("retry-after"), "60");
        assert_eq!(response.header("x-should-retry"), "false");
        assert_eq!(response.json()["error"]["code"], "all_circuits_open");
    }
}

// ===== what comes in =====

#[tokio::test]
async fn g6_bad_requests_get_a_4xx_that_names_the_cause_and_cost_no_provider() {
    let it = Setup::start(&[]).await;
    let huge = json!({"prompt": "x".repeat(10_000_000)}).to_string();
    let process = [
        ("{\"prompt\": ", 400, "not JSON"),
        ("", 400, "the body is empty"),
        ("[]", 400, "prompt"),
        ("{}", 400, "prompt"),
        (r#"{"prompt":""}"#, 400, "prompt"),
        (r#"{"messages":[]}"#, 400, "messages"),
        (
            r#"{"prompt":"a","messages":[{"role":"user","content":"b"}]}"#,
            400,
            "prompt",
        ),
        (r#"{"prompt":"a","max_tokens":0}"#, 400, "max_tokens"),
        (r#"{"prompt":"a","maxTokens":-1}"#, 400, "maxTokens"),
        (r#"{"prompt":"a","temperature":"hot"}"#, 400, "temperature"),
        (r#"{"prompt":"a","temperature":9}"#, 400, "temperature"),
        (r#"{"prompt":"a","topic":"b"}"#, 400, "topic"),
        (r#"{"prompt":"a","stream":1}"#, 400, "stream"),
        (r#"{"prompt":"a","preferredModel":"gpt-9"}"#, 404, "gpt-9"),
        (r#"{"prompt":"a"} x"#, 400, "not JSON"),
        (huge.as_str(), 413, "8 MiB"),
    ];
    let chat = [
        ("nonsense", 400, "not JSON"),
        (r#"{"model":"claude-3.5-sonnet"}"#, 400, "messages"),
        (
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            400,
            "model",
        ),
        (r#"{"model":"m","messages":[]}"#, 400, "messages"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
            404,
            "`m`",
        ),
        (
            r#"{"model":"m","messages":[{"role":"oracle","content":"a"}]}"#,
            400,
            "messages[0].role",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":-1}"#,
            400,
            "max_tokens",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a"}],"stream":1}"#,
            400,
            "stream",
        ),
        (
            r#"{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":" "}]}"#,
            400,
            "messages[1].content",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{}]}"#,
            400,
            "tools",
        ),
    ];
    let process = process.map(|row| ("/v1/process", row));
    let chat = chat.map(|row| ("/v1/chat/completions", row));
    for (path, (body, status, cause)) in process.into_iter().chain(chat) {
        let shown = &body[..body.len().min(80)];
        let response = http::request("POST", &it.gateway.at(path), &[], body.to_owned()).await;
        assert_eq!(
            response.status,
            status,
            "{path} {shown}: {}",
            response.text()
        );
        let message = response.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(cause), "{path} {shown}: {message}");
    }
    let nowhere = http::get(&it.gateway.at("/v2/process")).await;
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.json()["error"]["message"].is_string());
    let wrong_method = http::get(&it.gateway.at("/v1/process")).await;
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.json()["error"]["message"].is_string());

    assert_eq!(it.claude.requests().await + it.deepseek.requests().await, 0);
    for provider in ["claude", "deepseek"] {
        let metrics = &it.health().await[provider]["circuitBreaker"]["metrics"];
        assert_eq!(metrics["failedRequests"], 0, "{metrics}");
    }
    let metrics = it.metrics().await.0;
    assert!(
        !metrics.contains("made-up"),
        "labels are not for callers to make"
    );
    assert_eq!(it.answered_by().await, "claude");
}

#[tokio::test]
async fn g2_an_openai_client_gets_an_openai_answer() {
    let it = Setup::start(&[]).await;
    let models = http::get(&it.gateway.at("/v1/models")).await.json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "claude-3.5-sonnet");
    assert_eq!(models["data"][1]["id"], "deepseek-chat");

    let request = json!({
        "model": "deepseek-chat",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is the time?"}]},
        ],
        "max_tokens": 5, "temperature": 0.5, "stop": "END", "user": "tolerated", "n": 1,
        "stream": false, "tools": null,
    });
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer sk-anything"),
        ("x-stainless-lang", "python"),
    ];
    let url = it.gateway.at("/v1/chat/completions");
    let response = http::request("POST", &url, &headers, request.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-gateway-provider"), "deepseek");
    let body = response.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "deepseek-chat");
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 5);
    let total = body["usage"]["prompt_tokens"].as_u64().unwrap() + 5;
    assert_eq!(body["usage"]["total_tokens"], total);
}

// ===== what comes back =====

#[tokio::test]
async fn m4_whatever_a_provider_does_the_other_answers_and_the_gateway_stays_up() {
    let it = Setup::scaled().await;
    let faults = [
        // the fault, whether it counts against the provider, the answer when both have it
        ("server-error", true, 500, "provider_failed"),
        ("unavailable", true, 503, "provider_overloaded"),
        ("overloaded", true, 503, "provider_overloaded"),
        ("rate-limited", true, 429, "rate_limit_exceeded"),
        ("rubbish", true, 502, "provider_answer_unreadable"),
        ("cut", true, 502, "provider_answer_unreadable"),
        ("hang", true, 504, "provider_timeout"),
        ("bad-key", false, 401, "invalid_api_key"),
        ("no-balance", false, 402, "insufficient_balance"),
    ];
    for (fault, counts, status, code) in faults {
        it.reset().await;
        let failures = async || {
            let metrics = &it.health().await["claude"]["circuitBreaker"]["metrics"];
            metrics["failedRequests"].as_u64().unwrap()
        };
        let before = failures().await;
        it.claude.break_with(fault).await;
        let response = it.process().await;
        assert_eq!(response.status, 200, "{fault}: {}", response.text());
        let body = response.json();
        assert_eq!(body["provider"], "deepseek", "{fault}");
        let attempts = &body["metadata"]["attempts"];
        assert_eq!(attempts[0]["outcome"], "failed", "{fault}: {attempts}");
        assert!(attempts[0]["reason"].is_string(), "{fault}: {attempts}");
        assert_eq!(attempts[1]["outcome"], "answered", "{fault}: {attempts}");
        assert_eq!(failures().await - before, u64::from(counts), "{fault}");

        it.deepseek.break_with(fault).await;
        let response = it.chat().await;
        assert_eq!(response.status, status, "{fault}: {}", response.text());
        assert_eq!(response.json()["error"]["code"], code, "{fault}");
        it.claude.repair().await;
        it.deepseek.repair().await;
    }
    it.reset().await;
    assert_eq!(it.answered_by().await, "claude");
}

#[tokio::test]
async fn m4_a_bad_key_falls_back_and_shows_in_health_and_leaves_the_circuit_closed() {
    let it = Setup::start(&[]).await;
    it.claude.break_with("bad-key").await;
    for _ in 0..10 {
        assert_eq!(it.answered_by().await, "deepseek");
    }
    let health = it.health().await;
    assert_eq!(health["claude"]["credentials"]["status"], 401);
    assert_eq!(health["claude"]["circuitBreaker"]["state"], "CLOSED");
    assert!(health["deepseek"].get("credentials").is_none());
    it.claude.repair().await;
    assert_eq!(it.answered_by().await, "claude");
    assert!(it.health().await["claude"].get("credentials").is_none());
}

#[tokio::test]
async fn m4_what_a_provider_calls_the_callers_fault_goes_back_and_counts_for_nobody() {
    let it = Setup::start(&[]).await;
    it.claude.break_with("bad-request").await;
    for _ in 0..5 {
        let response = it.chat().await;
        assert_eq!(response.status, 400);
        assert_eq!(response.json()["error"]["type"], "invalid_request_error");
    }
    assert_eq!(it.deepseek.requests().await, 0, "no fallback");
    assert_eq!(it.state("claude").await, "CLOSED");
    let metrics = &it.health().await["claude"]["circuitBreaker"]["metrics"];
    assert_eq!(metrics["failedRequests"], 0);
}

// ===== running it =====

#[tokio::test]
async fn g5_admin_asks_for_the_token_where_there_is_one() {
    let token = "correct-horse-battery-staple";
    let it = Setup::start(&[("GATEWAY_ADMIN_TOKEN", token)]).await;
    let url = it.gateway.at("/admin/circuit-breakers/reset");
    for headers in [
        vec![],
        vec![("authorization", "Bearer wrong")],
        vec![("authorization", "Bearer ")],
        vec![("authorization", token)],
        vec![("authorization", "Basic correct-horse-battery-staple")],
    ] {
        let response = http::request("POST", &url, &headers, "").await;
        assert_eq!(response.status, 401, "{headers:?}");
        assert_eq!(response.header("www-authenticate"), "Bearer");
    }
    // Nothing below /admin answers without it, whether it exists or not.
    assert_eq!(http::get(&it.gateway.at("/admin/else")).await.status, 401);
    // Whoever sends it from elsewhere may: the token is enough.
    let bearer = format!("Bearer {token}");
    let right = [("authorization", bearer.as_str())];
    assert_eq!(http::request("POST", &url, &right, "").await.status, 200);
    let ended = it.gateway.terminate().await;
    assert!(!ended.stdout.contains(token) && !ended.stderr.contains(token));
}

#[tokio::test]
async fn g5_admin_without_a_token_is_for_this_machine_and_not_for_web_pages() {
    let it = Setup::start(&[]).await;
    let url = it.gateway.at("/admin/circuit-breakers/reset");
    let own = it.gateway.url().to_owned();
    for headers in [
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("host", "evil.example")],
        vec![("host", "localhost.evil.example:8080")],
        vec![("x-forwarded-for", "203.0.113.7")],
        vec![("forwarded", "for=203.0.113.7")],
    ] {
        let response = http::request("POST", &url, &headers, "").await;
        assert_eq!(response.status, 403, "{headers:?}");
    }
    for headers in [vec![], vec![("origin", own.as_str())]] {
        let response = http::request("POST", &url, &headers, "").await;
        assert_eq!(response.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn keys_and_urls_switch_real_providers_on() {
    let providers = Setup::start(&[]).await;
    let (anthropic_key, deepseek_key) = ("sk-ant-very-secret", "sk-also-very-secret");
    let both = [
        ("GATEWAY_LISTEN", "127.0.0.1:0"),
        ("ANTHROPIC_API_KEY", anthropic_key),
        ("ANTHROPIC_BASE_URL", &providers.claude.0),
        ("DEEPSEEK_API_KEY", deepseek_key),
        ("DEEPSEEK_BASE_URL", &providers.deepseek.0),
        ("ANTHROPIC_MODEL", "claude-of-my-own"),
    ];
    let gateway = Gateway::start(&[], &both).await;
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert_eq!(
        answer.json()["metadata"]["providerModel"],
        "claude-of-my-own"
    );
    assert_eq!(providers.claude.requests().await, 1);
    providers.claude.break_with("bad-key").await;
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert_eq!(answer.json()["provider"], "deepseek");
    let health = http::get(&gateway.at("/health")).await.text();
    let ended = gateway.terminate().await;
    for key in [anthropic_key, deepseek_key] {
        for text in [&ended.stdout, &ended.stderr, &health] {
            assert!(!text.contains(key), "{text}");
        }
    }
    assert!(!ended.stdout.contains("simulated on"));

    // One alone is served without a fallback.
    let gateway = Gateway::start(&[], &both[..3]).await;
    let models = http::get(&gateway.at("/v1/models")).await.json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
}

#[tokio::test]
async fn g5_a_shutdown_lets_requests_finish() {
    let it = Setup::scaled().await;
    it.claude.break_with("hang").await;
    let (response, ()) = tokio::join!(it.process(), async {
        eventually("the request to be under way", async || {
            (it.claude.requests().await == 1).then_some(())
        })
        .await;
        it.gateway.ask_to_stop();
    });
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["provider"], "deepseek");
    assert!(it.gateway.terminate().await.status.success());
}

#[tokio::test]
async fn g5_a_second_signal_stops_at_once() {
    // A deadline that no test outlives.
    let config = r#"{"timeout":"10m"}"#;
    let it = Setup::start(&[("GATEWAY_CIRCUIT_BREAKER", config)]).await;
    it.claude.break_with("hang").await;
    // What becomes of the request then is not promised.
    let (_, ()) = tokio::join!(it.try_process(), async {
        eventually("the request to be under way", async || {
            (it.claude.requests().await == 1).then_some(())
        })
        .await;
        it.gateway.ask_to_stop();
        eventually("the shutdown to begin", async || {
            it.gateway.stderr().contains("stopping").then_some(())
        })
        .await;
        it.gateway.ask_to_stop();
    });
    let ended = it.gateway.terminate().await;
    assert!(ended.status.success());
    assert!(ended.stderr.contains("asked twice"), "{}", ended.stderr);
}

#[test]
fn g6_what_is_wrong_with_the_settings_is_told_at_the_start() {
    for (env, cause) in [
        (
            ("GATEWAY_CIRCUIT_BREAKER", r#"{"halfOpenRequests":0}"#),
            "half_open_requests is 0, but has to be at least 1",
        ),
        (
            ("GATEWAY_CIRCUIT_BREAKER", r#"{"resetTimeuot":1}"#),
            "unknown field `resetTimeuot`",
        ),
        (
            ("GATEWAY_CIRCUIT_BREAKER", "{"),
            "GATEWAY_CIRCUIT_BREAKER: EOF",
        ),
        (("GATEWAY_LISTEN", "here"), "--listen"),
        (
            ("GATEWAY_LISTEN", "192.0.2.1:1"),
            "cannot listen on 192.0.2.1:1",
        ),
    ] {
        let output = gateway::command().envs([env]).output().unwrap();
        assert!(!output.status.success(), "{env:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(cause), "{env:?}: {stderr}");
    }
    let token = ("GATEWAY_ADMIN_TOKEN", "two words");
    let output = gateway::command().envs([token]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("GATEWAY_ADMIN_TOKEN"), "{stderr}");
    let key = ("ANTHROPIC_API_KEY", "two words");
    let output = gateway::command().envs([key]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("ANTHROPIC_API_KEY"), "{stderr}");
    assert!(!stderr.contains("two words"), "{stderr}");
    let help = gateway::command().arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("GATEWAY_LISTEN")
    );
}

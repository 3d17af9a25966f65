//! The gateway under steady load, while its providers fail in every way that there is.
//!
//! The schedule of faults comes from a seed (`CHAOS_SEED`, else always the same one), and goes on for
//! `CHAOS_SECONDS`, 10 by default. What is asked must hold whatever the interleaving, so nothing here looks at how
//! long something took, but for the bound beyond which it hangs. `death` has providers whose whole process goes.

#[path = "gateway_chaos/death.rs"]
mod death;
mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use support::{eventually, gateway::Gateway, http, raw::Raw};
use tokio::task::JoinSet;

/// Circuits that turn fast, deadlines that are over soon, and one model of each kind of stream.
const CONFIG: &str = r#"
default_model = "claude"

[circuit_breaker]
failure_threshold = 3
reset_timeout = "200ms"
half_open_requests = 2
half_open_timeout = "1s"
timeout = "600ms"
retry_after_cap = "500ms"

[deadlines]
first_token = "300ms"
idle = "300ms"
total = "2s"

[providers.one]
kind = "anthropic"
simulated = true

[providers.two]
kind = "deepseek"
simulated = true

[models.claude]
provider = "one"
fallbacks = ["deepseek"]
mid_stream = "continue"

[models.deepseek]
provider = "two"
fallbacks = ["claude"]
"#;

const PROVIDERS: [&str; 2] = ["one", "two"];

/// How many ask at the same time.
const WORKERS: u64 = 16;

/// Far beyond all the deadlines that a request can run into: who waits longer hangs.
const HANGS: Duration = Duration::from_secs(20);

/// A generator of numbers that are the same for the same seed (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

struct Chaos {
    gateway: Gateway,
    controls: BTreeMap<&'static str, String>,
    /// What `/admin/events` has told.
    events: Arc<Mutex<String>>,
    asked: AtomicU64,
    /// How many of them got an error, at once or in the midst of a stream.
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Chaos {
    /// With providers of which these are simulated ones of the gateway's own.
    async fn start(name: &str, config: &str, simulated: &[&'static str]) -> Arc<Self> {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = file.join(format!("{name}-{}.toml", std::process::id()));
        fs::write(&file, config).unwrap();
        let args = [
            "--config",
            file.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
        ];
        let gateway = Gateway::start(&args, &[("RUST_LOG", "error")]).await;
        let mut controls = BTreeMap::new();
        for name in simulated {
            controls.insert(*name, gateway.simulated(name).await);
        }
        let events = Arc::new(Mutex::new(String::new()));
        let mut feed = Raw::connect(gateway.url()).await;
        feed.get("/admin/events", "").await;
        feed.wait_for("text/event-stream").await;
        let kept = events.clone();
        tokio::spawn(async move {
            while let Some(more) = feed.more().await {
                kept.lock().unwrap().push_str(&more);
            }
        });
        Arc::new(Self {
            gateway,
            controls,
            events,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Keeps asking until it is told to stop.
    fn load(self: &Arc<Self>, seed: u64) -> JoinSet<()> {
        self.stop.store(false, Relaxed);
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let chaos = self.clone();
            let mut numbers = Numbers(seed * 1000 + worker + 1);
            workers.spawn(async move {
                while !chaos.stop.load(Relaxed) {
                    chaos.ask(&mut numbers).await;
                    tokio::time::sleep(Duration::from_millis(numbers.below(20))).await;
                }
            });
        }
        workers
    }

    async fn end(&self, workers: JoinSet<()>) {
        self.stop.store(true, Relaxed);
        workers.join_all().await;
    }

    /// One request of a kind that chance decides, and a look at its answer.
    async fn ask(&self, numbers: &mut Numbers) {
        self.asked.fetch_add(1, Relaxed);
        let model = ["claude", "deepseek"][numbers.below(2) as usize];
        let stream = numbers.below(2) == 0;
        let (path, body) = match numbers.below(3) {
            0 => (
                "/v1/process",
                format!(r#"{{"prompt":"one two three four","preferredModel":"{model}"}}"#),
            ),
            kind => (
                ["/v1/chat/completions", "/v1/messages"][kind as usize - 1],
                format!(
                    r#"{{"model":"{model}","max_tokens":50,"stream":{stream},
                    "messages":[{{"role":"user","content":"one two three four five"}}]}}"#
                ),
            ),
        };
        let url = self.gateway.at(path);
        let answer = http::try_request("POST", &url, &[], body);
        let answer = tokio::time::timeout(HANGS, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path} for {model} hangs"));
        let answer = answer.unwrap_or_else(|error| panic!("{path} for {model}: {error:?}"));
        if !is_answered(path, &answer) {
            self.failed.fetch_add(1, Relaxed);
        }
    }

    async fn control(&self, method: &str, provider: &str, path: &str) -> Value {
        let url = format!("{}{path}", self.controls[provider]);
        let response = http::request(method, &url, &[], "").await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    async fn heal(&self) {
        for provider in PROVIDERS {
            self.control("DELETE", provider, "/fault").await;
        }
    }

    /// Breaks and repairs providers for so long.
    async fn faults(&self, numbers: &mut Numbers, time: Duration, but: &str) {
        let stats = self.control("GET", "one", "/stats").await;
        let faults = stats["faults"].as_array().unwrap();
        let faults: Vec<_> = faults.iter().filter_map(Value::as_str).collect();
        let faults: Vec<_> = faults.into_iter().filter(|fault| *fault != but).collect();
        let schedule = async {
            loop {
                let provider = PROVIDERS[numbers.below(2) as usize];
                // Healthy a third of the time, so that circuits close, too.
                if numbers.below(3) == 0 {
                    self.control("DELETE", provider, "/fault").await;
                } else {
                    let fault = faults[numbers.below(faults.len() as u64) as usize];
                    let wait = match numbers.below(2) {
                        0 => "?retry_after=1",
                        _ => "",
                    };
                    self.control("POST", provider, &format!("/fault/{fault}{wait}"))
                        .await;
                }
                let pause = 100 + numbers.below(400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        };
        let _ = tokio::time::timeout(time, schedule).await;
    }

    /// A counter, or the sum of those whose labels begin with these.
    async fn metric(&self, series: &str) -> u64 {
        let text = http::get(&self.gateway.at("/metrics")).await.text();
        let lines = text.lines().filter(|line| line.starts_with(series));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum::<f64>() as u64
    }

    /// How many calls this circuit has let through.
    async fn calls(&self, circuit: &str) -> u64 {
        let series = format!("circuit_breaker_calls_total{{circuit=\"{circuit}\"");
        self.metric(&series).await
    }

    /// How often this circuit has turned this way.
    async fn transitions(&self, circuit: &str, kind: &str) -> u64 {
        let series =
            format!("circuit_breaker_transitions_total{{circuit=\"{circuit}\",kind=\"{kind}\"}}");
        self.metric(&series).await
    }

    /// Waits until nothing is under way any more.
    async fn settle(&self) {
        eventually("everything to settle", async || {
            (self.metric("circuit_breaker_in_flight").await == 0
                && self.metric("gateway_requests_active").await == 0)
                .then_some(())
        })
        .await;
    }

    /// How many changes of state the events have told of.
    fn told(&self, circuit: &str, from: &str, to: &str) -> u64 {
        let events = self.events.lock().unwrap();
        let events = events
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = events.filter(|event| {
            let is = |field: &str, value: &str| value.is_empty() || event[field] == value;
            is("circuit", circuit) && is("from", from) && is("to", to)
        });
        found.count() as u64
    }

    async fn received(&self, provider: &str) -> u64 {
        let stats = self.control("GET", provider, "/stats").await;
        stats["requests"].as_u64().unwrap()
    }

    /// The metrics agree with what was asked, with one another, and with the events.
    async fn agrees(&self) {
        // Each request is counted once, by whoever answered it; each attempt is a call or a rejection.
        let asked = self.asked.load(Relaxed);
        assert_eq!(self.metric("gateway_requests_total").await, asked);
        let failed = self.metric("gateway_requests_total{answered_by=\"\"").await;
        assert_eq!(failed, self.failed.load(Relaxed), "answered by nobody");
        for provider in PROVIDERS {
            let attempts = async |outcome: &str| {
                let series = format!(
                    "gateway_attempts_total{{outcome=\"{outcome}\",provider=\"{provider}\"}}"
                );
                self.metric(&series).await
            };
            let tried = attempts("answered").await + attempts("failed").await;
            let calls = self.calls(provider).await;
            assert_eq!(tried, calls, "{provider}: attempts are calls");
            let rejected = format!("circuit_breaker_rejected_total{{circuit=\"{provider}\"}}");
            let rejected = self.metric(&rejected).await;
            assert_eq!(attempts("skipped").await, rejected, "{provider}");
        }

        // The events tell what the metrics count.
        for provider in PROVIDERS {
            for (kind, from, to) in [
                ("opened", "", "OPEN"),
                ("recovered", "HALF_OPEN", "CLOSED"),
                ("recovery_failed", "HALF_OPEN", "OPEN"),
            ] {
                let counted = self.transitions(provider, kind).await;
                assert!(counted > 0, "{provider} {kind}: the seed led to none");
                eventually(
                    &format!("{provider}: {counted} times {kind} in the events"),
                    async || (self.told(provider, from, to) == counted).then_some(()),
                )
                .await;
            }
        }
    }

    /// Open files, and resident memory in KiB.
    fn resources(&self) -> Option<(u64, u64)> {
        let process = format!("/proc/{}", self.gateway.id());
        let files = fs::read_dir(format!("{process}/fd")).ok()?.count() as u64;
        let status = fs::read_to_string(format!("{process}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory = line.split_whitespace().next()?.parse().ok()?;
        Some((files, memory))
    }
}

/// Whether this is an answer or an error. It has to be one of the two, and well-formed.
fn is_answered(path: &str, answer: &http::Response) -> bool {
    let text = answer.text();
    let wrong = || format!("{path}: {} {text}", answer.status);
    if answer
        .header("content-type")
        .starts_with("text/event-stream")
    {
        assert_eq!(answer.status, 200, "{}", wrong());
        return is_whole(path, &text);
    }
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", wrong()));
    if answer.status == 200 {
        let content = match path {
            "/v1/process" => &body["text"],
            "/v1/messages" => &body["content"][0]["text"],
            _ => &body["choices"][0]["message"]["content"],
        };
        let content = content.as_str().unwrap_or_default();
        assert!(!content.is_empty(), "{}", wrong());
    } else {
        assert!(answer.status.as_u16() >= 400, "{}", wrong());
        assert!(body["error"]["message"].is_string(), "{}", wrong());
    }
    answer.status == 200
}

/// Whether a stream is whole, or says that it isn't. It has to say one of the two, once and last.
fn is_whole(path: &str, text: &str) -> bool {
    let (whole, broken) = match path {
        "/v1/messages" => ("event: message_stop", "event: error"),
        _ => ("data: [DONE]", "data: {\"error\""),
    };
    let ends = text.matches(whole).count() + text.matches(broken).count();
    assert_eq!(ends, 1, "one end: {path}: {text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let is_last = last.contains(whole) || last.contains(broken);
    assert!(is_last, "the end is last: {path}: {text}");
    last.contains(whole)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_whatever_the_providers_do_the_gateway_keeps_its_promises() {
    let seed = number("CHAOS_SEED", 1618);
    let time = Duration::from_secs(number("CHAOS_SECONDS", 10));
    let mut numbers = Numbers(seed);
    let chaos = Chaos::start("chaos", CONFIG, &PROVIDERS).await;

    // Where memory and open files are after a little work.
    let workers = chaos.load(seed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    chaos.end(workers).await;
    chaos.settle().await;
    let before = chaos.resources();

    // Every fault there is.
    let workers = chaos.load(seed + 1);
    chaos.faults(&mut numbers, time / 2, "").await;
    chaos.end(workers).await;
    chaos.heal().await;
    chaos.settle().await;

    // And again without the one that keeps requests from arriving, so that both sides count the same.
    let mut counted = Vec::new();
    for provider in PROVIDERS {
        counted.push(chaos.calls(provider).await - chaos.received(provider).await);
    }
    let workers = chaos.load(seed + 2);
    chaos.faults(&mut numbers, time / 2, "refused").await;
    chaos.end(workers).await;
    chaos.heal().await;
    chaos.settle().await;
    for (provider, before) in PROVIDERS.into_iter().zip(counted) {
        let now = chaos.calls(provider).await - chaos.received(provider).await;
        assert_eq!(
            now, before,
            "{provider} was asked as often as its circuit says"
        );
    }

    chaos.agrees().await;

    // While its circuit is open, a provider is asked for probes alone.
    chaos.control("POST", "one", "/fault/server-error").await;
    let workers = chaos.load(seed + 3);
    let open = async || {
        let health = http::get(&chaos.gateway.at("/health")).await.json();
        (health["one"]["circuitBreaker"]["state"] != "CLOSED").then_some(())
    };
    eventually("the circuit to open", open).await;
    // Those that were under way when it opened have arrived by the time of the next turn.
    let turns = chaos.told("one", "OPEN", "HALF_OPEN");
    eventually("a turn of probes", async || {
        (chaos.told("one", "OPEN", "HALF_OPEN") > turns).then_some(())
    })
    .await;
    let turns = chaos.told("one", "OPEN", "HALF_OPEN");
    let received = chaos.received("one").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let received = chaos.received("one").await - received;
    chaos.end(workers).await;
    chaos.settle().await;
    let turns = chaos.told("one", "OPEN", "HALF_OPEN") - turns;
    // The turn that was going on in between may have had its second probe to come.
    assert!(turns > 1, "probes went on");
    assert!(
        received <= 2 * (turns + 1),
        "{received} requests in {turns} turns"
    );
    chaos.heal().await;

    // Nothing has been kept.
    let asked = chaos.asked.load(Relaxed);
    if let (Some((files, memory)), Some((files_now, memory_now))) = (before, chaos.resources()) {
        println!(
            "{asked} requests; open files {files} -> {files_now}, memory {memory} -> {memory_now} KiB"
        );
        // Idle connections to providers are kept for a while, at most one per worker and provider.
        assert!(
            files_now <= files + 2 * WORKERS,
            "{files} -> {files_now} open files"
        );
        assert!(
            memory_now <= memory + 16 * 1024,
            "{memory} -> {memory_now} KiB"
        );
    }
    shut_down(chaos).await;
}

/// A shutdown under load loses no stream that has begun.
async fn shut_down(chaos: Arc<Chaos>) {
    for provider in PROVIDERS {
        chaos
            .control("POST", provider, "/pace?first_ms=0&gap_ms=50")
            .await;
    }
    eventually("the circuits to close", async || {
        let answer = chaos.gateway.at("/v1/process");
        http::request("POST", &answer, &[], r#"{"prompt":"hi"}"#).await;
        let health = http::get(&chaos.gateway.at("/health")).await.json();
        (health["one"]["circuitBreaker"]["state"] == "CLOSED").then_some(())
    })
    .await;
    let begun = Arc::new(AtomicU64::new(0));
    let mut streams = JoinSet::new();
    for _ in 0..WORKERS {
        let (url, begun) = (chaos.gateway.url().to_owned(), begun.clone());
        streams.spawn(async move {
            let mut whole = 0;
            loop {
                let Some(mut stream) = Raw::try_connect(&url).await else {
                    return whole;
                };
                let body = r#"{"model":"claude","stream":true,"messages":[{"role":"user","content":"one two"}]}"#;
                stream.post("/v1/chat/completions", body).await;
                let Some(first) = stream.more().await else {
                    // The gateway stopped before it took this one on.
                    return whole;
                };
                begun.fetch_add(1, Relaxed);
                let rest = stream.rest().await;
                assert!(rest.contains("data: [DONE]"), "a stream was lost:\n{first}{rest}");
                whole += 1;
            }
        });
    }
    eventually("many streams", async || {
        (begun.load(Relaxed) > 3 * WORKERS).then_some(())
    })
    .await;
    chaos.gateway.ask_to_stop();
    let whole: u64 = streams.join_all().await.into_iter().sum();
    assert_eq!(whole, begun.load(Relaxed));
    let mut gateway = Arc::into_inner(chaos).expect("nobody else is left").gateway;
    let status = eventually("its end", async || gateway.ended()).await;
    assert!(status.success() && !gateway.stderr().contains("still under way"));
}

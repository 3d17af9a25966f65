//! Control and health of the gateway (G3).

mod support;

use std::{
    env,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{Json, Router, routing::post as post_route};
use serde_json::{Value, json};
use support::{eventually, gateway::Gateway, http, raw::Raw, tool};
use tokio::sync::broadcast::error::TryRecvError;
use tower_breaker::{Circuit, CircuitBreakerConfig};

#[path = "../examples/gateway/events.rs"]
#[allow(unreachable_pub, reason = "nothing can reach into a test")]
mod feed;

async fn start(env: &[(&str, &str)]) -> Gateway {
    let mut all = vec![("GATEWAY_LISTEN", "127.0.0.1:0")];
    all.extend(env);
    Gateway::start(&[], &all).await
}

async fn post(gateway: &Gateway, path: &str) -> http::Response {
    http::request("POST", &gateway.at(path), &[], "").await
}

async fn ask(gateway: &Gateway) -> Value {
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn g3_each_circuit_can_be_reset_forced_open_and_disabled() {
    let gateway = start(&[]).await;
    let state = async |action: &str| {
        let response = post(
            &gateway,
            &format!("/admin/circuit-breakers/claude/{action}"),
        )
        .await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("force-open").await, "FORCED_OPEN");
    assert_eq!(ask(&gateway).await["provider"], "deepseek");
    let health = http::get(&gateway.at("/health")).await.json();
    assert_eq!(health["claude"]["circuitBreaker"]["state"], "FORCED_OPEN");
    assert_eq!(health["claude"]["circuitBreaker"]["reason"], "FORCED");
    assert_eq!(health["deepseek"]["circuitBreaker"]["state"], "CLOSED");
    assert_eq!(state("disable").await, "DISABLED");
    assert_eq!(ask(&gateway).await["provider"], "claude");
    assert_eq!(state("reset").await, "CLOSED");

    let all = http::get(&gateway.at("/admin/circuit-breakers"))
        .await
        .json();
    assert_eq!(all.as_object().map(|all| all.len()), Some(2));
    assert_eq!(all["claude"]["config"]["failureThreshold"], 3);
    let one = http::get(&gateway.at("/admin/circuit-breakers/claude"))
        .await
        .json();
    assert_eq!(one["metrics"]["successfulRequests"], 1);

    for path in ["nobody/reset", "nobody/config", "nobody", "claude/explode"] {
        let url = gateway.at(&format!("/admin/circuit-breakers/{path}"));
        let method = if path.ends_with("reset") {
            "POST"
        } else {
            "GET"
        };
        assert_eq!(
            http::request(method, &url, &[], "").await.status,
            404,
            "{path}"
        );
    }
    let url = gateway.at("/admin/circuit-breakers/claude/reset");
    assert_eq!(http::get(&url).await.status, 405);
}

#[tokio::test]
async fn g3_a_circuits_configuration_is_changed_in_place_and_checked_by_field() {
    let gateway = start(&[]).await;
    ask(&gateway).await;
    let url = gateway.at("/admin/circuit-breakers/claude/config");
    let before = http::get(&url).await.json();
    assert_eq!(before["retryAfter"], "open");

    let put = async |body: &str| http::request("PUT", &url, &[], body.to_owned()).await;
    let changed =
        put(r#"{"failure_threshold": 1, "resetTimeout": "7s", "errorThresholdPercentage": null}"#)
            .await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let now = changed.json();
    assert_eq!(now["failureThreshold"], 1);
    assert_eq!(now["resetTimeout"], 7000);
    assert_eq!(now["errorThresholdPercentage"], Value::Null);
    assert_eq!(
        now["volumeThreshold"], before["volumeThreshold"],
        "what is left out stays"
    );
    assert_eq!(http::get(&url).await.json(), now);
    // What it read is what it wrote.
    assert_eq!(put(&now.to_string()).await.json(), now);

    for (body, status, field, said) in [
        (
            r#"{"halfOpenRequests": 0}"#,
            422,
            "halfOpenRequests",
            "at least 1",
        ),
        (
            r#"{"errorThresholdPercentage": 101}"#,
            422,
            "errorThresholdPercentage",
            "errorThresholdPercentage: error_threshold_percentage is 101, but has to be from 1 to 100",
        ),
        (
            r#"{"error_threshold_percentage": 300}"#,
            422,
            "error_threshold_percentage",
            "from 1 to 100",
        ),
        (
            r#"{"resetTimeout": "soon"}"#,
            422,
            "resetTimeout",
            "duration",
        ),
        (
            r#"{"failureThreshold": "three"}"#,
            422,
            "failureThreshold",
            "failureThreshold: invalid type: string \"three\", expected a whole number of at least 1",
        ),
        (
            r#"{"faliureThreshold": 3}"#,
            422,
            "faliureThreshold",
            "unknown field",
        ),
        ("{", 400, "", "not JSON"),
        ("[]", 400, "", "map"),
    ] {
        let refused = put(body).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text());
        let error = &refused.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        if !field.is_empty() {
            assert_eq!(error["param"], field, "{error}");
        }
    }
    assert_eq!(
        http::get(&url).await.json(),
        now,
        "what is refused changes nothing"
    );

    // It holds: one failure opens the circuit, which kept its totals.
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/server-error"), &[], "").await;
    assert_eq!(ask(&gateway).await["provider"], "deepseek");
    let circuit = http::get(&gateway.at("/admin/circuit-breakers/claude"))
        .await
        .json();
    assert_eq!(circuit["state"], "OPEN");
    assert_eq!(circuit["metrics"]["successfulRequests"], 1);
    assert!(circuit["metrics"]["retryAfter"].as_u64() <= Some(7000));
}

#[tokio::test]
async fn g3_changes_of_state_are_told_as_they_happen_and_again_to_who_was_away() {
    let gateway = start(&[]).await;
    let mut events = Raw::connect(gateway.url()).await;
    events.get("/admin/events", "").await;
    events.wait_for("text/event-stream").await;
    post(&gateway, "/admin/circuit-breakers/claude/force-open").await;
    events.wait_for("\"to\":\"FORCED_OPEN\"").await;
    post(&gateway, "/admin/circuit-breakers/claude/reset").await;
    events.wait_for("\"to\":\"CLOSED\"").await;
    for part in [
        "event: state",
        "id: 1",
        "id: 2",
        "\"circuit\":\"claude\"",
        "\"reason\":\"FORCED\"",
        "\"from\":\"CLOSED\"",
    ] {
        assert!(events.seen.contains(part), "{part}: {}", events.seen);
    }

    let mut again = Raw::connect(gateway.url()).await;
    again.get("/admin/events", "last-event-id: 1\r\n").await;
    again.wait_for("id: 2").await;
    assert!(!again.seen.contains("id: 1"), "{}", again.seen);

    // They end with the gateway, at once.
    let ended = gateway.terminate().await;
    assert!(ended.status.success());
    assert!(
        !ended.stderr.contains("still under way"),
        "{}",
        ended.stderr
    );
    events.rest().await;
}

#[test]
fn g3_who_falls_behind_loses_the_oldest_changes_and_is_told_how_many() {
    let feed = feed::Feed::new();
    let circuit = Circuit::new(CircuitBreakerConfig::default());
    feed.listen("c", &circuit);
    let (recent, mut changes) = feed.subscribe();
    assert!(recent.is_empty());
    for _ in 0..100 {
        circuit.force_open();
        circuit.reset();
    }
    let lagged = changes.try_recv();
    assert!(
        matches!(lagged, Err(TryRecvError::Lagged(72))),
        "{lagged:?}"
    );
    assert_eq!(changes.try_recv().unwrap().id, 73);
    let (recent, _) = feed.subscribe();
    let ids: Vec<_> = recent.iter().map(|change| change.id).collect();
    assert_eq!(ids, (73..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn g3_what_administrators_do_is_kept_in_the_log() {
    let gateway = start(&[("GATEWAY_ADMIN_TOKEN", "s3cret")]).await;
    let token = [("authorization", "Bearer s3cret")];
    let url = gateway.at("/admin/circuit-breakers/claude/config");
    http::request("PUT", &url, &token, r#"{"failureThreshold":7}"#).await;
    http::request("PUT", &url, &token, r#"{"failureThreshold":0}"#).await;
    http::request("PUT", &url, &[], r#"{"failureThreshold":1}"#).await;
    let ended = gateway.terminate().await;
    let audit: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("audit"))
        .collect();
    assert_eq!(audit.len(), 3, "{audit:#?}");
    for part in [
        "peer=127.0.0.1:",
        "by=\"env:GATEWAY_ADMIN_TOKEN\"",
        "method=PUT",
        "/admin/circuit-breakers/claude/config",
        "status=200",
        "failureThreshold\\\":7",
    ] {
        assert!(audit[0].contains(part), "{part}: {}", audit[0]);
    }
    assert!(audit[1].contains("status=422"), "{}", audit[1]);
    assert!(audit[2].contains("refused"), "{}", audit[2]);
}

#[tokio::test]
async fn g3_the_faults_of_simulated_providers_can_be_switched_through_the_gateway() {
    let gateway = start(&[]).await;
    let url = gateway.at("/admin/simulated/claude/fault");
    let broken = post(
        &gateway,
        "/admin/simulated/claude/fault/unavailable?retry_after=9",
    )
    .await;
    assert_eq!(broken.json()["fault"], "unavailable");
    assert_eq!(ask(&gateway).await["provider"], "deepseek");
    assert_eq!(http::request("DELETE", &url, &[], "").await.status, 200);
    assert_eq!(
        post(&gateway, "/admin/simulated/claude/fault/none-such")
            .await
            .status,
        404
    );
    assert_eq!(
        post(&gateway, "/admin/simulated/nobody/fault/cut")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn g3_readiness_ends_when_the_gateway_stops() {
    let gateway = start(&[("GATEWAY_CIRCUIT_BREAKER", r#"{"timeout":"3s"}"#)]).await;
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/hang"), &[], "").await;
    // A connection that is busy stays while the gateway stops, and can be asked once more.
    let mut busy = Raw::connect(gateway.url()).await;
    busy.post("/v1/process", r#"{"prompt":"hi"}"#).await;
    eventually("the request to be under way", async || {
        let stats = http::get(&format!("{claude}/stats")).await.json();
        (stats["requests"] == 1).then_some(())
    })
    .await;
    assert_eq!(http::get(&gateway.at("/health/ready")).await.status, 200);
    gateway.ask_to_stop();
    let answer = busy.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(gateway.terminate().await.status.success());
}

/// Whether the document says what there is, and a validator accepts it.
#[tokio::test]
async fn g3_the_openapi_document_is_true_and_valid() {
    let gateway = start(&[]).await;
    let document = http::get(&gateway.at("/openapi.json")).await.json();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let path = path
            .replace("/v1/models/{name}", "/v1/models/deepseek-chat")
            .replace("{name}", "claude")
            .replace("{provider}", "claude")
            .replace("{fault}", "cut");
        for method in ["get", "put", "post", "delete"] {
            if path.ends_with("/events") && method == "get" {
                continue;
            }
            let method = method.to_uppercase();
            let response = http::request(&method, &gateway.at(&path), &[], "{}").await;
            let known = response.status != 404 && response.status != 405;
            let told = item.get(method.to_lowercase()).is_some();
            assert_eq!(known, told, "{method} {path}: {}", response.status);
            if told {
                let status = response.status.as_str();
                let responses = &item[method.to_lowercase()]["responses"];
                assert!(responses.get(status).is_some(), "{method} {path}: {status}");
            }
        }
    }

    let Some(tools) = env::var_os("TOWER_BREAKER_SDKS").map(PathBuf::from) else {
        eprintln!("skipped: TOWER_BREAKER_SDKS is not set; tests/run installs the validator");
        return;
    };
    let output = Command::new(tools.join("python/bin/python"))
        .args(["-m", "openapi_spec_validator"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/gateway/openapi.json"
        ))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn g3_prometheus_accepts_the_metrics_and_the_alerts() {
    if !tool("promtool") {
        return;
    }
    let gateway = start(&[]).await;
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/cut"), &[], "").await;
    ask(&gateway).await;
    let metrics = http::get(&gateway.at("/metrics")).await;
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(&metrics.body)
        .unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateway/deploy");
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(args)
            .current_dir(deploy)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // What the alerts and the panels ask for is there.
    let text = metrics.text();
    for file in ["alerts.yml", "grafana.json"] {
        let asked = std::fs::read_to_string(format!("{deploy}/{file}")).unwrap();
        let words = asked.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in words
            .filter(|word| word.starts_with("gateway_") || word.starts_with("circuit_breaker_"))
        {
            // Nothing has been refused yet, and what has not been counted is not told.
            let told = text.contains(name) || name == "gateway_refused_total";
            assert!(told, "{file}: {name}");
        }
    }
}

#[tokio::test]
async fn g_traces_tell_of_each_request_and_each_provider_that_was_asked() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    let collector = Router::new().route(
        "/v1/traces",
        post_route(async move |Json(body): Json<Value>| {
            kept.lock().unwrap().push(body);
            Json(json!({}))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let gateway = start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/server-error"), &[], "").await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str())];
    let url = gateway.at("/v1/process");
    http::request("POST", &url, &headers, r#"{"prompt":"hi"}"#).await;
    post(&gateway, "/admin/circuit-breakers/claude/force-open").await;
    http::request(
        "POST",
        &url,
        &[("traceparent", "rubbish")],
        r#"{"prompt":"hi"}"#,
    )
    .await;
    // What has not been sent yet is sent before the end.
    assert!(gateway.terminate().await.status.success());

    let taken = taken.lock().unwrap();
    let spans: Vec<_> = taken
        .iter()
        .flat_map(|body| {
            body["resourceSpans"][0]["scopeSpans"][0]["spans"]
                .as_array()
                .unwrap()
        })
        .collect();
    let names: Vec<_> = spans
        .iter()
        .filter_map(|span| span["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "ask claude",
            "ask deepseek",
            "chat claude-3.5-sonnet",
            "ask deepseek",
            "chat claude-3.5-sonnet"
        ]
    );
    let root = spans[2];
    assert_eq!(root["parentSpanId"], "00f067aa0ba902b7");
    for span in &spans[..3] {
        assert_eq!(span["traceId"], trace);
        let time = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(
            time("startTimeUnixNano") <= time("endTimeUnixNano"),
            "{span}"
        );
    }
    assert_eq!(spans[0]["parentSpanId"], root["spanId"]);
    assert_eq!(spans[0]["status"]["code"], 2);
    assert_eq!(spans[1]["status"], json!({}));
    // The second request is a trace of its own, in which a provider was skipped.
    assert_ne!(spans[4]["traceId"], trace);
    assert_eq!(spans[4]["parentSpanId"], "");
    assert_eq!(spans[4]["events"][0]["name"], "skipped");
}

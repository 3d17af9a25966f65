//! The gateway is safe by default (G5): what it takes on, what it tells, and whom it trusts.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use axum::{Router, extract::Request, routing::any};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use support::{eventually, gateway::Gateway, http, raw::Raw};

/// A gateway with these limits.
async fn limited(name: &str, limits: &str) -> Gateway {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = file.join(format!("limits-{name}-{}.toml", std::process::id()));
    fs::write(&file, format!("[limits]\n{limits}\n")).unwrap();
    let path = file.to_str().unwrap();
    Gateway::start(&["--config", path, "--listen", "127.0.0.1:0"], &[]).await
}

#[tokio::test]
async fn g5_what_is_too_large_is_told_so() {
    let limits = "body_bytes = 1000\nheader_bytes = 8192\nheader_count = 10";
    let gateway = limited("large", limits).await;
    let url = gateway.at("/v1/process");
    let long = json!({"prompt": "x".repeat(1000)}).to_string();
    let large = http::request("POST", &url, &[], long).await;
    assert_eq!(large.status, 413);
    assert!(large.text().contains("1000 bytes"), "{}", large.text());

    let fat = "x".repeat(9000);
    assert_eq!(
        http::request("POST", &url, &[("x-fat", &fat)], "")
            .await
            .status,
        431
    );
    let names: Vec<_> = (0..11).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(http::request("POST", &url, &many, "").await.status, 431);
    // Within them, all is well.
    let answer = http::post_json(&url, &json!({"prompt": "hi"})).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn g5_who_is_too_slow_is_told_so() {
    let gateway = limited("slow", "header_timeout = \"1s\"\nbody_timeout = \"1s\"").await;
    let mut head = Raw::connect(gateway.url()).await;
    head.send("POST /v1/process HTTP/1.1\r\nhost: local").await;
    let mut body = Raw::connect(gateway.url()).await;
    body.send("POST /v1/process HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"pro")
        .await;
    // One that has asked nothing gets no answer.
    let idle = Raw::connect(gateway.url()).await;
    let (head, body, idle) = tokio::join!(
        head.rest(),
        async {
            body.wait_for("\r\n\r\n").await;
            body.seen
        },
        idle.rest()
    );
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert_eq!(idle, "");
}

#[tokio::test]
async fn g5_who_does_not_read_is_cut_off() {
    let gateway = limited("stall", "write_timeout = \"1s\"").await;
    let mut connection = Raw::connect(gateway.url()).await;
    // Far more answers than there is room for between the two.
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2000);
    connection.send(requests).await;
    eventually("the connection to be cut off", async || {
        let text = http::get(&gateway.at("/metrics")).await.text();
        // The one that asks is left.
        text.contains("\ngateway_connections 1\n").then_some(())
    })
    .await;
    let answers = connection.rest().await;
    assert!(answers.matches("HTTP/1.1 200").count() < 2000);
}

#[tokio::test]
async fn g5_what_is_too_much_is_turned_away_at_once() {
    // Connections.
    let gateway = limited("connections", "connections = 2").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Raw::connect(gateway.url()).await;
        connection.get("/health/live", "").await;
        connection.wait_for("200 OK").await;
        open.push(connection);
    }
    let mut over = Raw::connect(gateway.url()).await;
    over.get("/health/live", "").await;
    let answer = over.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    // One goes, and there is room again.
    open.pop();
    eventually("room for a connection", async || {
        let again = http::try_request("GET", &gateway.at("/metrics"), &[], "").await;
        let text = again.ok().filter(|again| again.status == 200)?.text();
        text.contains("gateway_refused_total{limit=\"connections\"}")
            .then_some(())
    })
    .await;

    // Requests, and those who wait for a turn.
    let limits = "concurrency = 1\nqueue = 1\nqueue_timeout = \"4s\"";
    let gateway = limited("requests", limits).await;
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/hang"), &[], "").await;
    let url = gateway.at("/v1/process");
    let ask = || http::try_request("POST", &url, &[], r#"{"prompt":"hi"}"#);
    let series = async |name: &str| {
        let text = http::get(&gateway.at("/metrics")).await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .unwrap_or_default()
    };
    let story = async {
        eventually("the first one's turn", async || {
            (series("gateway_requests_active").await == "1").then_some(())
        })
        .await;
        let waits = ask();
        let after = async {
            eventually("the second one to wait", async || {
                (series("gateway_requests_waiting").await == "1").then_some(())
            })
            .await;
            ask().await.unwrap()
        };
        let (waited, turned_away) = tokio::join!(waits, after);
        for answer in [waited.unwrap(), turned_away] {
            assert_eq!(answer.status, 503);
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.json()["error"]["code"], "gateway_is_full");
        }
        // The full gateway still tells how it is.
        assert_eq!(http::get(&gateway.at("/health")).await.status, 200);
        gateway.ask_to_stop();
        gateway.ask_to_stop();
    };
    let _ = tokio::join!(ask(), story);
}

#[tokio::test]
async fn g5_a_turn_lasts_until_the_end_of_a_stream() {
    let limits = "concurrency = 1\nqueue = 0";
    let gateway = limited("stream", limits).await;
    let claude = gateway.simulated("claude").await;
    http::request("POST", &format!("{claude}/fault/stall"), &[], "").await;
    let mut stream = Raw::connect(gateway.url()).await;
    stream.post("/v1/chat/completions", STREAM).await;
    stream.wait_for("data: ").await;
    let url = gateway.at("/v1/process");
    let full = http::post_json(&url, &json!({"prompt": "hi"})).await;
    assert_eq!(full.json()["error"]["code"], "gateway_is_full");
    // Who goes away gives the turn back.
    drop(stream);
    http::request("DELETE", &format!("{claude}/fault"), &[], "").await;
    eventually("the turn to come back", async || {
        let answer = http::post_json(&url, &json!({"prompt": "hi"})).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

const STREAM: &str = r#"{"model":"claude-3.5-sonnet","stream":true,
    "messages":[{"role":"user","content":"one two three four five six seven eight nine ten"}]}"#;

#[tokio::test]
async fn g5_a_shutdown_drains_streams() {
    let gateway = Gateway::start(&[], &[("GATEWAY_LISTEN", "127.0.0.1:0")]).await;
    let claude = gateway.simulated("claude").await;
    http::request(
        "POST",
        &format!("{claude}/pace?first_ms=0&gap_ms=100"),
        &[],
        "",
    )
    .await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = Raw::connect(gateway.url()).await;
        stream.post("/v1/chat/completions", STREAM).await;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.wait_for("data: ").await;
    }
    gateway.ask_to_stop();
    eventually("the shutdown to begin", async || {
        gateway.stderr().contains("stopping").then_some(())
    })
    .await;
    for stream in streams {
        let whole = stream.rest().await;
        assert!(whole.contains("data: [DONE]"), "{whole}");
    }
    let ended = gateway.terminate().await;
    assert!(ended.status.success());
    assert!(
        !ended.stderr.contains("still under way"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn g5_administrators_can_have_a_listener_of_their_own() {
    let args = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let gateway = Gateway::start(&args, &[]).await;
    let admin = gateway.address("admin: listening on ").await;
    for (path, everybody) in [
        ("/health", true),
        ("/v1/models", true),
        ("/openapi.json", true),
        ("/", false),
        ("/dashboard/script.js", false),
        ("/metrics", false),
        ("/admin/circuit-breakers", false),
        ("/admin/config", false),
    ] {
        let public = http::get(&gateway.at(path)).await.status;
        assert_eq!(public == 200, everybody, "{path}: {public}");
        let private = http::get(&format!("{admin}{path}")).await.status;
        assert_eq!(private, 200, "{path}");
    }
    let url = gateway.at("/admin/circuit-breakers/reset");
    assert_eq!(http::request("POST", &url, &[], "").await.status, 404);
}

/// A provider that keeps the heads of what it is asked, and refuses.
async fn listener() -> (String, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let router = Router::new().fallback(any(async move |request: Request| {
        let head = format!("{} {:?}", request.uri(), request.headers());
        kept.lock().unwrap().push(head);
        axum::http::StatusCode::INTERNAL_SERVER_ERROR
    }));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, heads)
}

#[tokio::test]
async fn g5_no_header_of_a_clients_reaches_a_provider() {
    let (url, heads) = listener().await;
    let gateway = Gateway::start(
        &["--listen", "127.0.0.1:0"],
        &[("ANTHROPIC_BASE_URL", &url), ("DEEPSEEK_BASE_URL", &url)],
    )
    .await;
    let client = [
        ("authorization", "Bearer client-secret"),
        ("x-api-key", "client-secret"),
        ("cookie", "client-secret"),
        ("anthropic-beta", "client-beta"),
        ("x-client", "client-header"),
        ("user-agent", "client-agent"),
        ("forwarded", "for=client"),
    ];
    let messages = r#"{"model":"claude-3.5-sonnet","max_tokens":9,"messages":[{"role":"user","content":"a"}]}"#;
    for (path, body) in [
        ("/v1/process?client=query", r#"{"prompt":"a"}"#),
        ("/v1/messages?client=query", messages),
        ("/v1/chat/completions?client=query", messages),
    ] {
        http::request("POST", &gateway.at(path), &client, body).await;
    }
    let heads = heads.lock().unwrap();
    assert!(heads.len() >= 4, "{heads:#?}");
    for head in heads.iter() {
        assert!(!head.contains("client"), "{head}");
    }
}

#[tokio::test]
async fn g5_a_header_that_is_listed_reaches_that_provider_alone() {
    let ((a, heads_a), (b, heads_b)) = (listener().await, listener().await);
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = file.join(format!("forward-{}.toml", std::process::id()));
    let text = format!(
        "default_model = \"a\"\n\
         [providers.a]\nkind = \"anthropic\"\nbase_url = \"{a}\"\n\
         forward_headers = [\"anthropic-beta\", \"User-Agent\"]\n\
         [providers.b]\nkind = \"openai\"\nbase_url = \"{b}\"\n\
         [models.a]\nprovider = \"a\"\nfallbacks = [\"b\"]\n[models.b]\nprovider = \"b\"\n"
    );
    fs::write(&file, text).unwrap();
    let args = [
        "--config",
        file.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let gateway = Gateway::start(&args, &[]).await;
    let client = [
        ("anthropic-beta", "client-beta"),
        ("x-client", "client-header"),
        ("user-agent", "client-agent"),
    ];
    let body = r#"{"model":"a","max_tokens":9,"messages":[{"role":"user","content":"a"}]}"#;
    http::request("POST", &gateway.at("/v1/messages"), &client, body).await;
    http::request(
        "POST",
        &gateway.at("/v1/process"),
        &client,
        r#"{"prompt":"a"}"#,
    )
    .await;
    let (heads_a, heads_b) = (heads_a.lock().unwrap(), heads_b.lock().unwrap());
    assert_eq!((heads_a.len(), heads_b.len()), (2, 2));
    for head in heads_a.iter() {
        assert!(head.contains("client-beta"), "{head}");
        // What the codec says itself stands.
        assert!(
            !head.contains("client-agent") && !head.contains("client-header"),
            "{head}"
        );
    }
    for head in heads_b.iter() {
        assert!(!head.contains("client"), "{head}");
    }
}

#[tokio::test]
async fn g5_nobody_is_told_a_key() {
    let (url, _) = listener().await;
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let key_file = file.join(format!("key-{}", std::process::id()));
    fs::write(&key_file, "sk-from-a-file-3141592653\n").unwrap();
    let config = file.join(format!("keys-{}.toml", std::process::id()));
    let text = format!(
        "default_model = \"a\"\n\
         [providers.a]\nkind = \"anthropic\"\nbase_url = \"{url}\"\napi_key_env = \"KEY_A\"\n\
         [providers.b]\nkind = \"openai\"\nbase_url = \"{url}\"\napi_key_file = \"{}\"\n\
         [models.a]\nprovider = \"a\"\nfallbacks = [\"b\"]\n[models.b]\nprovider = \"b\"\n",
        key_file.display()
    );
    fs::write(&config, &text).unwrap();
    let env = [
        ("KEY_A", "sk-ant-from-a-variable-2718281828"),
        ("GATEWAY_ADMIN_TOKEN", "token-of-the-administrator-1618"),
        ("GATEWAY_LISTEN", "127.0.0.1:0"),
        // All that there is to say.
        ("RUST_LOG", "trace"),
    ];
    let gateway = Gateway::start(&["--config", config.to_str().unwrap()], &env).await;
    let token = [("authorization", "Bearer token-of-the-administrator-1618")];
    let mut told = String::new();
    for (method, path, body) in [
        ("POST", "/v1/process", r#"{"prompt":"a"}"#),
        ("POST", "/v1/chat/completions", STREAM),
        ("GET", "/health", ""),
        ("GET", "/metrics", ""),
        ("GET", "/admin/config", ""),
        ("GET", "/admin/circuit-breakers", ""),
        (
            "PUT",
            "/admin/circuit-breakers/a/config",
            r#"{"failureThreshold":0}"#,
        ),
        ("POST", "/admin/config/reload", ""),
    ] {
        let response = http::request(method, &gateway.at(path), &token, body).await;
        told += &format!("{:?}\n{}\n", response.headers, response.text());
    }
    // A reload that goes wrong, too.
    fs::write(&config, text.replace("KEY_A", "KEY_B")).unwrap();
    let url = gateway.at("/admin/config/reload");
    told += &http::request("POST", &url, &token, "").await.text();
    assert!(told.contains("the variable KEY_B is not set"), "{told}");
    let ended = gateway.terminate().await;
    told += &ended.stdout;
    told += &ended.stderr;
    assert!(told.len() > 10_000, "it did say something");
    for secret in ["2718281828", "3141592653", "the-administrator-1618"] {
        let lines: Vec<_> = told.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

/// A server that nobody vouches for; it counts the requests that it gets to see.
fn impostor() -> (u16, Arc<Mutex<u32>>) {
    let pem = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/self-signed.pem"
    );
    let certificate = CertificateDer::from_pem_file(pem).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(0));
    let requests = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            // The handshake is what should fail here.
            if stream.read(&mut [0; 16]).is_ok_and(|read| read > 0) {
                *requests.lock().unwrap() += 1;
                let _ = stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    (port, seen)
}

#[tokio::test]
async fn g5_a_provider_that_nobody_vouches_for_is_told_nothing() {
    let (port, seen) = impostor();
    let (url, _) = listener().await;
    let impostor = format!("https://localhost:{port}");
    let env = [
        ("ANTHROPIC_API_KEY", "sk-ant-secret"),
        ("ANTHROPIC_BASE_URL", impostor.as_str()),
        ("DEEPSEEK_BASE_URL", url.as_str()),
    ];
    let gateway = Gateway::start(&["--listen", "127.0.0.1:0"], &env).await;
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    let body = answer.json();
    let attempt = &body["metadata"]["attempts"][0];
    let reason = attempt["reason"].as_str().unwrap_or_default();
    assert_eq!(attempt["provider"], "claude");
    assert_eq!(attempt["outcome"], "failed");
    assert!(reason.contains("could not be reached"), "{attempt}");
    assert_eq!(*seen.lock().unwrap(), 0, "it never saw a request");
    let health = http::get(&gateway.at("/health")).await.json();
    let failed = &health["claude"]["circuitBreaker"]["metrics"]["failedRequests"];
    assert_eq!(*failed, 1, "it counts against the provider");
}

//! The gateway's configuration file: what is wrong is told (G6), and what changes is taken over
//! while it runs.

mod support;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use support::{
    eventually,
    gateway::{self, Gateway},
    http,
};

/// A file that is gone with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs `--check` on this text: whether all is well, and what was said.
fn check(text: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let digest = text.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let file = File::new(&format!("check-{digest:x}"), text);
    let output = gateway::command()
        .args(["--check", "--config", file.path()])
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

const SIMULATED: &str = r#"
[providers.one]
kind = "anthropic"
simulated = true

[providers.two]
kind = "openai"
simulated = true

[models."big.one"]
provider = "one"
fallbacks = ["two"]

[models.two]
provider = "two"
"#;

#[test]
fn g1_the_sample_is_well_and_so_is_nothing() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateway/gateway.toml");
    for args in [
        vec!["--check"],
        vec!["--check", "--config", sample],
        vec!["--config", sample, "--listen", "127.0.0.1:0", "--check"],
    ] {
        let output = gateway::command().args(&args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    assert_eq!(check("", &[]).0, Some(0));
    assert_eq!(check("[limits]\nqueue = 0\n", &[]).0, Some(0));
}

#[test]
fn g6_what_is_wrong_in_the_file_is_told_with_its_line_field_and_range() {
    let default = "default_model = \"two\"\n";
    for (text, line, said) in [
        // TOML itself, unknown names and types.
        ("listen = \n".to_owned(), 1, ""),
        ("\n\nlisten = \"here\"\n".to_owned(), 3, "listen: "),
        ("[limits]\nqueue = 1\nquue = 2\n".to_owned(), 3, "unknown field `quue`"),
        ("[limits]\n\nqueue = \"long\"\n".to_owned(), 3, "limits.queue: "),
        ("[limits]\nqueue_timeout = \"soon\"\n".to_owned(), 2, "limits.queue_timeout: "),
        // Ranges.
        (
            "[limits]\nqueue = 1\nheader_bytes = 12\n".to_owned(),
            3,
            "limits.header_bytes: is 12, but has to be from 8192 to 1048576",
        ),
        (
            "[limits]\nheader_timeout = \"0s\"\n".to_owned(),
            2,
            "limits.header_timeout: is 0ns, but has to be longer than 0s, and at most 1h",
        ),
        (
            "[circuit_breaker]\nfailure_threshold = 3\nhalf_open_requests = 0\n".to_owned(),
            3,
            "circuit_breaker.half_open_requests: half_open_requests is 0, but has to be at least 1",
        ),
        (
            "[circuit_breaker]\nresetTimeout = \"0s\"\n".to_owned(),
            2,
            "circuit_breaker.resetTimeout: reset_timeout is 0ns, but has to be longer than 0s",
        ),
        (
            "[circuit_breaker]\nreset_timeout = \"whenever\"\n".to_owned(),
            2,
            "circuit_breaker.reset_timeout: ",
        ),
        (
            "[circuit_breaker]\nreset_timeuot = \"1s\"\n".to_owned(),
            2,
            "unknown field `reset_timeuot`",
        ),
        (
            format!("{default}{SIMULATED}[models.\"big.one\".circuit_breaker]\nvolume_threshold = 0\n"),
            18,
            "models.\"big.one\".circuit_breaker.volume_threshold: volume_threshold is 0",
        ),
        (
            "[deadlines]\nidle = \"0s\"\n".to_owned(),
            2,
            "deadlines.idle: has to be longer than 0s",
        ),
        // What refers to something else.
        (
            format!("{default}{SIMULATED}degraded = [\"cached\", {{ model = \"four\" }}]\n"),
            17,
            "models.two.degraded: there is no `four`",
        ),
        (
            format!("{default}{SIMULATED}mid_stream = \"hope\"\n"),
            17,
            "unknown variant `hope`",
        ),
        (SIMULATED.to_owned(), 0, "default_model: has to name one of the models"),
        (
            format!("default_model = \"three\"\n{SIMULATED}"),
            1,
            "default_model: there is no `three`; there are `big.one`, `two`",
        ),
        (
            format!("{default}{SIMULATED}fallbacks = [\"two\"]\n"),
            17,
            "models.two.fallbacks: `two` comes twice in the chain",
        ),
        (
            format!("{default}{SIMULATED}fallbacks = [\"four\"]\n"),
            17,
            "models.two.fallbacks: there is no `four`",
        ),
        (
            "[providers.a]\nkind = \"openai\"\nsimulated = true\n\n[models.\"m.1\"]\nprovider = \"b\"\n"
                .to_owned(),
            6,
            "models.\"m.1\".provider: there is no `b`; there are `a`",
        ),
        (
            "[models.m]\nprovider = \"b\"\n".to_owned(),
            2,
            "models.m.provider: there is no `b`",
        ),
        (
            "[providers.a]\nkind = \"openai\"\nsimulated = true\n".to_owned(),
            0,
            "models: there has to be at least one",
        ),
        (
            "[providers.a]\nkind = \"openai\"\nsimulated = true\n[models.a]\nprovider = \"a\"\n\
             circuit_breaker = { timeout = \"1s\" }\n"
                .to_owned(),
            6,
            "models.a.circuit_breaker: the circuit is called `a`",
        ),
        // Providers.
        (
            "[providers.a]\nkind = \"gemini\"\n".to_owned(),
            2,
            "unknown variant `gemini`, expected one of",
        ),
        (
            "[providers.a]\nkind = \"openai\"\n".to_owned(),
            1,
            "providers.a.api_key_env: has to name the variable that holds the key: OPENAI_API_KEY",
        ),
        (
            "[providers.a]\nkind = \"openai\"\napi_key_env = \"NOT_THERE\"\n".to_owned(),
            3,
            "providers.a.api_key_env: the variable NOT_THERE is not set",
        ),
        (
            "[providers.a]\nkind = \"openai\"\napi_key_file = \"/not/there\"\n".to_owned(),
            3,
            "providers.a.api_key_file: /not/there: ",
        ),
        (
            "[providers.a]\nkind = \"openai\"\napi_key_env = \"BAD\"\n".to_owned(),
            3,
            "providers.a.api_key_env: `api_key` holds a character",
        ),
        (
            "[providers.a]\nkind = \"openai\"\nbase_url = \"ftp://a\"\n".to_owned(),
            3,
            "providers.a.base_url: `base_url` must begin with",
        ),
        (
            "[providers.a]\nkind = \"openai\"\nsimulated = true\n\
             forward_headers = [\"Authorization\"]\n"
                .to_owned(),
            4,
            "providers.a.forward_headers: `authorization` is never passed on",
        ),
        (
            "[admin]\ntoken_env = \"NOT_THERE\"\n".to_owned(),
            2,
            "admin.token_env: the variable NOT_THERE is not set",
        ),
    ] {
        let (code, output) = check(&text, &[("BAD", "sk-two words")]);
        assert_eq!(code, Some(1), "{text}\n{output}");
        assert!(output.contains(said), "{text}\n{output}");
        assert!(!output.contains("words"), "{output}");
        if line > 0 {
            assert!(output.contains(&format!(".toml:{line}: ")), "{text}\n{output}");
        }
    }
    // A file that isn't there.
    let output = gateway::command()
        .args(["--config", "/not/there.toml"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains("/not/there.toml: "),
        "{stderr}"
    );
}

#[test]
fn g6_flags_and_variables_come_before_the_file() {
    let text = "[circuit_breaker]\ntimeout = \"1s\"\n";
    // The variable is wrong, and is named.
    let env = [("GATEWAY_CIRCUIT_BREAKER", r#"{"timeout":0}"#)];
    let (code, output) = check(text, &env);
    assert_eq!(code, Some(1));
    assert!(
        output.contains("GATEWAY_CIRCUIT_BREAKER: timeout is 0ns"),
        "{output}"
    );
    // The file is wrong where the variable has a better value.
    let env = [("GATEWAY_CIRCUIT_BREAKER", r#"{"timeout":5}"#)];
    assert_eq!(
        check("[circuit_breaker]\ntimeout = \"0s\"\n", &env).0,
        Some(0)
    );
}

async fn start(file: &File) -> Gateway {
    Gateway::start(&["--config", file.path(), "--listen", "127.0.0.1:0"], &[]).await
}

async fn ask(gateway: &Gateway, model: &str) -> http::Response {
    let request = json!({"prompt": "hello", "preferredModel": model});
    http::post_json(&gateway.at("/v1/process"), &request).await
}

async fn circuits(gateway: &Gateway) -> Value {
    http::get(&gateway.at("/admin/circuit-breakers"))
        .await
        .json()
}

#[tokio::test]
async fn m6_models_are_what_the_file_says() {
    let text = format!("default_model = \"two\"\n{SIMULATED}");
    let file = File::new("aliases", &text);
    let gateway = start(&file).await;
    let models = http::get(&gateway.at("/v1/models")).await.json();
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["big.one", "two"]);
    let answer = http::post_json(&gateway.at("/v1/process"), &json!({"prompt": "hi"})).await;
    assert_eq!(answer.json()["provider"], "two");
    assert_eq!(ask(&gateway, "big.one").await.json()["provider"], "one");
    assert_eq!(ask(&gateway, "claude-3.5-sonnet").await.status, 404);
}

#[tokio::test]
async fn a_reload_keeps_the_circuits_that_it_does_not_change() {
    let text = format!("default_model = \"two\"\n{SIMULATED}");
    let file = File::new("reload", &text);
    let gateway = start(&file).await;
    let one = gateway.simulated("one").await;
    http::request("POST", &format!("{one}/fault/server-error"), &[], "").await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "big.one").await.json()["provider"], "two");
    }
    assert_eq!(circuits(&gateway).await["one"]["state"], "OPEN");

    // Another circuit changes, and a model comes.
    file.write(&format!(
        "{text}\n[models.three]\nprovider = \"two\"\n[providers.two.circuit_breaker]\n\
         failure_threshold = 7\n"
    ));
    eventually("the new model", async || {
        (ask(&gateway, "three").await.status == 200).then_some(())
    })
    .await;
    let now = circuits(&gateway).await;
    assert_eq!(now["one"]["state"], "OPEN");
    assert_eq!(now["one"]["metrics"]["failedRequests"], 3);
    assert_eq!(now["two"]["config"]["failureThreshold"], 7);
    assert!(now["two"]["metrics"]["successfulRequests"].as_u64() >= Some(4));
    // The simulated provider is still the same one.
    let stats = http::get(&format!("{one}/stats")).await.json();
    assert_eq!(stats["requests"], 3);

    // What an administrator has set survives a reload that is about something else.
    let url = gateway.at("/admin/circuit-breakers/one/config");
    let put = http::request("PUT", &url, &[], r#"{"failureThreshold":9}"#).await;
    assert_eq!(put.status, 200, "{}", put.text());
    let reload = gateway.at("/admin/config/reload");
    assert_eq!(http::request("POST", &reload, &[], "").await.status, 200);
    let now = circuits(&gateway).await;
    assert_eq!(now["one"]["config"]["failureThreshold"], 9);
    assert_eq!(now["one"]["state"], "OPEN");
}

#[tokio::test]
async fn g6_a_bad_reload_keeps_what_runs_and_says_why() {
    let text = format!("default_model = \"two\"\n{SIMULATED}");
    let file = File::new("bad-reload", &text);
    let gateway = start(&file).await;
    file.write(&text.replace("\"two\"\n\n[providers.one]", "\"none\"\n\n[providers.one]"));
    let error = eventually("the reload to fail", async || {
        let config = http::get(&gateway.at("/admin/config")).await.json();
        config["error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        error.contains(".toml:1: default_model: there is no `none`"),
        "{error}"
    );
    assert_eq!(ask(&gateway, "big.one").await.status, 200);
    let metrics = http::get(&gateway.at("/metrics")).await.text();
    assert!(metrics.contains("gateway_config_last_reload_successful 0"));

    // SIGHUP tries again, with the same end, and the log says so.
    gateway.hang_up();
    eventually("the second failure in the log", async || {
        (gateway
            .stderr()
            .matches("default_model: there is no `none`")
            .count()
            == 2)
            .then_some(())
    })
    .await;
    // Mended, it is in force.
    file.write(&text);
    eventually("the reload to succeed", async || {
        let config = http::get(&gateway.at("/admin/config")).await.json();
        config["error"].is_null().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_drops_no_request() {
    let text = format!("default_model = \"two\"\n{SIMULATED}");
    let file = File::new("steady", &text);
    let gateway = start(&file).await;
    let reload = gateway.at("/admin/config/reload");
    let asking = async {
        for _ in 0..100 {
            let answer = ask(&gateway, "big.one").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    let reloading = async {
        for round in 0..20 {
            file.write(&format!("{text}[models.m{round}]\nprovider = \"one\"\n"));
            assert_eq!(http::request("POST", &reload, &[], "").await.status, 200);
        }
    };
    tokio::join!(asking, reloading);
    let one = &circuits(&gateway).await["one"]["metrics"];
    assert_eq!(one["successfulRequests"], 100);
}

//! The stock SDKs of OpenAI and Anthropic, pointed at the gateway. What they send and what they make of the answers is
//! theirs alone, so nothing here can agree with itself.
//!
//! `tests/run` installs them. Without it, where `TOWER_BREAKER_SDKS` doesn't say where they are, these tests are
//! skipped.

mod support;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use support::gateway::Gateway;
use tokio::process::Command;

/// Deadlines that a test can wait for, and circuits that stay as they are until a script resets them.
const CONFIG: &str = r#"
    [circuit_breaker]
    timeout = "1s"
    reset_timeout = "10m"

    [deadlines]
    first_token = "1s"
    idle = "1s"
"#;

/// What a script may take, with all its faults and retries.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where `tests/run` has put the SDKs: a Python environment, and a folder with `node_modules`.
fn sdks() -> Option<PathBuf> {
    let folder = env::var_os("TOWER_BREAKER_SDKS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "skipped: TOWER_BREAKER_SDKS is not set; tests/run installs the SDKs and sets it"
        );
    }
    folder
}

/// Runs a script against a gateway of its own.
async fn run(program: impl AsRef<OsStr>, script: &str, in_folder: &Path) {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{script}.toml"));
    fs::write(&config, CONFIG).expect("there is room for a small file");
    let config = config.to_str().expect("cargo's paths are text");
    let listen = [("GATEWAY_LISTEN", "127.0.0.1:0")];
    let gateway = Gateway::start(&["--config", config], &listen).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(script);
    let child = Command::new(program)
        .arg(script)
        .current_dir(in_folder)
        .env("GATEWAY", gateway.url())
        .env("CLAUDE", gateway.simulated("claude").await)
        .env("DEEPSEEK", gateway.simulated("deepseek").await)
        // A proxy of the machine's would stand between them, and caches would end up in the work tree.
        .env("NO_PROXY", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the SDK's runtime starts");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the script comes to its end")
        .expect("its output can be read");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    println!("{stdout}");
    assert!(
        output.status.success(),
        "{stdout}{stderr}--- the gateway\n{}",
        gateway.stderr()
    );
}

#[tokio::test]
async fn g2_the_openai_sdk_works_unchanged() {
    if let Some(sdks) = sdks() {
        run(sdks.join("python/bin/python"), "openai_sdk.py", &sdks).await;
    }
}

#[tokio::test]
async fn g2_the_anthropic_sdk_works_unchanged() {
    if let Some(sdks) = sdks() {
        run(sdks.join("python/bin/python"), "anthropic_sdk.py", &sdks).await;
    }
}

#[tokio::test]
async fn g2_the_sdks_for_node_work_unchanged() {
    if let Some(sdks) = sdks() {
        run("node", "node.mjs", &sdks).await;
    }
}

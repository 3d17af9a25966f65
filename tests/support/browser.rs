//! Headless Chromium, driven through ChromeDriver's own HTTP interface.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{eventually, http, tool};

/// How long the browser may take to end.
const GOODBYE: Duration = Duration::from_secs(10);

/// A browser with one page. It is ended when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    profile: PathBuf,
}

impl Browser {
    /// Starts a browser; `None` where there is none.
    pub async fn start() -> Option<Self> {
        if !tool("chromedriver") || !tool("chromium") {
            return None;
        }
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let stdout = driver.stdout.take().expect("stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver tells its port");
        // Whatever else it says is read, so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));

        static PROFILES: AtomicU32 = AtomicU32::new(0);
        let number = PROFILES.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!(
            "tower-breaker-browser-{}-{number}",
            std::process::id()
        ));
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            profile,
        };
        let profile = format!("--user-data-dir={}", browser.profile.display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &profile,
        ];
        let answer = browser
            .ask(
                "POST",
                "",
                json!({"capabilities": {"alwaysMatch": {
                    "goog:chromeOptions": {"args": arguments},
                    "goog:loggingPrefs": {"browser": "ALL"},
                }}}),
            )
            .await;
        let id = answer["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    /// Opens a page, as wide and high as a viewport of this size shows it.
    pub async fn open(&self, url: &str, width: u32, height: u32, dark: bool) {
        self.resize(width, height, dark).await;
        self.ask("POST", "/url", json!({ "url": url })).await;
    }

    /// Gives the page another size and scheme of colours.
    pub async fn resize(&self, width: u32, height: u32, dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// What this script returns.
    pub async fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.ask("POST", "/execute/sync", script).await
    }

    /// Clicks on what this CSS selector finds first, as a user would: it must be visible.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.ask("POST", &format!("/element/{element}/click"), json!({}))
            .await;
    }

    /// Types into what this selector finds first.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        let path = format!("/element/{element}/value");
        self.ask("POST", &path, json!({ "text": text })).await;
    }

    /// The text of what this selector finds first.
    pub async fn text(&self, selector: &str) -> String {
        // What is drawn has no `innerText`.
        let script = format!(
            "const found = document.querySelector({selector:?}); \
             return found?.innerText ?? found?.textContent ?? ''"
        );
        let text = self.run(&script).await;
        text.as_str().expect("a text").to_owned()
    }

    /// Waits until the text there is as it should be.
    pub async fn wait_for(&self, selector: &str, text: &str) {
        let what = format!("`{text}` in {selector}");
        eventually(&what, async || {
            self.text(selector).await.contains(text).then_some(())
        })
        .await;
    }

    /// A picture of the page, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let picture = self.command(
            "Page.captureScreenshot",
            json!({"captureBeyondViewport": true}),
        );
        let picture = picture.await;
        decode(picture["data"].as_str().expect("a picture is text"))
    }

    /// What has been written to the console since the last look, errors of the network included.
    pub async fn console(&self) -> Vec<String> {
        let log = self
            .ask("POST", "/se/log", json!({"type": "browser"}))
            .await;
        let lines = log.as_array().expect("a log is a list");
        lines.iter().map(Value::to_string).collect()
    }

    async fn find(&self, selector: &str) -> String {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.ask("POST", "/element", by).await;
        let id = found.as_object().and_then(|found| found.values().next());
        let id = id.and_then(Value::as_str).expect("an element has an id");
        id.to_owned()
    }

    /// A command of Chromium's own protocol.
    async fn command(&self, command: &str, params: Value) -> Value {
        let command = json!({"cmd": command, "params": params});
        self.ask("POST", "/goog/cdp/execute", command).await
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.session);
        let json = [("content-type", "application/json")];
        let response = http::request(method, &url, &json, body.to_string()).await;
        assert_eq!(response.status, 200, "{path} {body}: {}", response.text());
        response.json()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked nicely, ChromeDriver ends Chromium too. There may be no runtime left to wait in.
        let url = self.session.trim_start_matches("http://");
        if let Some((address, path)) = url.split_once('/')
            && let Ok(mut stream) = std::net::TcpStream::connect(address)
        {
            let request =
                format!("DELETE /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            let _ = stream.set_read_timeout(Some(GOODBYE));
            let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
            // The answer comes when the browser has ended; the connection may stay open after it.
            let _ = std::io::Read::read(&mut stream, &mut [0; 256]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

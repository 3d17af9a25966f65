//! The gateway's dashboard (G4), in a real browser. Where there is none, all of this is skipped.

mod support;

use std::{fs, path::PathBuf};

use support::{browser::Browser, gateway::Gateway, http};

/// Times for a test's patience: a probe is due after two seconds.
const SCALED: &str = r#"{"failureThreshold":3,"resetTimeout":"2s","timeout":"1s"}"#;

async fn start(env: &[(&str, &str)]) -> Gateway {
    let mut all = vec![
        ("GATEWAY_LISTEN", "127.0.0.1:0"),
        ("GATEWAY_CIRCUIT_BREAKER", SCALED),
    ];
    all.extend(env);
    Gateway::start(&[], &all).await
}

const CLAUDE: &str = "[data-name=claude]";

fn claude(selector: &str) -> String {
    format!("{CLAUDE} {selector}")
}

/// Keeps a picture: in the folder that `DASHBOARD_SCREENSHOTS` names, if it is set.
async fn keep(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("DASHBOARD_SCREENSHOTS") {
        let file = PathBuf::from(folder).join(name);
        fs::write(file, browser.screenshot().await).unwrap();
    }
}

async fn is_quiet(browser: &Browser) {
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test]
async fn g4_one_can_break_a_provider_and_watch_its_circuit() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let gateway = start(&[]).await;
    browser.open(&gateway.at("/"), 1200, 900, false).await;
    browser.wait_for(&claude(".state"), "closed").await;
    browser.click("#send").await;
    browser.wait_for("#answer", "claude answered").await;

    // Break it: its circuit opens, and the other one answers.
    browser.click(&claude(".break")).await;
    browser
        .wait_for(&claude(".break"), "Broken: server-error")
        .await;
    browser.click("#load").await;
    browser.wait_for(&claude(".state"), "open").await;
    browser.wait_for(&claude(".reason"), "next probe in").await;
    browser.wait_for("#answer", "deepseek answered").await;
    browser
        .wait_for("#summary", "1 of 2 circuits are open")
        .await;
    browser.wait_for("#flow", "deepseek").await;
    browser.wait_for("#events", "CLOSED → OPEN").await;

    // Repair it: probes close it again.
    browser.click(&claude(".repair")).await;
    browser.wait_for("#events", "OPEN → HALF_OPEN").await;
    browser.wait_for("#events", "HALF_OPEN → CLOSED").await;
    browser.wait_for(&claude(".state"), "closed").await;
    browser.wait_for("#answer", "claude answered").await;
    browser.click("#load").await;

    // Between two probes it is half-open, and shows that.
    browser.click(&claude(".break")).await;
    browser.wait_for(&claude(".break"), "Broken").await;
    for _ in 0..3 {
        browser.click("#send").await;
        browser.wait_for("#answer", "deepseek answered").await;
    }
    browser.wait_for(&claude(".state"), "open").await;
    browser.click(&claude(".repair")).await;
    browser
        .wait_for(&claude(".reason"), "the next request is a probe")
        .await;
    browser.click("#send").await;
    browser.wait_for(&claude(".state"), "half-open").await;
    browser.click("#send").await;
    browser.wait_for(&claude(".state"), "closed").await;

    // The controls.
    browser.click(&claude("[data-action=force-open]")).await;
    browser.wait_for(&claude(".state"), "forced open").await;
    browser.click(&claude("[data-action=disable]")).await;
    browser.wait_for(&claude(".state"), "disabled").await;
    browser.click(&claude("[data-action=reset]")).await;
    browser.wait_for(&claude(".state"), "closed").await;
    is_quiet(&browser).await;
}

#[tokio::test]
async fn g4_the_token_is_asked_for_once() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let gateway = start(&[("GATEWAY_ADMIN_TOKEN", "s3cret")]).await;
    browser.open(&gateway.at("/"), 1200, 900, false).await;
    browser.wait_for(&claude(".state"), "closed").await;
    browser.click(&claude("[data-action=force-open]")).await;
    browser.wait_for("#ask[open]", "Admin token").await;
    browser.type_into("#token", "s3cret").await;
    browser.click("#ask .primary").await;
    browser.wait_for(&claude(".state"), "forced open").await;
    browser.click(&claude("[data-action=reset]")).await;
    browser.wait_for(&claude(".state"), "closed").await;
    // The one refusal that led to the question is all that there is.
    let console = browser.console().await;
    assert_eq!(console.len(), 1, "{console:#?}");
    assert!(console[0].contains("401"), "{console:#?}");
}

#[tokio::test]
async fn g4_it_is_readable_on_a_phone_and_in_the_dark() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let gateway = start(&[]).await;
    browser.open(&gateway.at("/"), 360, 740, false).await;
    browser.wait_for(&claude(".state"), "closed").await;
    // Something to show: all is well, then one fails, and the other takes over.
    browser.click("#load").await;
    browser.wait_for("#answer", "claude answered").await;
    // A picture for people has more of a past.
    let picture = std::env::var_os("DASHBOARD_SCREENSHOTS").is_some();
    pass(&browser, if picture { 25 } else { 3 }).await;
    browser.click(&claude(".break")).await;
    browser.wait_for("#events", "HALF_OPEN → OPEN").await;
    pass(&browser, if picture { 12 } else { 1 }).await;
    browser.wait_for("#flow", "deepseek").await;
    for (width, height, dark, name) in [
        (360, 740, false, "phone.png"),
        (360, 740, true, "phone-dark.png"),
        (1200, 800, true, "dark.png"),
        (1200, 800, false, "light.png"),
    ] {
        browser.resize(width, height, dark).await;
        pass(&browser, 2).await;
        let wide = browser
            .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            .await;
        assert_eq!(wide, 0, "no scrolling sideways at {width}");
        // Nothing is smaller than one can read, and nothing sticks out of its panel.
        let bad = browser
            .run(
                "return [...document.querySelectorAll('body *')].filter((e) => \
                 e.checkVisibility() && e.innerText?.trim() && \
                 (parseFloat(getComputedStyle(e).fontSize) < 11 || \
                  e.getBoundingClientRect().right > innerWidth + 0.5)).map((e) => e.outerHTML)",
            )
            .await;
        assert_eq!(bad.as_array().map(Vec::len), Some(0), "{bad:#}");
        let ground = browser
            .run("return getComputedStyle(document.body).backgroundColor")
            .await;
        let expected = if dark {
            "rgb(15, 18, 24)"
        } else {
            "rgb(244, 245, 247)"
        };
        assert_eq!(ground, expected);
        keep(&browser, name).await;
    }
    is_quiet(&browser).await;
}

/// Waits for so many samples to come in.
async fn pass(browser: &Browser, seconds: u64) {
    let script = format!("return new Promise((done) => setTimeout(done, {seconds}000))");
    browser.run(&script).await;
}

#[tokio::test]
async fn g4_the_page_may_talk_to_its_own_server_alone() {
    let gateway = start(&[]).await;
    for path in ["/", "/dashboard/style.css", "/dashboard/script.js"] {
        let file = http::get(&gateway.at(path)).await;
        assert_eq!(file.status, 200);
        let policy = file.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        // Nor does it mention anybody else, but for the name of SVG.
        let text = file.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{path}");
    }
}

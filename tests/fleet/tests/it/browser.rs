//! The page of a running producer in a real browser: what people see and do, with a mouse, with keys alone, and on a phone.
//!
//! Every test signs in at a fleet of its own, and fails also when the browser reports an error of the page's scripts or a breach of
//! its content security policy. Pictures of each step are in `target/browser`.

mod chromium;
mod driver;
mod jobs;
mod operator;
mod pictures;

use chromium::{Browser, browse, row};
use fleet::{DEADLINE, Fleet, eventually};
use reqwest::Method;
use sandbox::SandboxConfig;
use serde_json::json;
use thirtyfour::Key;
use tokio::sync::Mutex;

use crate::access::token;
use crate::api::Producer;

/// One browser at a time, for those who run the tests as threads of one process; `.config/nextest.toml` says it to nextest.
static ONE: Mutex<()> = Mutex::const_new(());

/// A browser at the page of a running producer, with ann's token, which has the role that the test wants.
struct Desk<'a> {
    fleet: &'a Fleet,
    browser: &'a Browser,
    token: &'a str,
}

/// Visits the page of a producer that is started for it, with nobody signed in.
async fn visit(
    fleet: &Fleet,
    name: &str,
    role: &str,
    test: impl AsyncFnOnce(Desk<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let producer = Producer::start(fleet, &fleet.environment).await?;
    let token = token(fleet, "ann", role).await?;
    let page = producer.request(Method::GET, "/").build()?;
    let origin = page.url().origin().ascii_serialization();
    browse(name, &origin, fleet.folder(), async |browser| {
        let token = &token;
        test(Desk {
            fleet,
            browser,
            token,
        })
        .await
    })
    .await?;
    producer.stop().await
}

/// Runs a test at the page of a fleet of its own, with nobody signed in.
async fn at_the_page(
    name: &str,
    role: &str,
    test: impl AsyncFnOnce(Desk<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _one = ONE.lock().await;
    fleet::run(SandboxConfig::default(), async |fleet| {
        visit(fleet, name, role, test).await
    })
    .await
}

/// Runs a test at the page, with somebody signed in whose token has this role.
async fn signed_in(
    name: &str,
    role: &str,
    test: impl AsyncFnOnce(Desk<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    at_the_page(name, role, async |desk| {
        desk.browser.open("/").await?;
        desk.browser.fill("token", desk.token).await?;
        desk.browser.click("sign-in-submit").await?;
        desk.browser
            .see("view[data-view=overview][data-ready=true]")
            .await?;
        test(desk).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_where_they_wanted_to_be_and_out_again() -> anyhow::Result<()> {
    at_the_page(
        "sign-in",
        "operate",
        async |Desk { browser, token, .. }| {
            browser.open("/#/jobs?status=failed").await?;
            browser.see("sign-in").await?;
            browser.picture("1-sign-in").await?;
            browser
                .fill("token", &format!("gf_{}", "0".repeat(64)))
                .await?;
            browser.expect("/session 401");
            browser.click("sign-in-submit").await?;
            browser.says("problem", "token").await?;
            browser.picture("2-wrong-token").await?;

            // By keys alone.
            browser.reload().await?;
            browser.tab_to("token").await?;
            browser.press(token).await?;
            browser.press(Key::Enter.value().to_string()).await?;
            browser.see("view[data-view=jobs][data-ready=true]").await?;
            anyhow::ensure!(browser.view().await? == "/#/jobs?status=failed");
            let who = browser.says("session", "ann").await?;
            anyhow::ensure!(who.contains("operate"), "{who}");
            let kept = browser
                .script("return document.cookie + JSON.stringify([localStorage, sessionStorage])")
                .await?;
            let kept = kept.as_str().unwrap_or_default();
            anyhow::ensure!(
                !kept.contains(&token[3..]) && !kept.contains("gfs_"),
                "scripts could read {kept}"
            );
            browser.reload().await?;
            browser.says("session", "ann").await?;

            browser.click("sign-out").await?;
            browser.see("sign-in").await?;
            browser.reload().await?;
            browser.see("sign-in").await?;
            browser.gone("view job-row").await
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_may_only_read_changes_nothing() -> anyhow::Result<()> {
    signed_in("reader", "read", async |Desk { fleet, browser, .. }| {
        let job = fleet.submit_kind(fleet::Kind::Inpaint, 0).await?.job;
        browser.see("role-note").await?;
        browser.enabled("stop-paid", false).await?;
        browser.open(&format!("/#/jobs/{job}")).await?;
        browser.see("job-status[data-status=queued]").await?;
        browser.enabled("cancel", false).await?;
        browser.picture("1-job").await?;
        browser.open("/#/vendors").await?;
        for action in ["pause", "limits"] {
            let action = format!("{} {action}", row("vendor", "ghostcut/default"));
            browser.enabled(&action, false).await?;
        }
        browser.open("/#/jobs?status=queued").await?;
        browser.see(&row("job-row", job)).await?;
        browser.enabled("bulk-cancel", false).await?;
        browser.picture("2-jobs").await?;

        // Past the page's buttons.
        for path in [
            format!("/v1/jobs/{job}/cancel"),
            "/v1/paid-sends/stop".to_owned(),
        ] {
            browser.expect(&format!("{path} 403"));
            let (status, problem) = browser
                .post(&path, json!({ "reason": "past the page" }))
                .await?;
            let kind = problem["type"].as_str().unwrap_or_default();
            anyhow::ensure!(
                status == 403 && kind.ends_with(":forbidden"),
                "{path}: {status} {problem}"
            );
        }
        let all = json!({ "action": "cancel", "filter": { "status": "queued" } });
        let (status, preview) = browser.post("/v1/operations/preview", all).await?;
        anyhow::ensure!(status == 200 && preview["count"] == 1, "{status} {preview}");
        let job = fleet.db.job(job).await?;
        anyhow::ensure!(job.is_some_and(|job| job.status == "queued"));
        anyhow::ensure!(fleet.db.paid_stop().await?.is_none());
        Ok(())
    })
    .await
}

/// A stream that is refused, as under load, is asked for ever more rarely.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_asked_for_with_growing_waits() -> anyhow::Result<()> {
    const REFUSED: &str = "window.asked = []; window.EventSource = class { \
        static CLOSED = 2; readyState = 2; close() {} \
        constructor() { window.asked.push(Date.now()); setTimeout(() => this.onerror?.(), 1) } }; \
        location.hash = '#/jobs'";
    signed_in("feed", "read", async |Desk { browser, .. }| {
        browser.script(REFUSED).await?;
        browser.see("live[data-state=reconnecting]").await?;
        let asked = eventually(DEADLINE, async || {
            let asked = browser.script("return window.asked").await?;
            let asked: Vec<u64> = serde_json::from_value(asked)?;
            anyhow::ensure!(asked.len() >= 4, "{asked:?}");
            Ok(asked)
        })
        .await?;
        let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        anyhow::ensure!(waits.is_sorted() && waits[2] > 2 * waits[0], "{waits:?}");
        Ok(())
    })
    .await
}

/// What the tests see besides the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_a_script_and_a_breach_of_the_policy_fail_a_test() -> anyhow::Result<()> {
    const FAULTS: &str = "addEventListener('error', () => { window.fault = true }); \
        document.addEventListener('securitypolicyviolation', () => { window.breach = true }); \
        setTimeout(() => { throw new Error('a fault of a script') }); \
        document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/a.png' }))";
    let _one = ONE.lock().await;
    fleet::run(SandboxConfig::default(), async |fleet| {
        let outcome = visit(fleet, "faults", "read", async |Desk { browser, .. }| {
            browser.open("/").await?;
            browser.see("sign-in").await?;
            browser.script(FAULTS).await?;
            eventually(DEADLINE, async || {
                let both = browser
                    .script("return Boolean(window.fault && window.breach)")
                    .await?;
                anyhow::ensure!(both == true, "not both have happened");
                Ok(())
            })
            .await
        });
        let seen = match outcome.await {
            Ok(()) => anyhow::bail!("nothing was seen"),
            Err(error) => format!("{error:#}"),
        };
        for text in ["a fault of a script", "Content Security Policy"] {
            anyhow::ensure!(seen.contains(text), "`{text}` is not in {seen}");
        }
        Ok(())
    })
    .await
}

//! A headless Chromium that a test drives: with a profile of its own, gone at the end, also when the test fails.
//!
//! It finds things by the names that the page gives them for tests (`data-test`), and waits for what is shown, never for a while.
//! It must not know what a page should show, nor talk to the API in place of the page.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use fleet::{DEADLINE, eventually};
use serde_json::{Value, json};
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities as _;
use thirtyfour::prelude::*;
use thirtyfour::{ChromeCapabilities, LoggingPrefsLogLevel, WebElement};

use super::driver::{Driver, program};

/// No display, no sandbox of Chromium's own (it needs rights that root and containers lack), and no traffic but the page's.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--force-color-profile=srgb",
];

/// A desktop's window, and the smallest phone that counts: width and height.
pub(super) const DESKTOP: [u32; 2] = [1280, 800];
pub(super) const PHONE: [u32; 2] = [390, 844];

/// Where pictures go: `target/browser`, beside the binaries' folder.
pub(super) fn pictures() -> anyhow::Result<PathBuf> {
    let bin = fleet::binary("producer")?;
    let target = bin.parent().and_then(Path::parent).context("no target")?;
    Ok(target.join("browser"))
}

/// A browser at a producer's page.
pub(super) struct Browser {
    web: WebDriver,
    driver: Driver,
    home: PathBuf,
    name: String,
    origin: String,
    /// Serious lines of the browser's log that a test expects, each as `<path> <status>`.
    expected: Mutex<Vec<String>>,
}

/// Runs a test with a browser of its own at the page of `origin`, such as `http://127.0.0.1:8080`. `name` begins the names of its
/// pictures, of which the last one shows what was there when the test failed.
///
/// # Errors
/// What the test failed with; else the first line of the browser's log that no test expects: an error of the page's scripts, a
/// breach of its content security policy, an answer that is an error.
pub(super) async fn browse(
    name: &str,
    origin: &str,
    folder: &Path,
    test: impl AsyncFnOnce(&Browser) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let browser = Browser::start(name, origin, &folder.join("browser")).await?;
    let mut outcome = test(&browser).await;
    if outcome.is_err() {
        let _ = browser.picture("failed").await;
    }
    let faults = browser.faults().await;
    let faults = faults.unwrap_or_else(|error| vec![format!("it cannot be read: {error:#}")]);
    if !faults.is_empty() {
        let faults = format!("in the browser's log:\n{}", faults.join("\n"));
        outcome = match outcome {
            Ok(()) => Err(anyhow::anyhow!(faults)),
            Err(error) => Err(error.context(faults)),
        };
    }
    outcome.and(browser.close().await)
}

impl Browser {
    async fn start(name: &str, origin: &str, home: &Path) -> anyhow::Result<Self> {
        let driver = Driver::start(home).await?;
        let mut wanted = ChromeCapabilities::new();
        let chromium = program("chromium")?;
        wanted.set_binary(chromium.to_str().context("a strange path")?)?;
        for flag in FLAGS {
            wanted.add_arg(flag)?;
        }
        wanted.add_arg(&format!(
            "--user-data-dir={}",
            home.join("profile").display()
        ))?;
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        // Not through a proxy of this process's environment.
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE);
        let web = WebDriver::builder(&driver.url, wanted).client(client.build()?);
        let browser = Self {
            web: web.await.context("Chromium did not start")?,
            driver,
            home: home.to_owned(),
            name: name.to_owned(),
            origin: origin.to_owned(),
            expected: Mutex::default(),
        };
        browser.resize(DESKTOP).await?;
        Ok(browser)
    }

    async fn close(self) -> anyhow::Result<()> {
        let Self {
            web,
            mut driver,
            home,
            ..
        } = self;
        web.quit().await?;
        driver.stop().await?;
        // The browser's processes have been killed, but need not be gone yet.
        eventually(DEADLINE, async || Ok(std::fs::remove_dir_all(&home)?)).await
    }

    /// Says that answers like this are part of the test, such as `/session 401`.
    pub(super) fn expect(&self, path_and_status: &str) {
        self.expected
            .lock()
            .unwrap()
            .push(path_and_status.to_owned());
    }

    /// The serious lines of the log that nobody expects.
    async fn faults(&self) -> anyhow::Result<Vec<String>> {
        let expected = self.expected.lock().unwrap().clone();
        let is_expected = |line: &str| {
            expected.iter().any(|answer| {
                let (path, status) = answer.split_once(' ').unwrap_or((answer, ""));
                line.contains(&format!("{}{path}", self.origin))
                    && line.contains(&format!("status of {status}"))
            })
        };
        let log = self.web.browser_log().await?.into_iter();
        Ok(log
            .filter(|line| line.level == "SEVERE" || line.source.as_deref() == Some("security"))
            .map(|line| line.message)
            .filter(|line| !is_expected(line))
            .collect())
    }

    /// Opens a view by its address below the origin, such as `/#/jobs?status=failed`.
    pub(super) async fn open(&self, view: &str) -> anyhow::Result<()> {
        Ok(self.web.goto(format!("{}{view}", self.origin)).await?)
    }

    /// Loads the page again, where it is.
    pub(super) async fn reload(&self) -> anyhow::Result<()> {
        Ok(self.web.refresh().await?)
    }

    /// The view that is open, as [`Browser::open`] takes it.
    pub(super) async fn view(&self) -> anyhow::Result<String> {
        let url = self.web.current_url().await?;
        Ok(url.as_str().trim_start_matches(&self.origin).to_owned())
    }

    /// What is shown under this name now. A hook is a name, perhaps with conditions in CSS (`view[data-ready=true]`), or several of
    /// these, each within the one before.
    async fn found(&self, hook: &str) -> anyhow::Result<WebElement> {
        let all = self.web.find_all(By::Css(selector(hook))).await?;
        for element in all {
            if element.is_displayed().await? {
                return Ok(element);
            }
        }
        anyhow::bail!("nothing is shown as `{hook}`")
    }

    /// Does something with what is shown under this name, as soon as it is there and lets itself. A page that is redrawn meanwhile
    /// refuses, and then nothing was done.
    async fn with<T>(
        &self,
        hook: &str,
        mut act: impl AsyncFnMut(WebElement) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let done = eventually(DEADLINE, async || act(self.found(hook).await?).await).await;
        done.with_context(|| format!("`{hook}` at {}", self.name))
    }

    /// Waits until this is shown.
    pub(super) async fn see(&self, hook: &str) -> anyhow::Result<()> {
        self.with(hook, async |_| Ok(())).await
    }

    /// Waits until this is shown with this text in it, and returns the whole text.
    pub(super) async fn says(&self, hook: &str, text: &str) -> anyhow::Result<String> {
        self.with(hook, async |element| {
            let whole = element.text().await?;
            // CSS may show capitals where the text has none.
            let has = whole.to_lowercase().contains(&text.to_lowercase());
            anyhow::ensure!(has, "`{text}` is not in `{whole}`");
            Ok(whole)
        })
        .await
    }

    /// Waits until nothing is shown under this name.
    pub(super) async fn gone(&self, hook: &str) -> anyhow::Result<()> {
        eventually(DEADLINE, async || {
            for element in self.web.find_all(By::Css(selector(hook))).await? {
                anyhow::ensure!(!element.is_displayed().await?, "`{hook}` is still shown");
            }
            Ok(())
        })
        .await
    }

    /// Waits until this can be used, or until it cannot.
    pub(super) async fn enabled(&self, hook: &str, wanted: bool) -> anyhow::Result<()> {
        self.with(hook, async |element| {
            let is = element.is_enabled().await?;
            anyhow::ensure!(is == wanted, "enabled: {is}");
            Ok(())
        })
        .await
    }

    /// Clicks on it.
    pub(super) async fn click(&self, hook: &str) -> anyhow::Result<()> {
        self.with(hook, async |element| {
            anyhow::ensure!(element.is_enabled().await?, "`{hook}` is disabled");
            Ok(element.click().await?)
        })
        .await
    }

    /// Puts this text into a field, in place of what is in it.
    pub(super) async fn fill(&self, hook: &str, text: &str) -> anyhow::Result<()> {
        self.with(hook, async |field| {
            field.clear().await?;
            field.send_keys(text).await?;
            let value = field.prop("value").await?.unwrap_or_default();
            anyhow::ensure!(value == text, "the field has `{value}`");
            Ok(())
        })
        .await
    }

    /// Chooses an option of a list by its value.
    pub(super) async fn choose(&self, hook: &str, value: &str) -> anyhow::Result<()> {
        self.with(hook, async |list| {
            let option = list
                .find(By::Css(format!("option[value=\"{value}\"]")))
                .await?;
            Ok(option.click().await?)
        })
        .await
    }

    /// Types into whatever has the focus.
    pub(super) async fn press(&self, keys: impl AsRef<str>) -> anyhow::Result<()> {
        Ok(self
            .web
            .action_chain()
            .send_keys(keys.as_ref())
            .perform()
            .await?)
    }

    /// Goes on with the Tab key until this has the focus.
    pub(super) async fn tab_to(&self, hook: &str) -> anyhow::Result<()> {
        const MOST: usize = 80;
        self.see(hook).await?;
        let has_focus = format!(
            "return document.activeElement?.matches({}) ?? false",
            Value::from(selector(hook))
        );
        for _ in 0..MOST {
            if self.script(&has_focus).await? == true {
                return Ok(());
            }
            self.press(Key::Tab.value().to_string()).await?;
        }
        anyhow::bail!("{MOST} times Tab do not lead to `{hook}`")
    }

    /// Runs a script in the page and returns what it returns.
    pub(super) async fn script(&self, script: &str) -> anyhow::Result<Value> {
        Ok(self.web.execute(script, Vec::new()).await?.json().clone())
    }

    /// Posts to the API as a script of the page could, past its buttons: status and document.
    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<(u64, Value)> {
        const POST: &str = "const [path, body, done] = arguments; \
            fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }) \
            .then(async (answer) => done([answer.status, await answer.json()]), (error) => done([0, String(error)]));";
        let answer = self
            .web
            .execute_async(POST, vec![json!(path), body])
            .await?;
        let answer = answer.json();
        let status = answer[0].as_u64().context("no status")?;
        Ok((status, answer[1].clone()))
    }

    /// Gives the page a window of this width and height. A phone also has a phone's way of laying out pages.
    pub(super) async fn resize(&self, [width, height]: [u32; 2]) -> anyhow::Result<()> {
        let is_phone = width < 600;
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.web
            .cdp()
            .send_raw("Emulation.setDeviceMetricsOverride", size)
            .await?;
        Ok(())
    }

    /// Shows the page as to somebody who prefers `dark` or `light`.
    pub(super) async fn prefer(&self, scheme: &str) -> anyhow::Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.web
            .cdp()
            .send_raw("Emulation.setEmulatedMedia", features)
            .await?;
        Ok(())
    }

    /// Waits until the page is no wider than its window: nobody has to scroll sideways.
    pub(super) async fn fits(&self) -> anyhow::Result<()> {
        const WIDTHS: &str = "return [document.documentElement.scrollWidth, window.innerWidth]";
        eventually(DEADLINE, async || {
            let widths = self.script(WIDTHS).await?;
            let fits = widths[0].as_u64() <= widths[1].as_u64();
            anyhow::ensure!(
                fits,
                "{} is {} wide in {}",
                self.view().await?,
                widths[0],
                widths[1]
            );
            Ok(())
        })
        .await
    }

    /// Stores what the window shows as `target/browser/<test>-<what>.png`, and returns where that is.
    pub(super) async fn picture(&self, what: &str) -> anyhow::Result<PathBuf> {
        let folder = pictures()?;
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}-{what}.png", self.name));
        self.web.screenshot(&path).await?;
        Ok(path)
    }
}

/// The hook of the one with this `data-id`.
pub(super) fn row(name: &str, id: impl std::fmt::Display) -> String {
    format!("{name}[data-id=\"{id}\"]")
}

/// The CSS selector of a hook.
fn selector(hook: &str) -> String {
    let part = |part: &str| {
        let (name, conditions) = part.split_at(part.find('[').unwrap_or(part.len()));
        format!("[data-test=\"{name}\"]{conditions}")
    };
    hook.split(' ').map(part).collect::<Vec<_>>().join(" ")
}

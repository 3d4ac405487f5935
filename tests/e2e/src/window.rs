//! One run of the desktop program under a WebDriver.

use crate::{SIZES, program};
use anyhow::{Context, Result, bail, ensure};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Controls that a screen reader could not name, as HTML.
const NAMELESS: &str = r#"
    const named = (e) => [
        e.getAttribute("aria-label"),
        ...(e.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent),
        ...[...(e.labels ?? [])].map((label) => label.textContent),
        e.tagName === "INPUT" || e.tagName === "SELECT" || e.tagName === "TEXTAREA" ? "" : e.textContent,
    ].some((text) => text?.trim());
    const controls = document.querySelectorAll("button, a[href], input, select, textarea, [role=button], [role=slider]");
    return [...controls].filter((e) => e.checkVisibility?.() !== false && !named(e)).map((e) => e.outerHTML.slice(0, 200));
"#;

/// Notes what is said in the corner, from the page's start on: some of it is gone after a few seconds, and nobody who asks now
/// and then is sure to see it.
const LISTEN: &str = r#"
    const said = window.said = new Set();
    const listen = () => document.querySelectorAll(".toast p").forEach((words) => said.add(words.textContent));
    new MutationObserver(listen).observe(document, { childList: true, characterData: true, subtree: true });
    listen();
"#;

/// How long anything may take before a test gives up: far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Window {
    driver: Child,
    pub client: Client,
    data: std::path::PathBuf,
}

impl Window {
    /// Opens the program with its data in `data`, at 1280x800. It leaves the GPU alone.
    pub async fn open(data: &Path, arguments: &[&str]) -> Result<Window> {
        Window::open_in(data, &[&["--no-gpu"], arguments].concat(), &[]).await
    }

    /// The same with a GPU and with variables of the environment.
    pub async fn open_in(data: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Result<Window> {
        let port = free_port()?;
        let mut driver = Command::new("WebKitWebDriver")
            .args([format!("--port={port}"), "--host=127.0.0.1".into()])
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .env("TAURI_AUTOMATION", "true")
            .envs(environment.iter().cloned())
            .kill_on_drop(true)
            .spawn()
            .context("WebKitWebDriver")?;
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if started.elapsed() > PATIENCE {
                let _ = driver.kill().await;
                bail!("WebKitWebDriver does not listen");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut words = vec!["--automation", "--data-dir", data.to_str().context("data folder")?];
        words.extend(arguments);
        let browser = json!({ "binary": program("headroom-desktop")?, "args": words });
        let capabilities = json!({ "webkitgtk:browserOptions": browser });
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        builder.capabilities(capabilities.as_object().context("capabilities")?.clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await.context("the window did not open")?;
        client.execute(LISTEN, vec![]).await?;
        client.set_window_size(1280, 800).await?;
        Ok(Window { driver, client, data: data.into() })
    }

    /// Goes to one of the five places.
    pub async fn go(&self, place: &str) -> Result<()> {
        self.click(&format!("nav-{place}")).await
    }

    /// Waits until a model is loaded.
    pub async fn ready(&self) -> Result<()> {
        self.get_with("model-status", "data-state", "ready").await.map(drop)
    }

    /// Sends a message.
    pub async fn ask(&self, question: &str) -> Result<()> {
        self.fill("message-input", question).await?;
        self.click("send").await
    }

    /// Waits until this many answers have ended.
    pub async fn answered(&self, count: usize) -> Result<()> {
        self.until("the answer ends", async || Ok(self.all("answer-finish").await?.len() >= count)).await
    }

    /// The element with this test id and this attribute, when it is there.
    pub async fn get_with(&self, id: &str, attribute: &str, value: &str) -> Result<Element> {
        self.wait_for(&format!("[data-testid=\"{id}\"][{attribute}=\"{value}\"]")).await
    }

    /// An attribute of the element with this test id.
    pub async fn attribute(&self, id: &str, name: &str) -> Result<Option<String>> {
        Ok(self.get(id).await?.attr(name).await?)
    }

    /// Bytes of video memory that the chat's panel says are ours.
    pub async fn vram_used(&self) -> Result<u64> {
        Ok(self.attribute("memory-vram", "data-used").await?.unwrap_or_default().parse().unwrap_or(0))
    }

    /// Replaces the text of a field.
    pub async fn fill(&self, id: &str, text: &str) -> Result<()> {
        let field = self.get(id).await?;
        field.clear().await?;
        field.send_keys(text).await?;
        Ok(())
    }

    /// Presses keys on the element with this test id.
    pub async fn press(&self, id: &str, keys: &str) -> Result<()> {
        self.get(id).await?.send_keys(keys).await?;
        Ok(())
    }

    /// Gives the page the time of two frames and a task: what a click has changed is drawn then.
    pub async fn settle(&self) -> Result<()> {
        let script = "const done = arguments[0]; \
            requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300)))";
        self.client.execute_async(script, vec![]).await?;
        Ok(())
    }

    /// Nothing is wider or higher than the window, and every control has a name.
    pub async fn fits(&self, what: &str) -> Result<()> {
        let script = "const root = document.documentElement; \
            return [root.scrollWidth - innerWidth, root.scrollHeight - innerHeight]";
        let overflow = self.script(script).await?;
        ensure!(overflow[0].as_i64() <= Some(0), "{what}: the page is {} px wider than the window", overflow[0]);
        ensure!(overflow[1].as_i64() <= Some(0), "{what}: the page is {} px higher than the window", overflow[1]);
        let nameless = self.script(NAMELESS).await?;
        ensure!(nameless == json!([]), "{what}: controls without a name: {nameless}");
        Ok(())
    }

    /// Looks at what is shown now, at every size: see [`Window::fits`] and [`Window::picture`].
    pub async fn look(&self, name: &str) -> Result<()> {
        for (width, height) in SIZES {
            self.client.set_window_size(width, height).await?;
            self.settle().await?;
            self.picture(&format!("{name}-{width}"))?;
            self.fits(&format!("{name} at {width}x{height}")).await?;
        }
        Ok(self.client.set_window_size(SIZES[0].0, SIZES[0].1).await?)
    }

    /// A picture for people, where the environment says where to (HEADROOM_PICTURES). Taken from the X server by
    /// ImageMagick: the WebDriver's own way waits forever for a frame when nothing on the page changes.
    pub fn picture(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("HEADROOM_PICTURES") else { return Ok(()) };
        std::fs::create_dir_all(&folder)?;
        let path = Path::new(&folder).join(format!("{name}.png"));
        let taken = std::process::Command::new("import").args(["-silent", "-window", "root"]).arg(&path).status();
        if !taken.is_ok_and(|status| status.success()) {
            eprintln!("no picture of {name}: ImageMagick's `import` is needed");
        }
        Ok(())
    }

    /// All that was said in the corner so far, in one text.
    pub async fn said(&self) -> Result<String> {
        let said = self.script("return [...window.said].join(' ')").await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a script in the page and gives what it returns.
    pub async fn script(&self, script: &str) -> Result<serde_json::Value> {
        Ok(self.client.execute(script, vec![]).await?)
    }

    /// The element with this test id, when it is there.
    pub async fn get(&self, id: &str) -> Result<Element> {
        self.wait_for(&format!("[data-testid=\"{id}\"]")).await
    }

    async fn wait_for(&self, selector: &str) -> Result<Element> {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(selector)).await;
        if found.is_err() {
            self.picture("gave-up")?;
        }
        found.with_context(|| format!("there is no {selector}"))
    }

    /// Every element with this test id that is there now.
    pub async fn all(&self, id: &str) -> Result<Vec<Element>> {
        Ok(self.client.find_all(Locator::Css(&format!("[data-testid=\"{id}\"]"))).await?)
    }

    /// Clicks what has this test id, as soon as it can be clicked.
    pub async fn click(&self, id: &str) -> Result<()> {
        self.click_css(&format!("[data-testid=\"{id}\"]")).await
    }

    /// Clicks the first element that a selector finds, as soon as it can be clicked.
    pub async fn click_css(&self, selector: &str) -> Result<()> {
        self.until(&format!("{selector} can be clicked"), async || {
            let element = self.client.find(Locator::Css(selector)).await?;
            Ok(element.is_enabled().await? && element.click().await.is_ok())
        })
        .await
    }

    pub async fn text(&self, id: &str) -> Result<String> {
        Ok(self.get(id).await?.text().await?)
    }

    /// Waits for something to become true. Errors on the way (an element that was just replaced) mean "not yet".
    pub async fn until(&self, what: &str, mut test: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            match test().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.picture("gave-up")?;
        bail!("waited in vain: {what} ({last:?})")
    }

    /// Ends the program as a crash would: without a word.
    pub async fn kill(mut self) -> Result<()> {
        self.kill_program();
        // A driver that is gone already is as good.
        let _ = self.driver.kill().await;
        Ok(())
    }

    fn kill_program(&self) {
        for pid in self.pids().unwrap_or_default() {
            // A process that is gone already is as good.
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }

    /// Process ids of the program with this data folder.
    fn pids(&self) -> Result<Vec<u32>> {
        let wanted = self.data.to_string_lossy().into_owned();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("headroom-desktop") && line.contains(&wanted) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    pub async fn close(mut self) -> Result<()> {
        self.client.clone().close().await?;
        let _ = self.driver.kill().await;
        Ok(())
    }
}

impl Drop for Window {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        self.kill_program();
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

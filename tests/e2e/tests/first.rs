//! The first minutes of somebody new: what goes wrong is told with what to do, and then a model answers.

use anyhow::{Result, ensure};
use e2e::{QUANTS, REPOSITORY, Window, repository, settings};
use gguf::{GgufWriter, Value};
use serde_json::json;

/// A header that is GGUF, of a model that nobody knows.
fn martian() -> Result<Vec<u8>> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", Value::String("martian".into()))?;
    Ok(writer.header()?)
}

async fn search(window: &Window, words: &str) -> Result<()> {
    window.go("discover").await?;
    if !window.all("repo-back").await?.is_empty() {
        window.click("repo-back").await?;
    }
    window.fill("discover-search", words).await?;
    window.click("discover-submit").await
}

async fn page(window: &Window, repo: &str, rows: usize) -> Result<()> {
    window.get_with("discover-result", "data-repo", repo).await?.click().await?;
    window.until("all sizes", async || Ok(window.all("quant-row").await?.len() == rows)).await
}

/// What is shown in the place, in one text.
async fn shown(window: &Window) -> Result<String> {
    Ok(window.script("return document.querySelector('main').innerText").await?.as_str().unwrap_or_default().to_owned())
}

/// Waits until the place says `words`.
async fn says(window: &Window, words: &str) -> Result<()> {
    window.until(words, async || Ok(shown(window).await?.contains(words))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_past_every_obstacle_to_an_answer() -> Result<()> {
    let words = [
        (
            "en",
            "light",
            "cannot be reached",
            "does not accept your token",
            "Nothing can be written to",
            "Architecture not supported yet: martian",
        ),
        (
            "ja",
            "dark",
            "接続できません",
            "受け付けられませんでした",
            "書き込めません",
            "未対応のアーキテクチャ: martian",
        ),
    ];
    for (language, theme, offline, token, folder, unsupported) in words {
        let data = tempfile::tempdir()?;
        settings(
            data.path(),
            json!({ "language": language, "theme": theme, "sampling": { "temperature": 0, "maxTokens": 40 } }),
        )?;
        let name = |what: &str| format!("first-{what}-{language}");
        let window = Window::open(data.path(), &["--endpoint", "http://127.0.0.1:9"]).await?;
        window.look(&name("empty")).await?;
        search(&window, "rustdoc").await?;
        says(&window, offline).await?;
        window.look(&name("offline")).await?;
        window.close().await?;

        let hub = repository()?;
        hub.add_token("hf_right", &[]);
        hub.add_bytes("odd/martian-GGUF", "martian-Q4_0.gguf", martian()?);
        hub.add_bytes("odd/martian-GGUF", "broken-Q8_0.gguf", vec![7; 4000]);
        hub.add_bytes("odd/twins-GGUF", "small-F16.gguf", e2e::file("F16")?);
        hub.add_bytes("odd/twins-GGUF", "large-F16.gguf", e2e::file("F16")?);
        // Where the folder of downloads would be is a file.
        std::fs::create_dir_all(data.path().join("models"))?;
        std::fs::write(data.path().join("models/odd"), "")?;
        let endpoint = hub.endpoint();
        let window = Window::open(data.path(), &["--endpoint", &endpoint]).await?;

        window.go("settings").await?;
        window.fill("settings-token", "hf_wrong").await?;
        window.click("settings-token-save").await?;
        search(&window, "rustdoc").await?;
        says(&window, token).await?;
        window.look(&name("token")).await?;
        window.go("settings").await?;
        window.fill("settings-token", "hf_right").await?;
        window.click("settings-token-save").await?;

        search(&window, "martian").await?;
        page(&window, "odd/martian-GGUF", 2).await?;
        says(&window, unsupported).await?;
        window.look(&name("unsupported")).await?;

        search(&window, "twins").await?;
        page(&window, "odd/twins-GGUF", 2).await?;
        window.until("both are planned", async || Ok(window.all("quant-plan").await?.len() == 2)).await?;
        window.click_css("[data-quant=\"large-F16\"] [data-testid=\"quant-download\"]").await?;
        says(&window, folder).await?;
        window.look(&name("folder")).await?;

        search(&window, "rustdoc").await?;
        page(&window, REPOSITORY, QUANTS.len()).await?;
        window.click_css("[data-quant=\"Q8_0\"] [data-testid=\"quant-download\"]").await?;
        window.click_css("[data-quant=\"Q8_0\"] [data-testid=\"quant-load\"]").await?;
        window.go("chat").await?;
        window.ready().await?;
        window.ask("Tell me about std::vec::Vec.").await?;
        window.answered(1).await?;
        window.look(&name("answer")).await?;
        let text = window.text("message-text").await?;
        ensure!(text.contains("Vec"), "{text}");
        window.close().await?;
    }
    Ok(())
}

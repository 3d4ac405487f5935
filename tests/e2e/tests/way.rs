//! The whole way: search, download, load, slide, chat; through a cut connection and two crashes.

use anyhow::Result;
use e2e::{QUANTS, REPOSITORY, Window, file_name, repository, settings};
use serde_json::json;
use std::path::Path;

const QUESTION: &str = "Tell me about std::vec::Vec.";
/// How the model's answer begins at temperature 0 (computed by another engine).
const ANSWER: &str = "A draining iterator over the elements of a Vec.";
/// Bytes of rustdoc-tiny-F16.gguf.
const F16_BYTES: u64 = 13_777_632;

/// The last answer's text, when there are `count` finished ones.
async fn answer(window: &Window, count: usize) -> Result<(String, String)> {
    window.answered(count).await?;
    let finishes = window.all("answer-finish").await?;
    let reason = finishes[count - 1].attr("data-reason").await?.unwrap_or_default();
    let texts = window.all("message-text").await?;
    Ok((texts[count - 1].text().await?, reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn from_search_to_answer() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({ "sampling": { "temperature": 0 } }))?;
    let hub = repository()?;
    hub.faults(|faults| {
        faults.bytes_per_second = Some(4_000_000);
        faults.cuts = [F16_BYTES / 2].into();
    });
    let endpoint = hub.endpoint();
    let arguments = ["--endpoint", endpoint.as_str(), "--test-device", "1000000000"];

    let window = Window::open(data.path(), &arguments).await?;
    window.go("discover").await?;
    window.fill("discover-search", "rustdoc").await?;
    window.click("discover-submit").await?;
    window.get_with("discover-result", "data-repo", REPOSITORY).await?.click().await?;
    window.until("three quantizations", async || Ok(window.all("quant-row").await?.len() == QUANTS.len())).await?;
    for quant in QUANTS {
        window.get_with("quant-row", "data-quant", quant).await?;
    }
    let served = hub.served();
    let row = "[data-testid=\"quant-row\"][data-quant=\"F16\"] [data-testid=\"quant-download\"]";
    window.click_css(row).await?;
    window.until("a part is fetched", async || Ok(hub.served() > served + 2_000_000)).await?;
    window.kill().await?;

    // The download goes on by itself, through the cut.
    let window = Window::open(data.path(), &arguments).await?;
    window.go("models").await?;
    window.get_with("download-item", "data-state", "done").await?;
    let mut cuts = 1;
    hub.faults(|faults| cuts = faults.cuts.len());
    assert_eq!(cuts, 0, "the connection was never cut");
    let fetched = hub.served() - served;
    assert!(fetched < F16_BYTES + F16_BYTES / 2, "{fetched} bytes for a file of {F16_BYTES}: it did not resume");

    window.click("library-load").await?;
    window.go("chat").await?;
    window.ready().await?;
    window.ask(QUESTION).await?;
    let (text, reason) = answer(&window, 1).await?;
    assert!(text.contains(ANSWER), "{text}");
    assert_eq!(reason, "end");
    window.kill().await?;

    let window = Window::open(data.path(), &arguments).await?;
    window.go("chat").await?;
    window.click("chat-item").await?;
    let (again, _) = answer(&window, 1).await?;
    assert!(again.contains(ANSWER), "{again}");
    assert!(window.text("message-user").await?.contains(QUESTION));
    window.go("models").await?;
    assert_eq!(window.all("library-item").await?.len(), 1);
    damaged_and_downloaded_again(&window, &data.path().join("models").join(REPOSITORY).join(file_name("F16"))).await?;
    window.close().await
}

/// Every byte is as the Hub has it, until one is not.
async fn damaged_and_downloaded_again(window: &Window, file: &Path) -> Result<()> {
    let verified = async |words: &str| {
        window.click("library-verify").await?;
        window.until("it is verified", async || Ok(window.text("verify-status").await?.contains(words))).await
    };
    verified("every byte is as on Hugging Face").await?;
    let mut bytes = std::fs::read(file)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(file, &bytes)?;
    verified("is damaged: its bytes are not those on Hugging Face").await?;
    window.look("damaged-en-light").await?;
    window.click("verify-again").await?;
    // What was found was about the other bytes.
    window.until("it is there anew", async || Ok(window.text("verify-status").await?.is_empty())).await?;
    verified("every byte is as on Hugging Face").await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_move_while_an_answer_is_written() -> Result<()> {
    let data = tempfile::tempdir()?;
    // Long enough that a loaded machine moves layers in the middle of it: the model does not find an end to this question.
    settings(data.path(), json!({ "sampling": { "temperature": 0, "maxTokens": 3000 }, "threads": 1 }))?;
    let model = e2e::fixture("rustdoc-tiny-F16.gguf");
    let model = model.to_string_lossy();
    let window = Window::open(data.path(), &["--demo", &model, "--test-device", "1000000000"]).await?;
    window.ready().await?;
    window.fill("context-input", "8192").await?;
    window.click("load-model").await?;
    window
        .until("the model has its new context", async || {
            Ok(window.all("load-model").await?.is_empty()
                && window.attribute("model-status", "data-state").await?.as_deref() == Some("ready"))
        })
        .await?;
    // Home: every layer off the device.
    window.press("gpu-layers", "\u{e011}").await?;
    window.until("the device is empty", async || Ok(window.vram_used().await? == 0)).await?;

    window.ask("Explain: The Reference - Operator expressions").await?;
    window.get("stop").await?;
    // Three arrows up, one at a time, then End: everything on the device.
    for key in ["\u{e013}", "\u{e013}", "\u{e013}", "\u{e010}"] {
        window.press("gpu-layers", key).await?;
    }
    window.until("layers are on the device", async || Ok(window.vram_used().await? > 0)).await?;
    assert_eq!(window.all("stop").await?.len(), 1, "the answer had ended before the layers had moved");
    let moved = answer(&window, 1).await?;

    window.click("regenerate").await?;
    window.get("stop").await?;
    let unmoved = answer(&window, 1).await?;
    assert!(moved.0.len() > 400, "{}", moved.0);
    assert_eq!(moved, unmoved);
    window.close().await
}

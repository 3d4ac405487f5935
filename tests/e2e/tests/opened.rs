//! A model that is opened from a file manager: the window shows it, ready to be loaded.

use anyhow::{Result, ensure};
use e2e::{LOOKS, Window, file, settings};
use serde_json::json;

/// What the window says: to a model that is new here, and to a file that is none.
const WORDS: [(&str, &str); 2] = [
    ("was added to your models", "is not a valid GGUF file"),
    ("一覧に追加しました", "正しいGGUFファイルではありません"),
];

/// The model that the load panel shows.
async fn chosen(window: &Window) -> Result<String> {
    let script = "return document.querySelector('[data-testid=\"model-select\"]')?.selectedOptions[0]?.text ?? ''";
    Ok(window.script(script).await?.as_str().unwrap_or_default().to_owned())
}

/// What stands in the corner, in one text.
async fn told(window: &Window) -> Result<String> {
    let script = "return document.querySelector('.toasts')?.innerText ?? ''";
    Ok(window.script(script).await?.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_shown_and_loaded_by_one_click() -> Result<()> {
    for ((language, theme), (added, invalid)) in LOOKS.into_iter().zip(WORDS) {
        let (data, place) = (tempfile::tempdir()?, tempfile::tempdir()?);
        settings(data.path(), json!({ "language": language, "theme": theme, "inspectorOpen": false }))?;
        let path = place.path().join("私の モデル's-F16.gguf");
        std::fs::write(&path, file("F16")?)?;
        // As somebody types it who stands elsewhere.
        let detour = place.path().join("./nowhere/..").join(path.file_name().unwrap_or_default());
        std::fs::create_dir(place.path().join("nowhere"))?;

        let window = Window::open(data.path(), &[&detour.to_string_lossy()]).await?;
        window.until("the model is told", async || Ok(window.said().await?.contains(added))).await?;
        window.until("the model is chosen", async || Ok(chosen(&window).await?.contains("モデル's-F16"))).await?;
        ensure!(window.attribute("model-status", "data-state").await?.as_deref() == Some("none"), "it is loaded");
        window.look(&format!("opened-{language}")).await?;
        window.click("load-model").await?;
        window.ready().await?;
        window.close().await?;

        let letter = place.path().join("letter.gguf");
        std::fs::write(&letter, "Dear Sir or Madam")?;
        let window = Window::open(data.path(), &[&letter.to_string_lossy()]).await?;
        window.until("the letter is told", async || Ok(told(&window).await?.contains(invalid))).await?;
        ensure!(told(&window).await?.contains("letter.gguf"));
        window.look(&format!("opened-letter-{language}")).await?;
        window.go("models").await?;
        window.get("library-item").await?;
        ensure!(window.all("library-item").await?.len() == 1, "the first file is kept, the second is not");
        window.close().await?;
    }
    Ok(())
}

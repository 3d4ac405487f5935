//! Every place in both languages and themes, at two sizes: nothing is cut off, everything has a name, nothing foreign runs.

use anyhow::Result;
use e2e::{LOOKS, SIZES, Window, settings};
use serde_json::json;

const PLACES: [&str; 5] = ["chat", "models", "discover", "hardware", "settings"];

#[tokio::test(flavor = "multi_thread")]
async fn every_place_fits_and_is_named() -> Result<()> {
    let model = e2e::fixture("rustdoc-tiny-Q4_K_M.gguf");
    let model = model.to_string_lossy();
    for (language, theme) in LOOKS {
        let data = tempfile::tempdir()?;
        settings(data.path(), json!({ "language": language, "theme": theme }))?;
        // An address where nobody answers: the views must do without.
        let endpoint = ["--endpoint", "http://127.0.0.1:9"];
        let window = Window::open(data.path(), &[&["--demo", &*model][..], &endpoint].concat()).await?;
        window.ready().await?;
        assert_eq!(window.script("return document.documentElement.lang").await?, json!(language));
        for (width, height) in SIZES {
            window.client.set_window_size(width, height).await?;
            for place in PLACES {
                window.go(place).await?;
                window.settle().await?;
                window.picture(&format!("{place}-{language}-{theme}-{width}"))?;
                window.fits(&format!("{place} in {language}, {theme}, at {width}x{height}")).await?;
            }
        }
        let text = window.script("return document.body.innerText").await?;
        let japanese = text.as_str().is_some_and(|text| text.chars().any(|c| ('\u{3041}'..='\u{30ff}').contains(&c)));
        assert_eq!(japanese, language == "ja", "the language of the window");
        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_goes_everywhere_and_foreign_scripts_nowhere() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({}))?;
    let window = Window::open(data.path(), &["--endpoint", "http://127.0.0.1:9"]).await?;
    for (index, place) in PLACES.iter().enumerate() {
        window.press("nav-chat", &format!("\u{e009}{}\u{e000}", index + 1)).await?;
        let id = format!("nav-{place}");
        window
            .until(&format!("Ctrl+{} opens {place}", index + 1), async || {
                Ok(window.attribute(&id, "aria-current").await?.is_some_and(|current| current != "false"))
            })
            .await?;
    }
    // What an answer of a model could try.
    window
        .script(
            r#"
            const script = document.createElement("script");
            script.textContent = "window.foreign = 'inline script'";
            document.body.append(script);
            const box = document.createElement("div");
            box.innerHTML = "<img src='/nothing' onerror=\"window.foreign = 'handler'\">";
            document.body.append(box);
            "#,
        )
        .await?;
    window.settle().await?;
    assert_eq!(window.script("return window.foreign ?? null").await?, json!(null));
    // Without a GPU the slider is there, off, and says why.
    window.go("chat").await?;
    assert!(!window.get("gpu-layers").await?.is_enabled().await?);
    assert!(!window.text("gpu-layers-reason").await?.trim().is_empty());
    window.close().await
}

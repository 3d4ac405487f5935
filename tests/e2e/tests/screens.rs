//! Every place in both languages and themes, at two sizes: nothing is cut off, everything has a name, nothing foreign runs.

use anyhow::Result;
use e2e::{LOOKS, SIZES, Window, settings};
use serde_json::json;

const PLACES: [&str; 5] = ["chat", "models", "discover", "hardware", "settings"];

/// Figures, and the word for what is free, of which a line ends within, at any width that lists of facts can have.
const BROKEN: &str = r#"
    const broken = [];
    for (const list of document.querySelectorAll("dl")) {
        for (let width = 260; width <= 460; width += 4) {
            list.style.width = `${width}px`;
            const texts = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
            for (let text; (text = texts.nextNode()); ) {
                for (const found of text.data.matchAll(/[\d.]+\s[kMGT]?B(\sfree|\u2060?が\u2060?空\u2060?き)?|空\u2060?き/g)) {
                    const range = document.createRange();
                    range.setStart(text, found.index);
                    range.setEnd(text, found.index + found[0].length);
                    const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
                    if (lines.size > 1) broken.push(`${found[0]} at ${width}`);
                }
            }
        }
        list.style.width = "";
    }
    return broken;
"#;

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
                if place == "hardware" {
                    let broken = window.script(BROKEN).await?;
                    assert_eq!(broken, json!([]), "figures in two lines in {language}, at {width}x{height}");
                }
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

/// Twice as large, for eyes that need it: everything is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_zoomed_by_keys_and_fits() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({}))?;
    let model = e2e::fixture("rustdoc-tiny-Q4_K_M.gguf");
    let window =
        Window::open(data.path(), &["--demo", &model.to_string_lossy(), "--endpoint", "http://127.0.0.1:9"]).await?;
    window.ready().await?;
    let width = async || anyhow::Ok(window.script("return innerWidth").await?.as_u64().unwrap_or_default());
    let whole = width().await?;
    for _ in 0..5 {
        window.press("nav-chat", "\u{e009}+\u{e000}").await?;
    }
    window.until("it is zoomed", async || Ok(width().await? == whole / 2)).await?;
    for place in PLACES {
        window.go(place).await?;
        window.settle().await?;
        window.picture(&format!("zoomed-{place}"))?;
        window.fits(&format!("{place}, zoomed")).await?;
    }
    window.press("nav-chat", "\u{e009}0\u{e000}").await?;
    window.until("it is as before", async || Ok(width().await? == whole)).await?;
    window.close().await
}

/// The paper clip's file chooser, answered by the WebDriver.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_file_is_put_into_the_message() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({ "language": "ja" }))?;
    let path = data.path().join("メモ.txt");
    // 日本 in Shift-JIS.
    std::fs::write(&path, b"\x93\xfa\x96\x7b\r\n")?;
    let window = Window::open(data.path(), &["--endpoint", "http://127.0.0.1:9"]).await?;
    window.fill("message-input", "説明して").await?;
    window.press("attach-files", &path.to_string_lossy()).await?;
    let message = "return document.querySelector('[data-testid=\"message-input\"]').value";
    let wanted = json!("説明して\n\nメモ.txt:\n```\n日本\n```\n");
    window.until("the file is in the message", async || Ok(window.script(message).await? == wanted)).await?;
    window.look("attached-ja").await?;
    window.close().await
}

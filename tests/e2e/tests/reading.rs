//! A reader is left in peace: what is read stays where it is, however much is written below.

use anyhow::{Context, Result};
use e2e::{Window, settings};
use fantoccini::Locator;
use fantoccini::elements::Element;
use serde_json::{Value, json};

/// How far the conversation is scrolled, how far its end is from there, and how much is written.
const PLACE: &str = "const scroller = document.querySelector('[data-testid=\"messages\"]'); \
    const end = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop; \
    return [Math.round(scroller.scrollTop), Math.round(end), scroller.innerText.length]";

struct Place {
    top: u64,
    to_end: u64,
    written: u64,
}

async fn place(window: &Window) -> Result<Place> {
    let place = window.script(PLACE).await?;
    let number = |at: usize| place.get(at).and_then(Value::as_u64).context("no place");
    Ok(Place { top: number(0)?, to_end: number(1)?, written: number(2)? })
}

/// Waits until so many more characters are written.
async fn write_on(window: &Window, more: u64) -> Result<()> {
    let before = place(window).await?.written;
    window.until("the answer grows", async || Ok(place(window).await?.written >= before + more)).await
}

async fn press(scroller: &Element, keys: &str) -> Result<()> {
    Ok(scroller.send_keys(keys).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_scrolls_up_stays_there_while_an_answer_is_written() -> Result<()> {
    let data = tempfile::tempdir()?;
    // The model does not find an end to this question.
    settings(data.path(), json!({ "sampling": { "temperature": 0, "maxTokens": 8000 }, "threads": 1 }))?;
    let model = e2e::fixture("rustdoc-tiny-F16.gguf");
    let window = Window::open(data.path(), &["--demo", &model.to_string_lossy()]).await?;
    window.ready().await?;
    window.client.set_window_size(900, 600).await?;
    window.fill("context-input", "8192").await?;
    window.click("load-model").await?;
    window.until("the context is there", async || Ok(window.all("load-model").await?.is_empty())).await?;
    window.ready().await?;
    window.ask("Explain: The Reference - Operator expressions").await?;
    window.until("the answer is higher than the window", async || Ok(place(&window).await?.top > 200)).await?;
    // Who reads the end sees the newest words.
    write_on(&window, 300).await?;
    window.until("the end is shown", async || Ok(place(&window).await?.to_end <= 1)).await?;

    let scroller = window.client.find(Locator::Css("[data-testid=\"messages\"]")).await?;
    // A line up, which is nearer to the end than what counts for those who come back.
    press(&scroller, "\u{e013}").await?;
    window.until("the reader is off the end", async || Ok(place(&window).await?.to_end > 1)).await?;
    window.settle().await?;
    let read = place(&window).await?.top;
    write_on(&window, 600).await?;
    let now = place(&window).await?;
    assert_eq!(now.top, read, "the reader was moved");
    assert!(now.to_end > 100, "nothing was written below: {}", now.to_end);
    assert_eq!(window.all("stop").await?.len(), 1, "the answer had ended before");
    window.get("newest").await?;

    // Back at the end, one stays there.
    press(&scroller, "\u{e010}").await?;
    window.until("the end is shown again", async || Ok(place(&window).await?.to_end <= 1)).await?;
    write_on(&window, 300).await?;
    window.until("the end goes along", async || Ok(place(&window).await?.to_end <= 1)).await?;

    // And likewise when it ends: buttons come below it.
    press(&scroller, "\u{e00e}").await?;
    window.until("the reader is off the end again", async || Ok(place(&window).await?.to_end > 100)).await?;
    window.settle().await?;
    let read = place(&window).await?.top;
    window.click("stop").await?;
    window.answered(1).await?;
    window.settle().await?;
    assert_eq!(place(&window).await?.top, read, "the end of the answer moved the reader");
    window.close().await
}

//! Everything by keys: from an empty window to an answer, and back to no chat. The focus is always somewhere, and seen.

use anyhow::{Result, bail, ensure};
use e2e::{QUANTS, REPOSITORY, Window, repository, settings};
use serde_json::json;

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
/// More stops than any place has.
const STOPS: usize = 120;

/// Presses keys where the focus is.
async fn press(window: &Window, keys: &str) -> Result<()> {
    Ok(window.client.active_element().await?.send_keys(keys).await?)
}

async fn has_focus(window: &Window, selector: &str) -> Result<bool> {
    let selector = serde_json::to_string(selector)?;
    Ok(window.script(&format!("return document.activeElement.matches({selector})")).await? == json!(true))
}

/// Goes on with Tab until what a selector finds has the focus.
async fn tab_to(window: &Window, selector: &str) -> Result<()> {
    for _ in 0..STOPS {
        if has_focus(window, selector).await? {
            return seen(window, selector).await;
        }
        press(window, TAB).await?;
    }
    bail!("Tab never comes to {selector}")
}

/// The focus is somewhere, and one sees where.
async fn seen(window: &Window, when: &str) -> Result<()> {
    window.settle().await?;
    let script = "const at = document.activeElement; \
        return at === document.body ? 'nowhere' : at.matches(':focus-visible') ? '' : at.outerHTML.slice(0, 200)";
    let unseen = window.script(script).await?;
    ensure!(unseen == json!(""), "{when}: the focus is not seen, or lost: {unseen}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_an_answer_and_back() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({ "sampling": { "temperature": 0, "maxTokens": 40 } }))?;
    let hub = repository()?;
    let window = Window::open(data.path(), &["--endpoint", &hub.endpoint()]).await?;
    window.get("message-input").await?;

    press(&window, "\u{e009}3\u{e000}").await?;
    tab_to(&window, "[data-testid=\"discover-search\"]").await?;
    press(&window, &format!("rustdoc{ENTER}")).await?;
    window.get_with("discover-result", "data-repo", REPOSITORY).await?;
    tab_to(&window, &format!("[data-repo=\"{REPOSITORY}\"]")).await?;
    press(&window, ENTER).await?;
    window.until("all sizes", async || Ok(window.all("quant-row").await?.len() == QUANTS.len())).await?;
    tab_to(&window, "[data-quant=\"Q8_0\"] [data-testid=\"quant-download\"]").await?;
    press(&window, ENTER).await?;
    let load = "[data-quant=\"Q8_0\"] [data-testid=\"quant-load\"]";
    window.until("it is there", async || Ok(window.all("quant-load").await?.len() == 1)).await?;
    seen(&window, "after a download").await?;
    tab_to(&window, load).await?;
    press(&window, ENTER).await?;
    window.ready().await?;
    window.until("one can write", async || has_focus(&window, "[data-testid=\"message-input\"]").await).await?;
    press(&window, &format!("Tell me about std::vec::Vec.{ENTER}")).await?;
    window.answered(1).await?;
    ensure!(has_focus(&window, "[data-testid=\"message-input\"]").await?, "the message box keeps the focus");

    // A message is changed, and left as it was.
    tab_to(&window, "[data-testid=\"edit\"]").await?;
    press(&window, ENTER).await?;
    window.until("it can be changed", async || has_focus(&window, "[data-testid=\"edit-input\"]").await).await?;
    press(&window, ESCAPE).await?;
    seen(&window, "after a change that was called off").await?;
    // Two versions, one after the other.
    tab_to(&window, "[data-testid=\"regenerate\"]").await?;
    press(&window, ENTER).await?;
    window.until("two versions", async || Ok(window.all("branch").await?.len() == 1)).await?;
    window.answered(1).await?;
    seen(&window, "after another answer").await?;
    tab_to(&window, "[data-testid=\"previous-branch\"]").await?;
    press(&window, ENTER).await?;
    window.until("the first version", async || Ok(window.text("branch").await? == "1/2")).await?;
    seen(&window, "after the other version came").await?;

    // The chat goes into the bin; the focus goes on beside it.
    tab_to(&window, "[data-testid=\"chat-delete\"]").await?;
    press(&window, ENTER).await?;
    window.until("the chat is gone", async || Ok(window.all("chat-item").await?.is_empty())).await?;
    seen(&window, "after the chat was deleted").await?;
    window.close().await
}

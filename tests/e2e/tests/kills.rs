//! The window is killed at fifty random moments while it downloads, loads and answers; nothing of the user's is lost.

use anyhow::{Context, Result};
use e2e::{QUANTS, REPOSITORY, Window, file, file_name, repository, settings};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const KILLS: u32 = 50;
/// The longest time until a kill, in milliseconds: about as long as an answer takes.
const LONGEST: u64 = 1500;

/// Numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What was there before a kill and must be there after it.
#[derive(Default)]
struct Known {
    chats: usize,
    /// Questions whose answer had begun to come: they are in the data base.
    questions: Vec<String>,
}

/// Every model in the folder is whole.
fn check_models(folder: &Path) -> Result<()> {
    for quant in QUANTS {
        let path = folder.join(REPOSITORY).join(file_name(quant));
        if path.exists() {
            anyhow::ensure!(std::fs::read(&path)? == file(quant)?, "{} is half-written", path.display());
        }
    }
    Ok(())
}

async fn check_chats(window: &Window, known: &mut Known) -> Result<()> {
    window.go("chat").await?;
    if known.chats > 0 {
        window.get("chat-item").await?;
    }
    let chats = window.all("chat-item").await?.len();
    anyhow::ensure!(chats >= known.chats, "{chats} chats, there were {}", known.chats);
    known.chats = chats;
    let Some(question) = known.questions.last() else { return Ok(()) };
    // The newest chats are on top; one may be empty.
    for item in window.all("chat-item").await?.into_iter().take(3) {
        item.click().await?;
        window.settle().await?;
        for message in window.all("message-user").await? {
            if message.text().await?.contains(question) {
                return Ok(());
            }
        }
    }
    window.picture("gave-up")?;
    anyhow::bail!("'{question}' is lost")
}

/// Something a person might be doing; an error means that the kill came first.
async fn act(window: &Window, round: u32, random: &mut Random, known: &mut Known) -> Result<()> {
    match random.below(4) {
        0 => {
            window.go("discover").await?;
            window.fill("discover-search", "rustdoc").await?;
            window.click("discover-submit").await?;
            window.get_with("discover-result", "data-repo", REPOSITORY).await?.click().await?;
            let quant = QUANTS[random.below(QUANTS.len() as u64) as usize];
            window.get_with("quant-row", "data-quant", quant).await?;
            let download =
                format!("[data-testid=\"quant-row\"][data-quant=\"{quant}\"] [data-testid=\"quant-download\"]");
            // It may be there or on its way already.
            if window.script(&format!("return document.querySelector('{download}') !== null")).await? == json!(true) {
                window.click_css(&download).await?;
            }
        }
        _ => {
            window.go("chat").await?;
            window.ready().await?;
            if known.chats == 0 || random.below(4) == 0 {
                window.click("chat-new").await?;
                window.until("the chat is new", async || Ok(window.all("message-user").await?.is_empty())).await?;
                window.settle().await?;
            }
            let question = format!("Question {round}: what is a Vec?");
            window.fill("message-input", &question).await?;
            window.click("send").await?;
            window
                .until("the answer has begun", async || {
                    Ok(window
                        .script("return document.body.innerText")
                        .await?
                        .as_str()
                        .is_some_and(|t| t.contains(&question))
                        && !window.all("message-assistant").await?.is_empty())
                })
                .await?;
            known.questions.push(question);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_nothing() -> Result<()> {
    let data = tempfile::tempdir()?;
    settings(data.path(), json!({ "sampling": { "temperature": 0 } }))?;
    let hub = repository()?;
    hub.faults(|faults| faults.bytes_per_second = Some(1_500_000));
    let endpoint = hub.endpoint();
    let model = e2e::fixture("rustdoc-tiny-Q4_K_M.gguf");
    let model = model.to_string_lossy();
    let arguments = ["--endpoint", endpoint.as_str(), "--demo", &model];
    let models = data.path().join("models");
    let (mut random, mut known) = (Random(20_261_124), Known::default());
    for round in 0..KILLS {
        let window = Window::open(data.path(), &arguments).await.with_context(|| format!("after {round} kills"))?;
        let worked = async {
            check_chats(&window, &mut known).await?;
            act(&window, round, &mut random, &mut known).await
        };
        worked.await.with_context(|| format!("round {round}"))?;
        tokio::time::sleep(Duration::from_millis(random.below(LONGEST))).await;
        window.kill().await?;
        check_models(&models)?;
    }
    assert!(known.questions.len() > KILLS as usize / 2, "{} questions", known.questions.len());

    // What was begun ends.
    hub.faults(|faults| faults.bytes_per_second = None);
    let window = Window::open(data.path(), &arguments).await?;
    check_chats(&window, &mut known).await?;
    window.go("models").await?;
    window
        .until("every download has ended", async || {
            let begun = window.all("download-item").await?.len();
            let done = window
                .script("return document.querySelectorAll('[data-testid=download-item][data-state=done]').length");
            Ok(done.await? == json!(begun))
        })
        .await?;
    check_models(&models)?;
    let whole = QUANTS.iter().filter(|quant| models.join(REPOSITORY).join(file_name(quant)).exists()).count();
    assert!(whole > 0, "nothing was ever downloaded");
    window.close().await
}

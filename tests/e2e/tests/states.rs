//! What is seen only at times: a page of quantizations, a download that waits, thinking, turns left out, a recovery.

use anyhow::Result;
use e2e::{QUANTS, REPOSITORY, Window, repository, settings, with_template};
use serde_json::{Value, json};
use std::path::Path;

/// Each language once, each theme once.
const LOOKS: &[(&str, &str)] = e2e::LOOKS.split_at(2).1;
/// Like the bundled model's own template, but the answer begins inside the reasoning.
const THINKING: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
    '<|im_end|>' + '\n'}}{% endfor %}{{ '<|im_start|>assistant\n<think>\n' }}";

async fn open(data: &Path, (language, theme): (&str, &str), mut more: Value, arguments: &[&str]) -> Result<Window> {
    (more["language"], more["theme"]) = (language.into(), theme.into());
    settings(data, more)?;
    Window::open(data, arguments).await
}

async fn ask(window: &Window, question: &str, count: usize) -> Result<()> {
    window.ask(question).await?;
    window.answered(count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_quantizations_and_downloads() -> Result<()> {
    for look in LOOKS.iter().copied() {
        let data = tempfile::tempdir()?;
        let hub = repository()?;
        let endpoint = hub.endpoint();
        let arguments = ["--endpoint", endpoint.as_str(), "--test-device", "8000000"];
        let window = open(data.path(), look, json!({}), &arguments).await?;
        window.go("discover").await?;
        window.fill("discover-search", "rustdoc").await?;
        window.click("discover-submit").await?;
        window.get_with("discover-result", "data-repo", REPOSITORY).await?.click().await?;
        window.until("all quantizations", async || Ok(window.all("quant-row").await?.len() == QUANTS.len())).await?;
        window.until("all are planned", async || Ok(window.all("quant-plan").await?.len() == QUANTS.len())).await?;
        let name = |state: &str| format!("{state}-{}-{}", look.0, look.1);
        window.look(&name("quants")).await?;
        hub.faults(|faults| faults.bytes_per_second = Some(200_000));
        for quant in QUANTS {
            let button = format!("[data-quant=\"{quant}\"] [data-testid=\"quant-download\"]");
            window.click_css(&button).await?;
        }
        window.go("models").await?;
        window.get_with("download-item", "data-state", "running").await?;
        window.get_with("download-item", "data-state", "queued").await?;
        window.click_css("[data-state=\"running\"] [data-testid=\"download-pause\"]").await?;
        window.get_with("download-item", "data-state", "paused").await?;
        window.look(&name("downloads")).await?;
        window.click_css("[data-state=\"paused\"] [data-testid=\"download-cancel\"]").await?;
        window.get("confirm").await?;
        window.look(&name("cancel")).await?;
        window.click("confirm").await?;
        window.until("one is gone", async || Ok(window.all("download-item").await?.len() == 2)).await?;
        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_and_editing() -> Result<()> {
    for look in LOOKS.iter().copied() {
        let data = tempfile::tempdir()?;
        let models = tempfile::tempdir()?;
        let path = models.path().join("thinker-F16.gguf");
        std::fs::write(&path, with_template(THINKING)?)?;
        let path = path.to_string_lossy();
        let more = json!({ "sampling": { "temperature": 0, "maxTokens": 150 } });
        let window = open(data.path(), look, more, &["--demo", &path]).await?;
        window.ready().await?;
        let name = |state: &str| format!("{state}-{}-{}", look.0, look.1);

        ask(&window, "Tell me about std::vec::Vec.", 1).await?;
        window.click_css("[data-testid=\"message-assistant\"] summary").await?;
        let thought =
            window.client.find(fantoccini::Locator::Css("[data-testid=\"message-assistant\"] details p")).await?;
        assert!(thought.text().await?.contains("vec"), "{}", thought.text().await?);
        assert!(window.all("message-text").await?.is_empty(), "reasoning is shown as the answer");
        window.look(&name("thinking")).await?;

        // What is being composed by an input method is not sent.
        window.fill("message-input", "日本語の質問").await?;
        let pressed = window
            .script(
                "const input = document.querySelector('[data-testid=\"message-input\"]'); \
                 const press = new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true }); \
                 return input.dispatchEvent(press)",
            )
            .await?;
        assert_eq!(pressed, json!(true), "Enter went to the window, not to the input method");
        assert_eq!(window.all("message-user").await?.len(), 1);

        window.click("edit").await?;
        window.look(&name("edit")).await?;
        window.fill("edit-input", "Tell me about std::collections::HashMap.").await?;
        window.click("edit-send").await?;
        window.until("a branch", async || Ok(window.text("branch").await?.contains('2'))).await?;
        window.answered(1).await?;
        assert!(window.text("message-user").await?.contains("HashMap"));

        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_turns_are_left_out() -> Result<()> {
    let model = e2e::fixture("rustdoc-tiny-F16.gguf");
    let model = model.to_string_lossy();
    for look in LOOKS.iter().copied() {
        let data = tempfile::tempdir()?;
        let more = json!({ "contextPolicy": "dropOldest", "sampling": { "temperature": 0, "maxTokens": 100 } });
        let window = open(data.path(), look, more, &["--demo", &model]).await?;
        window.ready().await?;
        window.fill("context-input", "512").await?;
        window.click("load-model").await?;
        window.until("the new context is used", async || Ok(window.all("load-model").await?.is_empty())).await?;
        window.ready().await?;
        // Ten turns of some 30 tokens of question and up to 100 of answer do not fit into 512.
        for turn in 1..=10 {
            ask(&window, "Tell me about std::vec::Vec. How is it allocated, and when does it grow?", turn).await?;
        }
        assert!(!window.all("dropped-notice").await?.is_empty(), "no turn was left out");
        window.look(&format!("dropped-{}-{}", look.0, look.1)).await?;
        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_when_memory_runs_out() -> Result<()> {
    let model = e2e::fixture("rustdoc-tiny-F16.gguf");
    let model = model.to_string_lossy();
    let mut answers = Vec::new();
    for (look, fails) in [(LOOKS[0], Some("1500")), (LOOKS[1], Some("1500")), (LOOKS[0], None)] {
        let data = tempfile::tempdir()?;
        let mut arguments = vec!["--demo", &model, "--test-device", "1000000000"];
        arguments.extend(fails.iter().flat_map(|after| ["--test-device-fails", after]));
        let window = open(data.path(), look, json!({ "sampling": { "temperature": 0 } }), &arguments).await?;
        window.ready().await?;
        window.press("gpu-layers", "\u{e010}").await?;
        ask(&window, "Tell me about std::vec::Vec.", 1).await?;
        // The offer to move back may have come meanwhile, beside the chat.
        let told = "return document.querySelectorAll('main [data-testid=\"recovery-notice\"]').length";
        assert_eq!(window.script(told).await?, json!(u8::from(fails.is_some())));
        if fails.is_some() {
            window.look(&format!("recovery-{}-{}", look.0, look.1)).await?;
        }
        answers.push(window.text("message-text").await?);
        window.close().await?;
    }
    assert!(answers.iter().all(|answer| *answer == answers[2] && !answer.is_empty()), "{answers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_chats() -> Result<()> {
    const CHATS: u32 = 10_000;
    let data = tempfile::tempdir()?;
    open(data.path(), LOOKS[0], json!({}), &[]).await?.close().await?;
    let db = rusqlite::Connection::open(data.path().join("headroom.db"))?;
    db.execute_batch("BEGIN")?;
    for n in 0..CHATS {
        let title = format!("Chat {n}");
        db.execute("INSERT INTO chats(title, updated) VALUES (?1, ?2)", rusqlite::params![title, CHATS - n])?;
    }
    db.execute_batch("COMMIT")?;
    drop(db);

    let window = open(data.path(), LOOKS[0], json!({}), &[]).await?;
    window.get("chat-item").await?;
    let made = window.all("chat-item").await?.len();
    assert!((100..1000).contains(&made), "{made} items were made at once");
    let scroll = "const items = [...document.querySelectorAll('[data-testid=\"chat-item\"]')]; \
        items.at(-1).scrollIntoView(); return items.length";
    window.until("the list grows", async || Ok(window.script(scroll).await?.as_u64() > Some(500))).await?;
    window.look("chats-en-dark").await?;
    window.client.find(fantoccini::Locator::Css("[type=search]")).await?.send_keys("9999").await?;
    let titles =
        "return [...document.querySelectorAll('[data-testid=\"chat-item\"]')].map((item) => item.textContent.trim())";
    let mut found = Value::Null;
    let last = async || {
        found = window.script(titles).await?;
        Ok(found
            .as_array()
            .is_some_and(|found| found.len() == 1 && found[0].as_str().is_some_and(|t| t.contains("Chat 9999"))))
    };
    window.until("the last one is found", last).await?;
    window.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_a_prescribed_form_and_the_end_of_the_settings() -> Result<()> {
    let model = e2e::fixture("rustdoc-tiny-F16.gguf");
    let model = model.to_string_lossy();
    for look in LOOKS.iter().copied() {
        let data = tempfile::tempdir()?;
        let more = json!({ "sampling": { "temperature": 0, "maxTokens": 60 } });
        let window = open(data.path(), look, more, &["--demo", &model]).await?;
        window.ready().await?;
        let name = |state: &str| format!("{state}-{}-{}", look.0, look.1);
        window.click("answer-format").await?;
        window.get("format-kind").await?.select_by_value("schema").await?;
        window.fill("format-schema", "{ \"type\": ").await?;
        window.click("format-save").await?;
        window.get_with("format-schema", "aria-invalid", "true").await?;
        window.look(&name("format")).await?;
        window.fill("format-schema", r#"{ "enum": ["Vec", "HashMap"] }"#).await?;
        window.click("format-save").await?;
        window.until("the dialog closes", async || Ok(window.all("format-save").await?.is_empty())).await?;
        ask(&window, "Tell me about std::vec::Vec.", 1).await?;
        let answer = window.text("message-text").await?;
        assert!(["\"Vec\"", "\"HashMap\""].contains(&answer.trim()), "{answer}");
        window.go("settings").await?;
        window.get("settings-delete-chats").await?;
        window.script("document.querySelector('[data-testid=settings-delete-chats]').scrollIntoView()").await?;
        window.look(&name("settings-end")).await?;
        window.click("settings-delete-chats").await?;
        window.get("confirm").await?;
        window.look(&name("delete-all")).await?;
        window.click("confirm").await?;
        window.go("chat").await?;
        window.until("the chats are gone", async || Ok(window.all("chat-item").await?.is_empty())).await?;
        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_model_is_chosen_counted_and_done_without_when_it_is_gone() -> Result<()> {
    for look in LOOKS.iter().copied() {
        let (data, models) = (tempfile::tempdir()?, tempfile::tempdir()?);
        std::fs::copy(e2e::fixture("rustdoc-tiny-F16.gguf"), models.path().join("large-F16.gguf"))?;
        let small = models.path().join("small-Q4_K_M.gguf");
        std::fs::copy(e2e::fixture("rustdoc-tiny-Q4_K_M.gguf"), &small)?;
        let folder = models.path().to_string_lossy();
        let more = json!({ "modelsFolder": folder, "sampling": { "temperature": 0, "maxTokens": 40 } });
        let window = open(data.path(), look, more, &[]).await?;
        let name = |state: &str| format!("{state}-{}-{}", look.0, look.1);
        // The first by name is shown where none was used before.
        let offered = "return [...document.querySelector('[data-testid=\"draft-model\"]').options].map((o) => o.text)";
        let small_is_offered =
            async || Ok(window.script(offered).await?.as_array().is_some_and(|options| options.len() == 2));
        window.get("draft-model").await?;
        window.until("the smaller model is offered", small_is_offered).await?;
        let planned = async || Ok::<_, anyhow::Error>(window.attribute("memory-ram", "data-planned").await?);
        let alone = planned().await?;
        window.get("draft-model").await?.select_by_index(1).await?;
        window.until("it is counted", async || Ok(planned().await? != alone)).await?;
        window.click("load-model").await?;
        window.ready().await?;
        assert!(window.all("draft-problem").await?.is_empty());
        window.look(&name("draft")).await?;
        ask(&window, "Tell me about std::vec::Vec.", 1).await?;
        let answer = window.text("message-text").await?;

        window.click("unload-model").await?;
        window.get("load-model").await?;
        std::fs::remove_file(&small)?;
        window.click("load-model").await?;
        window.ready().await?;
        window.get("draft-problem").await?;
        window.look(&name("draft-gone")).await?;
        window.click_css("[data-testid=\"message-assistant\"] [data-testid=\"regenerate\"]").await?;
        window.until("a branch", async || Ok(window.text("branch").await?.contains('2'))).await?;
        window.answered(1).await?;
        assert_eq!(window.text("message-text").await?, answer, "guesses change nothing");
        window.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn experts_go_to_ram_and_come_back() -> Result<()> {
    for look in LOOKS.iter().copied() {
        let data = tempfile::tempdir()?;
        let models = tempfile::tempdir()?;
        let path = models.path().join("mixture-F16.gguf");
        std::fs::write(&path, test_models::ModelSpec::qwen3moe().build())?;
        let path = path.to_string_lossy();
        let window = open(data.path(), look, json!({}), &["--demo", &path, "--test-device", "1000000000"]).await?;
        window.ready().await?;
        // End: the whole model on the device.
        window.press("gpu-layers", "\u{e010}").await?;
        window.until("the model is on the device", async || Ok(window.vram_used().await? > 0)).await?;
        let whole = window.vram_used().await?;
        window.press("cpu-moe", "\u{e010}").await?;
        window.until("experts leave", async || Ok((1..whole).contains(&window.vram_used().await?))).await?;
        window.look(&format!("experts-{}-{}", look.0, look.1)).await?;
        // Home: no layer's experts apart.
        window.press("cpu-moe", "\u{e011}").await?;
        window.until("experts come back", async || Ok(window.vram_used().await? == whole)).await?;
        window.close().await?;
    }
    Ok(())
}

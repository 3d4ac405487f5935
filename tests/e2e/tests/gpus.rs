//! Two NVIDIA GPUs in the window: a libcuda.so.1 over the emulator of `backend-cuda`. Needs a C++ compiler (`c++`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../../../crates/backend-cuda/tests/common/library.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod library;

use anyhow::Result;
use e2e::{QUANTS, REPOSITORY, Window, repository, settings};
use serde_json::{Value, json};
use std::path::Path;

/// Each language once, each theme once.
const LOOKS: &[(&str, &str)] = e2e::LOOKS.split_at(2).1;
/// The second one, as the fake driver knows it and as it is called.
const SECOND: &str = "GPU-02020202-0202-0202-0202-020202020202";
const SECOND_NAME: &str = "NVIDIA GeForce RTX 4060 Laptop GPU";

/// A Hub that nobody has.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The program on GPUs with so many bytes.
async fn open(data: &Path, driver: &[(&'static str, String)], memory: &str, endpoint: &str) -> Result<Window> {
    // Names as long as real ones.
    let names = ["NVIDIA GeForce RTX 4070 Ti SUPER", SECOND_NAME].join(",");
    let environment = [driver, &[("FAKE_CUDA_MEMORY", memory.into()), ("FAKE_CUDA_NAME", names)]].concat();
    let model = e2e::fixture("rustdoc-tiny-Q4_K_M.gguf");
    let arguments = ["--demo", &*model.to_string_lossy(), "--endpoint", endpoint];
    let window = Window::open_in(data, &arguments, &environment).await?;
    window.ready().await?;
    Ok(window)
}

/// The settings' cards by id, and whether they are on.
async fn cards(window: &Window) -> Result<Value> {
    window
        .script(
            "return [...document.querySelectorAll('[data-testid=\"settings-gpu-card\"]')] \
             .map((card) => [card.dataset.gpu, card.getAttribute('aria-checked') === 'true'])",
        )
        .await
}

/// Bytes that the panel says each of several cards has of the model.
async fn used(window: &Window) -> Result<Vec<u64>> {
    let bars = "return [...document.querySelectorAll('[data-testid=\"memory-gpu\"]')].map((bar) => +bar.dataset.used)";
    Ok(serde_json::from_value(window.script(bars).await?)?)
}

/// Looks at what has this test id, at every size: see [`Window::look`].
async fn look_at(window: &Window, id: &str, name: &str) -> Result<()> {
    for (width, height) in e2e::SIZES {
        window.client.set_window_size(width, height).await?;
        window.get(id).await?;
        let script = format!("document.querySelector('[data-testid={id}]').scrollIntoView({{ block: 'center' }})");
        window.script(&script).await?;
        window.settle().await?;
        window.picture(&format!("{name}-{width}"))?;
        window.fits(&format!("{name} at {width}x{height}")).await?;
    }
    Ok(window.client.set_window_size(e2e::SIZES[0].0, e2e::SIZES[0].1).await?)
}

/// Loads the model anew.
async fn reload(window: &Window) -> Result<()> {
    window.go("chat").await?;
    window.click("unload-model").await?;
    window.click("load-model").await?;
    window.ready().await
}

fn saved(data: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(data.join("settings.json"))?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_of_two_gpus_are_chosen() -> Result<()> {
    for (language, theme) in LOOKS {
        let (data, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let driver = library::fake_driver(folder.path());
        let name = |state: &str| format!("gpus-{state}-{language}-{theme}");
        // As an older program has written it: the second one, which has less memory.
        settings(data.path(), json!({ "language": language, "theme": theme, "gpu": SECOND }))?;
        let window = open(data.path(), &driver, "8589934592,6442450944", NOWHERE).await?;
        window.until("the model is on one GPU", async || Ok(window.vram_used().await? > 0)).await?;
        window.go("settings").await?;
        window.get("settings-gpu").await?;
        let first = SECOND.replace("02", "01");
        let are = |one: bool, two: bool| json!([[first, one], [SECOND, two]]);
        assert_eq!(cards(&window).await?, are(false, true));
        look_at(&window, "settings-gpu", &name("one")).await?;

        // Both: from the next load on each has its bar, and one of them has the model.
        window.press("settings-gpu-card", " ").await?;
        window.until("both are chosen", async || Ok(saved(data.path())?["gpus"]["type"] == "all")).await?;
        assert_eq!(cards(&window).await?, are(true, true));
        reload(&window).await?;
        let larger_has_it = async || Ok(matches!(used(&window).await?[..], [one, 0] if one > 0));
        window.until("the larger one has it", larger_has_it).await?;
        window.look(&name("chat")).await?;
        window.go("hardware").await?;
        window.get("hardware-measure").await?;
        assert!(window.all("hardware-gpu-reason").await?.is_empty());
        window.look(&name("hardware")).await?;
        look_at(&window, "hardware-measure", &name("hardware-end")).await?;

        // None: it is said everywhere, and holds after a new start.
        window.go("settings").await?;
        for id in [&first, SECOND] {
            window.click_css(&format!("[data-gpu=\"{id}\"]")).await?;
        }
        window.until("none is chosen", async || Ok(saved(data.path())?["gpus"]["gpus"] == json!([]))).await?;
        assert_eq!(cards(&window).await?, are(false, false));
        look_at(&window, "settings-gpu", &name("none")).await?;
        window.close().await?;
        let window = open(data.path(), &driver, "8589934592,6442450944", NOWHERE).await?;
        assert!(!window.get("gpu-layers").await?.is_enabled().await?);
        assert!(!window.text("gpu-layers-reason").await?.trim().is_empty());
        window.look(&name("chat-none")).await?;
        window.go("hardware").await?;
        window.get_with("hardware-gpu-reason", "data-reason", "noneChosen").await?;
        look_at(&window, "hardware-gpu-reason", &name("hardware-none")).await?;
        window.close().await?;

        // One is chosen and taken out of the PC: it is named, and the other one is used.
        let named = json!({ "type": "only", "gpus": [{ "id": SECOND, "name": SECOND_NAME }] });
        settings(data.path(), json!({ "version": 2, "language": language, "theme": theme, "gpus": named }))?;
        let window = open(data.path(), &driver, "8589934592", NOWHERE).await?;
        window.until("the model is on the other one", async || Ok(window.vram_used().await? > 0)).await?;
        window.go("settings").await?;
        window.get("settings-gpu").await?;
        assert_eq!(cards(&window).await?, are(true, true));
        assert!(window.text("settings-gpu").await?.contains(SECOND_NAME));
        look_at(&window, "settings-gpu", &name("gone")).await?;
        window.close().await?;
    }
    Ok(())
}

/// What neither of two holds alone is shared, and the slider moves the layers of both.
#[tokio::test(flavor = "multi_thread")]
async fn two_gpus_share_a_model() -> Result<()> {
    for (language, theme) in LOOKS {
        let (data, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let driver = library::fake_driver(folder.path());
        // What is left to others, the context, the code, graphs and a slab, and what comes with the first layer leave each
        // less than the 5 MB of all layers.
        let sizes = [("FAKE_CUDA_CONTEXT", "100000000".into()), ("FAKE_CUDA_MODULE", "1000000".into())];
        let driver = [&driver[..], &sizes].concat();
        settings(data.path(), json!({ "language": language, "theme": theme }))?;
        let hub = repository()?;
        let window = open(data.path(), &driver, "431300000,430800000", &hub.endpoint()).await?;
        window.fill("context-input", "512").await?;
        window.click("load-model").await?;
        window.until("the new context is used", async || Ok(window.all("load-model").await?.is_empty())).await?;
        window.ready().await?;
        let mut both = Vec::new();
        let shared = async || {
            both = used(&window).await?;
            Ok(matches!(both[..], [one, two] if one > 0 && two > 0))
        };
        window.until("each has a part", shared).await?;
        window.look(&format!("gpus-shared-{language}-{theme}")).await?;
        // Home and End.
        window.press("gpu-layers", "\u{e011}").await?;
        window.until("all layers are in RAM", async || Ok(used(&window).await? == [0, 0])).await?;
        window.press("gpu-layers", "\u{e010}").await?;
        window.until("they are back", async || Ok(used(&window).await? == both)).await?;
        window.go("hardware").await?;
        window.get("hardware-measure").await?;
        window.look(&format!("gpus-shared-hardware-{language}-{theme}")).await?;
        // Both count for a model that is only thought about.
        window.go("discover").await?;
        window.fill("discover-search", "rustdoc").await?;
        window.click("discover-submit").await?;
        window.get_with("discover-result", "data-repo", REPOSITORY).await?.click().await?;
        window.until("all are planned", async || Ok(window.all("quant-plan").await?.len() == QUANTS.len())).await?;
        window.look(&format!("gpus-shared-quants-{language}-{theme}")).await?;
        window.close().await?;
    }
    Ok(())
}

/// Layers that are first moved to a GPU wait until the driver has compiled its kernels, and say so.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_wait_for_kernels_say_so() -> Result<()> {
    for ((language, theme), words) in LOOKS.iter().zip(["first time only", "初回のみ"]) {
        let (data, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let slow = [("FAKE_CUDA_COMPILE", "700".into()), ("FAKE_CUDA_MEMORY", "8589934592".into())];
        let driver = [&library::fake_driver(folder.path())[..], &slow].concat();
        settings(data.path(), json!({ "language": language, "theme": theme }))?;
        let model = e2e::fixture("rustdoc-tiny-Q4_K_M.gguf");
        let arguments = [&*model.to_string_lossy(), "--endpoint", NOWHERE];
        let window = Window::open_in(data.path(), &arguments, &driver).await?;
        let slider = async || Ok(window.get("gpu-layers").await?.is_enabled().await?);
        window.until("layers can be chosen", slider).await?;
        // Home: the GPU has nothing to do and is not opened.
        window.press("gpu-layers", "\u{e011}").await?;
        window.click("load-model").await?;
        window.ready().await?;
        assert!(window.all("compiling").await?.is_empty());
        // End.
        window.press("gpu-layers", "\u{e010}").await?;
        assert!(window.text("compiling").await?.contains(words));
        window.picture(&format!("gpus-waiting-{language}-{theme}"))?;
        window.fits("layers that wait").await?;
        // Meanwhile the model answers.
        window.ask("Hello").await?;
        window.answered(1).await?;
        assert!(!window.all("compiling").await?.is_empty(), "it did not wait for the kernels");
        window.until("they arrive", async || Ok(window.vram_used().await? > 0)).await?;
        window.until("nothing waits", async || Ok(window.all("compiling").await?.is_empty())).await?;
        window.close().await?;
    }
    Ok(())
}

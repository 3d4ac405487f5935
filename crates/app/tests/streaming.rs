//! Long prompts on a device that has been measured: the plan says from how many tokens on layers in RAM are computed there, has
//! room for it, and the answer is the same. The slider decides anew.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::sync::Arc;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 60;
const QUESTION: &str = "Returns an iterator over";

fn layers(layers: u32) -> LoadSettings {
    LoadSettings { gpu_layers: GpuLayers::Fixed { layers }, context: Some(512), ..LoadSettings::default() }
}

/// The trained model with two layers on a test device of so many bytes, whose rates are these.
async fn ready(device: u64, rates: &str) -> (Arc<App>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    let (app, _) = open(folder.path(), |config| {
        config.test_device = Some(device);
        let measured = format!(r#"{{"ram_read_bytes_per_s":1e10,"int8_ops_per_s":1e9,"gpus":{{{rates}}}}}"#);
        std::fs::write(folder.path().join("data/measured.json"), measured).unwrap();
    });
    load(&app, "rustdoc", layers(2)).await;
    (app, folder)
}

const MEASURED: &str = r#""test":{"upload_bytes_per_s":1e12,"int8_ops_per_s":1e12}"#;

async fn answered(app: &Arc<App>) -> String {
    let chat = app.chat_create().await.unwrap().id;
    let events = answer(app, &chat, say(QUESTION), greedy(TOKENS)).await;
    let (message, _, error) = end(&events);
    assert_eq!(error, None);
    assert!(!events.iter().any(|event| matches!(event, AnswerEvent::Recovery { .. })), "nothing has moved");
    message.text
}

fn is_told(plan: &Plan) -> bool {
    plan.reasons.iter().any(|reason| reason.code == "promptsStreamed")
}

#[tokio::test(flavor = "multi_thread")]
async fn measured_devices_read_long_prompts_and_answer_the_same() {
    let (plain, _folder) = ready(PLENTY, "").await;
    let (expected, before) = (answered(&plain).await, loaded(&plain));
    assert_eq!((before.plan.stream_from, is_told(&before.plan)), (None, false));

    let (app, _folder) = ready(PLENTY, MEASURED).await;
    let (now, held) = (loaded(&app), loaded(&app).vram_used);
    let from = now.plan.stream_from.unwrap();
    assert!((1..=3).contains(&from) && is_told(&now.plan), "{from}");
    let slots = now.plan.vram.other - before.plan.vram.other;
    assert!(slots > 0 && now.plan.vram.total == before.plan.vram.total + slots);
    assert_eq!(held, before.vram_used, "taken with the first prompt");
    assert_eq!(answered(&app).await, expected);
    assert_eq!(loaded(&app).vram_used, held + slots, "as planned");
    // The next plan goes with the slider; what nothing is in RAM for is given back.
    let state = app.set_gpu_layers(GpuLayers::Fixed { layers: 99 }, None).await.unwrap();
    let ModelState::Ready { loaded: all } = state else { panic!("{state:?}") };
    assert_eq!((all.plan.stream_from, is_told(&all.plan), all.gpu_layers), (None, false, all.plan.layers));
    assert_eq!(all.vram_used, all.plan.vram.total - all.plan.vram.other);
    app.set_gpu_layers(GpuLayers::Fixed { layers: 3 }, None).await.unwrap();
    let (some, held) = (loaded(&app), loaded(&app).vram_used);
    assert!(some.plan.stream_from.is_some());
    assert_eq!(answered(&app).await, expected);
    assert!(loaded(&app).vram_used > held);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_it_prompts_stay_where_layers_are() {
    let (app, _folder) = ready(PLENTY, MEASURED).await;
    let (expected, total) = (answered(&app).await, loaded(&app).plan.vram.total);
    let (app, _folder) = ready(total - 1, MEASURED).await;
    let (now, held) = (loaded(&app), loaded(&app).vram_used);
    assert_eq!((now.plan.stream_from, now.gpu_layers), (None, 2));
    assert_eq!((answered(&app).await, loaded(&app).vram_used), (expected.clone(), held));
    let (app, _folder) = ready(total, MEASURED).await;
    assert!(loaded(&app).plan.stream_from.is_some());
    assert_eq!(answered(&app).await, expected);
}

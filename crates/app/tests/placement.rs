//! Layers move during an answer: by the slider, and because memory is short. The answer is the same.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::sync::Arc;
use std::time::Duration;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 300;
const QUESTION: &str = "Returns an iterator over";

fn layers(layers: u32) -> LoadSettings {
    LoadSettings { gpu_layers: GpuLayers::Fixed { layers }, context: Some(512), ..LoadSettings::default() }
}

/// The trained model with so many layers on a test device of so many bytes, in a folder of its own.
async fn ready(device: u64, on_device: u32) -> (Arc<App>, Events, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    let (app, events) = open(folder.path(), |config| config.test_device = Some(device));
    load(&app, "rustdoc", layers(on_device)).await;
    (app, events, folder)
}

async fn answered(app: &Arc<App>) -> Vec<AnswerEvent> {
    let chat = app.chat_create().await.unwrap().id;
    answer(app, &chat, say(QUESTION), greedy(TOKENS)).await
}

/// What is answered when nothing happens.
async fn undisturbed() -> String {
    let (app, _, _folder) = ready(PLENTY, 0).await;
    end(&answered(&app).await).0.text
}

fn notices(events: &[AnswerEvent]) -> Vec<RecoveryNotice> {
    let notice = |event: &AnswerEvent| match event {
        AnswerEvent::Recovery { notice } => Some(notice.clone()),
        _ => None,
    };
    events.iter().filter_map(notice).collect()
}

fn app_notices(events: &Events) -> Vec<RecoveryNotice> {
    let notice = |event: &AppEvent| match event {
        AppEvent::Recovery { notice } => Some(notice.clone()),
        _ => None,
    };
    events.lock().unwrap().iter().filter_map(notice).collect()
}

/// The answer ended well, with this text.
fn check_answer(events: &[AnswerEvent], expected: &str) {
    let (message, reason, error) = end(events);
    assert_eq!(error, None);
    assert!(matches!(reason, FinishReason::Length | FinishReason::End), "{reason:?}");
    assert_eq!(message.text, expected);
    assert_eq!(streamed(events), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slider_moves_during_an_answer_and_the_text_stays_the_same() {
    let expected = undisturbed().await;
    let (app, events, _folder) = ready(PLENTY, 2).await;
    let all = loaded(&app).plan.layers;
    let chat = app.chat_create().await.unwrap().id;
    let mut answer = begin(&app, &chat, say(QUESTION), greedy(TOKENS)).await.unwrap();
    let mut seen = Vec::new();
    for (step, wanted) in [all, 0, 3, 1, all, 2].into_iter().cycle().enumerate() {
        let state = app.set_gpu_layers(GpuLayers::Fixed { layers: wanted }, None).await.unwrap();
        let ModelState::Ready { loaded } = state else { panic!("{state:?}") };
        assert_eq!((loaded.gpu_layers, loaded.plan.gpu_layers), (wanted, wanted));
        assert_eq!(loaded.settings.gpu_layers, GpuLayers::Fixed { layers: wanted });
        while let Ok(event) = answer.try_recv() {
            seen.push(event);
        }
        let ended = matches!(seen.last(), Some(AnswerEvent::Finished { .. }));
        assert!(step > 0 || !ended, "the first move came after the answer");
        if ended {
            break;
        }
    }
    check_answer(&seen, &expected);
    assert!(notices(&seen).is_empty() && app_notices(&events).is_empty(), "wishes are no recoveries");
    // The plan describes what is there to the byte.
    let now = loaded(&app);
    assert_eq!(now.vram_used, now.plan.vram.weights + now.plan.vram.kv + now.plan.vram.compute);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_follows_layers_and_a_later_wish_takes_the_place_of_the_one_before() {
    let (app, events, _folder) = ready(PLENTY, 0).await;
    let all = loaded(&app).plan.layers;
    app.test_device_control().unwrap().set_delay(Duration::from_millis(20));
    let seen = || -> Vec<u32> {
        let layers = |event: AppEvent| match event {
            AppEvent::Model { state: ModelState::Ready { loaded } } => Some(loaded.gpu_layers),
            AppEvent::Recovery { notice } => panic!("nothing was short of memory: {notice:?}"),
            _ => None,
        };
        events.lock().unwrap().drain(..).filter_map(layers).collect()
    };
    seen();
    app.set_gpu_layers(GpuLayers::Fixed { layers: all }, None).await.unwrap();
    let steps = seen();
    assert!(steps.len() > 2 && steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.last(), Some(&all));
    app.set_gpu_layers(GpuLayers::Fixed { layers: 0 }, None).await.unwrap();

    seen();
    let all_of_them = {
        let app = app.clone();
        tokio::spawn(async move { app.set_gpu_layers(GpuLayers::Fixed { layers: all }, None).await })
    };
    while loaded(&app).gpu_layers == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    app.set_gpu_layers(GpuLayers::Fixed { layers: 0 }, None).await.unwrap();
    all_of_them.await.unwrap().unwrap();
    assert_eq!(loaded(&app).gpu_layers, 0);
    assert!(!seen().contains(&all), "the first wish was done to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_too_small_at_load_takes_what_fits_and_says_so() {
    let expected = undisturbed().await;
    let all = {
        let (app, _, _folder) = ready(PLENTY, 0).await;
        let all = loaded(&app).plan.layers;
        app.set_gpu_layers(GpuLayers::Fixed { layers: all }, None).await.unwrap();
        loaded(&app)
    };
    // Room for a part of it.
    let (app, events, _folder) = ready(all.vram_used * 3 / 4, all.gpu_layers).await;
    let now = loaded(&app);
    assert!((1..all.gpu_layers).contains(&now.gpu_layers), "{}", now.gpu_layers);
    assert!(now.vram_used <= all.vram_used * 3 / 4);
    let told = app_notices(&events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].cause.as_str(), told[0].during_answer), ("vramFull", false));
    assert_eq!(told[0].layers_moved, all.gpu_layers - now.gpu_layers);
    assert_eq!((told[0].gpu_layers, told[0].layers), (now.gpu_layers, all.gpu_layers));
    assert_eq!(now.plan.gpu_layers, now.gpu_layers);
    check_answer(&answered(&app).await, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_the_middle_of_an_answer_end_with_fewer_layers_and_the_same_text() {
    let expected = undisturbed().await;
    // In the prompt, in the first tokens, far in.
    for after in [0, 7, 60, 500, 5000] {
        let (app, events, _folder) = ready(PLENTY, 99).await;
        let before = loaded(&app).gpu_layers;
        app.test_device_control().unwrap().fail_run(after);
        let seen = answered(&app).await;
        check_answer(&seen, &expected);
        let told = notices(&seen);
        assert_eq!(told.len(), 1, "after {after} operations: {told:?}");
        assert_eq!((told[0].cause.as_str(), told[0].during_answer), ("vramFull", true));
        assert_eq!((told[0].layers_moved, told[0].gpu_layers), (1, before - 1));
        assert_eq!(app_notices(&events).len(), 1, "the window hears of it wherever it is");
        let now = loaded(&app);
        assert_eq!((now.gpu_layers, now.plan.gpu_layers), (before - 1, before - 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_taken_by_others_and_a_lost_device_do_not_end_an_answer() {
    let expected = undisturbed().await;
    let (app, _, _folder) = ready(PLENTY, 99).await;
    let control = app.test_device_control().unwrap();
    control.set_limit(loaded(&app).vram_used * 3 / 4);
    let seen = answered(&app).await;
    check_answer(&seen, &expected);
    let told = notices(&seen);
    assert!(told.iter().map(|notice| notice.layers_moved).sum::<u32>() > 1, "{told:?}");
    assert!(loaded(&app).vram_used <= control.limit());

    let before = loaded(&app).gpu_layers;
    assert!(before > 0);
    control.lose();
    let seen = answered(&app).await;
    check_answer(&seen, &expected);
    let told = notices(&seen);
    assert_eq!((told[0].cause.as_str(), told[0].layers_moved, told[0].gpu_layers), ("deviceLost", before, 0));
    assert_eq!((loaded(&app).gpu_layers, loaded(&app).vram_used), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_finds_no_room_says_so_and_changes_nothing_else() {
    let expected = undisturbed().await;
    let (app, events, _folder) = ready(PLENTY, 2).await;
    let control = app.test_device_control().unwrap();
    control.set_limit(loaded(&app).vram_used);
    app.set_gpu_layers(GpuLayers::Fixed { layers: 4 }, None).await.unwrap();
    assert_eq!(loaded(&app).gpu_layers, 2);
    let told = app_notices(&events);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].layers_moved, told[0].gpu_layers, told[0].during_answer), (2, 2, false));
    let seen = answered(&app).await;
    check_answer(&seen, &expected);
    assert!(notices(&seen).is_empty(), "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_model_gets_its_forecast_when_the_hardware_has_been_measured() {
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    let (app, events) =
        open(folder.path(), |config| std::fs::remove_file(config.data_dir.join("measured.json")).unwrap());
    load(&app, "rustdoc", layers(0)).await;
    let forecast = |state: &ModelState| match state {
        ModelState::Ready { loaded } => loaded.plan.forecast,
        other => panic!("not loaded: {other:?}"),
    };
    assert_eq!(forecast(&app.model_state()), None);
    app.hardware_measure().await.unwrap();
    let told = events.lock().unwrap().iter().rev().find_map(|event| match event {
        AppEvent::Model { state } => Some(forecast(state)),
        _ => None,
    });
    assert!(told.unwrap().unwrap().tg_low > 0.0);
}

/// Of a mixture the experts of some layers go to RAM and come back, alone, also during an answer.
#[tokio::test(flavor = "multi_thread")]
async fn experts_move_like_layers() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "mixture", &test_models::ModelSpec { n_layer: 4, ..test_models::ModelSpec::qwen3moe() });
    let (app, events) = open(folder.path(), |config| config.test_device = Some(PLENTY));
    load(&app, "mixture", layers(0)).await;
    let expected = end(&answered(&app).await).0.text;
    load(&app, "mixture", LoadSettings { cpu_moe: Some(3), ..layers(5) }).await;
    let now = loaded(&app);
    assert_eq!((now.gpu_layers, now.cpu_moe, now.settings.cpu_moe), (5, 3, Some(3)));
    assert_eq!((now.plan.cpu_moe, now.plan.expert_layers, now.plan.experts_apart), (3, 4, 3));
    assert_eq!((now.plan.fits, now.vram_used), (Fits::Split, now.plan.vram.total - now.plan.vram.other));
    let chat = app.chat_create().await.unwrap().id;
    let mut answer = begin(&app, &chat, say(QUESTION), greedy(TOKENS)).await.unwrap();
    let mut seen = vec![answer.recv().await.unwrap()];
    let fixed = |layers| GpuLayers::Fixed { layers };
    for (on_device, cpu_moe) in [(5, Some(0)), (3, Some(4)), (5, None), (5, Some(2))] {
        app.set_gpu_layers(fixed(on_device), cpu_moe).await.unwrap();
        // There is room for everything: nobody needs to leave the device on its own account.
        assert_eq!((loaded(&app).gpu_layers, loaded(&app).cpu_moe), (on_device, cpu_moe.unwrap_or(0)));
    }
    seen.extend(rest(answer).await);
    check_answer(&seen, &expected);
    assert!(notices(&seen).is_empty() && app_notices(&events).is_empty(), "wishes are no recoveries");
    // No room: the experts of one layer more go, the layers stay.
    let control = app.test_device_control().unwrap();
    control.set_limit(loaded(&app).vram_used - 1);
    let seen = answered(&app).await;
    check_answer(&seen, &expected);
    let [told] = &notices(&seen)[..] else { panic!("{seen:?}") };
    assert_eq!((told.cause.as_str(), told.layers_moved, told.experts_moved, told.gpu_layers), ("vramFull", 0, 1, 5));
    assert_eq!(loaded(&app).cpu_moe, 3);
    // The wish of before finds no room either, and that is told.
    app.set_gpu_layers(fixed(5), Some(2)).await.unwrap();
    let told: Vec<_> = app_notices(&events).into_iter().filter(|notice| !notice.during_answer).collect();
    assert_eq!((told.len(), told[0].experts_moved, told[0].layers_moved), (1, 1, 0), "{told:?}");
}

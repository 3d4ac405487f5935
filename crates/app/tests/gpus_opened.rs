//! GPUs that no layer needs are not opened: they are listed, planned for and given layers later all the same.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/fake_gpu.rs"]
mod fake_gpu;
#[path = "../../backend-cuda/tests/common/library.rs"]
#[allow(dead_code)]
mod library;

use app::App;
use app::wire::*;
use common::*;
use fake_gpu::*;
use std::sync::Arc;
use std::time::Duration;

const TWO: (&str, &str) = ("FAKE_CUDA_MEMORY", "8589934592,8589934592");
const OTHERS: u64 = 1_000_000_000;

fn layers(now: &LoadedModel) -> Vec<u32> {
    assert!(now.gpus.iter().all(|gpu| !gpu.lost), "{now:?}");
    now.gpus.iter().map(|gpu| gpu.layers).collect()
}

#[test]
fn only_the_gpu_that_layers_need_is_opened() {
    with_told_gpus("only_the_gpu_that_layers_need_is_opened", TWO, async |gpu: Cards| {
        gpu.others_of("0,1000000000");
        install_trained(&gpu.files);
        let (app, _) = open(&gpu.files, |config| config.use_gpu = true);
        let free = async || -> Vec<u64> {
            let report = app.hardware().await.unwrap();
            assert_eq!(report.gpu_reason, None);
            report.gpus.iter().map(|gpu| gpu.vram_free.unwrap()).collect()
        };
        assert_eq!(free().await, [MEMORY, MEMORY - OTHERS]);
        let id = app.library().await.unwrap()[0].id.clone();
        let plan = app.plan(id, settings(GpuLayers::Auto)).await.unwrap();
        let [first, second] = &plan.gpus[..] else { panic!("{plan:?}") };
        assert_eq!((plan.fits, first.layers, second.layers), (Fits::Gpu, plan.layers, 0));
        // What nobody has measured yet is guessed, and what others have is theirs.
        assert_eq!([first.available, second.available], [MEMORY - (256 << 20), MEMORY - OTHERS - (256 << 20)]);
        assert!(first.parts.other > 300 << 20, "{first:?}");
        load(&app, "rustdoc", settings(fixed(0))).await;
        assert_eq!(layers(&loaded(&app)), [0, 0]);
        assert_eq!(gpu.opened(), "", "no layer needs one");
        // The slider opens the one that it needs.
        app.set_gpu_layers(fixed(3), None).await.unwrap();
        assert_eq!((layers(&loaded(&app)), gpu.opened().as_str()), (vec![3, 0], "1,0"));
        let other = loaded(&app).plan.gpus[0].parts.other;
        assert!(other < 300 << 20, "what it takes is measured now: {other}");
        assert!(told(&answered(&app, async || {}).await).is_empty());
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        let all = loaded(&app).plan.layers;
        assert_eq!((layers(&loaded(&app)), gpu.opened().as_str()), (vec![all, 0], "1,0"));
        assert!(told(&answered(&app, async || {}).await).is_empty());
        let free = free().await;
        assert!(free[0] < MEMORY && free[1] == MEMORY - OTHERS, "{free:?}");
    });
}

/// It is opened in the middle of an answer, when layers go there from one whose memory others need.
#[test]
fn layers_go_to_a_gpu_that_was_not_open() {
    with_told_gpus("layers_go_to_a_gpu_that_was_not_open", TWO, async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let all = loaded(&app).plan.layers;
        assert_eq!((layers(&loaded(&app)), gpu.opened().as_str()), (vec![all, 0], "1,0"));
        let seen = answered(&app, async || gpu.others_of("8589934592,0")).await;
        let notices = told(&seen);
        assert!(!notices.is_empty(), "layers leave during the answer");
        assert!(notices.iter().all(|notice| notice.cause == "vramFull"), "{notices:?}");
        assert!(notices.iter().all(|notice| notice.gpu.as_deref() == Some("Fake GPU")), "{notices:?}");
        let now = loaded(&app);
        let shifted: u32 = notices.iter().map(|notice| notice.layers_shifted).sum();
        assert!(shifted > 0 && layers(&now) == [all - shifted, shifted], "{notices:?} {now:?}");
        assert_eq!(gpu.opened(), "1,1");
        take_notices(&events);
        // It is as good as any other from now on.
        gpu.others_of("0,0");
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        assert_eq!((loaded(&app).gpu_layers, take_notices(&events).len()), (all, 0));
        assert!(told(&answered(&app, async || {}).await).is_empty());
    });
}

/// One that cannot be opened when it is needed takes nothing: the answer goes on without it.
#[test]
fn a_gpu_that_cannot_be_opened_later_takes_no_layers() {
    with_told_gpus("a_gpu_that_cannot_be_opened_later_takes_no_layers", TWO, async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let all = loaded(&app).plan.layers;
        gpu.shuts("0,1");
        let seen = answered(&app, async || gpu.others_of("8589934592,0")).await;
        let notices = told(&seen);
        assert!(!notices.is_empty(), "layers leave during the answer");
        let moved: u32 = notices.iter().map(|notice| notice.layers_moved).sum();
        assert!(notices.iter().all(|notice| notice.gpu.as_deref() == Some("Fake GPU")), "{notices:?}");
        let now = loaded(&app);
        assert!(moved > 0 && now.gpus[0].layers == all - moved && now.gpus[1].layers == 0, "{notices:?} {now:?}");
        assert_eq!(gpu.opened(), "1,0");
        take_notices(&events);
        // By the slider: it is told, and the other one has what it has room for.
        gpu.others_of("0,0");
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        assert_eq!(loaded(&app).gpu_layers, all);
        gpu.shuts("0,0");
        gpu.others_of("8589934592,0");
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        let now = loaded(&app);
        assert_eq!((layers(&now), gpu.opened().as_str()), (vec![0, all], "1,1"), "{now:?}");
    });
}

/// The only one does not open when the slider first needs it: that is told, as often as it is tried, until it does.
#[test]
fn the_slider_says_that_a_gpu_does_not_open() {
    const ONE: (&str, &str) = ("FAKE_CUDA_MEMORY", "8589934592");
    with_told_gpus("the_slider_says_that_a_gpu_does_not_open", ONE, async |gpu: Cards| {
        let (app, events) = gpu.ready(fixed(0)).await;
        gpu.shuts("1");
        take_notices(&events);
        for _ in 0..2 {
            app.set_gpu_layers(fixed(3), None).await.unwrap();
            let notices = take_notices(&events);
            let [notice] = &notices[..] else { panic!("{notices:?}") };
            assert_eq!((notice.cause.as_str(), notice.layers_moved, notice.gpu_layers), ("deviceLost", 3, 0));
            let now = loaded(&app);
            assert!(matches!(now.gpu_reason, Some(GpuReason::BadState { .. })), "{:?}", now.gpu_reason);
        }
        gpu.shuts("0");
        app.set_gpu_layers(fixed(3), None).await.unwrap();
        let now = loaded(&app);
        assert_eq!((now.gpu_layers, now.gpu_reason, take_notices(&events).len()), (3, None, 0));
    });
}

/// What a GPU takes for itself is guessed before it is open: too much for these two, which hold a part of the model each. They
/// are opened all the same, for what they take is less.
#[test]
fn guesses_keep_no_gpu_closed_that_could_help() {
    const SMALL: (&str, &str) = ("FAKE_CUDA_MEMORY", "431300000,430800000");
    with_told_gpus("guesses_keep_no_gpu_closed_that_could_help", SMALL, async |gpu: Cards| {
        let (app, _) = gpu.ready(GpuLayers::Auto).await;
        let now = loaded(&app);
        assert_eq!((now.plan.fits, now.gpu_layers, gpu.opened().as_str()), (Fits::Gpu, now.plan.layers, "1,1"));
        assert!(layers(&now).iter().all(|layers| *layers > 0), "{now:?}");
    });
}

/// The next live figures.
async fn figures(app: &Arc<App>, events: &Events) -> GpuFigures {
    events.lock().unwrap().clear();
    app.monitor_start();
    let sample = loop {
        let found = events.lock().unwrap().iter().find_map(|event| match event {
            AppEvent::Monitor { sample } => Some(sample.clone()),
            _ => None,
        });
        match found {
            Some(sample) => break sample,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    app.monitor_stop();
    let [gpu] = &sample.gpus[..] else { panic!("{sample:?}") };
    gpu.clone()
}

#[test]
fn load_heat_and_programs_are_told() {
    with_told_gpus("load_heat_and_programs_are_told", ("FAKE_NVML", "live"), async |gpu: Cards| {
        let (app, events) = open(&gpu.files, |config| config.use_gpu = true);
        let now = figures(&app, &events).await;
        assert_eq!((now.load, now.temperature, now.throttling), (Some(0.97), Some(83), Some(vec![Throttle::Heat])));
        let blender = GpuProgram { pid: 4242, name: Some("blender".into()), vram: Some(2_000_000_000), own: false };
        let own = GpuProgram { pid: std::process::id(), vram: Some(1_500_000_000), own: true, ..blender.clone() };
        let unknown = GpuProgram { pid: 4243, name: None, vram: None, own: false };
        assert_eq!(now.programs, Some(vec![blender, own, unknown]));
    });
}

#[test]
fn what_no_card_can_be_is_not_known() {
    with_told_gpus("what_no_card_can_be_is_not_known", ("FAKE_NVML", "hostile"), async |gpu: Cards| {
        let (app, events) = open(&gpu.files, |config| config.use_gpu = true);
        let now = figures(&app, &events).await;
        assert_eq!((now.load, now.temperature), (None, None));
        assert!(now.throttling.unwrap().len() <= 4, "each once");
        let programs = now.programs.unwrap();
        assert_eq!(programs.len(), 64, "of 20000");
        assert!(programs.iter().all(|program| program.vram.is_none_or(|bytes| bytes <= now.total)), "{programs:?}");
        assert!(programs.iter().all(|program| program.name.is_none()), "not text");
    });
}

#[test]
fn an_old_card_tells_nothing_of_them() {
    with_told_gpus("an_old_card_tells_nothing_of_them", ("FAKE_NVML", ""), async |gpu: Cards| {
        let (app, events) = open(&gpu.files, |config| config.use_gpu = true);
        let now = figures(&app, &events).await;
        assert_eq!((now.load, now.temperature, now.throttling, now.programs), (None, None, None, None));
        assert_eq!(now.total, MEMORY);
    });
}

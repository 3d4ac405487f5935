//! The app with an NVIDIA GPU, or with several.
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
use std::time::{Duration, Instant};

#[test]
fn the_window_sees_the_gpu_and_layers_move_during_an_answer() {
    const NAME: &str = "the_window_sees_the_gpu_and_layers_move_during_an_answer";
    with_gpu(NAME, ("FAKE_CUDA_CAPABILITY", "86"), async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let report = app.hardware().await.unwrap();
        let [card] = &report.gpus[..] else { panic!("{report:?}") };
        assert_eq!((card.name.as_str(), card.vram_total, card.is_test_device), ("Fake GPU", MEMORY, false));
        assert_eq!((card.compute_capability.as_deref(), report.gpu_reason), (Some("8.6"), None));
        let now = loaded(&app);
        assert_eq!((now.plan.fits, now.gpu_layers), (Fits::Gpu, now.plan.layers));
        assert_eq!(now.vram_used, now.plan.vram.weights + now.plan.vram.kv + now.plan.vram.compute);
        let code = 1_000_000 * library::modules().len() as u64;
        assert!(now.plan.vram.other > code, "the kernels' code and scratch memory");
        // What others have and what is ours is what is not free.
        gpu.others(1 << 30);
        app.monitor_start();
        let sample = loop {
            let sample = events.lock().unwrap().iter().rev().find_map(|event| match event {
                AppEvent::Monitor { sample } => Some(sample.clone()),
                _ => None,
            });
            match sample {
                Some(sample) => break sample,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        app.monitor_stop();
        let [GpuFigures { name, total, free, own, .. }] = &sample.gpus[..] else { panic!("{sample:?}") };
        let (free, own) = (*free, *own);
        assert_eq!((name.as_str(), *total), ("Fake GPU", MEMORY));
        assert!(own >= now.vram_used, "{own}");
        assert_eq!(free, MEMORY - (1 << 30) - 100_000_000 - code - own);
        // For the plan of the next model our memory is free: that of others and the margin are not.
        let models = app.library().await.unwrap();
        let plan = app.plan(models[0].id.clone(), settings(GpuLayers::Auto)).await.unwrap();
        assert!(plan.vram_available >= MEMORY - (1 << 30) - 100_000_000 - (256 << 20), "{}", plan.vram_available);
        assert!(plan.vram_available < MEMORY - (1 << 30), "{}", plan.vram_available);

        let all = now.plan.layers;
        let seen = answered(&app, async || {
            for layers in [0, 3, all, 1] {
                let state = app.set_gpu_layers(fixed(layers), None).await.unwrap();
                let ModelState::Ready { loaded } = state else { panic!("{state:?}") };
                assert_eq!(loaded.gpu_layers, layers);
            }
        })
        .await;
        assert!(told(&seen).is_empty() && take_notices(&events).is_empty(), "wishes are no recoveries");
    });
}

#[test]
fn other_programs_take_the_memory_and_give_it_back() {
    const NAME: &str = "other_programs_take_the_memory_and_give_it_back";
    with_gpu(NAME, ("FAKE_CUDA_CAPABILITY", "75"), async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let all = loaded(&app).gpu_layers;
        assert!(all > 0 && take_notices(&events).is_empty());
        // Nothing is free any more, but for what the model has.
        let seen = answered(&app, async || gpu.others(MEMORY)).await;
        let notices = told(&seen);
        assert!(!notices.is_empty(), "layers leave during the answer");
        assert!(notices.iter().all(|notice| notice.cause == "vramFull" && notice.during_answer), "{notices:?}");
        let left = loaded(&app).gpu_layers;
        assert!(left < all, "{left} of {all}");
        assert_eq!(notices.iter().map(|notice| notice.layers_moved).sum::<u32>(), all - left);
        take_notices(&events);
        // No room: no offer. Room: one offer.
        app.monitor_start();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(take_notices(&events).is_empty());
        gpu.others(0);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        app.monitor_stop();
        let offers = take_notices(&events);
        let [offer] = &offers[..] else { panic!("{offers:?}") };
        assert_eq!((offer.cause.as_str(), offer.layers_moved, offer.gpu_layers), ("vramFree", all - left, left));
        app.set_gpu_layers(fixed(offer.gpu_layers + offer.layers_moved), None).await.unwrap();
        assert_eq!(loaded(&app).gpu_layers, all);
        assert!(told(&answered(&app, async || {}).await).is_empty());
    });
}

#[test]
fn a_lost_gpu_comes_back_without_a_new_start() {
    const NAME: &str = "a_lost_gpu_comes_back_without_a_new_start";
    with_gpu(NAME, ("FAKE_CUDA_RESETS", "1"), async |gpu: Cards| {
        let (app, events) = gpu.ready(fixed(99)).await;
        let all = loaded(&app).gpu_layers;
        let seen = answered(&app, async || gpu.fails("lose")).await;
        let notices = told(&seen);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!((notice.cause.as_str(), notice.layers_moved, notice.gpu_layers), ("deviceLost", all, 0));
        assert_eq!((loaded(&app).gpu_layers, loaded(&app).vram_used), (0, 0));
        gpu.mend("lose");
        take_notices(&events);
        // It is offered while somebody looks, once.
        app.monitor_start();
        let started = Instant::now();
        let offer = loop {
            assert!(started.elapsed() < Duration::from_secs(300), "no offer");
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Some(notice) = take_notices(&events).pop() {
                break notice;
            }
        };
        app.monitor_stop();
        assert_eq!((offer.cause.as_str(), offer.layers_moved, offer.gpu_layers), ("gpuBack", all, 0));
        assert_eq!(loaded(&app).gpu_layers, 0, "nothing moves unasked");
        // By moving the layers back, and by loading again.
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        assert_eq!((loaded(&app).gpu_layers, take_notices(&events).len()), (all, 0));
        assert!(told(&answered(&app, async || {}).await).is_empty());
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        assert_eq!((loaded(&app).gpu_layers, loaded(&app).gpu_reason), (all, None));
    });
}

#[test]
fn a_gpu_that_stays_lost_leaves_the_work_to_the_cpu() {
    const NAME: &str = "a_gpu_that_stays_lost_leaves_the_work_to_the_cpu";
    with_gpu(NAME, ("FAKE_CUDA_RESETS", "0"), async |gpu: Cards| {
        let (app, events) = gpu.ready(fixed(99)).await;
        let seen = answered(&app, async || gpu.fails("lose")).await;
        assert_eq!(told(&seen).len(), 1);
        take_notices(&events);
        app.set_gpu_layers(fixed(3), None).await.unwrap();
        let notices = take_notices(&events);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!((notice.cause.as_str(), notice.layers_moved, notice.gpu_layers), ("deviceLost", 3, 0));
        let started = Instant::now();
        load(&app, "rustdoc", settings(fixed(99))).await;
        assert!(started.elapsed() < Duration::from_secs(300));
        let now = loaded(&app);
        assert_eq!((now.gpu_layers, now.gpus), (0, Vec::new()));
        assert!(matches!(now.gpu_reason, Some(GpuReason::BadState { .. })), "{:?}", now.gpu_reason);
        let report = app.hardware().await.unwrap();
        assert!(report.gpus.is_empty() && matches!(report.gpu_reason, Some(GpuReason::BadState { .. })));
        assert!(told(&answered(&app, async || {}).await).is_empty());
    });
}

/// The card opens, its kernels do not compile: no plan may count on it, whoever asks, until it is tried again.
#[test]
fn a_gpu_that_refuses_the_kernels_takes_no_layers() {
    const NAME: &str = "a_gpu_that_refuses_the_kernels_takes_no_layers";
    with_gpu(NAME, ("FAKE_CUDA_CAPABILITY", "86"), async |gpu: Cards| {
        gpu.fails("refuse");
        let (app, events) = gpu.ready(fixed(99)).await;
        let all = loaded(&app).plan.layers;
        let on_the_cpu = async |app: &Arc<App>| {
            let now = loaded(app);
            assert_eq!((now.gpu_layers, now.gpus.len(), now.vram_used), (0, 0, 0));
            assert!(matches!(now.gpu_reason, Some(GpuReason::BadState { .. })), "{:?}", now.gpu_reason);
            let id = app.library().await.unwrap()[0].id.clone();
            let asked = app.plan(id, settings(GpuLayers::Auto)).await.unwrap();
            for plan in [&now.plan, &asked] {
                assert_eq!((plan.fits, plan.max_gpu_layers, plan.recommended_gpu_layers), (Fits::Ram, 0, 0));
                assert_eq!((plan.vram_available, plan.vram.total), (0, 0), "the slider has nowhere to go");
            }
            let report = app.hardware().await.unwrap();
            assert!(report.gpus.is_empty() && report.gpu_reason == now.gpu_reason, "{report:?}");
        };
        on_the_cpu(&app).await;
        app.hardware_measure().await.unwrap();
        on_the_cpu(&app).await;
        take_notices(&events);
        app.set_gpu_layers(fixed(3), None).await.unwrap();
        on_the_cpu(&app).await;
        let notices = take_notices(&events);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!((notice.cause.as_str(), notice.layers_moved, notice.gpu_layers), ("deviceLost", 3, 0));
        assert!(told(&answered(&app, async || {}).await).is_empty());
        // Tried again, it works.
        gpu.mend("refuse");
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        let now = loaded(&app);
        assert_eq!((now.gpu_layers, now.plan.fits, now.gpu_reason), (all, Fits::Gpu, None));
        assert!(app.hardware().await.unwrap().gpu_reason.is_none());
    });
}

/// All are there, and the one with the most memory has the model; another is chosen in the settings, for the next load.
#[test]
fn one_of_two_gpus_is_chosen() {
    const NAME: &str = "one_of_two_gpus_is_chosen";
    with_gpu(NAME, ("FAKE_CUDA_MEMORY", "2147483648,8589934592"), async |gpu: Cards| {
        let (app, _) = gpu.ready(GpuLayers::Auto).await;
        let names =
            async || -> Vec<String> { app.hardware().await.unwrap().gpus.into_iter().map(|gpu| gpu.name).collect() };
        let on = || {
            let gpus = loaded(&app).gpus;
            let with: Vec<&GpuUse> = gpus.iter().filter(|gpu| gpu.layers > 0 && gpu.used > 0 && !gpu.lost).collect();
            let [only] = with[..] else { panic!("{gpus:?}") };
            only.name.clone()
        };
        assert_eq!((names().await, on()), (vec!["Fake GPU 2".into(), "Fake GPU".into()], "Fake GPU 2".into()));
        let report = app.hardware().await.unwrap();
        assert!(report.gpus.iter().all(|gpu| gpu.used && gpu.vram_free.is_some()), "{report:?}");
        let plan = loaded(&app).plan;
        assert_eq!((plan.gpus[0].layers, plan.gpus[1].layers), (plan.layers, 0), "it holds all");
        assert!(plan.gpus[0].available > 7 << 30 && plan.gpus[1].available < 2 << 30);
        // The loaded model stays where it is, and its plans are about that.
        choose(&app, only(&[&report.gpus[1].id])).await;
        assert_eq!((names().await[0].as_str(), on()), ("Fake GPU 2", "Fake GPU 2".into()));
        assert!(told(&answered(&app, async || {}).await).is_empty());
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        let now = loaded(&app);
        assert_eq!((names().await[0].as_str(), on(), now.gpu_layers), ("Fake GPU", "Fake GPU".into(), now.plan.layers));
        let other = &app.hardware().await.unwrap().gpus[1];
        assert_eq!((other.used, other.vram_free), (false, None), "it is not opened any more");
        assert!(now.plan.vram_available < 2 << 30 && now.vram_used > 0, "{:?}", now.plan);
        assert!(told(&answered(&app, async || {}).await).is_empty());
        // Without a model it is at once; a card that is not there leaves the choice to the program.
        app.model_unload().await.unwrap();
        choose(&app, GpuChoice::All).await;
        assert_eq!(names().await[0], "Fake GPU 2");
        choose(&app, only(&["GPU-gone"])).await;
        assert_eq!(names().await[0], "Fake GPU 2");
    });
}

/// A list in the settings: two of three, one that is gone besides, none.
#[test]
fn some_of_the_gpus_are_chosen_or_none() {
    const NAME: &str = "some_of_the_gpus_are_chosen_or_none";
    with_gpu(NAME, ("FAKE_CUDA_MEMORY", "2147483648,8589934592,4294967296"), async |gpu: Cards| {
        install_trained(&gpu.files);
        let start = || open(&gpu.files, |config| config.use_gpu = true).0;
        let app = start();
        let all = app.hardware().await.unwrap().gpus;
        let names = |gpus: &[Gpu]| gpus.iter().map(|gpu| gpu.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&all), ["Fake GPU 2", "Fake GPU 3", "Fake GPU"]);
        let used = async |app: &Arc<App>| {
            let report = app.hardware().await.unwrap();
            assert_eq!(report.gpus.len(), 3, "the others are there to be chosen: {report:?}");
            assert!(report.gpus.iter().all(|gpu| gpu.driver.is_some()), "without a management library too: {report:?}");
            let used: Vec<Gpu> = report.gpus.into_iter().filter(|gpu| gpu.used).collect();
            (names(&used), report.gpu_reason)
        };
        let two = [all[2].id.as_str(), "GPU-gone", &all[1].id];
        choose(&app, only(&two)).await;
        assert_eq!(used(&app).await, (vec!["Fake GPU".into(), "Fake GPU 3".into()], None), "in their order");
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        let now = loaded(&app);
        let shares: Vec<(&str, u32)> = now.gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.layers)).collect();
        assert_eq!(shares, [("Fake GPU", now.plan.layers), ("Fake GPU 3", 0)]);
        assert!(told(&answered(&app, async || {}).await).is_empty());
        // None: what is loaded stays, the next load is on the CPU.
        choose(&app, only(&[])).await;
        assert_eq!((loaded(&app).gpu_layers, used(&app).await.0.len()), (now.plan.layers, 2));
        load(&app, "rustdoc", settings(fixed(99))).await;
        let now = loaded(&app);
        assert_eq!((now.gpu_layers, now.vram_used, &now.gpus), (0, 0, &Vec::new()));
        assert_eq!((now.gpu_reason, now.plan.max_gpu_layers), (Some(GpuReason::NoneChosen), 0));
        assert_eq!(used(&app).await, (Vec::new(), Some(GpuReason::NoneChosen)));
        assert!(told(&answered(&app, async || {}).await).is_empty());
        // It is kept, and taken back without a new start.
        drop(app);
        let app = start();
        assert_eq!(app.settings_get().gpus, only(&[]));
        assert_eq!(used(&app).await, (Vec::new(), Some(GpuReason::NoneChosen)));
        choose(&app, only(&two)).await;
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        assert_eq!((loaded(&app).gpu_layers, loaded(&app).gpu_reason), (now.plan.layers, None));
    });
}

/// What is uploaded is copied by the threads that compute, too: one of them that sleeps is woken for it.
#[test]
fn the_threads_that_compute_copy_what_is_uploaded() {
    const NAME: &str = "the_threads_that_compute_copy_what_is_uploaded";
    with_gpu(NAME, ("FAKE_CUDA_CAPABILITY", "86"), async |gpu: Cards| {
        // Its output layer has two megabytes, which are two pieces.
        let large = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/rustdoc-tiny-F16.gguf");
        std::fs::copy(large, install_trained(&gpu.files)).unwrap();
        let (app, _) = open(&gpu.files, |config| config.use_gpu = true);
        app.settings_set(Settings { threads: Some(2), ..app.settings_get() }).await.unwrap();
        load(&app, "rustdoc", settings(fixed(0))).await;
        let pause = || tokio::time::sleep(Duration::from_millis(300));
        // Nothing is computed from here on.
        let mut asleep = times_asleep();
        loop {
            pause().await;
            match times_asleep() {
                same if same == asleep => break,
                other => asleep = other,
            }
        }
        app.set_gpu_layers(fixed(99), None).await.unwrap();
        assert_eq!(loaded(&app).gpu_layers, loaded(&app).plan.layers);
        let end = Instant::now() + Duration::from_secs(300);
        while times_asleep() == asleep {
            assert!(Instant::now() < end, "no thread was woken");
            pause().await;
        }
    });
}

/// How often the threads that compute, but for the caller's, have gone to sleep.
fn times_asleep() -> u64 {
    let mut times = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        if field("Name:").starts_with("compute-") {
            times.push(field("voluntary_ctxt_switches:").parse::<u64>().unwrap());
        }
    }
    assert!(!times.is_empty(), "there is a thread that computes");
    times.iter().sum()
}

/// Two cards that hold a part of the model each: what is planned of each is what is taken there, layers move between them
/// and RAM, and what one of them lacks or loses is that one's own.
#[test]
fn two_gpus_share_a_model() {
    const NAME: &str = "two_gpus_share_a_model";
    // 256 MiB are left to others, 150 MB are the context, the code, graphs and a slab, 10 MB what comes with the first layer; 5 MB
    // are all layers.
    with_gpu(NAME, ("FAKE_CUDA_MEMORY", "431300000,430800000"), async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let all = loaded(&app).plan.layers;
        let shares = |now: &LoadedModel| now.gpus.iter().map(|gpu| gpu.layers).collect::<Vec<_>>();
        let as_planned = || {
            let now = loaded(&app);
            for (share, found) in now.plan.gpus.iter().zip(&now.gpus) {
                let MemoryParts { weights, kv, compute, .. } = share.parts;
                let planned = (share.name.as_str(), share.layers, weights + kv + compute);
                assert_eq!((found.name.as_str(), found.layers, found.used), planned, "{now:?}");
            }
            assert_eq!(now.vram_used, now.gpus.iter().map(|gpu| gpu.used).sum::<u64>());
            now
        };
        let now = as_planned();
        assert_eq!((now.plan.fits, now.gpu_layers), (Fits::Gpu, all), "{:?}", now.plan.gpus);
        assert!(shares(&now).len() == 2 && shares(&now).iter().all(|layers| *layers > 0), "{now:?}");
        assert!(now.plan.reasons.iter().any(|reason| reason.code == "severalAccelerators"), "{:?}", now.plan.reasons);
        assert!(take_notices(&events).is_empty());
        // Layers move in an answer.
        let seen = answered(&app, async || {
            for layers in [0, 3, all, 1, all - 1, all] {
                app.set_gpu_layers(fixed(layers), None).await.unwrap();
                assert_eq!(as_planned().gpu_layers, layers);
            }
        })
        .await;
        assert!(told(&seen).is_empty() && take_notices(&events).is_empty(), "wishes are no recoveries");
        // Others need the second one's memory: its layers go to RAM, for what is left of the first is left to others, too; the
        // first keeps its own.
        let before = shares(&as_planned());
        let seen = answered(&app, async || gpu.others_of("0,430800000")).await;
        let notices = told(&seen);
        assert!(!notices.is_empty(), "layers leave during the answer");
        let gone: u32 = notices.iter().map(|notice| notice.layers_moved + notice.layers_shifted).sum();
        assert!(notices.iter().all(|notice| notice.gpu.as_deref() == Some("Fake GPU 2")), "{notices:?}");
        let after = shares(&loaded(&app));
        assert!(after[0] == before[0] && after[1] < before[1] && gone == before[1] - after[1], "{before:?} {after:?}");
        as_planned();
        gpu.others_of("0");
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        assert_eq!(shares(&as_planned()), before);
        take_notices(&events);
        // The first is lost: the second keeps its layers.
        let seen = answered(&app, async || gpu.loses("1,0")).await;
        let notices = told(&seen);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        let expected = ("deviceLost", Some("Fake GPU"), before[0], before[1]);
        let found = (notice.cause.as_str(), notice.gpu.as_deref(), notice.layers_moved, notice.gpu_layers);
        assert_eq!(found, expected);
        let now = as_planned();
        assert_eq!((shares(&now), now.gpus[0].lost, now.gpus[1].lost), (vec![0, before[1]], true, false));
        assert_eq!(now.gpu_reason, None);
        // It comes back when layers are asked for.
        gpu.mend("lose");
        take_notices(&events);
        app.set_gpu_layers(fixed(all), None).await.unwrap();
        assert_eq!((shares(&as_planned()), take_notices(&events).len()), (before, 0));
        assert!(told(&answered(&app, async || {}).await).is_empty());
    });
}

/// The driver compiles the kernels when they are first needed: the window says how far that is.
#[test]
fn loading_tells_how_much_is_compiled() {
    const NAME: &str = "loading_tells_how_much_is_compiled";
    with_gpu(NAME, ("FAKE_CUDA_COMPILE", "150"), async |gpu: Cards| {
        let (app, events) = gpu.ready(GpuLayers::Auto).await;
        let stages = |events: &Events| -> Vec<LoadStage> {
            let stage = |event: AppEvent| match event {
                AppEvent::Model { state: ModelState::Loading { stage, .. } } => Some(stage),
                _ => None,
            };
            events.lock().unwrap().drain(..).filter_map(stage).collect()
        };
        let seen = stages(&events);
        let compiled: Vec<(u32, u32)> = seen
            .iter()
            .filter_map(|stage| match stage {
                LoadStage::Compiling(Compiling { done, of }) => Some((*done, *of)),
                LoadStage::Layers => None,
            })
            .collect();
        let modules = library::modules().len() as u32;
        assert!(compiled.len() >= modules as usize / 2, "{seen:?}");
        assert!(compiled.is_sorted() && compiled.iter().all(|(done, of)| done <= of && *of == modules), "{seen:?}");
        // They are there now.
        load(&app, "rustdoc", settings(GpuLayers::Auto)).await;
        assert!(stages(&events).iter().all(|stage| *stage == LoadStage::Layers));
    });
}

/// Nobody waits for the driver after a cancel: one module takes longer here than the whole test may.
#[test]
fn loading_is_cancelled_while_kernels_are_compiled() {
    const NAME: &str = "loading_is_cancelled_while_kernels_are_compiled";
    const MODULE: &str = "120000";
    with_gpu(NAME, ("FAKE_CUDA_COMPILE", MODULE), async |gpu: Cards| {
        install_trained(&gpu.files);
        let (app, events) = open(&gpu.files, |config| config.use_gpu = true);
        let (begun, loading) = (Instant::now(), app.clone());
        let id = app.library().await.unwrap()[0].id.clone();
        let loads = tokio::spawn(async move { loading.model_load(id, settings(GpuLayers::Auto)).await });
        let compiles = |event: &AppEvent| {
            matches!(event, AppEvent::Model { state: ModelState::Loading { stage: LoadStage::Compiling(_), .. } })
        };
        while !events.lock().unwrap().iter().any(compiles) {
            assert!(!loads.is_finished());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        app.model_load_cancel();
        assert_eq!(loads.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
        assert!(begun.elapsed().as_millis() < MODULE.parse().unwrap(), "the module was waited for");
        // And without the GPU the model can be used at once.
        load(&app, "rustdoc", settings(fixed(0))).await;
        assert!(told(&answered(&app, async || {}).await).is_empty());
        assert!(begun.elapsed().as_millis() < MODULE.parse().unwrap());
    });
}

/// The same when layers are first moved to a GPU of a loaded model; they arrive.
#[test]
fn moving_tells_how_much_is_compiled() {
    const NAME: &str = "moving_tells_how_much_is_compiled";
    with_gpu(NAME, ("FAKE_CUDA_COMPILE", "150"), async |gpu: Cards| {
        let (app, events) = gpu.ready(fixed(0)).await;
        events.lock().unwrap().clear();
        app.set_gpu_layers(fixed(2), None).await.unwrap();
        let loaded = |event: AppEvent| match event {
            AppEvent::Model { state: ModelState::Ready { loaded } } => Some(loaded),
            _ => None,
        };
        let seen: Vec<LoadedModel> = events.lock().unwrap().drain(..).filter_map(loaded).collect();
        let compiled: Vec<u32> = seen.iter().filter_map(|loaded| Some(loaded.compiling?.done)).collect();
        assert!(compiled.len() >= library::modules().len() / 2 && compiled.is_sorted(), "{compiled:?}");
        assert!(seen.iter().all(|loaded| loaded.compiling.is_none() || loaded.gpu_layers == 0));
        let last = seen.last().unwrap();
        assert_eq!((last.compiling, last.gpu_layers), (None, 2));
    });
}

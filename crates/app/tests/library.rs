//! Models on disk: found, described, planned, removed.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use common::{install, open};
use test_models::ModelSpec;

#[tokio::test(flavor = "multi_thread")]
async fn models_are_found_with_their_facts_and_problems() {
    let folder = tempfile::tempdir().unwrap();
    let good = install(folder.path(), "owner/name/tiny-Q8_0", &ModelSpec::qwen3());
    let bytes = std::fs::read(&good).unwrap();
    let models = folder.path().join("models");
    std::fs::write(models.join("cut.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(models.join("text.gguf"), "hello").unwrap();
    std::fs::write(models.join("strange.gguf"), ModelSpec { arch: "hal9000".into(), ..ModelSpec::llama() }.build())
        .unwrap();
    std::fs::write(models.join("mmproj-tiny.gguf"), &bytes).unwrap();
    std::fs::write(models.join("half-00001-of-00002.gguf"), &bytes).unwrap();
    for part in 2..=3 {
        std::fs::write(models.join(format!("tail-{part:05}-of-00003.gguf")), &bytes).unwrap();
    }
    let (app, _) = open(folder.path(), |_| {});
    // The second time from what is remembered.
    for _ in 0..2 {
        let list = app.library().await.unwrap();
        let names: Vec<&str> = list.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["cut", "half", "strange", "tail", "text", "tiny-Q8_0"]);
        let code = |name: &str| list.iter().find(|m| m.name == name).unwrap().problem.as_ref().map(|p| p.code);
        assert_eq!(code("cut"), Some(ErrorCode::FileTruncated));
        assert_eq!(code("text"), Some(ErrorCode::FileInvalid));
        assert_eq!(code("strange"), Some(ErrorCode::ModelUnsupported));
        assert_eq!(list[2].architecture.as_deref(), Some("hal9000"));
        assert_eq!(code("tiny-Q8_0"), None);
        let (tail, tiny) = (&list[3], &list[5]);
        let missing = tail.problem.as_ref().unwrap();
        assert_eq!((missing.code, tail.bytes), (ErrorCode::FileMissing, 2 * bytes.len() as u64));
        assert!(missing.message.contains("part 1 of 3 is missing"), "{}", missing.message);
        assert!(missing.subject.as_ref().unwrap().ends_with("tail-00001-of-00003.gguf"));
        assert_eq!((tiny.repo.as_deref(), tiny.quant.as_deref()), (Some("owner/name"), Some("Q8_0")));
        assert_eq!((tiny.architecture.as_deref(), tiny.layers), (Some("qwen3"), Some(3)));
        assert_eq!((tiny.bytes, tiny.context_max), (bytes.len() as u64, Some(2048)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_files_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let ours = install(folder.path(), "owner/name/ours", &ModelSpec::llama());
    let foreign = folder.path().join("elsewhere/theirs.gguf");
    std::fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    std::fs::copy(&ours, &foreign).unwrap();
    std::fs::write(folder.path().join("models/owner/note.txt"), "mine").unwrap();
    let (app, events) = open(folder.path(), |_| {});
    app.library_add(foreign.parent().unwrap().to_owned()).await.unwrap();
    let list = app.library().await.unwrap();
    let id = |name: &str| list.iter().find(|model| model.name == name).unwrap().id.clone();
    assert_eq!(app.library_remove(id("theirs")).await.unwrap_err().code, ErrorCode::BadArgument);
    assert!(foreign.exists());
    app.library_remove(id("ours")).await.unwrap();
    assert!(!ours.exists() && !ours.parent().unwrap().exists(), "its empty folder goes too");
    assert!(folder.path().join("models/owner/note.txt").exists());
    assert!(events.lock().unwrap().iter().any(|event| matches!(event, AppEvent::Library)));
    assert_eq!(app.library_remove(id("ours")).await.unwrap_err().code, ErrorCode::FileMissing);
    assert_eq!(app.library().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_follow_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "tiny", &ModelSpec::llama());
    let (app, _) = open(folder.path(), |config| config.test_device = Some(64 << 20));
    let list = app.library().await.unwrap();
    let id = list[0].id.clone();
    let auto = app.plan(id.clone(), LoadSettings::default()).await.unwrap();
    assert_eq!((auto.gpu_layers, auto.layers, auto.fits), (3, 3, Fits::Gpu));
    let one = LoadSettings { gpu_layers: GpuLayers::Fixed { layers: 1 }, ..LoadSettings::default() };
    let split = app.plan(id.clone(), one.clone()).await.unwrap();
    assert_eq!((split.gpu_layers, split.fits), (1, Fits::Split));
    assert_eq!(split.vram.total, split.vram.weights + split.vram.kv + split.vram.compute + split.vram.other);
    assert_eq!(split.ram.kv + split.vram.kv, auto.ram.kv + auto.vram.kv);
    let small = app.plan(id, LoadSettings { context: Some(512), kv_type_k: KvType::F32, ..one.clone() }).await.unwrap();
    assert_eq!(small.context, 512);
    for context in [0, u32::MAX] {
        let impossible = LoadSettings { context: Some(context), ..one.clone() };
        assert_eq!(app.plan(list[0].id.clone(), impossible).await.unwrap_err().code, ErrorCode::BadArgument);
    }
    let missing = app.plan("none".into(), one).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::FileMissing);
}

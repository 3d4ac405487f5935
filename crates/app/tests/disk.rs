//! The disk is measured from the models on it.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use hardware::{HardwareError, SMALLEST_SAMPLE, measure_disk_read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use test_models::ModelSpec;

/// The rates that are kept, of all disks.
fn kept(folder: &Path) -> Vec<f64> {
    let text = std::fs::read(folder.join("data/measured.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let Some(disks) = value["disks"].as_object() else { return Vec::new() };
    disks.values().flat_map(|samples| samples.as_array().unwrap()).map(|s| s["bytes_per_s"].as_f64().unwrap()).collect()
}

async fn rate(app: &Arc<App>) -> Option<f64> {
    app.hardware().await.unwrap().disk_bandwidth
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_loaded_tells_how_fast_its_disk_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = install(folder.path(), "tiny", &ModelSpec::llama());
    let (app, events) = open(folder.path(), |_| {});
    let load = async || load(&app, "tiny", LoadSettings::default()).await;
    // Too small a file tells nothing.
    load().await;
    assert_eq!((rate(&app).await, kept(folder.path())), (None, Vec::new()));
    app.model_unload().await.unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(SMALLEST_SAMPLE).unwrap();
    if let Err(HardwareError::Cached { .. }) = measure_disk_read(&path, &AtomicBool::new(false)) {
        return;
    }
    events.lock().unwrap().clear();
    load().await;
    let begun = Instant::now();
    while rate(&app).await.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(300), "nothing was measured");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The window hears of it when it is kept, and not too often is it done.
    while !events.lock().unwrap().iter().any(|event| matches!(event, AppEvent::Hardware { .. })) {
        assert!(begun.elapsed() < Duration::from_secs(300), "nobody was told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [found] = kept(folder.path())[..] else { panic!("{:?}", kept(folder.path())) };
    assert_eq!(rate(&app).await, Some(found));
    let chat = app.chat_create().await.unwrap().id;
    answer(&app, &chat, say("hello"), greedy(3)).await;
    load().await;
    assert_eq!(kept(folder.path()), [found]);
}

//! A disk that is really full, in the middle of a download and of a chat: a small file system of our own, where the
//! system lets everybody mount one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use fake_hub::FakeHub;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use test_models::{GgmlType, ModelSpec};

const REPO: &str = "owner/tiny-GGUF";
/// 48 MiB: 16 are kept free by downloads, the file has about 6.
const MOUNT: &str = "mount -t tmpfs -o size=48m none";

fn file() -> Vec<u8> {
    ModelSpec { n_layer: 4, n_vocab: 2000, ..ModelSpec::quantized(GgmlType::F16) }.build()
}

/// Takes all space that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 1 << 10, 1] {
        let piece = vec![1; size];
        let full = loop {
            if let Err(error) = file.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}

async fn until(app: &Arc<App>, what: impl Fn(&Download) -> bool) -> Download {
    loop {
        if let Some(found) = app.downloads().into_iter().find(&what) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A disk that has room for the question, and none for its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_not_kept_without_a_place_for_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "local", &ModelSpec::llama());
    let (app, _) = open(folder.path(), |_| {});
    let chat = app.chat_create().await.unwrap().id;
    drop(app);
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON messages WHEN new.role = 'assistant'
                BEGIN SELECT raise(ABORT, 'no room'); END";
    db.execute_batch(full).unwrap();
    drop(db);
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "local", LoadSettings { context: Some(256), ..LoadSettings::default() }).await;
    let refused = begin(&app, &chat, say("Are you there?"), greedy(1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Storage, "{refused}");
    let kept = app.chat(chat.clone()).await.unwrap();
    assert!(kept.messages.is_empty() && kept.title.is_empty() && !kept.running, "{kept:?}");
    assert!(app.chats("there".into(), false).await.unwrap().is_empty());
}

/// In a mount name space of its own: run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_full_disk_loses_nothing"]
async fn child_on_a_small_disk() {
    let folder = PathBuf::from(std::env::var("HEADROOM_TEST_FOLDER").unwrap());
    let filler = folder.join("filler");
    let endpoint = std::env::var("HEADROOM_TEST_HUB").unwrap();
    install(&folder, "local", &ModelSpec::llama());
    let (app, _) = open(&folder, |config| config.endpoint = Some(endpoint));
    load(&app, "local", LoadSettings { context: Some(256), ..LoadSettings::default() }).await;
    let chat = app.chat_create().await.unwrap().id;
    let first = end(&answer(&app, &chat, say("before"), greedy(4)).await).0;
    let settings = app.settings_get();

    let page = app.hub_model(REPO.into()).await.unwrap();
    let id = app.download_start(REPO.into(), page.commit, "F16".into()).await.unwrap().id;
    until(&app, |download| download.bytes > 0).await;
    fill(&filler);
    let failed = until(&app, |download| download.state == DownloadState::Failed).await;
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::DiskFull, "{error}");
    let (needed, available) = (error.needed.unwrap(), error.available.unwrap());
    assert!(needed > available && needed <= failed.total, "{needed} needed, {available} available");

    // Chats and settings say so, too, and keep what they had.
    let long = "word ".repeat(200_000);
    let refused = begin(&app, &chat, say(&long), greedy(1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::DiskFull, "{refused}");
    let changed = Settings { system_prompt: long, ..settings.clone() };
    assert_eq!(app.settings_set(changed).await.unwrap_err().code, ErrorCode::DiskFull);
    assert_eq!(app.settings_get(), settings);
    // Loading needs no disk.
    load(&app, "local", LoadSettings { context: Some(128), ..LoadSettings::default() }).await;
    let kept = app.chat(chat.clone()).await.unwrap();
    assert_eq!((kept.messages.len(), &kept.messages[1].text), (2, &first.text));

    fs::remove_file(&filler).unwrap();
    app.download_resume(id).await.unwrap();
    until(&app, |download| download.state == DownloadState::Done).await;
    assert!(fs::read(folder.join("models").join(REPO).join("tiny-F16.gguf")).unwrap() == file());
    assert_eq!(end(&answer(&app, &chat, say("after"), greedy(4)).await).2, None);
    assert_eq!(app.chat(chat).await.unwrap().messages.len(), 4);
    println!("ALL DONE");
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let probe = format!("{MOUNT} \"$0\"");
    let probe = Command::new("unshare").args(["-rm", "sh", "-c", &probe]).arg(folder.path()).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("left out: this system does not let us mount a file system");
        return;
    }
    let hub = FakeHub::start().unwrap();
    hub.add_bytes(REPO, "tiny-F16.gguf", file());
    hub.faults(|faults| faults.bytes_per_second = Some(3_000_000));
    let path = folder.path().display().to_string();
    let variables = [("HEADROOM_TEST_FOLDER", path), ("HEADROOM_TEST_HUB", hub.endpoint())];
    let mount = format!("{MOUNT} \"$HEADROOM_TEST_FOLDER\" && exec \"$0\" \"$@\"");
    let script = format!("exec unshare -rm sh -c '{mount}' \"$0\" \"$@\"");
    let output = start_under(&script, "child_on_a_small_disk", &variables).wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("ALL DONE"), "{}: {printed}", output.status);
}

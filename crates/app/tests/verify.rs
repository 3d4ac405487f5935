//! Whether installed models are still what the Hub has.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::{install, open};
use fake_hub::FakeHub;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_models::{GgmlType, ModelSpec};

const REPO: &str = "owner/tiny-GGUF";

/// An app with a downloaded model, and where that lies.
async fn downloaded(folder: &Path, hub: &FakeHub, quant: &str) -> (Arc<App>, common::Events, Vec<PathBuf>) {
    let (app, events) = open(folder, |config| config.hf_endpoint = Some(hub.endpoint()));
    download(&app, quant).await;
    let found = fs::read_dir(folder.join("models").join(REPO)).unwrap();
    let mut paths: Vec<_> = found.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    (app, events, paths)
}

async fn download(app: &Arc<App>, quant: &str) {
    let page = app.hub_model(REPO.into()).await.unwrap();
    let id = app.download_start(REPO.into(), page.commit, quant.into()).await.unwrap().id;
    loop {
        let download = app.downloads().into_iter().find(|download| download.id == id).unwrap();
        match download.state {
            DownloadState::Done => return,
            DownloadState::Failed => panic!("{:?}", download.error),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn only_model(app: &Arc<App>) -> InstalledModel {
    let mut list = app.library().await.unwrap();
    assert_eq!(list.len(), 1);
    list.remove(0)
}

async fn verify(app: &Arc<App>) -> Vec<VerifiedFile> {
    app.library_verify(only_model(app).await.id).await.unwrap().files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn code(file: &VerifiedFile) -> Option<ErrorCode> {
    file.problem.as_ref().map(|problem| problem.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bit_is_found_and_downloaded_again() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start().unwrap());
    let bytes = ModelSpec::quantized(GgmlType::Q8_0).build();
    hub.add_bytes(REPO, "tiny-Q8_0.gguf", bytes.clone());
    let (app, events, paths) = downloaded(folder.path(), &hub, "Q8_0").await;
    assert_eq!(only_model(&app).await.verified, None);
    events.lock().unwrap().clear();
    let whole = verify(&app).await;
    assert_eq!((whole[0].compared, &whole[0].problem), (true, &None));
    let told: Vec<Option<FileProgress>> = {
        let id = only_model(&app).await.id;
        let events = events.lock().unwrap();
        assert!(matches!(events.last(), Some(AppEvent::Library)), "the list is read again");
        let of_verify = events.iter().filter_map(|event| match event {
            AppEvent::Verify { model_id, progress } => Some((model_id, progress)),
            _ => None,
        });
        of_verify.inspect(|(model, _)| assert_eq!(**model, id)).map(|(_, progress)| *progress).collect()
    };
    assert_eq!(told[0].map(|progress| (progress.bytes, progress.total)), Some((0, bytes.len() as u64)));
    assert_eq!(told.last(), Some(&None));
    assert_eq!(only_model(&app).await.verified.unwrap().files, whole);

    // In the last tensor, of which the header says nothing.
    flip(&paths[0], bytes.len() - 5);
    assert_eq!(only_model(&app).await.verified, None, "it is about the file as it was");
    let damaged = verify(&app).await;
    assert_eq!((code(&damaged[0]), damaged[0].compared), (Some(ErrorCode::FileDamaged), true));
    assert_eq!(damaged[0].problem.as_ref().unwrap().subject.as_deref(), paths[0].to_str());
    assert_eq!(only_model(&app).await.verified.unwrap().files, damaged);

    // What was kept outlives the program.
    drop(app);
    let (app, _) = open(folder.path(), |config| config.hf_endpoint = Some(hub.endpoint()));
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileDamaged));
    download(&app, "Q8_0").await;
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert_eq!(only_model(&app).await.verified, None);
    assert_eq!(verify(&app).await, whole);

    fs::write(&paths[0], &bytes[..bytes.len() - 1]).unwrap();
    let short = verify(&app).await[0].problem.clone().unwrap();
    let len = bytes.len() as u64;
    assert_eq!((short.code, short.needed, short.available), (ErrorCode::FileTruncated, Some(len), Some(len - 1)));
    fs::write(&paths[0], [&bytes[..], b"x"].concat()).unwrap();
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileDamaged));

    // Another file in its place is not compared with it.
    app.library_remove(only_model(&app).await.id).await.unwrap();
    install(folder.path(), &format!("{REPO}/tiny-Q8_0"), &ModelSpec::llama());
    let other = verify(&app).await;
    assert_eq!((other[0].compared, &other[0].problem), (false, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_split_model_the_damaged_part_is_named() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start().unwrap());
    let parts = ModelSpec::llama().build_split(3);
    for (n, part) in (1..).zip(&parts) {
        hub.add_bytes(REPO, &format!("tiny-F32-{n:05}-of-00003.gguf"), part.clone());
    }
    let (app, _, paths) = downloaded(folder.path(), &hub, "F32").await;
    assert_eq!(paths.len(), 3);
    flip(&paths[1], parts[1].len() - 1);
    let found = verify(&app).await;
    let codes: Vec<_> = found.iter().map(code).collect();
    assert_eq!(codes, [None, Some(ErrorCode::FileDamaged), None]);
    assert_eq!(found[1].path, paths[1].display().to_string());
    fs::remove_file(&paths[2]).unwrap();
    let codes: Vec<_> = verify(&app).await.iter().map(code).collect();
    assert_eq!(codes, [None, Some(ErrorCode::FileDamaged), Some(ErrorCode::FileMissing)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hash_the_header_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = install(folder.path(), "own", &ModelSpec::llama());
    let bytes = fs::read(&path).unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let found = verify(&app).await;
    assert_eq!((found[0].compared, &found[0].problem), (false, &None));
    fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileTruncated), "a tensor ends beyond the file");
    fs::write(&path, b"GGUF, or what").unwrap();
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileInvalid));
    assert_eq!(app.library_verify("nobody".into()).await.unwrap_err().code, ErrorCode::FileMissing);
}

/// Other programs' cache calls its files by their hashes.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_cache_have_their_hash_in_their_name() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let bytes = ModelSpec::llama().build();
    let root = folder.path().join("hub/models--a--b");
    let commit = "f".repeat(40);
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    for sub in ["blobs", "refs"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::create_dir_all(root.join("snapshots").join(&commit)).unwrap();
    fs::write(root.join("refs/main"), &commit).unwrap();
    let blob = root.join("blobs").join(&hash);
    fs::write(&blob, &bytes).unwrap();
    std::os::unix::fs::symlink(&blob, root.join("snapshots").join(&commit).join("m.gguf")).unwrap();
    let (app, _) = open(folder.path(), |config| config.hf_cache_dir = Some(folder.path().join("hub")));
    let found = verify(&app).await;
    assert_eq!((found[0].compared, &found[0].problem), (true, &None));
    flip(&blob, bytes.len() - 1);
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileDamaged));
}

/// Some gigabytes that take no room: a cancel comes long before their end.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_called_off_and_only_one_runs() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start().unwrap());
    hub.add_bytes(REPO, "tiny-Q8_0.gguf", ModelSpec::quantized(GgmlType::Q8_0).build());
    let (app, events, paths) = downloaded(folder.path(), &hub, "Q8_0").await;
    let model = only_model(&app).await;
    // As long as what is kept of it says.
    const LEN: u64 = 200 << 30;
    fs::File::options().write(true).open(&paths[0]).unwrap().set_len(LEN).unwrap();
    drop(app);
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    assert_eq!(db.execute("UPDATE hashes SET len = ?1", [LEN]).unwrap(), 1);
    drop(db);
    let (app, _) = open(folder.path(), |config| {
        let seen = events.clone();
        config.events = Arc::new(move |event| seen.lock().unwrap().push(event));
    });
    events.lock().unwrap().clear();
    let running = tokio::spawn({
        let (app, id) = (app.clone(), model.id.clone());
        async move { app.library_verify(id).await }
    });
    let far = || {
        let events = events.lock().unwrap();
        events
            .iter()
            .any(|event| matches!(event, AppEvent::Verify { progress: Some(p), .. } if p.seconds_left.is_some()))
    };
    while !far() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.library_verify(model.id.clone()).await.unwrap_err().code, ErrorCode::Busy);
    let asked = Instant::now();
    app.library_verify_cancel();
    assert_eq!(running.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(matches!(events.lock().unwrap().last(), Some(AppEvent::Verify { progress: None, .. })));
    assert_eq!(only_model(&app).await.verified, None);
    // The place is free again.
    fs::File::options().write(true).open(&paths[0]).unwrap().set_len(1000).unwrap();
    assert_eq!(code(&verify(&app).await[0]), Some(ErrorCode::FileTruncated));
}

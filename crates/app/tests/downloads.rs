//! Downloads through the app, from a local server that behaves like the Hub.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::{Events, open};
use fake_hub::FakeHub;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use test_models::{GgmlType, ModelSpec};

const REPO: &str = "owner/tiny-GGUF";
const QUANT: &str = "Q8_0";

/// A model of some megabytes, so that there is a middle to cut it at.
fn file() -> Vec<u8> {
    ModelSpec { n_layer: 6, n_vocab: 4000, ..ModelSpec::quantized(GgmlType::Q8_0) }.build()
}

fn hub() -> FakeHub {
    let hub = FakeHub::start().unwrap();
    hub.add_bytes(REPO, "tiny-Q8_0.gguf", file());
    hub.add_bytes(REPO, "tiny-F16.gguf", ModelSpec { ty: GgmlType::F16, ..ModelSpec::llama() }.build());
    hub
}

fn connect(folder: &Path, hub: &FakeHub) -> (Arc<App>, Events) {
    open(folder, |config| config.hf_endpoint = Some(hub.endpoint()))
}

async fn start(app: &Arc<App>) -> String {
    let page = app.hub_model(REPO.into()).await.unwrap();
    app.download_start(REPO.into(), page.commit, QUANT.into()).await.unwrap().id
}

/// Waits until a download is what is asked for.
async fn until(app: &Arc<App>, id: &str, done: impl Fn(&Download) -> bool) -> Download {
    loop {
        let found = app.downloads().into_iter().find(|download| download.id == id);
        let download = found.expect("the download is in the list");
        assert_ne!(download.state, DownloadState::Failed, "{:?}", download.error);
        if done(&download) {
            return download;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is(state: DownloadState) -> impl Fn(&Download) -> bool {
    move |download| download.state == state
}

/// Some of it is on the disk, for certain.
fn in_the_middle(download: &Download) -> bool {
    download.state == DownloadState::Running && download.bytes > 0 && download.bytes < download.total
}

#[tokio::test(flavor = "multi_thread")]
async fn discover_shows_quantizations_with_plans() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, _) = connect(folder.path(), &hub);
    let query = HubQuery { text: "tiny".into(), sort: HubSort::Downloads, cursor: None, parameters: false };
    let found = app.hub_search(query.clone()).await.unwrap().models;
    assert_eq!((found[0].repo.as_str(), found[0].parameters), (REPO, None));
    hub.set_parameters(REPO, 1234);
    let sized = app.hub_search(HubQuery { parameters: true, ..query }).await.unwrap();
    assert_eq!(sized.models[0].parameters, Some(1234));
    // Those of the built-in list that this version runs.
    let suggested = app.hub_recommended().models;
    assert!(suggested.len() > 3 && suggested.iter().all(|model| model.note.is_some()), "{suggested:?}");
    let page = app.hub_model(REPO.into()).await.unwrap();
    let quants: Vec<&str> = page.quants.iter().map(|row| row.quant.as_str()).collect();
    assert_eq!(quants, ["F16", QUANT], "smallest first");
    assert_eq!(page.quants.iter().filter(|row| row.recommended.is_some()).count(), 1);
    let plan = |quant: &str| app.hub_plan(REPO.into(), page.commit.clone(), quant.into(), LoadSettings::default());
    let served = hub.served();
    let row = plan(QUANT).await.unwrap();
    let bits = row.bits_per_weight.unwrap();
    assert!((8.0..10.0).contains(&bits), "{bits}");
    assert_eq!(row.quality, Some(Quality::NearOriginal));
    assert_eq!(row.plan.unwrap().fits, Fits::Ram);
    assert!(hub.served() - served < row.bytes, "only the header is read");
    // The second time without the network.
    let requests = hub.log().len();
    plan(QUANT).await.unwrap();
    assert_eq!(hub.log().len(), requests);
    assert_eq!(plan("Q5_K_M").await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_resumes_and_the_model_appears_whole() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, events) = connect(folder.path(), &hub);
    let size = file().len() as u64;
    hub.faults(|faults| faults.cuts = [size / 2].into());
    let id = start(&app).await;
    let done = until(&app, &id, is(DownloadState::Done)).await;
    let list = app.library().await.unwrap();
    assert_eq!(done.model_id, Some(list[0].id.clone()));
    assert_eq!((list[0].repo.as_deref(), list[0].quant.as_deref()), (Some(REPO), Some(QUANT)));
    assert!(std::fs::read(&list[0].path).unwrap() == file());
    assert!(events.lock().unwrap().iter().any(|event| matches!(event, AppEvent::Library)));
    let page = app.hub_model(REPO.into()).await.unwrap();
    assert_eq!(page.quants.iter().find(|row| row.quant == QUANT).unwrap().installed, done.model_id);
}

/// A slow download that is asked to pause in the middle.
async fn asked_to_pause(folder: &Path, hub: &FakeHub) -> (Arc<App>, String) {
    let (app, _) = connect(folder, hub);
    hub.faults(|faults| faults.bytes_per_second = Some(2 << 20));
    let id = start(&app).await;
    until(&app, &id, in_the_middle).await;
    app.download_pause(id.clone()).await.unwrap();
    (app, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_keeps_resume_goes_on_cancel_deletes() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, id) = asked_to_pause(folder.path(), &hub).await;
    until(&app, &id, is(DownloadState::Paused)).await;
    drop(app);
    // A pause outlives the program.
    let (app, _) = connect(folder.path(), &hub);
    let paused = until(&app, &id, |_| true).await;
    assert_eq!(paused.state, DownloadState::Paused);
    assert!(paused.bytes > 0 && paused.bytes < paused.total, "{paused:?}");
    app.download_resume(id.clone()).await.unwrap();
    until(&app, &id, in_the_middle).await;
    app.download_cancel(id.clone()).await.unwrap();
    while !app.downloads().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(app.library().await.unwrap().is_empty());
    let left = walk(&folder.path().join("models"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(app.download_pause(id).await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_before_the_pause_is_through_it_goes_on() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, id) = asked_to_pause(folder.path(), &hub).await;
    app.download_resume(id.clone()).await.unwrap();
    let done = until(&app, &id, |download| matches!(download.state, DownloadState::Done | DownloadState::Paused));
    let done = tokio::time::timeout(Duration::from_secs(300), done).await.unwrap();
    assert_eq!(done.state, DownloadState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_takes_the_place_of_a_paused_download() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, id) = asked_to_pause(folder.path(), &hub).await;
    let paused = until(&app, &id, is(DownloadState::Paused)).await;
    hub.faults(|faults| faults.bytes_per_second = None);
    // Another file of the repository has changed: the same bytes under a new commit go on.
    hub.add_bytes(REPO, "README.md", "news");
    let served = hub.served();
    assert_eq!(start(&app).await, id);
    until(&app, &id, is(DownloadState::Done)).await;
    assert!(hub.served() - served <= paused.total - paused.bytes + (64 << 10), "it resumed");
    app.download_cancel(id).await.unwrap();

    // The file itself has changed: the old bytes count for nothing and go.
    let model = app.library().await.unwrap().remove(0);
    app.library_remove(model.id).await.unwrap();
    hub.faults(|faults| faults.bytes_per_second = Some(2 << 20));
    let old = start(&app).await;
    until(&app, &old, in_the_middle).await;
    app.download_pause(old.clone()).await.unwrap();
    until(&app, &old, is(DownloadState::Paused)).await;
    hub.faults(|faults| faults.bytes_per_second = None);
    let newer = ModelSpec { n_layer: 5, n_vocab: 4000, ..ModelSpec::quantized(GgmlType::Q8_0) }.build();
    hub.add_bytes(REPO, "tiny-Q8_0.gguf", newer.clone());
    let new = start(&app).await;
    assert_ne!(new, old);
    let listed: Vec<String> = app.downloads().into_iter().map(|download| download.id).collect();
    assert_eq!(listed, [new.as_str()], "two downloads for one place");
    until(&app, &new, is(DownloadState::Done)).await;
    let files = walk(&folder.path().join("models"));
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(std::fs::read(&files[0]).unwrap() == newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn begun_again_while_it_is_deleted_it_is_downloaded() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, _) = connect(folder.path(), &hub);
    for _ in 0..30 {
        hub.faults(|faults| faults.bytes_per_second = Some(2 << 20));
        let id = start(&app).await;
        until(&app, &id, in_the_middle).await;
        app.download_cancel(id).await.unwrap();
        hub.faults(|faults| faults.bytes_per_second = None);
        let again = start(&app).await;
        until(&app, &again, is(DownloadState::Done)).await;
        app.download_cancel(again).await.unwrap();
        let model = app.library().await.unwrap().remove(0);
        app.library_remove(model.id).await.unwrap();
    }
    assert!(app.downloads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_downloads_once() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, _) = connect(folder.path(), &hub);
    hub.faults(|faults| faults.bytes_per_second = Some(2 << 20));
    let page = app.hub_model(REPO.into()).await.unwrap();
    let click = || app.download_start(REPO.into(), page.commit.clone(), QUANT.into());
    let (a, b, c, d) = tokio::join!(click(), click(), click(), click());
    let ids = [a, b, c, d].map(|started| started.unwrap().id);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(app.downloads().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_named() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let (app, _) = connect(folder.path(), &hub);
    // Where the folder would be is a file, as on a disk that is read-only or not there: nothing can be made in it.
    std::fs::create_dir_all(folder.path().join("models")).unwrap();
    std::fs::write(folder.path().join("models/owner"), "").unwrap();
    let id = start(&app).await;
    let error = loop {
        if let Some(error) = app.downloads().into_iter().find(|download| download.id == id).unwrap().error {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(error.code, ErrorCode::FolderAccess);
    let named = folder.path().join("models").join("owner").join("tiny-GGUF");
    assert_eq!(error.subject.as_deref(), named.to_str());
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flat_map(|e| {
            let path = e.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

/// Downloads until it is killed: run by the test below in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_killed_download_goes_on_by_itself"]
async fn child_downloads() {
    let folder = std::env::var("HEADROOM_TEST_FOLDER").unwrap();
    let endpoint = std::env::var("HEADROOM_TEST_HUB").unwrap();
    let (app, _) = open(Path::new(&folder), |config| config.endpoint = Some(endpoint));
    let id = start(&app).await;
    // The journal is written every second.
    until(&app, &id, |download| in_the_middle(download) && download.bytes > download.total / 3).await;
    println!("in the middle");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_download_goes_on_by_itself() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    let size = file().len() as u64;
    // Some three seconds.
    hub.faults(|faults| faults.bytes_per_second = Some(size / 3));
    let variables =
        [("HEADROOM_TEST_FOLDER", folder.path().display().to_string()), ("HEADROOM_TEST_HUB", hub.endpoint())];
    common::run_and_kill("child_downloads", &variables, "in the middle");
    hub.faults(|faults| faults.bytes_per_second = None);
    let served = hub.served();
    let (app, _) = connect(folder.path(), &hub);
    let id = app.downloads()[0].id.clone();
    assert!(app.downloads()[0].bytes > 0, "what the journal vouches for is shown at once");
    until(&app, &id, is(DownloadState::Done)).await;
    assert!(hub.served() - served < size, "it resumed");
    assert!(std::fs::read(&app.library().await.unwrap()[0].path).unwrap() == file());
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_the_hub_are_typed() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    hub.add_bytes("meta/gated-GGUF", "m-Q4_K_M.gguf", ModelSpec::llama().build());
    hub.gate("meta/gated-GGUF");
    hub.add_token("hf_known", &["meta/gated-GGUF"]);
    let (app, _) = connect(folder.path(), &hub);
    assert_eq!(app.hub_model("no/where".into()).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(app.hub_model("../etc".into()).await.unwrap_err().code, ErrorCode::BadArgument);
    let page = app.hub_model("meta/gated-GGUF".into()).await.unwrap();
    assert!(page.gated);
    let plan = || app.hub_plan(page.repo.clone(), page.commit.clone(), "Q4_K_M".into(), LoadSettings::default());
    assert_eq!(plan().await.unwrap().problem.unwrap().code, ErrorCode::NeedsToken);
    app.hub_token_set(Some("hf_known".into())).await.unwrap();
    assert!(plan().await.unwrap().plan.is_some());
    let offline = Settings { hub_endpoint: Some("http://127.0.0.1:9".into()), ..app.settings_get() };
    app.settings_set(offline).await.unwrap();
    let query = HubQuery { text: String::new(), sort: HubSort::Trending, cursor: None, parameters: false };
    assert_eq!(app.hub_search(query).await.unwrap_err().code, ErrorCode::Offline);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_other_programs_opens_gates_too() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), hub());
    hub.gate(REPO);
    hub.add_token("hf_theirs", &[REPO]);
    // As `hf auth login` leaves it: beside the cache.
    let cache = folder.path().join("huggingface/hub");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(folder.path().join("huggingface/token"), "hf_theirs\n").unwrap();
    let plan = async |cache: Option<&Path>, token: Option<&str>| {
        let own = tempfile::tempdir().unwrap();
        let (app, _) = open(own.path(), |config| {
            config.endpoint = Some(hub.endpoint());
            config.hf_cache_dir = cache.map(Path::to_owned);
            config.token = token.map(str::to_owned);
        });
        let commit = hub.commit(REPO).unwrap();
        let row = app.hub_plan(REPO.into(), commit, QUANT.into(), LoadSettings::default()).await;
        row.and_then(|row| row.problem.map_or(Ok(()), Err)).map_err(|error| error.code)
    };
    assert_eq!(plan(None, None).await, Err(ErrorCode::NeedsToken));
    assert_eq!(plan(Some(&cache), None).await, Ok(()));
    // One that was given for this run comes first.
    assert_eq!(plan(Some(&cache), Some("hf_wrong")).await, Err(ErrorCode::TokenRefused));
}

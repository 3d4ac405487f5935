//! `kill -9` at random moments: the next process resumes, and no half file is ever visible.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Bench, client, files_below, noise, quick};
use hub::{CancellationToken, DownloadRequest, Downloader, pending};

const SIZE: usize = 1_500_000;
/// Tells the second process, which is this test program again, what to do.
const REQUEST: &str = "HUB_TEST_REQUEST";
const ENDPOINT: &str = "HUB_TEST_ENDPOINT";

/// Not a test by itself: the process that is killed.
#[tokio::test]
#[ignore = "run by killed_processes_resume"]
async fn child() {
    let request = fs::read(std::env::var(REQUEST).unwrap()).unwrap();
    let request: DownloadRequest = serde_json::from_slice(&request).unwrap();
    let hub = client(&std::env::var(ENDPOINT).unwrap(), None);
    Downloader::new(hub).with_options(quick()).download(&request, |_| {}, &CancellationToken::new()).await.unwrap();
}

fn start_child(endpoint: &str, request: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--quiet"])
        .env(REQUEST, request)
        .env(ENDPOINT, endpoint)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_processes_resume() {
    let parts = [noise(SIZE, 1), noise(200_000, 2)];
    let files = [("m-00001-of-00002.gguf", parts[0].as_slice()), ("m-00002-of-00002.gguf", parts[1].as_slice())];
    let total = (parts[0].len() + parts[1].len()) as u64;
    let bench = Bench::new(&files);
    let request = bench.request(&files);
    let request_file = bench.folder.path().join("request.json");
    fs::write(&request_file, serde_json::to_vec(&request).unwrap()).unwrap();
    bench.server.faults(|f| f.bytes_per_second = Some(3_000_000));

    let moments = noise(12 * 8, 3);
    let mut known = 0;
    for moment in moments.chunks_exact(8) {
        let moment = u64::from_le_bytes(moment.try_into().unwrap());
        // After some more bytes, somewhere between chunks, flushes and journals.
        let until = bench.server.served() + 20_000 + moment % 200_000;
        let mut child = start_child(&bench.server.endpoint(), &request_file);
        while bench.server.served() < until && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_micros(moment % 3000)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let visible: Vec<_> = files_below(&bench.target()).into_iter().filter(|f| f.ends_with(".gguf")).collect();
        let Some(waiting) = pending(&bench.target()).pop() else {
            assert_eq!(visible, ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "finished");
            break;
        };
        assert!(!visible.contains(&"m-00001-of-00002.gguf".to_owned()), "a model is visible before it is whole");
        assert_eq!(waiting.request, request);
        assert!(waiting.bytes >= known, "{} bytes were known before, {} now", known, waiting.bytes);
        known = waiting.bytes;
    }
    assert!(known > 0, "something was kept");

    bench.server.faults(|f| f.bytes_per_second = None);
    let before = bench.server.served();
    let paths = bench.download(&request).await.unwrap();
    assert!(bench.server.served() - before <= total - known, "only what was missing");
    for (path, part) in paths.iter().zip(&parts) {
        assert!(fs::read(path).unwrap() == *part);
    }
    assert_eq!(files_below(&bench.target()), ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
    bench.check_manners();
}

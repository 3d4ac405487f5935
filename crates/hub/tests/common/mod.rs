//! What the tests share: a hub with one model, quick options, a target folder.
#![allow(dead_code, clippy::unwrap_used)] // Each test program uses a part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use fake_hub::{FakeHub, Party};
use hub::{
    CancellationToken, DownloadOptions, DownloadRequest, Downloader, Hub, HubConfig, HubError, Progress, RepoFile,
    Secret,
};

pub const REPO: &str = "owner/tiny-GGUF";
pub const TOKEN: &str = "hf_test";

/// Bytes without a pattern that a shifted range could repeat.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8)).flat_map(|_| step().to_le_bytes()).take(len).collect()
}

/// Small pieces and short pauses, so that a megabyte shows what a gigabyte would.
pub fn quick() -> DownloadOptions {
    DownloadOptions {
        parallel: 4,
        segment_bytes: 100_000,
        flush_bytes: 100_000,
        flush_time: Duration::from_millis(20),
        tries: 4,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        report_every: Duration::from_millis(5),
    }
}

pub fn client(endpoint: &str, token: Option<&str>) -> Hub {
    let mut config = HubConfig::new(endpoint.parse().unwrap());
    config.token = token.map(Secret::new);
    Hub::new(config).unwrap()
}

pub struct Bench {
    pub server: FakeHub,
    pub hub: Hub,
    pub folder: tempfile::TempDir,
}

impl Bench {
    /// A hub that knows [`TOKEN`], with these files in [`REPO`].
    pub fn new(files: &[(&str, &[u8])]) -> Bench {
        let server = FakeHub::start().unwrap();
        server.add_token(TOKEN, &[]);
        for (path, bytes) in files {
            server.add_bytes(REPO, path, *bytes);
        }
        let hub = client(&server.endpoint(), Some(TOKEN));
        Bench { server, hub, folder: tempfile::tempdir().unwrap() }
    }

    pub fn target(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    pub fn request(&self, files: &[(&str, &[u8])]) -> DownloadRequest {
        let files = files.iter().map(|(path, bytes)| RepoFile {
            path: (*path).to_owned(),
            size: bytes.len() as u64,
            sha256: Some(fake_hub::sha256_hex(bytes)),
        });
        DownloadRequest {
            repo: REPO.into(),
            commit: self.server.commit(REPO).unwrap(),
            files: files.collect(),
            target_dir: self.target(),
        }
    }

    pub fn downloader(&self) -> Downloader {
        Downloader::new(self.hub.clone()).with_options(quick())
    }

    pub async fn download(&self, request: &DownloadRequest) -> Result<Vec<PathBuf>, HubError> {
        self.downloader().download(request, |_| {}, &CancellationToken::new()).await
    }

    /// Half-open ranges that the storage was asked for.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let log = self.server.log();
        let ranges = log.iter().filter(|l| l.party == Party::Storage).filter_map(|l| l.range.as_deref());
        ranges.map(parse_range).collect()
    }

    /// What must hold after every test: no token at the storage, no compression of ranges, nothing left behind.
    pub fn check_manners(&self) {
        for line in self.server.log() {
            if line.party == Party::Storage {
                assert_eq!(line.authorization, None, "the token went to the storage: {line:?}");
            }
            assert_eq!(line.accept_encoding.as_deref(), Some("identity"), "{line:?}");
        }
    }
}

fn parse_range(range: &str) -> (u64, u64) {
    let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1)
}

/// All files below a folder, relative, with `/`.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => found.push(path.strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/")),
            }
        }
    }
    found.sort();
    found
}

/// Keeps every report.
#[derive(Default)]
pub struct Reports(pub Mutex<Vec<Progress>>);

impl Reports {
    pub fn add(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

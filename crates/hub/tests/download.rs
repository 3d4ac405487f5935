//! Downloads against the fake hub: cuts, resumption, damage, full disks, refusals, hostile names.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{Bench, REPO, Reports, TOKEN, client, files_below, noise, quick};
use fake_hub::{Canned, Party, WrongBytes};
use hub::{CancellationToken, Disk, Downloader, HubError, OsDisk, Progress, State, discard, pending, pending_bytes};

const SIZE: usize = 1_000_003;

#[tokio::test]
async fn a_file_arrives_over_parallel_ranges() {
    let bytes = noise(SIZE, 1);
    let files = [("m-Q4_0.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.gate(REPO);
    bench.server.add_token(TOKEN, &[REPO]);
    bench.server.faults(|f| f.bytes_per_second = Some(8_000_000));
    let reports = Reports::default();
    let downloader = bench.downloader();
    let paths =
        downloader.download(&bench.request(&files), |p| reports.add(p), &CancellationToken::new()).await.unwrap();
    assert_eq!(paths, [bench.target().join("m-Q4_0.gguf")]);
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert_eq!(files_below(&bench.target()), ["m-Q4_0.gguf"], "nothing else is left");

    let mut ranges = bench.ranges();
    ranges.sort_unstable();
    assert_eq!(ranges.len(), SIZE.div_ceil(quick().segment_bytes as usize));
    assert!(ranges.windows(2).all(|w| w[0].1 == w[1].0), "no byte twice: {ranges:?}");
    assert_eq!(bench.server.served(), SIZE as u64);
    let resolves = bench.server.log().iter().filter(|l| l.target.contains("/resolve/")).count();
    assert_eq!(resolves, 1, "the link is used again");
    bench.check_manners();

    let reports = reports.0.into_inner().unwrap();
    let last = reports.last().unwrap();
    assert_eq!((last.bytes, last.total, &last.state), (SIZE as u64, SIZE as u64, &State::Done));
    let downloading: Vec<&Progress> = reports.iter().filter(|p| p.state == State::Downloading).collect();
    assert!(downloading.windows(2).all(|w| w[0].bytes <= w[1].bytes));
    assert!(downloading.iter().any(|p| p.bytes > 0 && p.bytes < SIZE as u64 && p.bytes_per_s > 0.0));
}

#[tokio::test]
async fn thirty_cuts_at_random_points() {
    let bytes = noise(SIZE, 2);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let mut points = noise(30 * 8, 3);
    for (round, point) in points.chunks_exact_mut(8).enumerate() {
        let point = u64::from_le_bytes(point.try_into().unwrap()) % SIZE as u64;
        let before = bench.server.served();
        bench.server.faults(|f| f.cuts = [before + point].into());
        let mut request = bench.request(&files);
        request.target_dir = bench.folder.path().join(round.to_string());
        let paths = bench.download(&request).await.unwrap();
        assert!(fs::read(&paths[0]).unwrap() == bytes, "cut at {point}");
        assert_eq!(files_below(&request.target_dir), ["m.gguf"]);
        bench.server.faults(|f| assert!(f.cuts.is_empty(), "no cut happened at {point}"));
        let served = bench.server.served() - before;
        // A cut loses what was on the way, at most what its lane had been sent.
        assert!(served <= SIZE as u64 + quick().segment_bytes, "cut at {point}: {served} bytes served");
    }
    bench.check_manners();
}

#[tokio::test]
async fn goes_on_as_long_as_there_is_progress() {
    let bytes = noise(SIZE, 4);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    // Far more cuts in a row than `tries`.
    bench.server.faults(|f| f.cut_every = Some(40_000));
    let paths = bench.download(&bench.request(&files)).await.unwrap();
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert!(bench.ranges().len() >= SIZE / 40_000);
}

#[tokio::test]
async fn gives_up_without_progress_and_resumes_later() {
    let bytes = noise(SIZE, 5);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let request = bench.request(&files);
    bench.server.faults(|f| f.cuts = (1..200).map(|_| 300_000).collect());
    let error = bench.download(&request).await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
    assert_eq!(files_below(&bench.target()).iter().filter(|f| f.ends_with(".gguf")).count(), 0);
    let waiting = pending(&bench.target());
    assert_eq!(waiting.len(), 1);
    assert_eq!((&waiting[0].request, waiting[0].total), (&request, SIZE as u64));
    assert!(waiting[0].bytes > 0 && waiting[0].bytes <= 300_000);

    bench.server.faults(|f| f.cuts.clear());
    let before = bench.server.served();
    bench.download(&waiting[0].request).await.unwrap();
    assert_eq!(bench.server.served() - before, SIZE as u64 - waiting[0].bytes, "only what was missing");
    assert!(pending(&bench.target()).is_empty());
}

#[tokio::test]
async fn cancelling_keeps_what_has_arrived() {
    let bytes = noise(SIZE, 6);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| f.bytes_per_second = Some(2_000_000));
    let request = bench.request(&files);
    let cancel = CancellationToken::new();
    let at_half = |p: Progress| {
        if p.bytes > SIZE as u64 / 2 {
            cancel.cancel();
        }
    };
    let error = bench.downloader().download(&request, at_half, &cancel).await.unwrap_err();
    assert!(matches!(error, HubError::Cancelled));
    let kept = pending(&bench.target())[0].bytes;
    assert!(kept > SIZE as u64 / 2, "{kept}");
    let before = bench.server.served();
    let paths = bench.download(&request).await.unwrap();
    assert_eq!(bench.server.served() - before, SIZE as u64 - kept);
    assert!(fs::read(&paths[0]).unwrap() == bytes);

    // Already there: nothing is fetched. Cancelled before it begins: nothing happens.
    let before = bench.server.log().len();
    bench.download(&request).await.unwrap();
    assert_eq!(bench.server.log().len(), before);
    fs::remove_file(&paths[0]).unwrap();
    let error = bench.downloader().download(&request, |_| {}, &cancel).await.unwrap_err();
    assert!(matches!(error, HubError::Cancelled));
    discard(&request).unwrap();
    assert!(files_below(&bench.target()).is_empty());
}

#[tokio::test]
async fn links_that_expire_are_resolved_again() {
    let bytes = noise(SIZE, 7);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| f.link_uses = Some(2));
    let paths = bench.download(&bench.request(&files)).await.unwrap();
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert!(bench.server.log().iter().any(|l| l.party == Party::Storage && l.status == 403));
    bench.check_manners();

    // A storage that refuses every link is believed.
    bench.server.faults(|f| f.refuse_links = true);
    fs::remove_file(&paths[0]).unwrap();
    let error = bench.download(&bench.request(&files)).await.unwrap_err();
    assert!(matches!(error, HubError::Server { status: 403, .. }), "{error}");
}

#[tokio::test]
async fn busy_and_broken_servers_are_waited_for() {
    let bytes = noise(SIZE, 8);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| {
        f.resolve.extend([Canned::status(503), Canned::rate_limited(0)]);
        f.storage.extend([Canned::status(500), Canned::rate_limited(1), Canned::status(502), Canned::rate_limited(0)]);
    });
    let reports = Reports::default();
    let request = bench.request(&files);
    bench.downloader().download(&request, |p| reports.add(p), &CancellationToken::new()).await.unwrap();
    assert!(fs::read(bench.target().join("m.gguf")).unwrap() == bytes);

    // Alone, a lane that was asked to wait shows as waiting, with the time.
    let mut one_lane = quick();
    (one_lane.parallel, one_lane.segment_bytes) = (1, SIZE as u64);
    fs::remove_file(bench.target().join("m.gguf")).unwrap();
    bench.server.faults(|f| f.storage.push_back(Canned::rate_limited(1)));
    let downloader = bench.downloader().with_options(one_lane);
    downloader.download(&request, |p| reports.add(p), &CancellationToken::new()).await.unwrap();
    let waited = |p: &Progress| matches!(p.state, State::Waiting { seconds: 1 | 2 });
    assert!(reports.0.lock().unwrap().iter().any(waited));
    bench.check_manners();
}

#[tokio::test]
async fn servers_without_ranges_still_serve() {
    let bytes = noise(SIZE, 9);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| {
        f.ignore_range = true;
        f.cuts = [400_000, 900_000].into();
    });
    let paths = bench.download(&bench.request(&files)).await.unwrap();
    assert!(fs::read(&paths[0]).unwrap() == bytes);
}

#[tokio::test]
async fn damaged_bytes_are_fetched_again() {
    let bytes = noise(SIZE, 10);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| f.wrong_bytes = Some(WrongBytes { offset: 777_777, times: 1 }));
    let paths = bench.download(&bench.request(&files)).await.unwrap();
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert_eq!(bench.server.served(), 2 * SIZE as u64, "once more from the start");

    // Damaged again and again: an error with both hashes, and no file.
    fs::remove_file(&paths[0]).unwrap();
    bench.server.faults(|f| f.wrong_bytes = Some(WrongBytes { offset: 5, times: 1000 }));
    let error = bench.download(&bench.request(&files)).await.unwrap_err();
    let HubError::Checksum { expected, actual, .. } = &error else { panic!("{error}") };
    assert_eq!(*expected, fake_hub::sha256_hex(&bytes));
    assert_ne!(expected, actual);
    assert!(!paths[0].exists());
    assert_eq!(pending(&bench.target())[0].bytes, 0, "damaged bytes are not kept");
}

#[tokio::test]
async fn contradictions_are_refused() {
    let bytes = noise(SIZE, 11);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let protocol = async |what: &str| {
        let error = bench.download(&bench.request(&files)).await.unwrap_err();
        assert_eq!(error.code(), "protocol", "{what}: {error}");
        assert!(!bench.target().join("m.gguf").exists());
    };
    bench.server.faults(|f| f.longer_by = 5);
    protocol("another length in the range").await;
    bench.server.faults(|f| (f.longer_by, f.wrong_etag) = (0, Some("0".repeat(64))));
    protocol("another sha256 in the redirect").await;
    bench.server.faults(|f| f.wrong_etag = None);
    let mut request = bench.request(&files);
    request.files[0].size -= 1;
    let error = bench.download(&request).await.unwrap_err();
    assert_eq!(error.code(), "protocol", "{error}");
    bench.download(&bench.request(&files)).await.unwrap();
}

#[tokio::test]
async fn a_new_commit_starts_again() {
    let old = noise(SIZE, 12);
    let new = noise(SIZE, 13);
    let bench = Bench::new(&[("m.gguf", &old)]);
    let request = bench.request(&[("m.gguf", &old)]);
    bench.server.faults(|f| f.cuts = (1..200).map(|_| 500_000).collect());
    bench.download(&request).await.unwrap_err();
    assert!(pending(&bench.target())[0].bytes > 0);
    bench.server.faults(|f| f.cuts.clear());
    bench.server.add_bytes(REPO, "m.gguf", new.clone());
    let before = bench.server.served();
    let paths = bench.download(&bench.request(&[("m.gguf", &new)])).await.unwrap();
    assert_eq!(bench.server.served() - before, SIZE as u64);
    assert!(fs::read(&paths[0]).unwrap() == new);
    // What there is of the old one is kept apart until somebody goes on with it, or discards it.
    assert_eq!(pending(&bench.target()).len(), 1);
    assert!(pending_bytes(&request) > 0);
    discard(&request).unwrap();
    assert_eq!(files_below(&bench.target()), ["m.gguf"]);
}

#[tokio::test]
async fn the_same_bytes_under_a_new_commit_go_on() {
    let bytes = noise(SIZE, 27);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let old = bench.request(&files);
    bench.server.faults(|f| f.cuts = (1..200).map(|_| 500_000).collect());
    bench.download(&old).await.unwrap_err();
    bench.server.faults(|f| f.cuts.clear());
    bench.server.add_bytes(REPO, "README.md", "news");
    let new = bench.request(&files);
    assert!(new.commit != old.commit && new.is_same(&old) && new.collides(&old));
    let kept = pending_bytes(&new);
    assert!(kept > 0);
    let before = bench.server.served();
    bench.download(&new).await.unwrap();
    assert_eq!(bench.server.served() - before, SIZE as u64 - kept, "only what was missing");
    assert_eq!(files_below(&bench.target()), ["m.gguf"]);
}

#[tokio::test]
async fn a_split_model_never_consists_of_two_versions() {
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let [old, new] = [28, 30].map(|seed| [noise(200_000, seed), noise(200_000, seed + 1)]);
    let files = |parts: &'static [Vec<u8>; 2]| [(names[0], parts[0].as_slice()), (names[1], parts[1].as_slice())];
    let (old, new) = (files(Box::leak(Box::new(old))), files(Box::leak(Box::new(new))));
    let bench = Bench::new(&old);
    let paths = bench.download(&bench.request(&old)).await.unwrap();
    new.iter().for_each(|(name, bytes)| bench.server.add_bytes(REPO, name, *bytes));
    let request = bench.request(&new);
    // The second part cannot be replaced, as if the program ended there.
    fs::remove_file(&paths[1]).unwrap();
    fs::create_dir_all(paths[1].join("in the way")).unwrap();
    bench.download(&request).await.unwrap_err();
    assert!(!paths[0].exists(), "the old first part waits for the new second one");
    fs::remove_dir_all(&paths[1]).unwrap();
    bench.download(&request).await.unwrap();
    for (path, (_, bytes)) in paths.iter().zip(new) {
        assert!(fs::read(path).unwrap() == bytes);
    }
    assert_eq!(files_below(&bench.target()), names);
}

#[tokio::test]
async fn split_models_appear_with_their_first_part_last() {
    let parts = [noise(300_000, 14), noise(250_000, 15), noise(1, 16)];
    let names = ["Q8_0/m-00001-of-00003.gguf", "Q8_0/m-00002-of-00003.gguf", "Q8_0/m-00003-of-00003.gguf"];
    let files: Vec<(&str, &[u8])> = names.iter().zip(&parts).map(|(n, b)| (*n, b.as_slice())).collect();
    let bench = Bench::new(&files);
    let choice = bench.hub.files(REPO, None).await.unwrap().models.remove(0);
    let mut request = bench.request(&files);
    request.files = choice.files;
    // While the last part is missing, none is visible.
    bench.server.faults(|f| f.cuts = (1..200).map(|_| 550_000).collect());
    bench.download(&request).await.unwrap_err();
    assert!(files_below(&bench.target()).iter().all(|f| !f.ends_with(".gguf")));
    bench.server.faults(|f| f.cuts.clear());
    let paths = bench.download(&request).await.unwrap();
    for ((path, name), part) in paths.iter().zip(names).zip(&parts) {
        assert_eq!(*path, bench.target().join(name));
        assert!(fs::read(path).unwrap() == *part);
    }
    assert_eq!(files_below(&bench.target()), names);

    // Killed between two renames: the later parts are in place, the first is still to come.
    fs::remove_file(&paths[0]).unwrap();
    let before = bench.server.served();
    bench.download(&request).await.unwrap();
    assert_eq!(bench.server.served() - before, parts[0].len() as u64, "the others are not fetched again");
}

#[tokio::test]
async fn an_existing_file_that_is_not_the_model_is_replaced() {
    let bytes = noise(SIZE, 17);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    fs::create_dir_all(bench.target()).unwrap();
    for wrong in [noise(SIZE, 18), noise(10, 19)] {
        fs::write(bench.target().join("m.gguf"), &wrong).unwrap();
        bench.download(&bench.request(&files)).await.unwrap();
        assert!(fs::read(bench.target().join("m.gguf")).unwrap() == bytes);
    }
}

#[tokio::test]
async fn one_downloader_per_target() {
    let bytes = noise(SIZE, 20);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| f.bytes_per_second = Some(2_000_000));
    let request = bench.request(&files);
    let (first, second, third) = tokio::join!(
        bench.download(&request),
        async {
            while bench.server.served() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            bench.download(&request).await
        },
        async {
            while bench.server.served() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            discard(&request)
        }
    );
    first.unwrap();
    assert_eq!(second.unwrap_err().code(), "busy");
    assert_eq!(third.unwrap_err().code(), "busy");
}

#[tokio::test]
async fn dropping_the_future_stops_it_and_keeps_the_bytes() {
    let bytes = noise(SIZE, 21);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.faults(|f| f.bytes_per_second = Some(2_000_000));
    let request = bench.request(&files);
    tokio::select! {
        _ = bench.download(&request) => panic!("too fast to be dropped"),
        () = async { while bench.server.served() < 400_000 { tokio::time::sleep(Duration::from_millis(1)).await } } => {}
    }
    bench.server.faults(|f| f.bytes_per_second = None);
    // The writer lets go of the lock when it has flushed.
    let paths = loop {
        match bench.download(&request).await {
            Err(HubError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            result => break result.unwrap(),
        }
    };
    assert!(fs::read(&paths[0]).unwrap() == bytes);
    assert!(bench.server.served() < 2 * SIZE as u64 - 100_000, "it resumed");
}

/// A disk with room for so many bytes, whose flush can be made to fail.
struct SmallDisk {
    room: AtomicU64,
    /// What it says is free; the real room may be taken by others meanwhile.
    claimed: AtomicU64,
    sync_fails: AtomicBool,
}

impl SmallDisk {
    fn new(room: u64, claimed: u64) -> Arc<SmallDisk> {
        Arc::new(SmallDisk { room: room.into(), claimed: claimed.into(), sync_fails: false.into() })
    }
}

impl Disk for SmallDisk {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.claimed.load(SeqCst))
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let left = self.room.load(SeqCst).checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::StorageFull)?;
        self.room.store(left, SeqCst);
        OsDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.sync_fails.load(SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => OsDisk.sync(file),
        }
    }
}

#[tokio::test]
async fn a_disk_too_small_is_noticed_before_the_download() {
    let bytes = noise(SIZE, 22);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let downloader = bench.downloader().with_disk(SmallDisk::new(0, 900_000));
    let error = downloader.download(&bench.request(&files), |_| {}, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, HubError::DiskFull { needed: 1_000_003, free: 900_000, .. }), "{error}");
    assert!(error.to_string().contains("900000 bytes free"));
    assert!(bench.server.log().is_empty(), "nothing was asked for");
}

#[tokio::test]
async fn a_disk_that_fills_up_keeps_what_has_arrived() {
    let bytes = noise(SIZE, 23);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let disk = SmallDisk::new(600_000, 1 << 40);
    let downloader = bench.downloader().with_disk(disk.clone());
    let request = bench.request(&files);
    let error = downloader.download(&request, |_| {}, &CancellationToken::new()).await.unwrap_err();
    let HubError::DiskFull { needed, .. } = error else { panic!("{error}") };
    let kept = pending(&bench.target())[0].bytes;
    assert!(kept > 0 && kept <= 600_000, "{kept}");
    assert_eq!(needed, SIZE as u64 - kept);
    assert!(!bench.target().join("m.gguf").exists());

    disk.room.store(1 << 40, SeqCst);
    let before = bench.server.served();
    let paths = downloader.download(&request, |_| {}, &CancellationToken::new()).await.unwrap();
    assert_eq!(bench.server.served() - before, SIZE as u64 - kept);
    assert!(fs::read(&paths[0]).unwrap() == bytes);
}

#[tokio::test]
async fn bytes_that_could_not_be_flushed_do_not_count() {
    let bytes = noise(SIZE, 24);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    let disk = SmallDisk::new(1 << 40, 1 << 40);
    disk.sync_fails.store(true, SeqCst);
    let downloader = bench.downloader().with_disk(disk.clone());
    let request = bench.request(&files);
    let error = downloader.download(&request, |_| {}, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code(), "disk_full");
    assert_eq!(pending(&bench.target())[0].bytes, 0);
    disk.sync_fails.store(false, SeqCst);
    let paths = downloader.download(&request, |_| {}, &CancellationToken::new()).await.unwrap();
    assert!(fs::read(&paths[0]).unwrap() == bytes);
}

#[tokio::test]
async fn small_and_empty_files_outside_lfs() {
    let bench = Bench::new(&[("README.md", b"hello"), ("empty.txt", b""), ("empty.gguf", b"")]);
    let listed = bench.hub.files(REPO, None).await.unwrap();
    let mut request = bench.request(&[]);
    request.files = listed.files;
    bench.download(&request).await.unwrap();
    assert_eq!(fs::read(bench.target().join("README.md")).unwrap(), b"hello");
    assert_eq!(files_below(&bench.target()), ["README.md", "empty.gguf", "empty.txt"]);
}

#[tokio::test]
async fn hostile_requests_touch_nothing() {
    let bytes = noise(1000, 25);
    let bench = Bench::new(&[("m.gguf", &bytes)]);
    for evil in ["../m.gguf", "/etc/m.gguf", "C:\\m.gguf", "a/../../m.gguf", "NUL", ".headroom-part/x", "a\0b"] {
        let error = bench.download(&bench.request(&[(evil, &bytes)])).await.unwrap_err();
        assert_eq!(error.code(), "bad_name", "{evil:?}");
    }
    let twice = bench.request(&[("m.gguf", &bytes), ("M.gguf", &bytes)]);
    assert_eq!(bench.download(&twice).await.unwrap_err().code(), "bad_name");
    let mut request = bench.request(&[("m.gguf", &bytes)]);
    request.commit = "main".into();
    assert_eq!(bench.download(&request).await.unwrap_err().code(), "bad_name");
    let mut request = bench.request(&[("m.gguf", &bytes), ("n.gguf", &bytes)]);
    request.files.iter_mut().for_each(|f| f.size = u64::MAX);
    assert_eq!(bench.download(&request).await.unwrap_err().code(), "protocol");
    assert_eq!(bench.download(&bench.request(&[])).await.unwrap_err().code(), "protocol");
    assert!(files_below(&bench.target()).iter().all(|f| !f.ends_with(".gguf")));
}

#[tokio::test]
async fn refusals_end_a_download_at_once() {
    let bytes = noise(1000, 26);
    let files = [("m.gguf", bytes.as_slice())];
    let bench = Bench::new(&files);
    bench.server.gate(REPO);
    let request = bench.request(&files);
    for (token, code) in [(None, "gated_needs_token"), (Some(TOKEN), "gated_needs_terms"), (Some("x"), "token_refused")]
    {
        bench.server.clear_log();
        let downloader = Downloader::new(client(&bench.server.endpoint(), token)).with_options(quick());
        let error = downloader.download(&request, |_| {}, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert_eq!(bench.server.log().len(), 1, "no second try");
    }
    let gone = bench.request(&[("gone.gguf", &bytes)]);
    bench.server.add_token(TOKEN, &[REPO]);
    assert_eq!(bench.download(&gone).await.unwrap_err().code(), "not_found");
}

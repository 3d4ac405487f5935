//! Downloads that resume, are verified, and appear only when whole.

mod disk;
mod fetch;
mod journal;
mod meter;
mod ranges;
mod staging;
mod verify;
mod writer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::files::is_hex;
use crate::remote::RemoteFile;
use crate::{Hub, HubError, RepoFile, safe_path};

pub use disk::{Disk, OsDisk, replace_file};
use fetch::{Fetch, Lanes};
use journal::Identity;
use meter::{Meter, Phase, Sampler};
pub use meter::{Progress, State};
use ranges::RangeSet;
use staging::Staging;
pub use staging::{STAGING, discard, pending, pending_bytes};
pub use verify::sha256_of_file;
use writer::{FlushEvery, Writer, storage_error};

/// Left free on the disk for journals and for others.
const MARGIN: u64 = 16 << 20;

/// What to download, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadRequest {
    pub repo: String,
    /// 40 digits, of [`crate::RepoFiles::commit`].
    pub commit: String,
    /// Files that belong together, as a split model does: the first appears last.
    pub files: Vec<RepoFile>,
    /// Each file goes to its repository path below this folder.
    pub target_dir: PathBuf,
}

impl DownloadRequest {
    /// Whether both end with the same bytes in the same places, whatever the commits are called.
    pub fn is_same(&self, other: &DownloadRequest) -> bool {
        let hashed = || self.files.iter().all(|file| file.sha256.is_some());
        (&self.repo, &self.files, &self.target_dir) == (&other.repo, &other.files, &other.target_dir)
            && (self.commit == other.commit || hashed())
    }

    /// Whether a file of one would lie where one of the other does.
    pub fn collides(&self, other: &DownloadRequest) -> bool {
        // Windows does not tell names apart by case.
        let taken = |file: &RepoFile| other.files.iter().any(|there| there.path.eq_ignore_ascii_case(&file.path));
        self.target_dir == other.target_dir && self.files.iter().any(taken)
    }
}

/// A download that was begun and not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDownload {
    pub request: DownloadRequest,
    /// Bytes known to be on the disk.
    pub bytes: u64,
    pub total: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct DownloadOptions {
    /// Connections at a time.
    pub parallel: usize,
    /// Bytes of one request.
    pub segment_bytes: u64,
    /// The journal is brought up to date after so many bytes or so much time, whichever comes first.
    pub flush_bytes: u64,
    pub flush_time: Duration,
    /// Failures in a row without a single byte in between before a download gives up (about 4 minutes).
    pub tries: u32,
    /// The pause after the first failure; it doubles with each one up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    pub report_every: Duration,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        let backoff = Backoff::default();
        DownloadOptions {
            parallel: 4,
            segment_bytes: 16 << 20,
            flush_bytes: 64 << 20,
            flush_time: Duration::from_secs(1),
            tries: 16,
            first_pause: backoff.first,
            longest_pause: backoff.longest,
            report_every: Duration::from_millis(200),
        }
    }
}

/// Downloads files of the Hub; cheap to clone.
#[derive(Clone)]
pub struct Downloader {
    hub: Hub,
    options: DownloadOptions,
    disk: Arc<dyn Disk>,
}

/// One file on its way.
struct Job {
    index: usize,
    file: RepoFile,
    destination: PathBuf,
}

impl Downloader {
    pub fn new(hub: Hub) -> Downloader {
        Downloader { hub, options: DownloadOptions::default(), disk: Arc::new(OsDisk) }
    }

    pub fn with_options(mut self, options: DownloadOptions) -> Downloader {
        self.options = options;
        self
    }

    pub fn with_disk(mut self, disk: Arc<dyn Disk>) -> Downloader {
        self.disk = disk;
        self
    }

    /// Downloads, verifies and publishes the files; returns their paths in the order of the request. Resumes what an
    /// earlier call, also of a killed process, has left. Dropping the future stops it as cancelling does.
    ///
    /// # Errors
    /// [`HubError::DiskFull`] before the first byte or midway, [`HubError::Checksum`], [`HubError::Cancelled`],
    /// [`HubError::Busy`], [`HubError::Gated`], [`HubError::Offline`] and the others. Except after `Checksum`, what has
    /// arrived is kept.
    pub async fn download(
        &self,
        request: &DownloadRequest,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<Vec<PathBuf>, HubError> {
        let (jobs, total) = jobs(request)?;
        let meter = Arc::new(Meter::new(total));
        let mut sampler = Sampler::default();
        let work = async {
            let result = self.run(request, &jobs, &meter, cancel).await;
            result.map_err(|error| self.explain(error, request, total))
        };
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(self.options.report_every);
        loop {
            tokio::select! {
                result = &mut work => {
                    progress(sampler.sample(&meter, Instant::now()));
                    return result;
                }
                _ = ticks.tick() => progress(sampler.sample(&meter, Instant::now())),
            }
        }
    }

    async fn run(
        &self,
        request: &DownloadRequest,
        jobs: &[Job],
        meter: &Arc<Meter>,
        cancel: &CancellationToken,
    ) -> Result<Vec<PathBuf>, HubError> {
        let staging = Arc::new(Staging::open(request)?);
        let mut unfinished = Vec::new();
        for job in jobs {
            if !self.is_there(job, meter, cancel).await? {
                unfinished.push(job);
            }
        }
        self.check_space(request, &staging, &unfinished)?;
        let mut etags = Vec::new();
        for job in &unfinished {
            etags.push(self.fetch_file(request, job, &staging, meter, cancel).await?);
        }
        for (job, etag) in unfinished.iter().zip(etags) {
            self.verify_file(request, job, etag, &staging, meter, cancel).await?;
        }
        let moves: Vec<_> = unfinished.iter().map(|job| (job.index, job.destination.clone())).collect();
        staging.publish(&moves)?;
        meter.set_phase(Phase::Done);
        if let Some(staging) = Arc::into_inner(staging) {
            staging.remove();
        }
        Ok(jobs.iter().map(|job| job.destination.clone()).collect())
    }

    /// A full disk is also met when folders and journals are written.
    fn explain(&self, error: HubError, request: &DownloadRequest, total: u64) -> HubError {
        match error {
            HubError::Io { path, source } => {
                let needed = total - pending_bytes(request).min(total);
                match storage_error(source, &path, total, needed, self.disk.as_ref()) {
                    HubError::DiskFull { needed, free, .. } => {
                        HubError::DiskFull { folder: request.target_dir.clone(), needed, free }
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Whether the file lies whole at its destination already: of an earlier download, or of this one before a kill.
    async fn is_there(&self, job: &Job, meter: &Arc<Meter>, cancel: &CancellationToken) -> Result<bool, HubError> {
        let Some(sha256) = &job.file.sha256 else { return Ok(false) };
        if !std::fs::metadata(&job.destination).is_ok_and(|m| m.is_file() && m.len() == job.file.size) {
            return Ok(false);
        }
        let there = sha256_of_file(&job.destination, Arc::new(|_| {}), cancel).await? == *sha256;
        if there {
            meter.add_written(job.file.size);
            meter.add_verified(job.file.size);
        }
        Ok(there)
    }

    fn check_space(&self, request: &DownloadRequest, staging: &Staging, jobs: &[&Job]) -> Result<(), HubError> {
        let missing = |job: &&Job| job.file.size - load(request, job, staging).0.total();
        let needed: u64 = jobs.iter().map(missing).sum();
        match self.disk.free_bytes(&request.target_dir) {
            Ok(free) if needed > 0 && free < needed.saturating_add(MARGIN) => {
                Err(HubError::DiskFull { folder: request.target_dir.clone(), needed, free })
            }
            Ok(_) => Ok(()),
            // Then a full disk is noticed when it is full.
            Err(error) => {
                tracing::warn!("cannot tell the free space of {}: {error}", request.target_dir.display());
                Ok(())
            }
        }
    }

    /// Compares a fetched file with its sha256; a damaged one is fetched once more from the start.
    async fn verify_file(
        &self,
        request: &DownloadRequest,
        job: &Job,
        etag: Option<String>,
        staging: &Arc<Staging>,
        meter: &Arc<Meter>,
        cancel: &CancellationToken,
    ) -> Result<(), HubError> {
        // Small files outside LFS have no sha256.
        let Some(expected) = job.file.sha256.clone().or(etag.filter(|e| is_hex(e, 64))) else { return Ok(()) };
        let mut damaged = false;
        loop {
            meter.set_phase(Phase::Verifying);
            let counter = meter.clone();
            let step = Arc::new(move |bytes| counter.add_verified(bytes));
            let actual = sha256_of_file(&staging.part(job.index), step, cancel).await?;
            if actual == expected {
                return Ok(());
            }
            tracing::warn!("{} arrived damaged: sha256 {actual} instead of {expected}", job.file.path);
            staging.reset(job.index)?;
            meter.take_back(job.file.size);
            if damaged {
                return Err(HubError::Checksum { file: job.file.path.clone(), expected, actual });
            }
            damaged = true;
            self.fetch_file(request, job, staging, meter, cancel).await?;
        }
    }

    /// Fetches what is missing of one file into its part file. Returns the ETag, if the Hub had to be asked.
    async fn fetch_file(
        &self,
        request: &DownloadRequest,
        job: &Job,
        staging: &Arc<Staging>,
        meter: &Arc<Meter>,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, HubError> {
        let (mut have, known_etag) = load(request, job, staging);
        meter.set_phase(Phase::Downloading);
        if have.total() == job.file.size && job.file.size > 0 {
            meter.add_written(have.total());
            return Ok(known_etag);
        }
        let remote = RemoteFile::new(self.hub.http(), &request.repo, &request.commit, &job.file)?;
        let etag = tokio::select! {
            () = cancel.cancelled() => return Err(HubError::Cancelled),
            etag = self.etag(&remote, meter) => etag?,
        };
        if known_etag.is_some() && known_etag != etag {
            tracing::warn!("{} has changed on the Hub; starting again", job.file.path);
            staging.reset(job.index)?;
            have = RangeSet::default();
        }
        if let (Some(sha256), Some(etag)) = (&job.file.sha256, &etag)
            && is_hex(etag, 64)
            && sha256 != etag
        {
            return Err(remote.nonsense(format!("sha256 {etag}, but the list said {sha256}")));
        }
        meter.add_written(have.total());
        let writer = Writer::start(
            staging,
            job.index,
            identity(request, &job.file, etag.clone()),
            have.clone(),
            self.disk.clone(),
            meter.clone(),
            FlushEvery { bytes: self.options.flush_bytes, time: self.options.flush_time },
        )?;
        let fetch = Fetch { remote: &remote, meter, lanes: self.lanes(), sink: writer.sender() };
        let fetched = tokio::select! {
            () = cancel.cancelled() => Err(HubError::Cancelled),
            result = fetch.run(have) => result,
        };
        drop(fetch);
        // Its error first: if the disk is full, the lanes only know that nobody listens.
        writer.finish().await?;
        fetched.map(|()| etag)
    }

    /// The first question about a file, with the same patience as for its bytes.
    async fn etag(&self, remote: &RemoteFile, meter: &Meter) -> Result<Option<String>, HubError> {
        let lanes = self.lanes();
        let mut failures = 0;
        loop {
            match remote.etag().await {
                Err(error) if error.is_transient() && failures + 1 < lanes.tries => {
                    failures += 1;
                    let pause = lanes.backoff.pause(failures, &error);
                    meter.pausing_until(Instant::now() + pause);
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    fn lanes(&self) -> Lanes {
        let DownloadOptions { parallel, segment_bytes, tries, first_pause, longest_pause, .. } = self.options;
        let backoff = Backoff { first: first_pause, longest: longest_pause };
        Lanes { parallel, segment: segment_bytes, tries, backoff }
    }
}

fn identity(request: &DownloadRequest, file: &RepoFile, etag: Option<String>) -> Identity {
    Identity { repo: request.repo.clone(), commit: request.commit.clone(), file: file.clone(), etag }
}

/// What an earlier download has left of a file, and under which ETag.
fn load(request: &DownloadRequest, job: &Job, staging: &Staging) -> (RangeSet, Option<String>) {
    let part_len = std::fs::metadata(staging.part(job.index)).map_or(0, |m| m.len());
    journal::load(&staging.journal(job.index), &identity(request, &job.file, None), part_len)
}

/// Checks the request; the files with their destinations, and their bytes together.
fn jobs(request: &DownloadRequest) -> Result<(Vec<Job>, u64), HubError> {
    let mut names = BTreeSet::new();
    let mut total: u64 = 0;
    let mut jobs = Vec::new();
    for (index, file) in request.files.iter().enumerate() {
        let destination = request.target_dir.join(safe_path(&file.path)?);
        // Windows does not tell names apart by case.
        if !names.insert(file.path.to_lowercase()) {
            return Err(HubError::BadName { name: file.path.clone(), why: "it occurs twice" });
        }
        let sum = total.checked_add(file.size);
        total = sum.ok_or_else(|| HubError::protocol(&request.repo, "the sizes overflow"))?;
        jobs.push(Job { index, file: file.clone(), destination });
    }
    if jobs.is_empty() {
        return Err(HubError::protocol(&request.repo, "no files were asked for"));
    }
    Ok((jobs, total))
}

//! The one thread that writes a file: bytes first, then a flush, then the journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::disk::Disk;
use super::journal::{self, Identity};
use super::meter::Meter;
use super::ranges::RangeSet;
use super::staging::Staging;
use crate::HubError;

/// Chunks (of up to some hundred KB) between network and disk.
const QUEUE: usize = 64;

pub(crate) struct Chunk {
    pub offset: u64,
    pub bytes: Bytes,
}

/// How often the journal is brought up to date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlushEvery {
    pub bytes: u64,
    pub time: Duration,
}

pub(crate) struct Writer {
    sender: mpsc::Sender<Chunk>,
    thread: tokio::task::JoinHandle<Result<(), HubError>>,
}

struct Job {
    disk: Arc<dyn Disk>,
    file: File,
    part: PathBuf,
    journal: PathBuf,
    identity: Identity,
    /// Written; those of them that are flushed are in the journal.
    ranges: RangeSet,
    meter: Arc<Meter>,
    every: FlushEvery,
    /// Keeps the lock as long as something may be written, also when the download itself is gone.
    _staging: Arc<Staging>,
}

impl Writer {
    /// Starts writing the part file `index`, of which `ranges` are there already.
    pub fn start(
        staging: &Arc<Staging>,
        index: usize,
        identity: Identity,
        ranges: RangeSet,
        disk: Arc<dyn Disk>,
        meter: Arc<Meter>,
        every: FlushEvery,
    ) -> Result<Writer, HubError> {
        let (part, journal) = (staging.part(index), staging.journal(index));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&part);
        let file = file.map_err(HubError::io(&part))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let _staging = staging.clone();
        let job = Job { disk, file, part, journal, identity, ranges, meter, every, _staging };
        let runtime = tokio::runtime::Handle::current();
        let thread = tokio::task::spawn_blocking(move || job.run(receiver, &runtime));
        Ok(Writer { sender, thread })
    }

    pub fn sender(&self) -> mpsc::Sender<Chunk> {
        self.sender.clone()
    }

    /// Waits until everything sent is written, flushed and in the journal.
    pub async fn finish(self) -> Result<(), HubError> {
        drop(self.sender);
        match self.thread.await {
            Ok(result) => result,
            Err(error) => Err(HubError::Io { path: PathBuf::new(), source: io::Error::other(error) }),
        }
    }
}

impl Job {
    fn run(mut self, mut receiver: mpsc::Receiver<Chunk>, runtime: &tokio::runtime::Handle) -> Result<(), HubError> {
        let mut unflushed = 0;
        let mut flushed_at = Instant::now();
        loop {
            let wait = self.every.time.saturating_sub(flushed_at.elapsed());
            let received = runtime.block_on(async { tokio::time::timeout(wait, receiver.recv()).await });
            match received {
                Ok(Some(chunk)) => {
                    let len = chunk.bytes.len() as u64;
                    let written = self.disk.write_at(&self.file, &chunk.bytes, chunk.offset);
                    if let Err(error) = written {
                        let failure = self.failure(error);
                        // What was written before is worth keeping, if the disk still allows it.
                        let _ = self.flush();
                        return Err(failure);
                    }
                    self.meter.add_written(self.ranges.insert(chunk.offset..chunk.offset + len));
                    unflushed += len;
                }
                Ok(None) => {
                    if unflushed > 0 {
                        self.flush()?;
                    }
                    return Ok(());
                }
                Err(_) => {}
            }
            if unflushed > 0 && (unflushed >= self.every.bytes || flushed_at.elapsed() >= self.every.time) {
                self.flush()?;
                unflushed = 0;
            }
            if unflushed == 0 {
                flushed_at = Instant::now();
            }
        }
    }

    fn flush(&self) -> Result<(), HubError> {
        self.disk.sync(&self.file).map_err(|e| self.failure(e))?;
        journal::save(&self.journal, &self.identity, &self.ranges).map_err(|e| self.failure(e))
    }

    fn failure(&self, error: io::Error) -> HubError {
        let size = self.identity.file.size;
        storage_error(error, &self.part, size, size - self.ranges.total().min(size), self.disk.as_ref())
    }
}

/// An error of writing as what it means for the download.
pub(crate) fn storage_error(source: io::Error, path: &Path, size: u64, needed: u64, disk: &dyn Disk) -> HubError {
    let folder = path.parent().unwrap_or(path).to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let free = disk.free_bytes(&folder).unwrap_or(0);
            // So Windows calls a file that is too large for FAT32.
            match cfg!(windows) && size > u64::from(u32::MAX) && free > needed {
                true => HubError::FileTooLarge { folder, size },
                false => HubError::DiskFull { folder, needed, free },
            }
        }
        io::ErrorKind::FileTooLarge => HubError::FileTooLarge { folder, size },
        _ => HubError::Io { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Free(u64);

    impl Disk for Free {
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(self.0)
        }

        fn write_at(&self, _: &File, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self, _: &File) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_from_one_for_small_files() {
        const LARGE: u64 = 5 << 30;
        let error = |size, free| {
            storage_error(io::ErrorKind::StorageFull.into(), Path::new("a/0.part"), size, size, &Free(free)).code()
        };
        assert_eq!(error(LARGE, LARGE / 2), "disk_full");
        assert_eq!(error(1 << 30, LARGE), "disk_full");
        assert_eq!(error(LARGE, 2 * LARGE), if cfg!(windows) { "file_too_large" } else { "disk_full" });
    }
}

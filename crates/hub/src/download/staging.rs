//! The hidden folder in which a download grows, its lock, and the moment when its files appear.
//!
//! `TARGET/.headroom-part/KEY/` holds `request.json`, `lock`, and per file `N.part` and `N.journal`. KEY comes from the
//! repository and from the files' paths and contents, so whoever wants the same bytes finds their folder again, also
//! under a later commit, and the bytes of two versions never meet. It lies in the target folder because a rename is
//! atomic only within one file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::disk::{replace_file, sync_folder};
use super::journal;
use super::{DownloadRequest, PendingDownload};
use crate::{HubError, check_repo, safe_path};

/// Name of the folder of unfinished downloads in each target folder.
pub const STAGING: &str = ".headroom-part";
const REQUEST: &str = "request.json";
const LOCK: &str = "lock";
/// The first part of an older version, until this one is in its place.
const OLD: &str = "old";

/// A locked staging folder.
pub(crate) struct Staging {
    folder: PathBuf,
    /// Held open, and with it locked, until the last user of this value is gone.
    _lock: File,
}

fn folder_of(request: &DownloadRequest) -> PathBuf {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    add(&request.repo);
    for file in &request.files {
        add(&file.path);
        // Where there is no hash, only the commit says which bytes these are.
        add(file.sha256.as_deref().unwrap_or(&request.commit));
    }
    let key = sha256_hex(&hash.finalize());
    request.target_dir.join(STAGING).join(&key[..16])
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Staging {
    /// # Errors
    /// [`HubError::Busy`] if another download (of this or another process) holds it.
    pub fn open(request: &DownloadRequest) -> Result<Staging, HubError> {
        let staging = Staging::lock(folder_of(request), &request.target_dir)?;
        let record = staging.folder.join(REQUEST);
        journal::write_json(&record, request).map_err(HubError::io(&record))?;
        Ok(staging)
    }

    fn lock(folder: PathBuf, target_dir: &Path) -> Result<Staging, HubError> {
        fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        let path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(HubError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Staging { folder, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(HubError::Busy { folder: target_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(HubError::Io { path, source }),
        }
    }

    pub fn part(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{index}.part"))
    }

    pub fn journal(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{index}.journal"))
    }

    /// Throws away what is there of one file.
    pub fn reset(&self, index: usize) -> Result<(), HubError> {
        // The journal first: without it the part file counts for nothing.
        for path in [self.journal(index), self.part(index)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HubError::io(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves the whole, verified files to their places: the last first. The first, by which a split model is known,
    /// appears only when all others are there. `moves`: index and final path, in the order of the request.
    pub fn publish(&self, moves: &[(usize, PathBuf)]) -> Result<(), HubError> {
        // Nor does the first part of an older version ever lie beside later parts of this one.
        if let [(0, first), _, ..] = moves
            && first.exists()
        {
            replace_file(first, &self.folder.join(OLD)).map_err(HubError::io(first))?;
            sync_folder(first.parent().unwrap_or(Path::new(".")));
        }
        for (index, path) in moves.iter().rev() {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(HubError::io(folder))?;
            replace_file(&self.part(*index), path).map_err(HubError::io(path))?;
            // In this order on the disk, too.
            sync_folder(folder);
        }
        Ok(())
    }

    /// Removes the folder; what is left of it after a failure does no harm.
    pub fn remove(self) {
        let Staging { folder, _lock } = self;
        // Unlocked before the removal: Windows cannot remove an open file.
        drop(_lock);
        // First of all: what a virus scanner's hold keeps from being removed must not look like an unfinished download.
        let _ = fs::remove_file(folder.join(REQUEST));
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
        if let Some(parent) = folder.parent() {
            // Fails, as it should, while other downloads are in it.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// The downloads into `target_dir` that were begun and not finished, for a list after a restart. Those that are
/// running (anywhere) are among them.
pub fn pending(target_dir: &Path) -> Vec<PendingDownload> {
    let Ok(entries) = fs::read_dir(target_dir.join(STAGING)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| pending_in(target_dir, &entry.path())).collect()
}

fn pending_in(target_dir: &Path, folder: &Path) -> Option<PendingDownload> {
    let mut request: DownloadRequest = journal::read_json(&folder.join(REQUEST))?;
    // The folder may have been moved since, and anybody may have written the file.
    request.target_dir = target_dir.to_owned();
    check_repo(&request.repo).ok()?;
    if request.files.is_empty() || request.files.iter().any(|f| safe_path(&f.path).is_err()) {
        return None;
    }
    let bytes = bytes_in(&request, folder);
    let total = request.files.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size))?;
    Some(PendingDownload { request, bytes, total })
}

/// Bytes of the request that are known to be on the disk already, though not in their places.
pub fn pending_bytes(request: &DownloadRequest) -> u64 {
    bytes_in(request, &folder_of(request))
}

fn bytes_in(request: &DownloadRequest, folder: &Path) -> u64 {
    let files = request.files.iter().enumerate();
    let bytes = files.map(|(index, file)| {
        let identity = super::identity(request, file, None);
        let part_len = fs::metadata(folder.join(format!("{index}.part"))).map_or(0, |m| m.len());
        journal::load(&folder.join(format!("{index}.journal")), &identity, part_len).0.total()
    });
    bytes.fold(0, u64::saturating_add)
}

/// Throws away what is there of an unfinished download.
///
/// # Errors
/// [`HubError::Busy`] while it is running.
pub fn discard(request: &DownloadRequest) -> Result<(), HubError> {
    let folder = folder_of(request);
    if folder.exists() {
        Staging::lock(folder, &request.target_dir)?.remove();
    }
    Ok(())
}

#[cfg(all(test, windows))]
mod tests {
    use super::*;

    /// As a virus scanner does it.
    #[test]
    fn what_cannot_be_removed_is_no_unfinished_download() {
        use std::os::windows::fs::OpenOptionsExt;
        let target = tempfile::tempdir().unwrap();
        let file = crate::RepoFile { path: "m.gguf".into(), size: 4, sha256: None };
        let request = DownloadRequest {
            repo: "a/b".into(),
            commit: "0".repeat(40),
            files: vec![file],
            target_dir: target.path().to_owned(),
        };
        let staging = Staging::open(&request).unwrap();
        fs::write(staging.part(0), b"part").unwrap();
        assert_eq!(pending(target.path()).len(), 1);
        let held = OpenOptions::new().read(true).share_mode(1).open(staging.part(0)).unwrap();
        staging.remove();
        assert!(folder_of(&request).is_dir());
        assert_eq!(pending(target.path()).len(), 0);
        drop(held);
    }
}

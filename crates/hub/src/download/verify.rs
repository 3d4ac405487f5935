//! The sha256 of a file, off the async threads, with progress and cancellation.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::staging::sha256_hex;
use crate::HubError;

const BUFFER: usize = 1 << 20;

/// Reads the file once; `progress` is called with the bytes of each step.
///
/// # Errors
/// [`HubError::Io`], [`HubError::Unreadable`], [`HubError::Cancelled`].
pub async fn sha256_of_file(
    path: &Path,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    cancel: &CancellationToken,
) -> Result<String, HubError> {
    let (path, cancel) = (path.to_owned(), cancel.clone());
    let at = path.clone();
    let hash = tokio::task::spawn_blocking(move || hash(&path, progress.as_ref(), &cancel)).await;
    hash.unwrap_or_else(|error| Err(HubError::io(&at)(std::io::Error::other(error))))
}

fn hash(
    path: &PathBuf,
    progress: &(dyn Fn(u64) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<String, HubError> {
    let mut file = File::open(path).map_err(HubError::io(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if cancel.is_cancelled() {
            return Err(HubError::Cancelled);
        }
        let unreadable = |source| HubError::Unreadable { path: path.clone(), source };
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(sha256_hex(&hash.finalize())),
            n => {
                hash.update(&buffer[..n]);
                progress(n as u64);
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_opened_and_cannot_be_read_is_not_one_that_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        // A folder is opened as a file is, and gives no bytes.
        let read = sha256_of_file(folder.path(), Arc::new(|_| {}), &cancel).await;
        assert!(matches!(read, Err(HubError::Unreadable { path, .. }) if path == folder.path()));
        let none = sha256_of_file(&folder.path().join("none"), Arc::new(|_| {}), &cancel).await;
        assert!(matches!(none, Err(HubError::Io { .. })));
    }
}

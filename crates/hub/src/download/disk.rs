//! What a download asks of a disk; replaceable, so that a full disk can be tested.

use std::fs::File;
use std::io;
use std::path::Path;

pub trait Disk: Send + Sync + 'static {
    /// Bytes that may still be written to the disk of `folder`.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all bytes written so far survive a power cut.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        fs4::available_space(folder)
    }

    #[cfg(unix)]
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Renames `from` to `to`, in the place of a file that is there. Virus scanners on Windows hold new files open for a
/// moment, so it is tried for two seconds there.
pub fn replace_file(from: &Path, to: &Path) -> io::Result<()> {
    // ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION; the last two have no `ErrorKind`.
    let in_use = |error: &io::Error| cfg!(windows) && matches!(error.raw_os_error(), Some(5 | 32 | 33));
    let mut tries = 0;
    loop {
        match std::fs::rename(from, to) {
            Err(error) if in_use(&error) && tries < 20 => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            result => return result,
        }
    }
}

/// Makes names that were created or renamed in `folder` survive a power cut, where the system offers it.
pub(crate) fn sync_folder(folder: &Path) {
    // Windows cannot open folders as files; there the rename itself is journalled by NTFS.
    if cfg!(unix)
        && let Err(error) = File::open(folder).and_then(|f| f.sync_all())
    {
        tracing::debug!("cannot flush the folder {}: {error}", folder.display());
    }
}

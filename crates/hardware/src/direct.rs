//! Reading past the page cache. Positions, lengths and buffers must be multiples of the disk's sectors.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Every sector size in use divides this.
const ALIGNMENT: usize = 4096;

/// A buffer with an aligned block inside.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len + ALIGNMENT], len }
    }

    /// The aligned block.
    pub fn block(&mut self) -> &mut [u8] {
        let from = self.bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut self.bytes[from..from + self.len]
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)
}

#[cfg(windows)]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    /// <https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-createfilew>
    const FILE_FLAG_NO_BUFFERING: u32 = 0x2000_0000;
    OpenOptions::new().read(true).custom_flags(FILE_FLAG_NO_BUFFERING).open(path)
}

#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let _ = OpenOptions::new().read(true).open(path)?;
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads a block at a position.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, block, at)
}

#[cfg(windows)]
pub(crate) fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, block, at)
}

/// Whether an error says that the file system has no such way to read.
pub(crate) fn unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

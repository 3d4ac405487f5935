//! Reading a file past the system's cache. Positions, lengths and addresses must be multiples of the disk's sectors.

use std::fs::File;
use std::io;

/// Every sector size in use divides this; memory maps begin at multiples of it.
pub(crate) const ALIGNMENT: usize = 4096;
/// Threads that read, each with a handle of its own: Windows does one thing at a time with a handle.
pub(crate) const READERS: usize = 2;
/// Bytes in a request: the disk's own queue is full with two of them.
const PIECE: usize = 4 << 20;

/// The same file once more, for reading directly; `None` where the system or the file system has no such way.
#[cfg(target_os = "linux")]
pub(crate) fn open(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    // By its descriptor: another file may have its name by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(windows)]
pub(crate) fn open(file: &File) -> Option<File> {
    use std::os::windows::io::{AsRawHandle, FromRawHandle};
    use windows_sys::Win32::Foundation::{GENERIC_READ, INVALID_HANDLE_VALUE};
    use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_NO_BUFFERING, FILE_SHARE_READ, ReOpenFile};
    // SAFETY: the handle is a file's that is open. The new handle is ours alone, and closed by the `File`.
    unsafe {
        let handle = ReOpenFile(file.as_raw_handle(), GENERIC_READ, FILE_SHARE_READ, FILE_FLAG_NO_BUFFERING);
        (handle != INVALID_HANDLE_VALUE && !handle.is_null()).then(|| File::from_raw_handle(handle))
    }
}

#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) fn open(_: &File) -> Option<File> {
    None
}

/// Reads at least the first `needed` bytes of `block` from position `start` on; the file may end after them.
pub(crate) fn read(
    file: &File,
    block: &mut [u8],
    start: u64,
    needed: usize,
    wanted: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        if !wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = block.len().min(done + PIECE);
        match read_at(file, &mut block[done..end], start + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Less than a sector more is the end of the file, or a disk's whim: from the sector's start again.
            Ok(count) if done + count < needed => {
                let whole = count - count % ALIGNMENT;
                if whole == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                done += whole;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, block, at)
}

#[cfg(windows)]
fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, block, at)
}

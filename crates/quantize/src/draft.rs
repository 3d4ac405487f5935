//! A file that is there when it is complete, and not before.

use crate::QuantizeError;
use gguf::{GgufWriter, TensorWriter};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// After this many bytes the disk has to catch up, so that no single wait is long: Ctrl-C is looked at between them.
const SYNC_EVERY: u64 = 64 << 20;

/// What is being written, under a name of its own beside the real one. Dropped unfinished, it is deleted.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    unsynced: u64,
    finished: bool,
}

/// A GGUF file that is being written.
pub(crate) type Out = TensorWriter<BufWriter<Draft>>;

/// Begins the file that `writer` describes.
pub(crate) fn start(writer: &GgufWriter, path: &Path) -> Result<Out, QuantizeError> {
    let draft = Draft::create(path, writer.file_len().map_err(QuantizeError::Header)?)?;
    writer.start(BufWriter::new(draft)).map_err(|error| QuantizeError::writer(path, error))
}

/// Ends it: now it is there.
pub(crate) fn finish(out: Out, path: &Path) -> Result<(), QuantizeError> {
    let buffered = out.finish().map_err(|error| QuantizeError::writer(path, error))?;
    let draft = buffered.into_inner().map_err(|error| QuantizeError::output(path, error.into_error()))?;
    draft.finish()
}

impl Draft {
    /// Begins a file that will have `bytes` bytes.
    ///
    /// # Errors
    /// It cannot be written there, something that is no file is there, another program is writing it, or the disk is too full.
    fn create(path: &Path, bytes: u64) -> Result<Draft, QuantizeError> {
        let mut name = path.file_name().ok_or_else(|| is_no_file(path, io::ErrorKind::IsADirectory))?.to_os_string();
        // A file may be replaced. A device would be, too, for everybody who uses it.
        match path.metadata() {
            Ok(there) if there.is_dir() => return Err(is_no_file(path, io::ErrorKind::IsADirectory)),
            Ok(there) if !there.is_file() => return Err(is_no_file(path, io::ErrorKind::AlreadyExists)),
            // Windows does not replace a file that is in use or read-only: better known before the work than after it.
            Ok(_) if cfg!(windows) => {
                let replaceable = OpenOptions::new().write(true).open(path);
                replaceable.map_err(|source| QuantizeError::output(path, source))?;
            }
            _ => {}
        }
        name.push(".quantizing");
        let temporary = path.with_file_name(name);
        // Not truncated before it is known that nobody else is writing it.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&temporary);
        let file = file.map_err(|source| QuantizeError::output(&temporary, source))?;
        // A file system without locks must do without.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(QuantizeError::Busy { path: path.into() });
        }
        let draft = Draft { file, path: path.into(), temporary, unsynced: 0, finished: false };
        // What a killed run has left.
        draft.file.set_len(0).map_err(|source| QuantizeError::output(&draft.temporary, source))?;
        check_space(&draft.temporary, bytes)?;
        Ok(draft)
    }

    /// Puts the file in its place, where it survives a power cut.
    fn finish(mut self) -> Result<(), QuantizeError> {
        self.file.sync_all().map_err(|source| QuantizeError::output(&self.temporary, source))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|source| QuantizeError::output(&self.path, source))?;
        self.finished = true;
        // The new name is in the folder; where folders cannot be synced the file system does it in its own time.
        if let Ok(folder) = File::open(folder(&self.path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

fn is_no_file(path: &Path, what: io::ErrorKind) -> QuantizeError {
    QuantizeError::output(path, what.into())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_space(path: &Path, needed: u64) -> Result<(), QuantizeError> {
    let folder = folder(path);
    // Where the system does not tell, writing will.
    match fs4::available_space(folder) {
        Ok(free) if free < needed => Err(QuantizeError::DiskFull { folder: folder.into(), needed, free }),
        _ => Ok(()),
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing more can be done; the next run takes the same name.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut draft = Draft::create(&path, 4).unwrap();
        draft.write_all(b"half").unwrap();
        assert!(matches!(Draft::create(&path, 4), Err(QuantizeError::Busy { .. })));
        assert_eq!(count(), 1, "the other program's file is left alone");
        drop(draft);
        assert_eq!(count(), 0);

        std::fs::write(path.with_file_name("m.gguf.quantizing"), b"left by a killed run").unwrap();
        let mut draft = Draft::create(&path, 4).unwrap();
        draft.write_all(b"file").unwrap();
        draft.finish().unwrap();
        assert_eq!((count(), std::fs::read(&path).unwrap()), (1, b"file".to_vec()));
    }

    #[test]
    fn needs_room_and_a_file_name() {
        let folder = tempfile::tempdir().unwrap();
        let full = Draft::create(&folder.path().join("m.gguf"), u64::MAX).err().unwrap();
        assert!(matches!(full, QuantizeError::DiskFull { needed: u64::MAX, free, .. } if free > 0), "{full}");
        assert!(Draft::create(folder.path(), 1).is_err());
        assert!(Draft::create(&folder.path().join("no/m.gguf"), 1).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(windows)]
    #[test]
    fn a_file_in_use_is_known_before_the_work() {
        use std::os::windows::fs::OpenOptionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, b"old").unwrap();
        let used = OpenOptions::new().read(true).share_mode(1).open(&path).unwrap();
        assert!(matches!(Draft::create(&path, 4), Err(QuantizeError::Output { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(used);
        let mut draft = Draft::create(&path, 4).unwrap();
        draft.write_all(b"new").unwrap();
        draft.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_left_alone() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = Draft::create(&path, 4).and_then(Draft::finish).unwrap_err();
        assert!(matches!(refused, QuantizeError::Output { .. }), "{refused}");
        assert!(path.metadata().unwrap().file_type().is_socket());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! Small files that must never be half-written, and the place for those that cannot be read.

use crate::error::Result;
use crate::wire::WireError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Who may read a file, and when it must be on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Public,
    /// For this user only.
    Private,
    /// The same, and the system may write it to disk when it likes: whoever reads it checks that it is whole.
    Cache,
}

/// Replaces `path` so that either the old or the new content is there afterwards, whole.
pub fn write_atomically(path: &Path, bytes: &[u8], kind: Kind) -> Result<()> {
    write_with(path, kind, &mut |file| file.write_all(bytes).map_err(|error| WireError::file(path, &error)))
}

/// The same with what `fill` writes. What is there and no file (a folder, a device, a pipe) is left alone.
pub fn write_with(path: &Path, kind: Kind, fill: &mut dyn FnMut(&mut File) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Behind the whole name: a neighbour that only has another ending is somebody's.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let create = || -> std::io::Result<File> {
        fs::create_dir_all(folder)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if kind != Kind::Public {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        // On Windows the user's profile folder is private already.
        let _ = kind;
        options.open(&new)
    };
    let put = |file: File| -> std::io::Result<()> {
        if kind != Kind::Cache {
            file.sync_all()?;
        }
        drop(file);
        hub::replace_file(&new, path)?;
        // Windows cannot open folders as files; NTFS journals the rename itself.
        if cfg!(unix) && kind != Kind::Cache {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    let failed = |error: std::io::Error| WireError::file(path, &error);
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "this is no file")));
    }
    let written = create().map_err(failed).and_then(|mut file| {
        fill(&mut file)?;
        put(file).map_err(failed)
    });
    written.inspect_err(|_| {
        // On a full disk, half a file would take the space of something useful.
        let _ = fs::remove_file(&new);
    })
}

/// Moves a file that cannot be used out of the way under a name that is not taken, so that nothing in it is lost.
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..10_000).map(|n| path.with_file_name(format!("{name}.broken-{n}"))).find(|p| !p.exists());
    let aside = free.ok_or_else(|| WireError::internal(format!("too many broken copies of {}", path.display())))?;
    hub::replace_file(path, &aside).map_err(|error| WireError::file(path, &error))?;
    Ok(aside)
}

/// Unix milliseconds.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |duration| duration.as_millis() as u64)
}

//! Small files that must never be half-written, and the place for those that cannot be read.

use crate::error::Result;
use crate::wire::WireError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Replaces `path` so that either the old or the new content is there afterwards, whole.
pub fn write_atomically(path: &Path, bytes: &[u8], private: bool) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if private {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        // On Windows the user's profile folder is private already.
        let _ = private;
        let mut file = options.open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        hub::replace_file(&new, path)?;
        // Windows cannot open folders as files; NTFS journals the rename itself.
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| {
        // On a full disk, half a file would take the space of something useful.
        let _ = fs::remove_file(&new);
        WireError::file(path, &error)
    })
}

/// Moves a file that cannot be used out of the way under a name that is not taken, so that nothing in it is lost.
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..10_000).map(|n| path.with_file_name(format!("{name}.broken-{n}"))).find(|p| !p.exists());
    let aside = free.ok_or_else(|| WireError::internal(format!("too many broken copies of {}", path.display())))?;
    fs::rename(path, &aside).map_err(|error| WireError::file(path, &error))?;
    Ok(aside)
}

/// Unix milliseconds.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |duration| duration.as_millis() as u64)
}

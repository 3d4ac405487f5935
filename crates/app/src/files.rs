//! Small files that must never be half-written, and the place for those that cannot be read.

use crate::error::Result;
use crate::wire::WireError;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
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

/// What writes a file.
type Fill<'a> = dyn FnMut(&mut File) -> Result<()> + 'a;

/// The same with what `fill` writes. What is there and no file (a folder, a device, a pipe) is left alone. Only for our own
/// folders: what has the temporary name there was left by a killed program.
pub fn write_with(path: &Path, kind: Kind, fill: &mut Fill<'_>) -> Result<()> {
    let failed = |error: io::Error| WireError::file(path, &error);
    no_other_thing(path)?;
    fs::create_dir_all(folder_of(path)).map_err(failed)?;
    let new = beside(path, ".new");
    let file = options(kind).create(true).truncate(true).open(&new).map_err(failed)?;
    replace(path, &new, file, kind, fill)
}

/// The same in a folder of the user's, where a file of the temporary name may be somebody's: it gets another one. `mark`: what
/// such files of ours begin with, so that one that a killed program left is known.
pub fn write_for_user(path: &Path, kind: Kind, mark: &[u8], fill: &mut Fill<'_>) -> Result<()> {
    let failed = |error: io::Error| WireError::file(path, &error);
    no_other_thing(path)?;
    fs::create_dir_all(folder_of(path)).map_err(failed)?;
    clear_left(path, mark);
    for n in 1..1000 {
        let new = beside(path, &if n == 1 { ".new".to_owned() } else { format!(".new-{n}") });
        match options(kind).create_new(true).open(&new) {
            // Whoever comes while it is written sees that it is in use. A file system without locks must do without.
            Ok(file) => {
                let _ = file.try_lock();
                return replace(path, &new, file, kind, fill);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::Error::new(ErrorKind::AlreadyExists, "all temporary names beside it are taken")))
}

/// Writes what the user wants in this place: a file is there when it is whole, and not before; a device or pipe takes the bytes as
/// they come.
///
/// # Errors
/// It cannot be written; what was there is as it was then.
pub fn write_output(path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let failed = |error: io::Error| WireError::file(path, &error);
    let mut buffered = |file: &mut File| {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        fill(&mut out).and_then(|()| out.flush()).map_err(failed)
    };
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => buffered(&mut fs::OpenOptions::new().write(true).open(path).map_err(failed)?),
        // A folder that is not there was not meant.
        _ if !folder_of(path).is_dir() => Err(failed(ErrorKind::NotFound.into())),
        _ => write_for_user(path, Kind::Public, &[], &mut buffered),
    }
}

/// Removes the temporary file that a killed program left of `path`: one that begins with `mark`, and that nobody is writing.
pub fn clear_left(path: &Path, mark: &[u8]) {
    let new = beside(path, ".new");
    let left = || -> io::Result<bool> {
        if mark.is_empty() || !fs::symlink_metadata(&new)?.is_file() {
            return Ok(false);
        }
        let mut file = File::open(&new)?;
        let mut begin = vec![0; mark.len()];
        file.read_exact(&mut begin)?;
        Ok(begin == mark && file.try_lock().is_ok())
    };
    if left().unwrap_or(false) {
        // What cannot be removed is in nobody's way.
        let _ = fs::remove_file(&new);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Behind the whole name: a neighbour that only has another ending is somebody's.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn no_other_thing(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            Err(WireError::file(path, &io::Error::new(ErrorKind::AlreadyExists, "this is no file")))
        }
        _ => Ok(()),
    }
}

fn options(kind: Kind) -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    if kind != Kind::Public {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // On Windows the user's profile folder is private already.
    let _ = kind;
    options
}

/// Fills the new file, and puts it in the place of the old one.
fn replace(path: &Path, new: &Path, mut file: File, kind: Kind, fill: &mut Fill<'_>) -> Result<()> {
    let put = |file: File| -> io::Result<()> {
        if kind != Kind::Cache {
            file.sync_all()?;
        }
        drop(file);
        hub::replace_file(new, path)?;
        // Windows cannot open folders as files; NTFS journals the rename itself.
        if cfg!(unix) && kind != Kind::Cache {
            File::open(folder_of(path))?.sync_all()?;
        }
        Ok(())
    };
    let written = fill(&mut file).and_then(|()| put(file).map_err(|error| WireError::file(path, &error)));
    written.inspect_err(|_| {
        // On a full disk, half a file would take the space of something useful.
        let _ = fs::remove_file(new);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) -> Result<()> {
        write_for_user(path, Kind::Private, b"OURS ", &mut |file| {
            file.write_all(text.as_bytes()).map_err(|error| WireError::file(path, &error))
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let found = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("talk"), folder.path().join("talk.new"));
        for theirs in ["", "OUR", "notes", "notes that are longer than any mark"] {
            fs::write(&new, theirs).unwrap();
            put(&path, "OURS 1").unwrap();
            clear_left(&path, b"OURS ");
            assert_eq!(fs::read_to_string(&new).unwrap(), theirs);
            assert_eq!(names(folder.path()), ["talk", "talk.new"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), "OURS 1");
        }
        // What another program is writing now.
        fs::write(&new, "OURS half").unwrap();
        let writing = File::open(&new).unwrap();
        writing.lock().unwrap();
        clear_left(&path, b"OURS ");
        put(&path, "OURS 2").unwrap();
        assert_eq!(names(folder.path()), ["talk", "talk.new"]);
        drop(writing);
        put(&path, "OURS 3").unwrap();
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["talk".into()], "OURS 3".into()));
    }

    #[test]
    fn a_file_that_is_being_written_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk");
        write_for_user(&path, Kind::Private, b"OURS ", &mut |file| {
            file.write_all(b"OURS 1").unwrap();
            clear_left(&path, b"OURS ");
            assert_eq!(names(folder.path()), ["talk.new"]);
            put(&path, "OURS other")
        })
        .unwrap();
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["talk".into()], "OURS 1".into()));
    }

    #[test]
    fn an_output_is_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let write = |text: &'static str, then: io::Result<()>| {
            let mut then = Some(then);
            write_output(&path, &mut |out| out.write_all(text.as_bytes()).and_then(|()| then.take().unwrap()))
        };
        let full = || Err(io::Error::from(ErrorKind::StorageFull));
        assert_eq!(write("half", full()).unwrap_err().code, crate::wire::ErrorCode::DiskFull);
        assert!(names(folder.path()).is_empty());
        write("whole", Ok(())).unwrap();
        write("half", full()).unwrap_err();
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["out".into()], "whole".into()));
    }
}

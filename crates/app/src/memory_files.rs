//! What models remember of chats, on disk: one file for each chat, in the local folder, readable by this user only.
//!
//! A file holds the conversation's tokens, so it goes when the chat goes. None of them is needed: a chat without one is
//! read again.

use crate::chats::Chats;
use crate::error::Result;
use crate::files::{Kind, write_with};
use crate::wire::{ErrorCode, WireError};
use engine::{Cancel, Engine, EngineError, Remembered, SavedError};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FOLDER: &str = "memory";
const EXTENSION: &str = "kv";
/// Bytes of the disk that stay free for other things.
const FREE: u64 = 1 << 30;
const BUFFER: usize = 1 << 20;

pub(crate) struct MemoryFolder {
    folder: PathBuf,
    chats: Chats,
}

/// A file that is read as long as somebody waits for it.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    file: &'a File,
    cancel: Option<&'a Cancel>,
}

impl Wanted<'_> {
    fn is_called_off(&self) -> bool {
        self.cancel.is_some_and(Cancel::is_cancelled)
    }
}

impl Read for Wanted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.is_called_off() {
            return Err(std::io::Error::other("called off"));
        }
        let most = buffer.len().min(BUFFER);
        self.file.read(&mut buffer[..most])
    }
}

/// A chat that the folder has something of.
struct Entry {
    chat: String,
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl MemoryFolder {
    /// Removes what belongs to no chat, and what a crash left half-written.
    ///
    /// # Errors
    /// The chats cannot be read.
    pub fn open(local_dir: &Path, chats: Chats) -> Result<MemoryFolder> {
        let ids = chats.ids()?;
        let folder = MemoryFolder { folder: local_dir.join(FOLDER), chats };
        for path in folder.paths() {
            let chat = folder.chat_of(&path);
            if chat.is_none_or(|chat| !ids.contains(&chat)) {
                remove(&path);
            }
        }
        Ok(folder)
    }

    /// Deletes all that is kept below a folder.
    pub fn delete(local_dir: &Path) {
        let folder = local_dir.join(FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot delete {}: {error}", folder.display());
            }
            _ => {}
        }
    }

    /// Keeps what `write` writes, in place of what there was of this chat. Where all chats together would be above
    /// `limit`, the least recently used go: they are added to `gone`. Of a chat that is deleted, also while this is
    /// written, nothing stays.
    ///
    /// # Errors
    /// There is no room, or no such chat; `write` failed. The file that was there before is as it was.
    pub fn save(
        &self,
        chat: &str,
        bytes: u64,
        limit: u64,
        gone: &mut Vec<String>,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), EngineError>,
    ) -> Result<()> {
        let path = self.path(chat)?;
        self.check(chat)?;
        self.make_folder()?;
        let free = hardware::disk_of(&self.folder).map_or(u64::MAX, |disk| disk.free);
        // The old file stays until the new one is whole.
        if bytes > limit || bytes.saturating_add(FREE) > free {
            let text = format!("{bytes} bytes of what the model remembers of a chat do not fit on disk");
            return Err(WireError::new(ErrorCode::DiskFull, text).numbers(bytes, limit.min(free.saturating_sub(FREE))));
        }
        self.trim(limit - bytes, Some(chat), gone);
        write_with(&path, Kind::Cache, &mut |file| {
            let mut out = BufWriter::with_capacity(BUFFER, file);
            write(&mut out)?;
            out.flush().map_err(|error| WireError::file(&path, &error))
        })?;
        // Whoever deletes the chat after this looks for the file; before, nobody found it.
        self.check(chat).inspect_err(|_| remove(&path))?;
        // Systems note the time of writing less exactly than chats can follow each other.
        self.touch(chat);
        Ok(())
    }

    /// Whether there is such a chat.
    fn check(&self, chat: &str) -> Result<()> {
        let gone = || WireError::new(ErrorCode::NotFound, format!("chat {chat} was deleted"));
        self.chats.title(chat)?.map(drop).ok_or_else(gone)
    }

    /// Deletes the least recently used files but that of `kept` until the rest has at most `limit` bytes.
    pub fn trim(&self, limit: u64, kept: Option<&str>, gone: &mut Vec<String>) {
        let mut entries = self.entries();
        entries.retain(|entry| Some(entry.chat.as_str()) != kept);
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries {
            if total <= limit {
                break;
            }
            remove(&entry.path);
            total -= entry.bytes;
            gone.push(entry.chat);
        }
    }

    /// Others go before this chat. Where that cannot be noted, it only goes earlier.
    pub fn touch(&self, chat: &str) {
        let file = self.path(chat).map(|path| File::options().append(true).open(path));
        let _ = file.map(|file| file.and_then(|file| file.set_modified(SystemTime::now())));
    }

    /// Puts back what there is of a chat, if there is something that this model can use and nobody calls it off.
    pub fn restore(&self, chat: &str, engine: &Engine, cancel: Option<&Cancel>) -> Option<Remembered> {
        let path = self.path(chat).ok()?;
        let file = File::open(&path).ok()?;
        let wanted = Wanted { file: &file, cancel };
        match engine.restore(&mut BufReader::with_capacity(BUFFER, wanted)) {
            Ok(remembered) => Some(remembered),
            Err(_) if wanted.is_called_off() => None,
            // Of another model, to which the user may return; a longer context may come back, too.
            Err(EngineError::Saved(SavedError::Foreign | SavedError::TooLong { .. })) => None,
            Err(error) => {
                tracing::warn!("what was remembered of a chat cannot be used: {error}");
                remove(&path);
                None
            }
        }
    }

    pub fn remove(&self, chat: &str) {
        if let Ok(path) = self.path(chat) {
            remove(&path);
        }
    }

    fn make_folder(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            builder.mode(0o700);
        }
        // On Windows the user's profile folder is private already.
        builder.create(&self.folder).map_err(|error| WireError::file(&self.folder, &error))
    }

    /// Chats are numbered; nothing else becomes a file's name.
    fn path(&self, chat: &str) -> Result<PathBuf> {
        let number: u64 = chat.parse().map_err(|_| WireError::bad_argument("chat", format!("{chat:?} is no id")))?;
        Ok(self.folder.join(format!("{number}.{EXTENSION}")))
    }

    fn chat_of(&self, path: &Path) -> Option<String> {
        let chat = path.file_stem()?.to_str()?.to_owned();
        (self.path(&chat).ok()? == path).then_some(chat)
    }

    fn paths(&self) -> Vec<PathBuf> {
        // No folder: nothing was ever kept.
        fs::read_dir(&self.folder).map_or(Vec::new(), |found| found.flatten().map(|entry| entry.path()).collect())
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |path: PathBuf| {
            let (chat, data) = (self.chat_of(&path)?, fs::metadata(&path).ok()?);
            Some(Entry { chat, path, bytes: data.len(), used: data.modified().unwrap_or(SystemTime::UNIX_EPOCH) })
        };
        self.paths().into_iter().filter_map(entry).collect()
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::Arc;

    #[test]
    fn of_a_chat_that_is_deleted_meanwhile_nothing_stays() {
        let local = tempfile::tempdir().unwrap();
        let (chats, _) = Chats::open(Arc::new(Store::in_memory().unwrap())).unwrap();
        let chat = chats.create("").unwrap();
        chats.rename(&chat, "kept").unwrap();
        let folder = MemoryFolder::open(local.path(), chats.clone()).unwrap();
        let save = |meanwhile: &dyn Fn()| {
            folder.save(&chat, 4, 4, &mut Vec::new(), &mut |out| {
                meanwhile();
                out.write_all(b"KV").map_err(|error| SavedError::from(error).into())
            })
        };
        let files = || std::fs::read_dir(local.path().join(FOLDER)).map_or(0, Iterator::count);
        save(&|| {}).unwrap();
        assert_eq!(files(), 1);
        let deleted = save(&|| {
            chats.delete(&chat).unwrap();
            folder.remove(&chat);
            assert_eq!(files(), 1, "what is being written now");
        });
        assert_eq!((deleted.unwrap_err().code, files()), (ErrorCode::NotFound, 0));
        // Nor is it begun.
        assert!(save(&|| panic!("nobody needs this")).is_err());
        chats.restore(&chat).unwrap();
        save(&|| {}).unwrap();
        assert_eq!(files(), 1);
    }
}

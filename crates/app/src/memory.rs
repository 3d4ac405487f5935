//! What the loaded model remembers of chats: the one that is answered in the engine itself, others in RAM as far as there
//! is room, then on disk. Whoever comes back is not read again; the least recently used go first.

use crate::app::{App, lock};
use crate::error::Result;
use crate::memory_files::MemoryFolder;
use crate::session::Session;
use crate::wire::{AppEvent, ErrorCode, WireError};
use engine::{Cancel, Engine, EngineError, SavedError};
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Memories {
    state: Mutex<State>,
    /// Bytes in RAM, so that asking never waits.
    held: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Whose sequence the engine has.
    active: Option<String>,
    /// Chat and saved sequence, the least recently used first.
    kept: Vec<(String, Vec<u8>)>,
}

/// Where chats can be that are not answered.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    /// Bytes.
    pub ram: u64,
    pub disk: Option<Disk<'a>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Disk<'a> {
    pub folder: &'a MemoryFolder,
    /// Bytes.
    pub limit: u64,
    /// What is not written by then is forgotten.
    pub until: Option<Instant>,
    /// Nor does anybody wait for it any more once this is cancelled.
    pub cancel: Option<&'a Cancel>,
}

impl Disk<'_> {
    fn is_called_off(&self) -> bool {
        self.cancel.is_some_and(Cancel::is_cancelled)
    }
}

/// What became of a chat that had to go to disk.
#[derive(PartialEq, Eq)]
enum Fate {
    Kept,
    Forgotten,
    /// Nobody waits for it any more.
    CalledOff,
}

impl Memories {
    /// Has the engine remember `chat`, as far as it was kept, and keeps what it remembers of another one; the chats that
    /// had to be forgotten for that are added to `gone`. `None`: what the engine will remember is not kept. False: it was
    /// called off; nothing else is forgotten then.
    pub fn turn_to(&self, engine: &Engine, chat: Option<&str>, room: Room<'_>, gone: &mut Vec<String>) -> bool {
        let mut state = lock(&self.state);
        let turned = state.turn_to(engine, chat, room, gone);
        self.held.store(state.held(), Ordering::Release);
        // What went from disk only is still in RAM.
        gone.retain(|chat| !state.has(chat));
        turned
    }

    /// The model is about to go: what fits goes to disk, the chats used last first, for there may not be time for all.
    /// Returns those that have no room there, or no time.
    pub fn park(&self, engine: &Engine, disk: Disk<'_>) -> Vec<String> {
        let (mut state, mut gone) = (lock(&self.state), Vec::new());
        let used: Vec<String> = state.kept.iter().map(|(chat, _)| chat).chain(state.active.iter()).cloned().collect();
        let mut left = disk;
        let mut put = |chat: &str, bytes: u64, write: &mut Fill<'_>| {
            // Those before it stay.
            let fits = bytes <= left.limit;
            left.limit = left.limit.saturating_sub(bytes);
            let room = Room { ram: 0, disk: Some(disk).filter(|_| fits) };
            if to_disk(chat, bytes, room, &mut gone, write) != Fate::Kept {
                gone.push(chat.to_owned());
            }
        };
        if let Some((chat, bytes)) = state.take_active(engine) {
            put(&chat, bytes, &mut |out| engine.save(out));
        }
        while let Some((chat, bytes)) = state.kept.pop() {
            put(&chat, bytes.len() as u64, &mut |out| fill(&bytes, out));
        }
        // Their order is that of their use again.
        used.iter().for_each(|chat| disk.folder.touch(chat));
        self.held.store(0, Ordering::Release);
        gone
    }

    /// The chat was deleted.
    pub fn forget(&self, chat: &str) {
        let mut state = lock(&self.state);
        state.kept.retain(|(kept, _)| kept != chat);
        state.active.take_if(|active| active == chat);
        self.held.store(state.held(), Ordering::Release);
    }

    /// All chats were deleted.
    pub fn forget_all(&self, engine: &Engine) {
        *lock(&self.state) = State::default();
        self.held.store(0, Ordering::Release);
        if let Err(error) = engine.forget() {
            tracing::warn!("{error}");
        }
    }

    /// Bytes of RAM that are in use.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}

impl State {
    fn held(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn has(&self, chat: &str) -> bool {
        self.active.as_deref() == Some(chat) || self.kept.iter().any(|(kept, _)| kept == chat)
    }

    /// The chat that was answered last, and how many bytes what the engine remembers of it takes.
    fn take_active(&mut self, engine: &Engine) -> Option<(String, u64)> {
        let chat = self.active.take()?;
        // A panic in the engine or a lost device: there is nothing to keep.
        let bytes = engine.remembered().ok().map(|remembered| remembered.bytes).filter(|bytes| *bytes > 0)?;
        Some((chat, bytes))
    }

    /// [`Memories::turn_to`].
    fn turn_to(&mut self, engine: &Engine, chat: Option<&str>, room: Room<'_>, gone: &mut Vec<String>) -> bool {
        let Some(chat) = chat else { return self.put_away(engine, room, gone) && self.trim(room.ram, room, gone) };
        if self.active.as_deref() != Some(chat) {
            let back = self.kept.iter().position(|(kept, _)| kept == chat).map(|at| self.kept.remove(at).1);
            if let (None, Some(disk)) = (&back, room.disk) {
                disk.folder.touch(chat);
            }
            // For a moment there is one chat more than there is room for, which is a part of what is free.
            if !self.put_away(engine, room, gone) {
                self.kept.extend(back.map(|bytes| (chat.to_owned(), bytes)));
                return false;
            }
            // Where nothing was kept, the beginning that chats may share is still there.
            match (back, room.disk) {
                (Some(bytes), _) => {
                    if let Err(error) = engine.restore(&mut &bytes[..]) {
                        tracing::warn!("what was remembered of a chat is lost: {error}");
                    }
                }
                (None, Some(disk)) => {
                    let restored = disk.folder.restore(chat, engine, disk.cancel);
                    if restored.is_none() && disk.is_called_off() {
                        return false;
                    }
                }
                (None, None) => {}
            }
            self.active = Some(chat.to_owned());
        }
        self.trim(room.ram, room, gone)
    }

    /// Keeps what the engine remembers of the chat that was answered last; false: called off, nothing has changed.
    fn put_away(&mut self, engine: &Engine, room: Room<'_>, gone: &mut Vec<String>) -> bool {
        let Some((chat, bytes)) = self.take_active(engine) else { return true };
        if bytes <= room.ram {
            if !self.trim(room.ram - bytes, room, gone) {
                self.active = Some(chat);
                return false;
            }
            let mut kept = Vec::new();
            if kept.try_reserve_exact(bytes as usize).is_ok() && engine.save(&mut kept).is_ok() {
                self.kept.push((chat, kept));
                return true;
            }
        }
        match to_disk(&chat, bytes, room, gone, &mut |out| engine.save(out)) {
            Fate::Kept => true,
            Fate::Forgotten => {
                gone.push(chat);
                true
            }
            Fate::CalledOff => {
                self.active = Some(chat);
                false
            }
        }
    }

    /// The least recently used go to disk, or are forgotten, until the rest has at most `most` bytes; false: called off, the
    /// rest has more.
    fn trim(&mut self, most: u64, room: Room<'_>, gone: &mut Vec<String>) -> bool {
        while self.held() > most {
            let (chat, bytes) = self.kept.remove(0);
            match to_disk(&chat, bytes.len() as u64, room, gone, &mut |out| fill(&bytes, out)) {
                Fate::Kept => {}
                Fate::Forgotten => gone.push(chat),
                Fate::CalledOff => {
                    self.kept.insert(0, (chat, bytes));
                    return false;
                }
            }
        }
        true
    }
}

/// Writes a saved sequence.
type Fill<'a> = dyn FnMut(&mut dyn Write) -> std::result::Result<(), EngineError> + 'a;

fn fill(bytes: &[u8], out: &mut dyn Write) -> std::result::Result<(), EngineError> {
    out.write_all(bytes).map_err(|error| SavedError::from(error).into())
}

fn to_disk(chat: &str, bytes: u64, room: Room<'_>, gone: &mut Vec<String>, write: &mut Fill<'_>) -> Fate {
    let Some(disk) = room.disk else { return Fate::Forgotten };
    let mut write = |out: &mut dyn Write| write(&mut Until { out, disk });
    match disk.folder.save(chat, bytes, disk.limit, gone, &mut write) {
        Ok(()) => Fate::Kept,
        Err(_) if disk.is_called_off() => Fate::CalledOff,
        Err(error) => {
            tracing::warn!("{error}");
            Fate::Forgotten
        }
    }
}

/// Bytes that are written without looking at the time.
const PIECE: usize = 1 << 20;

/// Writes until the time is over or nobody waits any more.
struct Until<'a> {
    out: &'a mut dyn Write,
    disk: Disk<'a>,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.disk.is_called_off() {
            return Err(io::Error::other("called off"));
        }
        if self.disk.until.is_some_and(|until| Instant::now() >= until) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the program ends before this is written"));
        }
        self.out.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl App {
    /// Where what the loaded model remembers of chats can be.
    fn memory_on_disk(&self) -> Option<Disk<'_>> {
        let limit = lock(&self.settings).chat_memory;
        let owner = self.owner.as_ref().filter(|_| limit > 0);
        owner.map(|owner| Disk { folder: &owner.memory, limit, until: None, cancel: None })
    }

    /// Has the loaded model remember this chat, or none, and tells which others it had to forget.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`]
    pub(crate) fn turn_to(&self, session: &Session, chat: Option<&str>, cancel: &Cancel) -> Result<()> {
        let ram = self.config.chat_ram.unwrap_or_else(|| session.spare_ram());
        let disk = self.memory_on_disk().map(|disk| Disk { cancel: Some(cancel), ..disk });
        let mut gone = Vec::new();
        let turned = session.memories.turn_to(&session.engine, chat, Room { ram, disk }, &mut gone);
        self.tell_forgotten(gone);
        turned.then_some(()).ok_or_else(|| WireError::new(ErrorCode::Cancelled, "stopped before it began"))
    }

    /// Before a model goes, what it remembers of chats goes to disk, as far as there is time and nobody calls it off.
    pub(crate) fn park(&self, session: &Session, until: Option<Instant>, cancel: Option<&Cancel>) {
        if let Some(disk) = self.memory_on_disk() {
            let gone = session.memories.park(&session.engine, Disk { until, cancel, ..disk });
            self.tell_forgotten(gone);
        }
    }

    fn tell_forgotten(&self, chats: Vec<String>) {
        for chat in chats {
            match self.chats.title(&chat) {
                Ok(Some(title)) => self.emit(AppEvent::Forgotten { chat, title }),
                // It was deleted meanwhile.
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// The chat is deleted, and with it what models remember of it.
    pub(crate) fn forget(&self, chat: &str) {
        if let Ok(session) = self.session() {
            session.memories.forget(chat);
        }
        if let Some(owner) = &self.owner {
            owner.memory.remove(chat);
        }
    }

    /// All chats are deleted.
    pub(crate) fn forget_all(&self) {
        if let Ok(session) = self.session() {
            session.memories.forget_all(&session.engine);
        }
        if let Some(owner) = &self.owner {
            owner.memory.trim(0, None, &mut Vec::new());
        }
    }
}

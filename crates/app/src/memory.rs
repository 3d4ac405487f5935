//! What the loaded model remembers of chats: the one that is answered in the engine itself, others in RAM as far as there
//! is room, then on disk. Whoever comes back is not read again; the least recently used go first.

use crate::app::{App, lock};
use crate::memory_files::MemoryFolder;
use crate::session::Session;
use crate::wire::AppEvent;
use engine::{Engine, EngineError, SavedError};
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
}

impl Memories {
    /// Has the engine remember `chat`, as far as it was kept, and keeps what it remembers of another one. Returns the
    /// chats that had to be forgotten for that.
    pub fn turn_to(&self, engine: &Engine, chat: &str, room: Room<'_>) -> Vec<String> {
        let (mut state, mut gone) = (lock(&self.state), Vec::new());
        if state.active.as_deref() != Some(chat) {
            let back = state.kept.iter().position(|(kept, _)| kept == chat).map(|at| state.kept.remove(at).1);
            if let (None, Some(disk)) = (&back, room.disk) {
                disk.folder.touch(chat);
            }
            // For a moment there is one chat more than there is room for, which is a part of what is free.
            state.put_away(engine, room, &mut gone);
            // Where nothing was kept, the beginning that chats may share is still there.
            match back {
                Some(bytes) => {
                    if let Err(error) = engine.restore(&mut &bytes[..]) {
                        tracing::warn!("what was remembered of a chat is lost: {error}");
                    }
                }
                None => drop(room.disk.and_then(|disk| disk.folder.restore(chat, engine))),
            }
            state.active = Some(chat.to_owned());
        }
        state.trim(room.ram, room, &mut gone);
        self.held.store(state.held(), Ordering::Release);
        // What went from disk only is still in RAM.
        gone.retain(|chat| !state.has(chat));
        gone
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
            to_disk(chat, bytes, room, &mut gone, write);
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

    /// Keeps what the engine remembers of the chat that was answered last.
    fn put_away(&mut self, engine: &Engine, room: Room<'_>, gone: &mut Vec<String>) {
        let Some((chat, bytes)) = self.take_active(engine) else { return };
        if bytes <= room.ram {
            self.trim(room.ram - bytes, room, gone);
            let mut kept = Vec::new();
            if kept.try_reserve_exact(bytes as usize).is_ok() && engine.save(&mut kept).is_ok() {
                self.kept.push((chat, kept));
                return;
            }
        }
        to_disk(&chat, bytes, room, gone, &mut |out| engine.save(out));
    }

    /// The least recently used go to disk, or are forgotten, until the rest has at most `most` bytes.
    fn trim(&mut self, most: u64, room: Room<'_>, gone: &mut Vec<String>) {
        while self.held() > most {
            let (chat, bytes) = self.kept.remove(0);
            to_disk(&chat, bytes.len() as u64, room, gone, &mut |out| fill(&bytes, out));
        }
    }
}

/// Writes a saved sequence.
type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<(), EngineError> + 'a;

fn fill(bytes: &[u8], out: &mut dyn Write) -> Result<(), EngineError> {
    out.write_all(bytes).map_err(|error| SavedError::from(error).into())
}

fn to_disk(chat: &str, bytes: u64, room: Room<'_>, gone: &mut Vec<String>, write: &mut Fill<'_>) {
    let saved = room.disk.is_some_and(|disk| {
        let mut write = |out: &mut dyn Write| write(&mut Until { out, until: disk.until });
        match disk.folder.save(chat, bytes, disk.limit, gone, &mut write) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    });
    if !saved {
        gone.push(chat.to_owned());
    }
}

/// Bytes that are written without looking at the time.
const PIECE: usize = 1 << 20;

/// Writes until the time is over.
struct Until<'a> {
    out: &'a mut dyn Write,
    until: Option<Instant>,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
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
        self.owner.as_ref().filter(|_| limit > 0).map(|owner| Disk { folder: &owner.memory, limit, until: None })
    }

    /// Has the loaded model remember this chat, and tells which others it had to forget.
    pub(crate) fn turn_to(&self, session: &Session, chat: &str) {
        let ram = self.config.chat_ram.unwrap_or_else(|| session.spare_ram());
        let room = Room { ram, disk: self.memory_on_disk() };
        self.tell_forgotten(session.memories.turn_to(&session.engine, chat, room));
    }

    /// Before a model goes, what it remembers of chats goes to disk, as far as there is time.
    pub(crate) fn park(&self, session: &Session, until: Option<Instant>) {
        if let Some(disk) = self.memory_on_disk() {
            self.tell_forgotten(session.memories.park(&session.engine, Disk { until, ..disk }));
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

//! What comes out of the file into the data base, in pieces: one transaction each, and between two of them everybody has the
//! data base who waits for it.
//!
//! Until the whole file is read, its chats stand in the bin as deleted at [`UNFINISHED`], where nobody sees them. Then all of
//! them come out at once; if it never comes to that, they go as old chats of the bin do.

use super::ArchivedMessage;
use crate::chats::{Chats, MAX_TITLE, UNFINISHED, calls_column, format_column, shortened, to_json, word};
use crate::error::Result;
use crate::progress::Pace;
use crate::store::Store;
use crate::wire::{AnswerFormat, ErrorCode, FileProgress, FinishReason, Role, WireError};
use engine::Cancel;
use rusqlite::{Connection, params};

/// Bytes of the file that go into one transaction, at least: with the index for the search a tenth of a second.
const PIECE: u64 = 256 << 10;
/// Parts of chats; small ones cost more than their bytes.
const PARTS: usize = 500;

/// Something of a chat, in the order of the file.
pub(super) enum Part {
    Begin,
    Message(Box<ArchivedMessage>),
    /// Its fields, and the place of the message that is shown; null: the last one.
    End(ChatFields, Option<usize>),
}

/// What stands in a chat besides its messages.
pub(super) struct ChatFields {
    pub title: String,
    pub pinned: bool,
    pub system_prompt: String,
    pub format: AnswerFormat,
    pub updated: u64,
}

pub(super) struct Pieces<'a> {
    chats: &'a Chats,
    cancel: &'a Cancel,
    tell: &'a mut dyn FnMut(FileProgress),
    pace: Pace,
    waiting: Vec<Part>,
    /// Bytes of the file that are in the data base.
    kept: u64,
    /// The first chat of this import; none before there is one.
    first: Option<i64>,
    /// The chat that is being written, and its messages so far.
    chat: i64,
    numbers: Vec<i64>,
}

impl<'a> Pieces<'a> {
    /// `total`: bytes of the file; 0: nobody knows.
    pub fn new(chats: &'a Chats, cancel: &'a Cancel, total: u64, tell: &'a mut dyn FnMut(FileProgress)) -> Pieces<'a> {
        Pieces {
            chats,
            cancel,
            tell,
            pace: Pace::new(total),
            waiting: Vec::new(),
            kept: 0,
            first: None,
            chat: 0,
            numbers: Vec::new(),
        }
    }

    /// `read`: bytes of the file so far.
    pub fn add(&mut self, part: Part, read: u64) -> Result<()> {
        self.waiting.push(part);
        match read.saturating_sub(self.kept) >= PIECE || self.waiting.len() >= PARTS {
            true => self.keep(read),
            false => Ok(()),
        }
    }

    /// Now all are there: shows them.
    pub fn finish(mut self, read: u64) -> Result<()> {
        self.keep(read)?;
        let Some(first) = self.first else { return Ok(()) };
        self.chats.store.transaction(|db| {
            let sql = "UPDATE chats SET deleted = NULL WHERE deleted = ?1 AND n >= ?2";
            db.execute(sql, [UNFINISHED, first])?;
            Ok(())
        })
    }

    fn keep(&mut self, read: u64) -> Result<()> {
        self.go_on()?;
        let store: &Store = &self.chats.store;
        store.give_way();
        let parts = std::mem::take(&mut self.waiting);
        store.transaction(|db| parts.into_iter().try_for_each(|part| self.put(db, part)))?;
        self.kept = read;
        if let Some(progress) = self.pace.after(read) {
            (self.tell)(progress);
        }
        Ok(())
    }

    pub fn go_on(&self) -> Result<()> {
        match self.cancel.is_cancelled() {
            true => Err(WireError::new(ErrorCode::Cancelled, "the import was called off")),
            false => Ok(()),
        }
    }

    fn put(&mut self, db: &Connection, part: Part) -> Result<()> {
        match part {
            Part::Begin => {
                let mut insert = db.prepare_cached("INSERT INTO chats(updated, deleted) VALUES (0, ?1)")?;
                insert.execute([UNFINISHED])?;
                self.chat = db.last_insert_rowid();
                self.first = self.first.or(Some(self.chat));
                self.numbers.clear();
            }
            Part::Message(message) => {
                let n = add_message(db, self.chat, &message, &self.numbers)?;
                self.numbers.push(n);
            }
            Part::End(chat, shown) => {
                let leaf = shown.map_or(self.numbers.last(), |place| self.numbers.get(place));
                describe(db, self.chat, &chat, leaf.copied())?;
            }
        }
        Ok(())
    }
}

fn describe(db: &Connection, n: i64, chat: &ChatFields, leaf: Option<i64>) -> Result<()> {
    let sql = "UPDATE chats SET title = ?2, pinned = ?3, system_prompt = ?4, updated = ?5, format = ?6, leaf = ?7 WHERE n = ?1";
    let title = shortened(chat.title.trim(), MAX_TITLE);
    let (updated, format) = (time(chat.updated), format_column(&chat.format)?);
    db.prepare_cached(sql)?.execute(params![n, title, chat.pinned, chat.system_prompt, updated, format, leaf])?;
    Ok(())
}

/// `numbers`: of the messages before it.
fn add_message(db: &Connection, chat: i64, message: &ArchivedMessage, numbers: &[i64]) -> Result<i64> {
    let answer = message.role == Role::Assistant;
    let finish = answer.then(|| word(&message.finish.unwrap_or(FinishReason::Interrupted))).transpose()?;
    let raw = answer.then(|| message.raw.as_ref().unwrap_or(&message.text));
    let mut insert = db.prepare_cached(
        "INSERT INTO messages(chat, parent, role, text, thinking, raw, model, created, finish, stats, tool_calls)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    insert.execute(params![
        chat,
        message.parent.and_then(|place| numbers.get(place)),
        word(&message.role)?,
        message.text,
        message.thinking,
        raw,
        message.model,
        time(message.created),
        finish,
        message.stats.as_ref().map(to_json).transpose()?,
        calls_column(&message.tool_calls)?,
    ])?;
    let n = db.last_insert_rowid();
    let mut search = db.prepare_cached("INSERT INTO search(rowid, text) VALUES (?1, ?2)")?;
    search.execute(params![n, message.text])?;
    Ok(n)
}

/// The window shows no later time than this, the last that JavaScript knows.
fn time(ms: u64) -> i64 {
    const LAST: i64 = 8_640_000_000_000_000;
    i64::try_from(ms).unwrap_or(LAST).min(LAST)
}

//! All chats as one JSON file, to keep or to take to another PC; and the end of all chats.

use crate::App;
use crate::app::blocking;
use crate::chats::{
    Chats, MAX_TEXT, MAX_TITLE, SELECT_MESSAGE, calls_column, format_column, format_in, message, shortened, to_json,
    word,
};
use crate::error::Result;
use crate::files::{Kind, write_atomically};
use crate::wire::{AnswerFormat, AnswerStats, ErrorCode, FinishReason, Role, ToolCall, WireError};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VERSION: u32 = 1;
/// Bytes of a file that is read: a lifetime of chats.
const MAX_FILE: u64 = 1 << 30;

/// The file. Messages name their parent by its place in the chat's list, where it comes before them.
#[derive(Serialize, Deserialize)]
struct Archive {
    headroom_chats: u32,
    chats: Vec<ArchivedChat>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedChat {
    title: String,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    system_prompt: String,
    #[serde(default, skip_serializing_if = "is_text")]
    format: AnswerFormat,
    /// Unix milliseconds, like all times here.
    updated: u64,
    /// The last message of the path that is shown.
    shown: Option<usize>,
    messages: Vec<ArchivedMessage>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedMessage {
    parent: Option<usize>,
    role: Role,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    /// An answer as the model wrote it, where that differs from its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish: Option<FinishReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stats: Option<AnswerStats>,
}

impl App {
    /// Writes every chat that is not in the bin to `path`, with `.json` behind a name without an ending; returns how many.
    ///
    /// # Errors
    /// The file cannot be written: then it is as it was before.
    pub async fn chats_export(self: &Arc<Self>, path: PathBuf) -> Result<u32> {
        let app = self.clone();
        blocking(move || app.chats.export(&with_ending(path))).await
    }

    /// Adds the chats of a file that [`App::chats_export`] wrote; returns how many.
    ///
    /// # Errors
    /// [`ErrorCode::ArchiveInvalid`], or the file cannot be read; nothing is added then.
    pub async fn chats_import(self: &Arc<Self>, path: PathBuf) -> Result<u32> {
        let app = self.clone();
        blocking(move || app.chats.import(&path)).await
    }

    /// Deletes every chat for good, the bin's too, and what the disk still held of them; ends an answer that is being
    /// written. Returns how many there were.
    pub async fn chats_delete_all(self: &Arc<Self>) -> Result<u32> {
        self.end_answer().await;
        let app = self.clone();
        blocking(move || {
            // First, because it makes room for what deleting needs on a full disk.
            app.forget_all();
            app.chats.delete_all()
        })
        .await
    }
}

impl Chats {
    fn export(&self, path: &Path) -> Result<u32> {
        let chats = self.store.transaction(|db| {
            let mut select = db.prepare(
                "SELECT n, title, pinned, system_prompt, updated, leaf, format FROM chats WHERE deleted IS NULL
                 ORDER BY updated",
            )?;
            let mut rows = select.query([])?;
            let mut chats = Vec::new();
            while let Some(row) = rows.next()? {
                let (messages, places) = archived(db, row.get(0)?)?;
                chats.push(ArchivedChat {
                    title: row.get(1)?,
                    pinned: row.get(2)?,
                    system_prompt: row.get(3)?,
                    format: format_in(row.get(6)?),
                    updated: row.get(4)?,
                    shown: row.get::<_, Option<i64>>(5)?.and_then(|leaf| places.get(&leaf.to_string()).copied()),
                    messages,
                });
            }
            Ok(chats)
        })?;
        let count = chats.len() as u32;
        let text = to_json(&Archive { headroom_chats: VERSION, chats })?;
        write_atomically(path, text.as_bytes(), Kind::Private)?;
        Ok(count)
    }

    fn import(&self, path: &Path) -> Result<u32> {
        let file = std::fs::File::open(path).map_err(|error| WireError::file(path, &error))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| WireError::file(path, &error))?;
        let invalid = |why: String| WireError::new(ErrorCode::ArchiveInvalid, why).about(path.display().to_string());
        if bytes.len() as u64 > MAX_FILE {
            return Err(invalid(format!("longer than {MAX_FILE} bytes")));
        }
        // Editors of Windows mark UTF-8.
        let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let archive: Archive = serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
        if archive.headroom_chats != VERSION {
            return Err(invalid(format!("version {}, this program reads {VERSION}", archive.headroom_chats)));
        }
        archive.chats.iter().try_for_each(check).map_err(invalid)?;
        self.store.transaction(|db| archive.chats.iter().try_for_each(|chat| add(db, chat)))?;
        Ok(archive.chats.len() as u32)
    }

    fn delete_all(&self) -> Result<u32> {
        let count = self.store.transaction(|db| Ok(db.execute("DELETE FROM chats", [])?))?;
        // Deleted rows stay in free pages and in the journal until these are written anew.
        self.store.lock().execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(count as u32)
    }
}

/// The messages of a chat, and the places of their ids.
fn archived(db: &Connection, chat: i64) -> Result<(Vec<ArchivedMessage>, HashMap<String, usize>)> {
    let mut select = db.prepare_cached(&format!("{SELECT_MESSAGE} WHERE chat = ?1 ORDER BY n"))?;
    let mut raw_of = db.prepare_cached("SELECT raw FROM messages WHERE n = ?1")?;
    let (mut messages, mut places) = (Vec::new(), HashMap::new());
    let mut rows = select.query([chat])?;
    while let Some(row) = rows.next()? {
        let found = message(row)?;
        let raw: Option<String> = raw_of.query_row([row.get::<_, i64>(0)?], |row| row.get(0))?;
        let parent = found.parent.and_then(|id| places.get(&id).copied());
        places.insert(found.id, messages.len());
        messages.push(ArchivedMessage {
            parent,
            role: found.role,
            raw: raw.filter(|raw| *raw != found.text),
            text: found.text,
            thinking: found.thinking,
            tool_calls: found.tool_calls,
            model: found.model,
            created: found.created,
            finish: found.finish,
            stats: found.stats,
        });
    }
    Ok((messages, places))
}

/// What dialogs offer for an import. A file that is there already is only replaced under the name that was agreed to.
fn with_ending(path: PathBuf) -> PathBuf {
    let named = path.with_extension("json");
    if path.extension().is_some() || path.exists() || named.exists() { path } else { named }
}

fn is_text(format: &AnswerFormat) -> bool {
    *format == AnswerFormat::Text
}

fn check(chat: &ArchivedChat) -> Result<(), String> {
    let fits = |text: &str| text.len() <= MAX_TEXT;
    if !fits(&chat.system_prompt) {
        return Err("a system prompt is too long".into());
    }
    if matches!(&chat.format, AnswerFormat::Schema { schema } if !fits(schema)) {
        return Err("a schema is too long".into());
    }
    if chat.shown.is_some_and(|place| place >= chat.messages.len()) {
        return Err("a chat shows a message that it does not have".into());
    }
    for (place, message) in chat.messages.iter().enumerate() {
        if message.parent.is_some_and(|parent| parent >= place) {
            return Err("a message comes before the one it answers".into());
        }
        if message.role == Role::System {
            return Err("a message of an unknown role".into());
        }
        let texts = [Some(&message.text), message.thinking.as_ref(), message.raw.as_ref()];
        if !texts.into_iter().flatten().all(|text| fits(text)) {
            return Err("a message is too long".into());
        }
    }
    Ok(())
}

fn add(db: &Connection, chat: &ArchivedChat) -> Result<()> {
    let title = shortened(chat.title.trim(), MAX_TITLE);
    let sql = "INSERT INTO chats(title, pinned, system_prompt, updated, format) VALUES (?1, ?2, ?3, ?4, ?5)";
    let format = format_column(&chat.format)?;
    db.prepare_cached(sql)?.execute(params![title, chat.pinned, chat.system_prompt, time(chat.updated), format])?;
    let n = db.last_insert_rowid();
    let mut numbers: Vec<i64> = Vec::with_capacity(chat.messages.len());
    let mut insert = db.prepare_cached(
        "INSERT INTO messages(chat, parent, role, text, thinking, raw, model, created, finish, stats, tool_calls)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let mut search = db.prepare_cached("INSERT INTO search(rowid, text) VALUES (?1, ?2)")?;
    for message in &chat.messages {
        let answer = message.role == Role::Assistant;
        let finish = answer.then(|| word(&message.finish.unwrap_or(FinishReason::Interrupted))).transpose()?;
        let raw = answer.then(|| message.raw.as_ref().unwrap_or(&message.text));
        insert.execute(params![
            n,
            message.parent.map(|place| numbers[place]),
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
        numbers.push(db.last_insert_rowid());
        search.execute(params![db.last_insert_rowid(), message.text])?;
    }
    let leaf = chat.shown.map(|place| numbers[place]).or(numbers.last().copied());
    db.execute("UPDATE chats SET leaf = ?2 WHERE n = ?1", params![n, leaf])?;
    Ok(())
}

/// The window shows no later time than this, the last that JavaScript knows.
fn time(ms: u64) -> i64 {
    const LAST: i64 = 8_640_000_000_000_000;
    i64::try_from(ms).unwrap_or(LAST).min(LAST)
}

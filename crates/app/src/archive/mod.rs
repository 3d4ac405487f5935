//! All chats as one JSON file, to keep or to take to another PC; and the end of all chats.
//!
//! Files are written and read message by message: they may be larger than memory.

mod read;
mod write;

use crate::App;
use crate::app::blocking;
use crate::chats::Chats;
use crate::error::Result;
use crate::wire::{AnswerFormat, AnswerStats, FinishReason, Role, ToolCall};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// The file is an object with this number as `headroom_chats` and a list `chats`.
const VERSION: u32 = 1;

/// A chat in it, which its `messages` follow.
#[derive(Serialize)]
struct ArchivedChat {
    title: String,
    pinned: bool,
    system_prompt: String,
    #[serde(skip_serializing_if = "is_text")]
    format: AnswerFormat,
    /// Unix milliseconds, like all times here.
    updated: u64,
    /// The last message of the path that is shown, by its place in the list.
    shown: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedMessage {
    /// Its place in the list of messages, where it comes before this one.
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
    fn delete_all(&self) -> Result<u32> {
        let count = self.store.transaction(|db| Ok(db.execute("DELETE FROM chats", [])?))?;
        // Deleted rows stay in free pages and in the journal until these are written anew.
        self.store.lock().execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(count as u32)
    }
}

/// What dialogs offer for an import. A file that is there already is only replaced under the name that was agreed to.
fn with_ending(path: PathBuf) -> PathBuf {
    let named = path.with_extension("json");
    if path.extension().is_some() || path.exists() || named.exists() { path } else { named }
}

fn is_text(format: &AnswerFormat) -> bool {
    *format == AnswerFormat::Text
}

//! All chats as one JSON file, to keep or to take to another PC; and the end of all chats.
//!
//! Files are written and read message by message: they may be larger than memory.

mod pieces;
mod read;
mod write;

use crate::App;
use crate::app::{blocking, lock};
use crate::chats::{Chats, UNFINISHED};
use crate::error::Result;
use crate::wire::{AnswerFormat, AnswerStats, AppEvent, ErrorCode, FinishReason, Role, ToolCall, WireError};
use engine::Cancel;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

    /// Adds the chats of a file that [`App::chats_export`] wrote; returns how many. Meanwhile everything else goes on, and
    /// [`AppEvent::Import`] tells how far it is.
    ///
    /// # Errors
    /// [`ErrorCode::ArchiveInvalid`], [`ErrorCode::Cancelled`], [`ErrorCode::Busy`] while another import runs, or the file
    /// cannot be read; nothing is added then, and no more after the program's end in the middle.
    pub async fn chats_import(self: &Arc<Self>, path: PathBuf) -> Result<u32> {
        let cancel = Cancel::new();
        {
            let mut running = lock(&self.importing);
            if running.is_some() {
                return Err(WireError::new(ErrorCode::Busy, "other chats are being imported"));
            }
            *running = Some(cancel.clone());
        }
        let place = Importing(self.clone());
        let app = self.clone();
        blocking(move || {
            let imported = app.chats.import(&path, &cancel, &mut |progress| {
                app.emit(AppEvent::Import { progress: Some(progress) });
            });
            // What others do with the chats next shall find the place free.
            drop(place);
            if imported.is_err() {
                app.clear_in_background();
            }
            imported
        })
        .await
    }

    /// Calls off the import that is running, if one is.
    pub fn chats_import_cancel(&self) {
        if let Some(cancel) = lock(&self.importing).as_ref() {
            cancel.cancel();
        }
    }

    /// Takes away what nobody sees any more: chats that are too long in the bin, and of imports that did not come to their
    /// end. What there is no time for is there at the next start.
    pub(crate) fn clear_in_background(self: &Arc<Self>) {
        // Whoever closes the app and opens it again finds nobody in its folder.
        let (app, chats) = (Arc::downgrade(self), self.chats.clone());
        self.config.runtime.spawn_blocking(move || {
            if let Err(error) = chats.clear(&mut || app.strong_count() > 0) {
                tracing::warn!("old chats stay until the next start: {error}");
            }
        });
    }

    /// How many chats there are, the bin's too: those that [`App::chats_delete_all`] deletes.
    pub async fn chats_count(self: &Arc<Self>) -> Result<u32> {
        let app = self.clone();
        blocking(move || count(&app.chats.store.lock())).await
    }

    /// Deletes every chat for good, the bin's too, and what the disk still held of them; ends an answer that is being
    /// written, and an import. Returns how many there were.
    pub async fn chats_delete_all(self: &Arc<Self>) -> Result<u32> {
        self.end_answer().await;
        self.chats_import_cancel();
        while lock(&self.importing).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let app = self.clone();
        blocking(move || {
            // First, because it makes room for what deleting needs on a full disk.
            app.forget_all();
            app.chats.delete_all()
        })
        .await
    }
}

/// The place of the one import that can run at a time.
struct Importing(Arc<App>);

impl Drop for Importing {
    fn drop(&mut self) {
        *lock(&self.0.importing) = None;
        self.0.emit(AppEvent::Import { progress: None });
    }
}

impl Chats {
    fn delete_all(&self) -> Result<u32> {
        let count = self.store.transaction(|db| {
            let count = count(db)?;
            // Else the data base would delete all that follow a message with it, and goes only so many levels deep.
            db.execute_batch("UPDATE messages SET parent = NULL WHERE parent IS NOT NULL; DELETE FROM chats")?;
            Ok(count)
        })?;
        // Deleted rows stay in free pages and in the journal until these are written anew.
        self.store.lock().execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(count)
    }
}

/// Without those of an import that has not come to its end.
fn count(db: &Connection) -> Result<u32> {
    let sql = "SELECT count(*) FROM chats WHERE deleted IS NULL OR deleted > ?1";
    Ok(db.query_row(sql, [UNFINISHED], |row| row.get(0))?)
}

/// What dialogs offer for an import. A file that is there already is only replaced under the name that was agreed to.
fn with_ending(path: PathBuf) -> PathBuf {
    let named = path.with_extension("json");
    if path.extension().is_some() || path.exists() || named.exists() { path } else { named }
}

fn is_text(format: &AnswerFormat) -> bool {
    *format == AnswerFormat::Text
}

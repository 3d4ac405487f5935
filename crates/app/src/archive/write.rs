//! Writing the file, chat by chat and message by message, so that neither memory nor the time that others wait for the data base
//! grows with the chats.

use super::{ArchivedChat, ArchivedMessage, VERSION};
use crate::chats::{Chats, SELECT_MESSAGE, format_in, message, to_json};
use crate::error::Result;
use crate::files::{Kind, write_for_user};
use crate::wire::WireError;
use rusqlite::OptionalExtension;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where JSON goes.
type Put<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// What the file begins with.
const MARK: &[u8] = br#"{"headroom_chats":"#;

impl Chats {
    pub(super) fn export(&self, path: &Path) -> Result<u32> {
        let mut count = 0;
        let failed = |error: std::io::Error| WireError::file(path, &error);
        write_for_user(path, Kind::Private, MARK, &mut |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            count = self.write(&mut |text| out.write_all(text.as_bytes()).map_err(failed))?;
            out.flush().map_err(failed)
        })?;
        Ok(count)
    }

    fn write(&self, put: &mut Put<'_>) -> Result<u32> {
        let chats: Vec<i64> = {
            let db = self.store.lock();
            let mut select = db.prepare("SELECT n FROM chats WHERE deleted IS NULL ORDER BY updated")?;
            let found = select.query_map([], |row| row.get(0))?;
            found.collect::<rusqlite::Result<_>>()?
        };
        put(&format!("{{\"headroom_chats\":{VERSION},\"chats\":["))?;
        let mut count = 0;
        for chat in chats {
            // Deleted meanwhile, if it is not there.
            if let Some((chat, messages)) = self.archived(chat)? {
                let comma = if count > 0 { "," } else { "" };
                let chat = to_json(&chat)?;
                put(&format!("{comma}{},\"messages\":[", chat.strip_suffix('}').unwrap_or(&chat)))?;
                for (place, n) in messages.iter().enumerate() {
                    let comma = if place > 0 { "," } else { "" };
                    put(&format!("{comma}{}", to_json(&self.archived_message(*n, &messages)?)?))?;
                }
                put("]}")?;
                count += 1;
            }
        }
        put("]}")?;
        Ok(count)
    }

    /// A chat and the numbers of its messages, ascending.
    fn archived(&self, chat: i64) -> Result<Option<(ArchivedChat, Vec<i64>)>> {
        let db = self.store.lock();
        let mut select = db.prepare_cached("SELECT n FROM messages WHERE chat = ?1 ORDER BY n")?;
        let messages: Vec<i64> = select.query_map([chat], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let sql =
            "SELECT title, pinned, system_prompt, updated, leaf, format FROM chats WHERE n = ?1 AND deleted IS NULL";
        let found = db.prepare_cached(sql)?.query_row([chat], |row| {
            Ok(ArchivedChat {
                title: row.get(0)?,
                pinned: row.get(1)?,
                system_prompt: row.get(2)?,
                updated: row.get(3)?,
                shown: row.get::<_, Option<i64>>(4)?.and_then(|leaf| messages.binary_search(&leaf).ok()),
                format: format_in(row.get(5)?),
            })
        });
        Ok(found.optional()?.map(|chat| (chat, messages)))
    }

    fn archived_message(&self, n: i64, messages: &[i64]) -> Result<ArchivedMessage> {
        let db = self.store.lock();
        let raw: Option<String> =
            db.prepare_cached("SELECT raw FROM messages WHERE n = ?1")?.query_row([n], |row| row.get(0))?;
        let found = db.prepare_cached(&format!("{SELECT_MESSAGE} WHERE n = ?1"))?.query_row([n], message)?;
        let place = |id: String| messages.binary_search(&id.parse().ok()?).ok();
        Ok(ArchivedMessage {
            parent: found.parent.and_then(place),
            role: found.role,
            raw: raw.filter(|raw| *raw != found.text),
            text: found.text,
            thinking: found.thinking,
            tool_calls: found.tool_calls,
            model: found.model,
            created: found.created,
            finish: found.finish,
            stats: found.stats,
        })
    }
}

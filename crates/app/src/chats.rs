//! Chats and their messages. A chat is a tree: branches share a parent; `leaf` says which path is shown.

use crate::error::Result;
use crate::files::now;
use crate::store::Store;
use crate::wire::{
    AnswerFormat, AnswerStats, Chat, ChatSummary, ErrorCode, FinishReason, Message, Role, ToolCall, WireError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a deleted chat can be brought back.
const BIN_MS: u64 = 30 * 24 * 3600 * 1000;
/// Chats whose import is not at its end are in the bin, deleted at this time, which is before all others.
pub(crate) const UNFINISHED: i64 = 0;
/// How long others wait for the data base while old chats are cleared.
const TURN: Duration = Duration::from_millis(50);
pub(crate) const MAX_TITLE: usize = 200;
/// Characters of what is looked for.
const MAX_QUERY: usize = 1000;
/// Characters of a title made of the first message.
const AUTO_TITLE: usize = 60;
/// Bytes of one message, an answer as the model writes it too; far above what any context holds.
pub const MAX_TEXT: usize = 4 << 20;

#[derive(Clone)]
pub struct Chats {
    pub(crate) store: Arc<Store>,
}

/// What is kept of an answer while it is written, and at its end.
#[derive(Clone, Debug, Default)]
pub struct AnswerText {
    pub text: String,
    pub thinking: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// As the model wrote it.
    pub raw: String,
}

impl Chats {
    /// Ends what a crash cut. Returns the chat whose shown answer was cut, the
    /// latest if several.
    pub fn open(store: Arc<Store>) -> Result<(Chats, Option<String>)> {
        let cut = store.transaction(|db| {
            let cut = db
                .query_row(
                    "SELECT chats.n FROM chats JOIN messages ON messages.n = chats.leaf
                     WHERE messages.role = 'assistant' AND messages.finish IS NULL AND chats.deleted IS NULL
                     ORDER BY chats.updated DESC LIMIT 1",
                    [],
                    |row| row.get::<_, i64>(0),
                )
                .optional()?;
            db.execute(
                "INSERT INTO search(rowid, text) SELECT n, text FROM messages WHERE role = 'assistant' AND finish IS NULL",
                [],
            )?;
            db.execute("UPDATE messages SET finish = 'interrupted' WHERE role = 'assistant' AND finish IS NULL", [])?;
            Ok(cut)
        })?;
        Ok((Chats { store }, cut.map(|n| n.to_string())))
    }

    /// Chats (or the bin), pinned first, then the latest; with words, only those that contain all of them in the title
    /// or in one message.
    pub fn list(&self, query: &str, deleted: bool) -> Result<Vec<ChatSummary>> {
        let db = self.store.lock();
        let mut found: HashMap<i64, Option<String>> = HashMap::new();
        // Nobody finds more by more, and the data base refuses to look for very much.
        let query = first(query, MAX_QUERY);
        let words: Vec<&str> = query.split_whitespace().take(16).collect();
        if !words.is_empty() {
            find_messages(&db, &words, &mut found)?;
            for chat in matching_titles(&db, &words)? {
                found.entry(chat).or_insert(None);
            }
        }
        let mut statement = db.prepare_cached(
            "SELECT n, title, pinned, updated, deleted FROM chats
             WHERE CASE WHEN ?1 THEN deleted >= ?2 ELSE deleted IS NULL END
             ORDER BY pinned DESC, updated DESC, n DESC",
        )?;
        let rows = statement.query_map(params![deleted, too_old()], |row| {
            let n: i64 = row.get(0)?;
            Ok((
                n,
                ChatSummary {
                    id: n.to_string(),
                    title: row.get(1)?,
                    pinned: row.get(2)?,
                    updated: row.get(3)?,
                    deleted: row.get(4)?,
                    snippet: None,
                },
            ))
        })?;
        let mut list = Vec::new();
        for row in rows {
            let (n, mut chat) = row?;
            match found.get_mut(&n) {
                Some(snippet) => chat.snippet = snippet.take(),
                None if !words.is_empty() => continue,
                None => {}
            }
            list.push(chat);
        }
        Ok(list)
    }

    /// A new chat, or one that nobody has used yet: empty chats do not pile up.
    pub fn create(&self, system_prompt: &str) -> Result<String> {
        let db = self.store.lock();
        let unused = "UPDATE chats SET updated = ?2 WHERE n = (SELECT max(n) FROM chats WHERE title = '' AND pinned = 0 \
             AND deleted IS NULL AND system_prompt = ?1 AND format IS NULL AND NOT EXISTS (SELECT 1 FROM messages WHERE chat = chats.n)) \
             RETURNING n";
        let found = db.query_row(unused, params![system_prompt, now()], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(n) = found {
            return Ok(n.to_string());
        }
        db.execute("INSERT INTO chats(system_prompt, updated) VALUES (?1, ?2)", params![system_prompt, now()])?;
        Ok(db.last_insert_rowid().to_string())
    }

    /// The chat with all its branches; `running` is for the caller to fill.
    pub fn get(&self, id: &str) -> Result<Chat> {
        let db = self.store.lock();
        let n = number(id)?;
        let (title, pinned, system_prompt, leaf, format) = db
            .query_row("SELECT title, pinned, system_prompt, leaf, format FROM chats WHERE n = ?1", [n], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get::<_, Option<i64>>(3)?,
                    row.get::<_, Option<String>>(4)?,
                ))
            })
            .optional()?
            .ok_or_else(|| not_found(id))?;
        let format = format_in(format);
        let mut statement = db.prepare_cached(&format!("{SELECT_MESSAGE} WHERE chat = ?1 ORDER BY n"))?;
        let messages: Vec<Message> = statement.query_map([n], message)?.collect::<Result<_, _>>()?;
        let path = path_to(&messages, leaf.map(|n| n.to_string()));
        Ok(Chat { id: n.to_string(), title, pinned, system_prompt, format, messages, path, running: false })
    }

    /// Those that are not in the bin.
    pub fn ids(&self) -> Result<HashSet<String>> {
        let db = self.store.lock();
        let mut statement = db.prepare("SELECT n FROM chats WHERE deleted IS NULL")?;
        let ids = statement.query_map([], |row| Ok(row.get::<_, i64>(0)?.to_string()))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Of a chat that is not in the bin.
    pub fn title(&self, id: &str) -> Result<Option<String>> {
        let sql = "SELECT title FROM chats WHERE n = ?1 AND deleted IS NULL";
        Ok(self.store.lock().query_row(sql, [number(id)?], |row| row.get(0)).optional()?)
    }

    pub fn rename(&self, id: &str, title: &str) -> Result<()> {
        let title: String = title.trim().chars().take(MAX_TITLE).collect();
        self.change(id, "UPDATE chats SET title = ?2 WHERE n = ?1", title)
    }

    pub fn pin(&self, id: &str, pinned: bool) -> Result<()> {
        self.change(id, "UPDATE chats SET pinned = ?2 WHERE n = ?1", pinned)
    }

    /// Into the bin.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.change(id, "UPDATE chats SET deleted = ?2 WHERE n = ?1", Some(now()))
    }

    pub fn restore(&self, id: &str) -> Result<()> {
        self.change(id, "UPDATE chats SET deleted = ?2 WHERE n = ?1", None::<u64>)
    }

    /// `format` is one that can be used.
    pub fn set_format(&self, id: &str, format: &AnswerFormat) -> Result<()> {
        self.change(id, "UPDATE chats SET format = ?2 WHERE n = ?1", format_column(format)?)
    }

    pub fn set_system_prompt(&self, id: &str, text: &str) -> Result<()> {
        check_text(text)?;
        self.change(id, "UPDATE chats SET system_prompt = ?2 WHERE n = ?1", text)
    }

    fn change(&self, id: &str, sql: &str, value: impl rusqlite::ToSql) -> Result<()> {
        match self.store.lock().execute(sql, params![number(id)?, value])? {
            0 => Err(not_found(id)),
            _ => Ok(()),
        }
    }

    /// Shows the branch that `message` is on, down to its latest answer.
    pub fn select(&self, id: &str, message: &str) -> Result<()> {
        self.store.transaction(|db| {
            let chat = number(id)?;
            let mut leaf = belongs(db, chat, message)?;
            // What comes later has a larger number; a damaged file could hold a cycle.
            let mut next = db.prepare("SELECT MAX(n) FROM messages WHERE parent = ?1 AND n > ?1")?;
            while let Some(child) = next.query_row([leaf], |row| row.get::<_, Option<i64>>(0))? {
                leaf = child;
            }
            db.execute("UPDATE chats SET leaf = ?2 WHERE n = ?1", [chat, leaf])?;
            Ok(())
        })
    }

    /// A message of the user after `parent` (null: the first of a branch), shown from now on, and the place for its answer,
    /// empty so far: both or, where the disk is full, none. Names the chat if it has no name.
    pub fn ask(&self, chat: &str, parent: Option<&str>, text: &str, model: &str) -> Result<(Message, Message)> {
        check_text(text)?;
        self.store.transaction(|db| {
            let n = insert(db, number(chat)?, parent, Role::User, text, None)?;
            db.execute("INSERT INTO search(rowid, text) VALUES (?1, ?2)", params![n, text])?;
            let title = text.trim().lines().next().unwrap_or_default();
            let title = shortened(title, AUTO_TITLE);
            db.execute("UPDATE chats SET title = ?2 WHERE n = ?1 AND title = ''", params![number(chat)?, title])?;
            let answer = insert(db, number(chat)?, Some(&n.to_string()), Role::Assistant, "", Some(model))?;
            Ok((one(db, n)?, one(db, answer)?))
        })
    }

    /// The place for another answer after `parent`, empty so far.
    pub fn begin_answer(&self, chat: &str, parent: &str, model: &str) -> Result<Message> {
        self.store.transaction(|db| {
            let n = insert(db, number(chat)?, Some(parent), Role::Assistant, "", Some(model))?;
            one(db, n)
        })
    }

    /// Opens an answer again that was cut; returns what there is of it.
    pub fn reopen_answer(&self, chat: &str, id: &str) -> Result<(Message, AnswerText)> {
        self.store.transaction(|db| {
            let n = belongs(db, number(chat)?, id)?;
            let found = one(db, n)?;
            if found.role != Role::Assistant {
                return Err(WireError::bad_argument("message", "only an answer can go on"));
            }
            let raw: Option<String> = db.query_row("SELECT raw FROM messages WHERE n = ?1", [n], |row| row.get(0))?;
            db.execute("UPDATE messages SET finish = NULL WHERE n = ?1", [n])?;
            db.execute("DELETE FROM search WHERE rowid = ?1", [n])?;
            let kept = AnswerText {
                raw: raw.unwrap_or_else(|| found.text.clone()),
                text: found.text.clone(),
                thinking: found.thinking.clone(),
                tool_calls: found.tool_calls.clone(),
            };
            Ok((Message { finish: None, ..found }, kept))
        })
    }

    /// Keeps what there is of an answer that is being written.
    pub fn save_answer(&self, id: &str, answer: &AnswerText) -> Result<()> {
        let AnswerText { text, thinking, raw, tool_calls } = answer;
        self.store.lock().execute(
            "UPDATE messages SET text = ?2, thinking = ?3, raw = ?4, tool_calls = ?5 WHERE n = ?1",
            params![number(id)?, text, thinking, raw, calls_column(tool_calls)?],
        )?;
        Ok(())
    }

    /// The end of an answer; returns it with the chat's title.
    pub fn end_answer(
        &self,
        id: &str,
        answer: &AnswerText,
        finish: FinishReason,
        stats: Option<AnswerStats>,
    ) -> Result<(Message, String)> {
        self.store.transaction(|db| {
            let n = number(id)?;
            let AnswerText { text, thinking, raw, tool_calls } = answer;
            let stats = stats.as_ref().map(to_json).transpose()?;
            db.execute(
                "UPDATE messages SET text = ?2, thinking = ?3, raw = ?4, finish = ?5, stats = ?6, tool_calls = ?7
                 WHERE n = ?1",
                params![n, text, thinking, raw, word(&finish)?, stats, calls_column(tool_calls)?],
            )?;
            db.execute("DELETE FROM search WHERE rowid = ?1", [n])?;
            db.execute("INSERT INTO search(rowid, text) VALUES (?1, ?2)", params![n, text])?;
            db.execute(
                "UPDATE chats SET updated = ?2 WHERE n = (SELECT chat FROM messages WHERE n = ?1)",
                params![n, now()],
            )?;
            let title = db.query_row(
                "SELECT title FROM chats WHERE n = (SELECT chat FROM messages WHERE n = ?1)",
                [n],
                |row| row.get(0),
            )?;
            Ok((one(db, n)?, title))
        })
    }
}

impl Chats {
    pub(crate) fn any_to_clear(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM chats WHERE deleted < ?1)";
        Ok(self.store.lock().query_row(sql, [too_old()], |row| row.get(0))?)
    }

    /// Takes away chats that are too long in the bin, and what there is of imports that have not come to their end, while
    /// `wanted`. That may be much: others have the data base in between.
    pub(crate) fn clear(&self, wanted: &mut dyn FnMut() -> bool) -> Result<()> {
        // Imports that begin from now on are none of ours.
        let sql = "SELECT coalesce(max(n), 0) FROM chats";
        let last: i64 = self.store.lock().query_row(sql, [], |row| row.get(0))?;
        while self.store.transaction(|db| clear_some(db, last))? {
            if !wanted() {
                return Ok(());
            }
            self.store.give_way();
        }
        self.store.shrink()
    }
}

/// Whether there may be more.
fn clear_some(db: &Connection, last: i64) -> Result<bool> {
    let begun = Instant::now();
    let mut chat = db.prepare_cached("SELECT n FROM chats WHERE deleted < ?1 AND n <= ?2 LIMIT 1")?;
    // From the last one on: the data base would delete all that follow a message with it, and goes only so many levels deep.
    let latest = "DELETE FROM messages WHERE n = (SELECT max(n) FROM messages WHERE chat = ?1)";
    let (mut message, mut rest) = (db.prepare_cached(latest)?, db.prepare_cached("DELETE FROM chats WHERE n = ?1")?);
    while let Some(n) = chat.query_row([too_old(), last], |row| row.get::<_, i64>(0)).optional()? {
        while message.execute([n])? > 0 {
            if begun.elapsed() >= TURN {
                return Ok(true);
            }
        }
        rest.execute([n])?;
    }
    Ok(false)
}

/// What was deleted before this cannot be brought back.
fn too_old() -> i64 {
    i64::try_from(now().saturating_sub(BIN_MS)).unwrap_or(i64::MAX).max(UNFINISHED + 1)
}

pub(crate) const SELECT_MESSAGE: &str =
    "SELECT n, parent, role, text, thinking, model, created, finish, stats, tool_calls FROM messages";

pub(crate) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let stats: Option<String> = row.get(8)?;
    let role: String = row.get(2)?;
    let finish: Option<String> = row.get(7)?;
    let calls: Option<String> = row.get(9)?;
    Ok(Message {
        id: row.get::<_, i64>(0)?.to_string(),
        parent: row.get::<_, Option<i64>>(1)?.map(|n| n.to_string()),
        role: from_word(&role).unwrap_or(Role::User),
        text: row.get(3)?,
        thinking: row.get(4)?,
        tool_calls: calls.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        model: row.get(5)?,
        created: row.get(6)?,
        finish: finish.map(|finish| from_word(&finish).unwrap_or(FinishReason::Interrupted)),
        stats: stats.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

fn one(db: &Connection, n: i64) -> Result<Message> {
    Ok(db.query_row(&format!("{SELECT_MESSAGE} WHERE n = ?1"), [n], message)?)
}

fn insert(
    db: &Connection,
    chat: i64,
    parent: Option<&str>,
    role: Role,
    text: &str,
    model: Option<&str>,
) -> Result<i64> {
    let parent = parent.map(|id| belongs(db, chat, id)).transpose()?;
    let at = now();
    let changed = db.execute("UPDATE chats SET updated = ?2, deleted = NULL WHERE n = ?1", params![chat, at])?;
    if changed == 0 {
        return Err(not_found(&chat.to_string()));
    }
    db.execute(
        "INSERT INTO messages(chat, parent, role, text, model, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![chat, parent, word(&role)?, text, model, at],
    )?;
    let n = db.last_insert_rowid();
    db.execute("UPDATE chats SET leaf = ?2 WHERE n = ?1", [chat, n])?;
    Ok(n)
}

/// The number of a message, which must be one of the chat's.
fn belongs(db: &Connection, chat: i64, message: &str) -> Result<i64> {
    let found = db
        .query_row("SELECT n FROM messages WHERE n = ?1 AND chat = ?2", [number(message)?, chat], |row| row.get(0))
        .optional()?;
    found.ok_or_else(|| WireError::new(ErrorCode::NotFound, format!("the chat has no message {message}")))
}

/// The messages from the first to `leaf`.
pub fn path_to(messages: &[Message], leaf: Option<String>) -> Vec<String> {
    let parents: HashMap<&str, Option<&str>> = messages.iter().map(|m| (m.id.as_str(), m.parent.as_deref())).collect();
    let mut path = Vec::new();
    let mut at = leaf.as_deref();
    // A damaged file could hold a cycle; a path has every message at most once.
    while let Some(id) = at.filter(|id| parents.contains_key(id) && path.len() < messages.len()) {
        path.push(id.to_owned());
        at = parents[id];
    }
    path.reverse();
    path
}

/// Adds the chats with such messages, each with a piece of its latest one. Texts are looked at one at a time: all messages
/// together may be large.
fn find_messages(db: &Connection, words: &[&str], found: &mut HashMap<i64, Option<String>>) -> Result<()> {
    let (long, short): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.chars().count() >= 3);
    let mut sql = String::from("SELECT messages.chat, messages.text FROM messages WHERE 1");
    let mut values: Vec<String> = Vec::new();
    if !long.is_empty() {
        let phrases: Vec<String> = long.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
        values.push(phrases.join(" AND "));
        sql.push_str(" AND n IN (SELECT rowid FROM search WHERE search MATCH ?)");
    }
    for word in short {
        values.push(like(word));
        sql.push_str(" AND text LIKE ? ESCAPE '\\'");
    }
    sql.push_str(" ORDER BY n DESC");
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        if let Entry::Vacant(chat) = found.entry(row.get(0)?) {
            let text: String = row.get(1)?;
            chat.insert(Some(snippet(&text, words[0])));
        }
    }
    Ok(())
}

/// The first `most` characters at most.
fn first(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// At most `most` characters, cut after a word where there is one in the second half.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(most) else { return text.into() };
    let cut = &text[..end];
    let words = cut.rfind(char::is_whitespace).filter(|space| *space > end / 2);
    format!("{}…", cut[..words.unwrap_or(end)].trim_end())
}

fn matching_titles(db: &Connection, words: &[&str]) -> Result<Vec<i64>> {
    let conditions = vec!["title LIKE ? ESCAPE '\\'"; words.len()].join(" AND ");
    let mut statement = db.prepare(&format!("SELECT n FROM chats WHERE {conditions}"))?;
    let values = words.iter().map(|word| like(word));
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn like(word: &str) -> String {
    format!("%{}%", word.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

/// The text around the first place where `word` is.
fn snippet(text: &str, word: &str) -> String {
    let chars: Vec<char> = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    let lower = |c: &char| c.to_lowercase().next().unwrap_or(*c);
    let wanted: Vec<char> = word.chars().map(|c| lower(&c)).collect();
    let folded: Vec<char> = chars.iter().map(lower).collect();
    let at = folded.windows(wanted.len().max(1)).position(|window| window == wanted).unwrap_or(0);
    let (from, to) = (at.saturating_sub(30), (at + wanted.len() + 60).min(chars.len()));
    let mut snippet: String = chars[from..to].iter().collect();
    if from > 0 {
        snippet.insert(0, '…');
    }
    if to < chars.len() {
        snippet.push('…');
    }
    snippet
}

/// Whether a person may say so much.
pub(crate) fn check_text(text: &str) -> Result<()> {
    if text.len() > MAX_TEXT {
        return Err(WireError::bad_argument("text", "the text is too long").numbers(text.len() as u64, MAX_TEXT as u64));
    }
    Ok(())
}

/// An answer format as the column has it.
pub(crate) fn format_column(format: &AnswerFormat) -> Result<Option<String>> {
    (*format != AnswerFormat::Text).then(|| to_json(format)).transpose()
}

/// One that a newer version wrote, or nobody can read, is none.
pub(crate) fn format_in(column: Option<String>) -> AnswerFormat {
    column.and_then(|format| serde_json::from_str(&format).ok()).unwrap_or_default()
}

fn number(id: &str) -> Result<i64> {
    id.parse().map_err(|_| WireError::bad_argument("id", format!("{id:?} is no id")))
}

fn not_found(id: &str) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("there is no chat {id}"))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| WireError::internal(error.to_string()))
}

/// Most answers have no calls.
pub(crate) fn calls_column(calls: &[ToolCall]) -> Result<Option<String>> {
    (!calls.is_empty()).then(|| to_json(&calls)).transpose()
}

/// An enum without fields as its wire name.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> Result<String> {
    to_json(value).map(|text| text.trim_matches('"').to_owned())
}

fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(word.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_titles_end_after_a_word() {
        assert_eq!(shortened("How does a vector grow?", 23), "How does a vector grow?");
        assert_eq!(shortened("How does a vector grow?", 20), "How does a vector…");
        assert_eq!(shortened("How doesavectorgrowinmemory", 20), "How doesavectorgrowi…");
        assert_eq!(shortened("標準ライブラリのベクターについて", 8), "標準ライブラリの…");
    }
}

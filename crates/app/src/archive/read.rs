//! Reading the file, message by message into the data base. It may come from anywhere: nothing of it is kept in memory but the
//! message that is being read and 8 bytes for each of its chat.

use super::{ArchivedMessage, VERSION};
use crate::chats::{Chats, MAX_TEXT, MAX_TITLE, calls_column, format_column, shortened, to_json, word};
use crate::error::Result;
use crate::wire::{AnswerFormat, ErrorCode, FinishReason, Role, WireError};
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// Bytes of one message, or of what stands between two of them. An answer is there twice and more (text, raw, calls), and a
/// character may take six bytes in JSON.
const PIECE: u64 = 32 * MAX_TEXT as u64;
const BUFFER: usize = 1 << 16;

impl Chats {
    pub(super) fn import(&self, path: &Path) -> Result<u32> {
        let file = std::fs::File::open(path).map_err(|error| WireError::file(path, &error))?;
        self.import_from(file, path, PIECE)
    }

    /// Nothing is added unless all is. `path`: for errors; `piece`: [`PIECE`].
    fn import_from(&self, input: impl Read, path: &Path, piece: u64) -> Result<u32> {
        let left = Cell::new(piece);
        let mut input = BufReader::with_capacity(BUFFER, Bounded { inner: input, left: &left });
        skip_mark(&mut input).map_err(|error| WireError::file(path, &error))?;
        self.store.transaction(|db| {
            let failed = RefCell::new(None);
            let import = Import { db, piece, left: &left, failed: &failed };
            let mut json = serde_json::Deserializer::from_reader(input);
            let read = WholeFile(import).deserialize(&mut json).and_then(|count| json.end().map(|()| count));
            read.map_err(|error| match (failed.take(), error.io_error_kind()) {
                (Some(failed), _) => failed,
                (None, Some(kind)) if kind != ErrorKind::InvalidData => WireError::file(path, &error.into()),
                _ => WireError::new(ErrorCode::ArchiveInvalid, error.to_string()).about(path.display().to_string()),
            })
        })
    }
}

/// Editors of Windows mark UTF-8.
fn skip_mark(input: &mut impl std::io::BufRead) -> std::io::Result<()> {
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// Gives no more than was allowed since the last message.
struct Bounded<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "a message is too long"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// Where the file goes.
#[derive(Clone, Copy)]
struct Import<'a> {
    db: &'a Connection,
    piece: u64,
    /// [`Bounded::left`].
    left: &'a Cell<u64>,
    /// What is no fault of the file.
    failed: &'a RefCell<Option<WireError>>,
}

impl Import<'_> {
    fn more(self) {
        self.left.set(self.piece);
    }

    /// Keeps what failed in the data base.
    fn done<T, E: Error>(self, result: Result<T>) -> std::result::Result<T, E> {
        result.map_err(|error| {
            let text = error.to_string();
            self.failed.replace(Some(error));
            E::custom(text)
        })
    }

    fn add_chat(self) -> Result<i64> {
        self.db.prepare_cached("INSERT INTO chats(updated) VALUES (0)")?.execute([])?;
        Ok(self.db.last_insert_rowid())
    }

    fn describe(self, n: i64, chat: &ChatFields, leaf: Option<i64>) -> Result<()> {
        let sql = "UPDATE chats SET title = ?2, pinned = ?3, system_prompt = ?4, updated = ?5, format = ?6, leaf = ?7 WHERE n = ?1";
        let title = shortened(chat.title.trim(), MAX_TITLE);
        let (updated, format) = (time(chat.updated), format_column(&chat.format)?);
        self.db.prepare_cached(sql)?.execute(params![
            n,
            title,
            chat.pinned,
            chat.system_prompt,
            updated,
            format,
            leaf
        ])?;
        Ok(())
    }

    /// `numbers`: of the messages before it.
    fn add_message(self, chat: i64, message: &ArchivedMessage, numbers: &[i64]) -> Result<i64> {
        let answer = message.role == Role::Assistant;
        let finish = answer.then(|| word(&message.finish.unwrap_or(FinishReason::Interrupted))).transpose()?;
        let raw = answer.then(|| message.raw.as_ref().unwrap_or(&message.text));
        let mut insert = self.db.prepare_cached(
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
        let n = self.db.last_insert_rowid();
        let mut search = self.db.prepare_cached("INSERT INTO search(rowid, text) VALUES (?1, ?2)")?;
        search.execute(params![n, message.text])?;
        Ok(n)
    }
}

/// The window shows no later time than this, the last that JavaScript knows.
fn time(ms: u64) -> i64 {
    const LAST: i64 = 8_640_000_000_000_000;
    i64::try_from(ms).unwrap_or(LAST).min(LAST)
}

/// What stands in a chat besides its messages.
struct ChatFields {
    title: String,
    pinned: bool,
    system_prompt: String,
    format: AnswerFormat,
    updated: u64,
}

fn check_chat(chat: &ChatFields) -> std::result::Result<(), &'static str> {
    if chat.system_prompt.len() > MAX_TEXT {
        return Err("a system prompt is too long");
    }
    match &chat.format {
        AnswerFormat::Schema { schema } if schema.len() > MAX_TEXT => Err("a schema is too long"),
        _ => Ok(()),
    }
}

/// An answer may be longer than what a person may say.
fn check_message(message: &ArchivedMessage, place: usize) -> std::result::Result<(), &'static str> {
    if message.parent.is_some_and(|parent| parent >= place) {
        return Err("a message comes before the one it answers");
    }
    match message.role {
        Role::System => Err("a message of an unknown role"),
        Role::User if message.text.len() > MAX_TEXT => Err("a message is too long"),
        _ => Ok(()),
    }
}

/// The value is the number of chats.
struct WholeFile<'a>(Import<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FileField {
    HeadroomChats,
    Chats,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for WholeFile<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<u32, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WholeFile<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("exported chats")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<u32, A::Error> {
        let (mut version, mut count) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                FileField::HeadroomChats => {
                    let found: u32 = map.next_value()?;
                    if found != VERSION {
                        return Err(A::Error::custom(format!("version {found}, this program reads {VERSION}")));
                    }
                    version = Some(found);
                }
                FileField::Chats if count.is_some() => return Err(A::Error::duplicate_field("chats")),
                FileField::Chats => count = Some(map.next_value_seed(ChatList(self.0))?),
                FileField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        version.ok_or_else(|| A::Error::missing_field("headroom_chats"))?;
        count.ok_or_else(|| A::Error::missing_field("chats"))
    }
}

/// The value is their number.
struct ChatList<'a>(Import<'a>);

impl<'de> DeserializeSeed<'de> for ChatList<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<u32, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ChatList<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("chats")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<u32, A::Error> {
        let mut count = 0;
        while list.next_element_seed(OneChat(self.0))?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

struct OneChat<'a>(Import<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ChatField {
    Title,
    Pinned,
    SystemPrompt,
    Format,
    Updated,
    Shown,
    Messages,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for OneChat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneChat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chat")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let OneChat(import) = self;
        import.more();
        let n = import.done(import.add_chat())?;
        let (mut title, mut updated, mut numbers) = (None, None, None);
        let (mut pinned, mut system_prompt, mut format) = (false, String::new(), AnswerFormat::Text);
        let mut shown: Option<usize> = None;
        while let Some(field) = map.next_key()? {
            match field {
                ChatField::Title => title = Some(map.next_value()?),
                ChatField::Pinned => pinned = map.next_value()?,
                ChatField::SystemPrompt => system_prompt = map.next_value()?,
                ChatField::Format => format = map.next_value()?,
                ChatField::Updated => updated = Some(map.next_value()?),
                ChatField::Shown => shown = map.next_value()?,
                ChatField::Messages if numbers.is_some() => return Err(A::Error::duplicate_field("messages")),
                ChatField::Messages => numbers = Some(map.next_value_seed(MessageList(import, n))?),
                ChatField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let title = title.ok_or_else(|| A::Error::missing_field("title"))?;
        let updated = updated.ok_or_else(|| A::Error::missing_field("updated"))?;
        let numbers = numbers.ok_or_else(|| A::Error::missing_field("messages"))?;
        let chat = ChatFields { title, pinned, system_prompt, format, updated };
        check_chat(&chat).map_err(A::Error::custom)?;
        let leaf = match shown {
            Some(place) => Some(
                *numbers.get(place).ok_or_else(|| A::Error::custom("a chat shows a message that it does not have"))?,
            ),
            None => numbers.last().copied(),
        };
        import.done(import.describe(n, &chat, leaf))
    }
}

/// Of the chat of this number; the value are the numbers of the messages.
struct MessageList<'a>(Import<'a>, i64);

impl<'de> DeserializeSeed<'de> for MessageList<'_> {
    type Value = Vec<i64>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Vec<i64>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MessageList<'_> {
    type Value = Vec<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<i64>, A::Error> {
        let MessageList(import, chat) = self;
        let mut numbers = Vec::new();
        loop {
            import.more();
            let Some(message) = list.next_element::<ArchivedMessage>()? else { return Ok(numbers) };
            check_message(&message, numbers.len()).map_err(A::Error::custom)?;
            let number = import.done(import.add_message(chat, &message, &numbers))?;
            numbers.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::Arc;

    fn chats() -> Chats {
        Chats::open(Arc::new(Store::in_memory().unwrap())).unwrap().0
    }

    /// Counts what was read.
    struct Endless<'a> {
        begin: &'a [u8],
        read: &'a Cell<u64>,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let begun = self.begin.read(buffer)?;
            buffer[begun..].fill(b'a');
            self.read.set(self.read.get() + buffer.len() as u64);
            assert!(self.read.get() < 16 << 20, "all of it would be read");
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_text_without_an_end_is_not_read_to_its_end() {
        let chats = chats();
        for begin in [
            r#"{"headroom_chats":1,"chats":[{"title":""#,
            r#"{"headroom_chats":1,"chats":[{"title":"t","updated":1,"messages":[{"role":"user","text":""#,
            r#"{"headroom_chats":1,"other":""#,
        ] {
            let read = Cell::new(0);
            let input = Endless { begin: begin.as_bytes(), read: &read };
            let error = chats.import_from(input, Path::new("in.json"), 1 << 20).unwrap_err();
            assert_eq!((error.code, error.subject.as_deref()), (ErrorCode::ArchiveInvalid, Some("in.json")), "{error}");
            assert!(error.message.contains("too long"), "{error}");
        }
        assert!(chats.list("", false).unwrap().is_empty());
    }

    /// Other programs sort the fields of an object.
    #[test]
    fn fields_come_in_any_order() {
        let chats = chats();
        let file = r#"{"chats":[{"messages":[{"created":2,"more":[{}],"parent":null,"role":"user","text":"x"},
            {"created":3,"finish":"end","parent":0,"role":"assistant","text":"y"}],
            "pinned":true,"shown":0,"title":"t","updated":7}],"headroom_chats":1}"#;
        assert_eq!(chats.import_from(file.as_bytes(), Path::new("in.json"), PIECE).unwrap(), 1);
        let found = chats.list("", false).unwrap().remove(0);
        assert_eq!((found.title.as_str(), found.pinned, found.updated), ("t", true, 7));
        let chat = chats.get(&found.id).unwrap();
        assert_eq!((chat.messages.len(), chat.path), (2, vec![chat.messages[0].id.clone()]));
        let twice = file.replace(r#""more":[{}],"#, r#""created":3,"#);
        assert!(chats.import_from(twice.as_bytes(), Path::new("in.json"), PIECE).is_err());
        assert_eq!(chats.list("", false).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_told_as_that() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the cable"))
            }
        }
        let error =
            chats().import_from(r#"{"chats":["#.as_bytes().chain(Broken), Path::new("in.json"), PIECE).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileAccess, "{error}");
    }
}

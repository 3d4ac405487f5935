//! Reading the file, message by message into the data base. It may come from anywhere: nothing of it is kept in memory but a
//! piece, the message that is being read and 8 bytes for each of its chat.

use super::pieces::{ChatFields, Part, Pieces};
use super::{ArchivedMessage, VERSION};
use crate::chats::{Chats, MAX_TEXT};
use crate::error::Result;
use crate::wire::{AnswerFormat, ErrorCode, FileProgress, Role, WireError};
use engine::Cancel;
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
    /// Nothing is shown unless all is there; what is not shown is for [`Chats::clear`].
    pub(super) fn import(&self, path: &Path, cancel: &Cancel, tell: &mut dyn FnMut(FileProgress)) -> Result<u32> {
        let failed = |error| WireError::file(path, &error);
        let file = std::fs::File::open(path).map_err(failed)?;
        let total = file.metadata().map_err(failed)?.len();
        self.import_from(file, path, PIECE, Pieces::new(self, cancel, total, tell))
    }

    /// `path`: for errors; `piece`: [`PIECE`].
    fn import_from(&self, input: impl Read, path: &Path, piece: u64, pieces: Pieces<'_>) -> Result<u32> {
        let (left, read) = (Cell::new(piece), Cell::new(0));
        let (pieces, failed) = (RefCell::new(pieces), RefCell::new(None));
        let import = Import { pieces: &pieces, piece, left: &left, read: &read, failed: &failed };
        let mut input = BufReader::with_capacity(BUFFER, Bounded { inner: input, import });
        let begun = skip_mark(&mut input).map_err(serde_json::Error::io);
        let parsed = begun.and_then(|()| {
            let mut json = serde_json::Deserializer::from_reader(input);
            WholeFile(import).deserialize(&mut json).and_then(|count| json.end().map(|()| count))
        });
        let count = parsed.map_err(|error| match (failed.take(), error.io_error_kind()) {
            (Some(failed), _) => failed,
            (None, Some(kind)) if kind != ErrorKind::InvalidData => WireError::file(path, &error.into()),
            _ => WireError::new(ErrorCode::ArchiveInvalid, error.to_string()).about(path.display().to_string()),
        })?;
        pieces.into_inner().finish(read.get())?;
        Ok(count)
    }
}

/// Editors of Windows mark UTF-8.
fn skip_mark(input: &mut impl std::io::BufRead) -> std::io::Result<()> {
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// Gives no more than was allowed since the last message, and nothing when the import is called off.
struct Bounded<'a, 'p, R> {
    inner: R,
    import: Import<'a, 'p>,
}

impl<R: Read> Read for Bounded<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Import { pieces, left, read, failed, .. } = self.import;
        if let Err(error) = pieces.borrow().go_on() {
            failed.replace(Some(error));
            return Err(std::io::Error::other("called off"));
        }
        let most = buffer.len().min(usize::try_from(left.get()).unwrap_or(usize::MAX));
        if most == 0 {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "a message is too long"));
        }
        let bytes = self.inner.read(&mut buffer[..most])?;
        left.set(left.get() - bytes as u64);
        read.set(read.get() + bytes as u64);
        Ok(bytes)
    }
}

/// Where the file goes.
#[derive(Clone, Copy)]
struct Import<'a, 'p> {
    pieces: &'a RefCell<Pieces<'p>>,
    piece: u64,
    /// Bytes that may still be read for the message.
    left: &'a Cell<u64>,
    /// Bytes that were read.
    read: &'a Cell<u64>,
    /// What is no fault of the file.
    failed: &'a RefCell<Option<WireError>>,
}

impl Import<'_, '_> {
    fn more(self) {
        self.left.set(self.piece);
    }

    fn add<E: Error>(self, part: Part) -> std::result::Result<(), E> {
        self.pieces.borrow_mut().add(part, self.read.get()).map_err(|error| {
            let text = error.to_string();
            self.failed.replace(Some(error));
            E::custom(text)
        })
    }
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
struct WholeFile<'a, 'p>(Import<'a, 'p>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FileField {
    HeadroomChats,
    Chats,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for WholeFile<'_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<u32, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WholeFile<'_, '_> {
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
struct ChatList<'a, 'p>(Import<'a, 'p>);

impl<'de> DeserializeSeed<'de> for ChatList<'_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<u32, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ChatList<'_, '_> {
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

struct OneChat<'a, 'p>(Import<'a, 'p>);

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

impl<'de> DeserializeSeed<'de> for OneChat<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneChat<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chat")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let OneChat(import) = self;
        import.more();
        import.add(Part::Begin)?;
        let (mut title, mut updated, mut count) = (None, None, None);
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
                ChatField::Messages if count.is_some() => return Err(A::Error::duplicate_field("messages")),
                ChatField::Messages => count = Some(map.next_value_seed(MessageList(import))?),
                ChatField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let title = title.ok_or_else(|| A::Error::missing_field("title"))?;
        let updated = updated.ok_or_else(|| A::Error::missing_field("updated"))?;
        let count = count.ok_or_else(|| A::Error::missing_field("messages"))?;
        let chat = ChatFields { title, pinned, system_prompt, format, updated };
        check_chat(&chat).map_err(A::Error::custom)?;
        if shown.is_some_and(|place| place >= count) {
            return Err(A::Error::custom("a chat shows a message that it does not have"));
        }
        import.add(Part::End(chat, shown))
    }
}

/// The value is their number.
struct MessageList<'a, 'p>(Import<'a, 'p>);

impl<'de> DeserializeSeed<'de> for MessageList<'_, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<usize, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MessageList<'_, '_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<usize, A::Error> {
        let MessageList(import) = self;
        let mut count = 0;
        loop {
            import.more();
            let Some(message) = list.next_element::<ArchivedMessage>()? else { return Ok(count) };
            check_message(&message, count).map_err(A::Error::custom)?;
            import.add(Part::Message(Box::new(message)))?;
            count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    fn chats() -> Chats {
        Chats::open(Arc::new(Store::in_memory().unwrap())).unwrap().0
    }

    fn import(chats: &Chats, input: impl Read, piece: u64) -> Result<u32> {
        import_until(chats, input, piece, &Cancel::new())
    }

    fn import_until(chats: &Chats, input: impl Read, piece: u64, cancel: &Cancel) -> Result<u32> {
        chats.import_from(input, Path::new("in.json"), piece, Pieces::new(chats, cancel, 0, &mut |_| {}))
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
            let error = import(&chats, input, 1 << 20).unwrap_err();
            assert_eq!((error.code, error.subject.as_deref()), (ErrorCode::ArchiveInvalid, Some("in.json")), "{error}");
            assert!(error.message.contains("too long"), "{error}");
        }
        assert!(chats.list("", false).unwrap().is_empty());
    }

    #[test]
    fn a_very_long_message_can_be_called_off() {
        let (chats, cancel) = (chats(), Cancel::new());
        struct Calling<'a>(u32, &'a Cancel);
        impl Read for Calling<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 += 1;
                if self.0 == 20 {
                    self.1.cancel();
                }
                assert!(self.0 < 100, "it goes on");
                buffer.fill(b'a');
                Ok(buffer.len())
            }
        }
        let file = br#"{"headroom_chats":1,"chats":[{"title":""#.chain(Calling(0, &cancel));
        let error = import_until(&chats, file, PIECE, &cancel).unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled, "{error}");
    }

    /// Other programs sort the fields of an object.
    #[test]
    fn fields_come_in_any_order() {
        let chats = chats();
        let file = r#"{"chats":[{"messages":[{"created":2,"more":[{}],"parent":null,"role":"user","text":"x"},
            {"created":3,"finish":"end","parent":0,"role":"assistant","text":"y"}],
            "pinned":true,"shown":0,"title":"t","updated":7}],"headroom_chats":1}"#;
        assert_eq!(import(&chats, file.as_bytes(), PIECE).unwrap(), 1);
        let found = chats.list("", false).unwrap().remove(0);
        assert_eq!((found.title.as_str(), found.pinned, found.updated), ("t", true, 7));
        let chat = chats.get(&found.id).unwrap();
        assert_eq!((chat.messages.len(), chat.path), (2, vec![chat.messages[0].id.clone()]));
        let twice = file.replace(r#""more":[{}],"#, r#""created":3,"#);
        assert!(import(&chats, twice.as_bytes(), PIECE).is_err());
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
        let error = import(&chats(), r#"{"chats":["#.as_bytes().chain(Broken), PIECE).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileAccess, "{error}");
    }

    /// A file of as many chats as somebody wants.
    struct More<F> {
        more: F,
        ended: bool,
        text: Vec<u8>,
    }

    fn chats_while<F: FnMut() -> bool>(more: F) -> More<F> {
        More { more, ended: false, text: br#"{"headroom_chats":1,"chats":["#.to_vec() }
    }

    impl<F: FnMut() -> bool> Read for More<F> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.text.is_empty() && !self.ended {
                let message =
                    format!(r#"{{"parent":null,"role":"user","text":"{}","created":1}}"#, "word ".repeat(2000));
                let chat = format!(r#"{{"title":"t","updated":1,"shown":null,"messages":[{message},{message}]}}"#);
                self.ended = !(self.more)();
                self.text = format!("{chat}{}", if self.ended { "]}" } else { "," }).into_bytes();
            }
            let bytes = self.text.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&self.text[..bytes]);
            self.text.drain(..bytes);
            Ok(bytes)
        }
    }

    fn messages(chats: &Chats) -> u32 {
        chats.store.lock().query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn others_write_during_an_import_and_see_nothing_of_it() {
        let chats = chats();
        let other = chats.clone();
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while messages(&other) < 100 {
                    std::thread::yield_now();
                }
                for n in 1..=20 {
                    let begun = Instant::now();
                    let id = other.create(&n.to_string()).unwrap();
                    other.rename(&id, "mine").unwrap();
                    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
                    assert_eq!(other.list("", false).unwrap().len(), n);
                    assert_eq!((other.ids().unwrap().len(), other.list("word", false).unwrap().len()), (n, 0));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
            let begun = Instant::now();
            // Whoever has to wait for its end waits for long.
            let more = || made.load(Ordering::Relaxed) < 20 && begun.elapsed() < Duration::from_secs(100);
            assert!(import(&chats, chats_while(more), PIECE).unwrap() > 50);
        });
        assert_eq!(made.into_inner(), 20);
        let listed = chats.list("", false).unwrap();
        assert!(listed.len() > 70 && chats.list("", true).unwrap().is_empty());
        assert_eq!(listed.iter().filter(|chat| chat.title == "mine").count(), 20);
    }

    #[test]
    fn the_data_base_is_free_while_the_file_is_read() {
        let chats = chats();
        let other = chats.clone();
        let mut asked = 0;
        let file = chats_while(|| {
            asked += 1;
            let other = other.clone();
            let (sender, made) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(other.ids().map(|ids| ids.len())));
            let made = made.recv_timeout(Duration::from_secs(20)).expect("a slow disk holds up nobody");
            assert_eq!(made.unwrap(), 0);
            asked < 100
        });
        assert_eq!(import(&chats, file, PIECE).unwrap(), 100);
    }

    #[test]
    fn what_was_called_off_is_gone_and_the_next_import_is_whole() {
        let chats = chats();
        let cancel = Cancel::new();
        let mut left = 200;
        let file = chats_while(|| {
            left -= 1;
            if left == 0 {
                cancel.cancel();
            }
            assert!(left >= -10, "it goes on");
            true
        });
        let error = import_until(&chats, file, PIECE, &cancel).unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled, "{error}");
        assert!(messages(&chats) > 100, "some of it was there");
        assert!(chats.list("", false).unwrap().is_empty() && chats.list("", true).unwrap().is_empty());
        assert!(chats.any_to_clear().unwrap());
        let mut left = 10;
        let file = chats_while(|| {
            left -= 1;
            left > 0
        });
        assert_eq!(import(&chats, file, PIECE).unwrap(), 10);
        assert_eq!(chats.list("", false).unwrap().len(), 10, "none of the other import");
        chats.clear(&mut || true).unwrap();
        assert_eq!((messages(&chats), chats.list("", false).unwrap().len()), (20, 10));
        assert!(!chats.any_to_clear().unwrap());
    }
}

//! A conversation with what the model remembers of it, in one file of the user's: `--session FILE` of the command line.
//!
//! The first line is JSON, [`Head`]; what [`engine::Engine::save`] writes follows, as many bytes as the head says; then one
//! line, [`Later`], for everything that was said since, which is there as soon as it is said: however the program ends, the
//! conversation is in the file. The last of these lines may be cut, and does not count then.

use crate::error::Result;
use crate::files::{Kind, clear_left, write_for_user};
use crate::prompt::Said;
use crate::session::Session;
use crate::wire::{ErrorCode, ToolCall, WireError};
use engine::{Cancel, EngineError, SavedError};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The first one had all messages in the head and the rest of the file for what the model remembers.
const VERSION: u32 = 2;
/// Bytes of a line; more is no conversation.
const MAX_LINE: u64 = 256 << 20;
const BUFFER: usize = 1 << 20;
/// What a head begins with.
const MARK: &[u8] = br#"{"headroom_session":"#;

#[derive(Serialize, Deserialize)]
struct Head {
    /// The version of this format; tells these files from others.
    headroom_session: u32,
    /// Bytes of what the model remembers.
    memory: Option<u64>,
    messages: Vec<SavedMessage>,
}

/// In the place of the messages from one on.
#[derive(Serialize, Deserialize)]
struct Later {
    from: usize,
    messages: Vec<SavedMessage>,
}

#[derive(Serialize, Deserialize)]
struct SavedMessage {
    role: String,
    text: String,
    thinking: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
}

/// What a file brought back.
#[derive(Debug, Default)]
pub struct Resumed {
    /// They end with an answer.
    pub messages: Vec<Said>,
    /// What was said last where the program ended before there was anything of an answer.
    pub unanswered: Option<String>,
    /// Tokens that need not be read again, or why all must be.
    pub remembered: Option<std::result::Result<u32, SavedError>>,
}

/// The file of a conversation that goes on.
#[derive(Debug)]
pub struct TalkFile {
    path: PathBuf,
    /// What it holds, without what is still being said.
    messages: Vec<Said>,
    /// Where the next line goes; without it the file has to be written as a whole.
    end: Option<u64>,
    /// Bytes of the file as this program left it, where there is one.
    len: Option<u64>,
}

impl TalkFile {
    /// Reads the conversation, and has the engine remember it. Where there is no file, it is a new one.
    ///
    /// # Errors
    /// The file cannot be read or is no conversation of this program.
    pub fn open(path: &Path, session: &Session) -> Result<(TalkFile, Resumed)> {
        let mut talk = TalkFile { path: path.to_owned(), messages: Vec::new(), end: None, len: None };
        clear_left(path, MARK);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((talk, Resumed::default())),
            Err(error) => return Err(WireError::file(path, &error)),
        };
        let failed = |error: io::Error| WireError::file(path, &error);
        talk.len = Some(file.metadata().map_err(failed)?.len());
        let mut input = BufReader::with_capacity(BUFFER, file);
        let (head, messages) = read_head(&mut input, path)?;
        let begin = input.stream_position().map_err(failed)?;
        talk.messages = messages;
        let remembered = match head.memory {
            Some(0) => None,
            Some(bytes) => Some(session.engine.restore(&mut input.by_ref().take(bytes))),
            None => Some(session.engine.restore(&mut input)),
        };
        let remembered = match remembered {
            Some(Err(EngineError::Saved(error))) => Some(Err(error)),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(remembered)) => Some(Ok(remembered.tokens)),
            None => None,
        };
        let lines = head.memory.and_then(|bytes| begin.checked_add(bytes));
        if let Some(lines) = lines.filter(|lines| talk.len.is_some_and(|len| *lines <= len)) {
            input.seek(SeekFrom::Start(lines)).map_err(failed)?;
            talk.end = Some(lines + read_later(&mut input, &mut talk.messages).map_err(failed)?);
        }
        let mut messages = talk.messages.clone();
        let unanswered = messages.pop_if(|last| last.role == "user").map(|last| last.text);
        Ok((talk, Resumed { messages, unanswered, remembered }))
    }

    /// Where the conversation is kept: beside what [`TalkFile::open`] was given if another program wrote there since.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the file hold these messages, of which the first ones are mostly there. `ended`: what was said last is whole, and
    /// must be on the disk now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&mut self, messages: &[Said], ended: bool) -> Result<()> {
        self.give_way()?;
        let Some(end) = self.end else { return self.write(messages, None) };
        let from = messages.iter().zip(&self.messages).take_while(|(new, old)| new == old).count();
        let mut line = Vec::new();
        if from < messages.len().max(self.messages.len()) {
            line = to_line(&Later { from, messages: messages[from..].iter().map(saved).collect() })?;
        }
        let len = end + line.len() as u64;
        let put = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).open(&self.path)?;
            file.seek(SeekFrom::Start(end))?;
            let written = file.write_all(&line).and_then(|()| file.set_len(len));
            if let Err(error) = written {
                // Half a line counts for nothing; without it the next one finds the file as expected.
                let _ = file.set_len(end);
                return Err(error);
            }
            if ended { file.sync_data() } else { Ok(()) }
        };
        if self.len != Some(len) || !line.is_empty() {
            let put = put();
            self.len = std::fs::metadata(&self.path).ok().map(|data| data.len());
            put.map_err(|error| WireError::file(&self.path, &error))?;
        }
        if ended {
            self.end = Some(len);
            self.messages = messages.to_vec();
        }
        Ok(())
    }

    /// Has the file hold these messages and what the engine remembers now; it is replaced as a whole.
    ///
    /// # Errors
    /// The file cannot be written, or it was called off: then it is as it was before.
    pub fn keep(&mut self, messages: &[Said], session: &Session, cancel: &Cancel) -> Result<()> {
        self.give_way()?;
        self.write(messages, Some((session, cancel)))
    }

    fn write(&mut self, messages: &[Said], memory: Option<(&Session, &Cancel)>) -> Result<()> {
        let bytes = memory.map(|(session, _)| session.engine.remembered()).transpose()?.map_or(0, |found| found.bytes);
        let messages_there = messages.iter().map(saved).collect();
        let head = to_line(&Head { headroom_session: VERSION, memory: Some(bytes), messages: messages_there })?;
        let path = &self.path;
        let failed = |error: io::Error| WireError::file(path, &error);
        let len = head.len() as u64 + bytes;
        write_for_user(path, Kind::Private, MARK, &mut |file| {
            let cancel = memory.map(|(_, cancel)| cancel);
            let mut out = BufWriter::with_capacity(BUFFER, Stoppable { file, cancel });
            // Now, so that it is known whose it is if the program is killed.
            out.write_all(&head).and_then(|()| out.flush()).map_err(failed)?;
            if let Some((session, _)) = memory.filter(|_| bytes > 0) {
                session.engine.save(&mut out)?;
            }
            out.flush().map_err(failed)?;
            match out.get_mut().file.stream_position().map_err(failed)? {
                written if written == len => Ok(()),
                written => Err(WireError::internal(format!("{written} bytes were written, not {len}"))),
            }
        })?;
        (self.end, self.len, self.messages) = (Some(len), Some(len), messages.to_vec());
        Ok(())
    }

    /// What another program has written since is left to it: this conversation goes on under another name.
    fn give_way(&mut self) -> Result<()> {
        let there = match std::fs::metadata(&self.path) {
            Ok(data) => Some(data.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(WireError::file(&self.path, &error)),
        };
        if there == self.len {
            return Ok(());
        }
        if there.is_some() {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let free = (2..10_000).map(|n| self.path.with_file_name(format!("{name}.{n}"))).find(|path| !path.exists());
            self.path = free.ok_or_else(|| {
                let text = format!("{} is written by other programs, too", self.path.display());
                WireError::new(ErrorCode::Busy, text)
            })?;
        }
        (self.end, self.len) = (None, None);
        Ok(())
    }
}

fn read_head(input: &mut impl BufRead, path: &Path) -> Result<(Head, Vec<Said>)> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE).read_until(b'\n', &mut line);
    read.map_err(|error| WireError::file(path, &error))?;
    let invalid = |why: String| {
        let text = format!("{} is no conversation of this program: {why}", path.display());
        WireError::new(ErrorCode::FileInvalid, text).about(path.display().to_string())
    };
    let mut head: Head = serde_json::from_slice(&line).map_err(|error| invalid(error.to_string()))?;
    if !(1..=VERSION).contains(&head.headroom_session) {
        return Err(invalid(format!("its version is {}", head.headroom_session)));
    }
    let messages = said(std::mem::take(&mut head.messages));
    let messages = messages.ok_or_else(|| invalid("somebody speaks who does not take part".into()))?;
    Ok((head, messages))
}

/// Follows the lines as far as they are whole; returns how many bytes that is.
fn read_later(input: &mut impl BufRead, messages: &mut Vec<Said>) -> io::Result<u64> {
    let (mut bytes, mut line) = (0, Vec::new());
    loop {
        line.clear();
        input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let whole = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Later>(line).ok());
        let later = whole.filter(|later| later.from <= messages.len());
        let Some((from, later)) = later.and_then(|later| Some((later.from, said(later.messages)?))) else {
            return Ok(bytes);
        };
        messages.truncate(from);
        messages.extend(later);
        bytes += line.len() as u64;
    }
}

fn to_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(|error| WireError::internal(error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// A file that is written as long as somebody waits for it.
struct Stoppable<'a> {
    file: &'a mut File,
    cancel: Option<&'a Cancel>,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(io::Error::other("called off"));
        }
        self.file.write(&bytes[..bytes.len().min(BUFFER)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn saved(said: &Said) -> SavedMessage {
    SavedMessage {
        role: said.role.into(),
        text: said.text.clone(),
        thinking: said.thinking.clone(),
        tool_calls: said.tool_calls.iter().map(Into::into).collect(),
    }
}

fn said(messages: Vec<SavedMessage>) -> Option<Vec<Said>> {
    let said = |saved: SavedMessage| {
        let role = ["system", "user", "assistant"].into_iter().find(|role| *role == saved.role)?;
        let tool_calls = saved.tool_calls.iter().map(Into::into).collect();
        Some(Said { role, text: saved.text, thinking: saved.thinking, tool_calls, called: None })
    };
    messages.into_iter().map(said).collect()
}

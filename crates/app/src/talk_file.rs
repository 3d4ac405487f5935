//! A conversation with what the model remembers of it, in one file of the user's: `--session FILE` of the command line.
//!
//! The first line is JSON, [`Head`]; what [`engine::Engine::save`] writes follows.

use crate::error::Result;
use crate::files::{Kind, write_with};
use crate::prompt::Said;
use crate::session::Session;
use crate::wire::{ErrorCode, ToolCall, WireError};
use engine::{EngineError, SavedError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

const VERSION: u32 = 1;
/// Bytes of the first line; more is no conversation.
const MAX_HEAD: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    /// The version of this format; tells these files from others.
    headroom_session: u32,
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
#[derive(Debug)]
pub struct Resumed {
    pub messages: Vec<Said>,
    /// Tokens that need not be read again, or why all must be.
    pub remembered: std::result::Result<u32, SavedError>,
}

impl Session {
    /// Reads a conversation, and has the engine remember it; `None` where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or is no conversation of this program.
    pub fn resume(&self, path: &Path) -> Result<Option<Resumed>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WireError::file(path, &error)),
        };
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        let read = input.by_ref().take(MAX_HEAD).read_until(b'\n', &mut line);
        read.map_err(|error| WireError::file(path, &error))?;
        let invalid = |why: String| {
            let text = format!("{} is no conversation of this program: {why}", path.display());
            WireError::new(ErrorCode::FileInvalid, text).about(path.display().to_string())
        };
        let head: Head = serde_json::from_slice(&line).map_err(|error| invalid(error.to_string()))?;
        if head.headroom_session != VERSION {
            return Err(invalid(format!("its version is {}", head.headroom_session)));
        }
        let messages = head.messages.into_iter().map(said).collect::<Option<Vec<_>>>();
        let messages = messages.ok_or_else(|| invalid("somebody speaks who does not take part".into()))?;
        let remembered = match self.engine.restore(&mut input) {
            Ok(remembered) => Ok(remembered.tokens),
            Err(EngineError::Saved(error)) => Err(error),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Resumed { messages, remembered }))
    }

    /// Writes the conversation and what the engine remembers now; the file is replaced as a whole.
    ///
    /// # Errors
    /// The file cannot be written: then it is as it was before.
    pub fn keep(&self, path: &Path, messages: &[Said]) -> Result<()> {
        let head = Head { headroom_session: VERSION, messages: messages.iter().map(saved).collect() };
        let mut head = serde_json::to_vec(&head).map_err(|error| WireError::internal(error.to_string()))?;
        head.push(b'\n');
        let failed = |error: std::io::Error| WireError::file(path, &error);
        write_with(path, Kind::Private, &mut |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            out.write_all(&head).map_err(failed)?;
            self.engine.save(&mut out)?;
            out.flush().map_err(failed)
        })
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

fn said(saved: SavedMessage) -> Option<Said> {
    let role = ["system", "user", "assistant"].into_iter().find(|role| *role == saved.role)?;
    let tool_calls = saved.tool_calls.iter().map(Into::into).collect();
    Some(Said { role, text: saved.text, thinking: saved.thinking, tool_calls })
}

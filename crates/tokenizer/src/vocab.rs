//! The vocabulary as the file has it.

use crate::TokenizerError;
use gguf::Gguf;
use std::collections::HashMap;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Normal,
    Unknown,
    /// Markup such as the end of a turn: never part of the text.
    Control,
    /// Text that is always one token.
    UserDefined,
    Unused,
    /// One byte, `<0xNN>`.
    Byte,
}

/// Tokens by id and ids by text.
pub(crate) struct Vocab {
    texts: Vec<u8>,
    ends: Vec<u32>,
    pub kinds: Vec<TokenKind>,
    pub scores: Vec<f32>,
    ids: HashMap<Box<[u8]>, u32>,
    /// The tokens `<0x00>` to `<0xFF>`.
    pub bytes: [Option<u32>; 256],
    /// What stands for a character that cannot be said.
    pub unknown: Option<u32>,
}

impl Vocab {
    pub fn from_gguf(gguf: &Gguf) -> Result<Vocab, TokenizerError> {
        let tokens = gguf.metadata.array("tokenizer.ggml.tokens").and_then(|array| array.strings());
        let tokens = tokens.ok_or(TokenizerError::Missing("tokenizer.ggml.tokens"))?;
        let kinds = gguf.metadata.array("tokenizer.ggml.token_type").and_then(|array| array.i32s()).unwrap_or_default();
        let scores = gguf.metadata.array("tokenizer.ggml.scores").and_then(|array| array.f32s()).unwrap_or_default();
        if tokens.is_empty() {
            return Err(TokenizerError::Damaged("it has no tokens".into()));
        }
        let mut vocab = Vocab {
            texts: Vec::with_capacity(tokens.total_bytes()),
            ends: Vec::with_capacity(tokens.len()),
            kinds: (0..tokens.len()).map(|id| kind(kinds.get(id).copied().unwrap_or(1))).collect(),
            scores: (0..tokens.len()).map(|id| scores.get(id).copied().unwrap_or(0.0)).collect(),
            ids: HashMap::with_capacity(tokens.len()),
            bytes: [None; 256],
            unknown: None,
        };
        for (id, text) in tokens.iter().enumerate() {
            vocab.texts.extend_from_slice(text);
            vocab.ends.push(vocab.texts.len() as u32);
            // The first of two equal texts is the one that text becomes.
            vocab.ids.entry(text.into()).or_insert(id as u32);
        }
        vocab.bytes = std::array::from_fn(|byte| vocab.id(format!("<0x{byte:02X}>").as_bytes()));
        vocab.unknown = vocab.kinds.iter().position(|kind| *kind == TokenKind::Unknown).map(|id| id as u32);
        Ok(vocab)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The token's text as stored; empty for an id that does not exist.
    pub fn text(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.texts[start as usize..*end as usize]
    }

    pub fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// The byte that a byte token stands for.
    pub fn byte_value(&self, id: u32) -> Option<u8> {
        let hex = self.text(id).strip_prefix(b"<0x")?.strip_suffix(b">")?;
        u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
    }
}

fn kind(number: i32) -> TokenKind {
    match number {
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => TokenKind::Unused,
        6 => TokenKind::Byte,
        _ => TokenKind::Normal,
    }
}

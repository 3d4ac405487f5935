//! Byte-pair encoding by ranked merges: over bytes (GPT-2 and most others) or over characters (gemma4).

use crate::TokenizerError;
use crate::merge::merge;
use crate::pretokenize::Pretokenizer;
use crate::spm::{characters, escape, push_or_bytes};
use crate::utf8::Text;
use crate::vocab::Vocab;
use gguf::Gguf;
use std::collections::HashMap;

pub(crate) struct Bpe {
    pub pretokenizer: Pretokenizer,
    /// Symbols: tokens and whatever else merges speak of.
    symbols: HashMap<Box<[u8]>, u32>,
    texts: Vec<Box<[u8]>>,
    /// (left, right) to (rank, merged)
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Bytes are written as characters in the vocabulary's texts.
    byte_level: bool,
}

impl Bpe {
    pub fn new(gguf: &Gguf, byte_level: bool) -> Result<Bpe, TokenizerError> {
        let merges = gguf.metadata.array("tokenizer.ggml.merges").and_then(|array| array.strings());
        let merges = merges.ok_or(TokenizerError::Missing("tokenizer.ggml.merges"))?;
        let name = gguf.metadata.str("tokenizer.ggml.pre").unwrap_or("default");
        let mut bpe = Bpe {
            pretokenizer: Pretokenizer::new(name),
            symbols: HashMap::new(),
            texts: Vec::new(),
            merges: HashMap::with_capacity(merges.len()),
            byte_level,
        };
        for (rank, text) in merges.iter().enumerate() {
            // The separator is the first space that is not the first character: symbols may begin with a space.
            let Some(at) = text.iter().skip(1).position(|byte| *byte == b' ').map(|at| at + 1) else {
                return Err(TokenizerError::Damaged(format!("merge {rank} is no pair")));
            };
            let (left, right) = (&text[..at], &text[at + 1..]);
            let pair = (bpe.intern(left), bpe.intern(right));
            let merged = bpe.intern(&[left, right].concat());
            bpe.merges.entry(pair).or_insert((rank as u32, merged));
        }
        Ok(bpe)
    }

    fn intern(&mut self, text: &[u8]) -> u32 {
        if let Some(symbol) = self.symbols.get(text) {
            return *symbol;
        }
        let symbol = self.texts.len() as u32;
        self.texts.push(text.into());
        self.symbols.insert(text.into(), symbol);
        symbol
    }

    /// Appends the tokens of `bytes`.
    pub fn encode(&self, vocab: &Vocab, bytes: &[u8], out: &mut Vec<u32>) {
        let escaped;
        let bytes = if self.byte_level {
            bytes
        } else {
            escaped = escape(bytes);
            &escaped
        };
        let text = Text::new(bytes);
        for piece in self.pretokenizer.pieces(&text.text) {
            let bytes = text.bytes(piece);
            let written = if self.byte_level { write_bytes(&bytes) } else { bytes.into_owned() };
            self.piece(vocab, &written, out);
        }
    }

    fn piece(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
        if self.pretokenizer.whole_words
            && let Some(id) = vocab.id(text)
        {
            return out.push(id);
        }
        // A character that no merge speaks of keeps its range instead of a symbol, above all symbols.
        let unknown = |start: u32| (1u64 << 63) | u64::from(start);
        let symbols = characters(text).map(|(start, end)| {
            let symbol = self.symbols.get(&text[start as usize..end as usize]);
            symbol.map_or(unknown(start), |symbol| u64::from(*symbol))
        });
        let rank = |a: u64, b: u64| {
            let pair = (u32::try_from(a).ok()?, u32::try_from(b).ok()?);
            self.merges.get(&pair).map(|(rank, merged)| (u64::from(*rank), u64::from(*merged)))
        };
        for symbol in merge(symbols, rank) {
            match self.texts.get(symbol as usize) {
                Some(text) if symbol >> 63 == 0 => self.push(vocab, text, out),
                _ => {
                    let start = (symbol & u64::from(u32::MAX)) as usize;
                    let end = characters(&text[start..]).next().map_or(text.len(), |(_, end)| start + end as usize);
                    self.push(vocab, &text[start..end], out);
                }
            }
        }
    }

    /// The token of a symbol, or of its characters (its bytes, in a vocabulary of characters).
    fn push(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
        if !self.byte_level {
            return push_or_bytes(vocab, text, out);
        }
        match vocab.id(text) {
            Some(id) => out.push(id),
            None => out.extend(characters(text).filter_map(|(a, b)| vocab.id(&text[a as usize..b as usize]))),
        }
    }

    /// The bytes that a token's text stands for.
    pub fn read(&self, text: &[u8]) -> Vec<u8> {
        if self.byte_level { read_bytes(text) } else { unescape(text) }
    }
}

/// "▁" back to a space.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let space = crate::spm::SPACE.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(space) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}

/// GPT-2 writes bytes as printable characters: those that are printable stand for themselves, the others are moved to
/// U+0100 and on, in order.
fn character_of(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap_or('\u{fffd}'),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap_or('\u{fffd}'),
        0xad => '\u{143}',
    }
}

fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn write_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| character_of(*byte)).collect::<String>().into_bytes()
}

/// Characters that stand for no byte stand for themselves.
fn read_bytes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let Ok(text) = std::str::from_utf8(text) else { return text.to_vec() };
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_as_its_own_character() {
        let all: Vec<u8> = (0..=255).collect();
        let written = write_bytes(&all);
        assert_eq!(read_bytes(&written), all);
        let characters: std::collections::HashSet<char> = all.iter().map(|byte| character_of(*byte)).collect();
        assert_eq!(characters.len(), 256);
        assert_eq!(character_of(b' '), 'Ġ');
        assert_eq!(character_of(b'\n'), 'Ċ');
    }
}

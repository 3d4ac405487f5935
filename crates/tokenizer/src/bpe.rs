//! Byte-pair encoding by ranked merges: over bytes (GPT-2 and most others) or over characters (gemma4).

use crate::TokenizerError;
use crate::merge::merge;
use crate::pretokenize::Pretokenizer;
use crate::spm::{characters, escape, push_or_bytes};
use crate::utf8::Text;
use crate::vocab::Vocab;
use gguf::Gguf;
use std::collections::HashMap;

/// Symbols are tokens by their ids, and above them whatever else merges speak of (cut vocabularies have merges whose
/// result is no token).
pub(crate) struct Bpe {
    pub pretokenizer: Pretokenizer,
    /// Number of tokens: symbols from here on are in `extra`.
    tokens: u32,
    extra: Extra,
    /// (left, right) to (rank, merged)
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The symbol of each byte, where bytes are written as characters.
    byte_symbols: Option<Box<[Option<u32>; 256]>>,
}

#[derive(Default)]
struct Extra {
    ids: HashMap<Box<[u8]>, u32>,
    texts: Vec<Box<[u8]>>,
}

/// In a piece: a symbol, or (with this bit) the place in the piece of a character that no merge speaks of.
const UNKNOWN: u64 = 1 << 63;

impl Bpe {
    /// Reads the merges; `name` is the pre-tokenizer's.
    pub fn new(gguf: &Gguf, vocab: &Vocab, name: Option<&str>) -> Result<Bpe, TokenizerError> {
        let merges = gguf.metadata.array("tokenizer.ggml.merges").and_then(|array| array.strings());
        let merges = merges.ok_or(TokenizerError::Missing("tokenizer.ggml.merges"))?;
        let mut bpe = Bpe {
            pretokenizer: Pretokenizer::new(name),
            tokens: vocab.len() as u32,
            extra: Extra::default(),
            merges: HashMap::with_capacity(merges.len()),
            byte_symbols: None,
        };
        let mut merged = Vec::new();
        for (rank, text) in merges.iter().enumerate() {
            // The separator is the first space that is not the first character: symbols may begin with a space.
            let Some(at) = text.iter().skip(1).position(|byte| *byte == b' ').map(|at| at + 1) else {
                return Err(TokenizerError::Damaged(format!("merge {rank} is no pair")));
            };
            let (left, right) = (&text[..at], &text[at + 1..]);
            merged.clear();
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
            let pair = (bpe.intern(vocab, left), bpe.intern(vocab, right));
            let merged = bpe.intern(vocab, &merged);
            bpe.merges.entry(pair).or_insert((rank as u32, merged));
        }
        if bpe.pretokenizer.kind.byte_level {
            let symbol = |byte: usize| bpe.symbol(vocab, character_of(byte as u8).encode_utf8(&mut [0; 4]).as_bytes());
            bpe.byte_symbols = Some(Box::new(std::array::from_fn(symbol)));
        }
        Ok(bpe)
    }

    fn symbol(&self, vocab: &Vocab, text: &[u8]) -> Option<u32> {
        vocab.id(text).or_else(|| self.extra.ids.get(text).copied())
    }

    fn intern(&mut self, vocab: &Vocab, text: &[u8]) -> u32 {
        if let Some(symbol) = self.symbol(vocab, text) {
            return symbol;
        }
        // Tokens and merges together are fewer than the header has bytes, far below 2^32.
        let symbol = self.tokens + self.extra.texts.len() as u32;
        self.extra.texts.push(text.into());
        self.extra.ids.insert(text.into(), symbol);
        symbol
    }

    /// Appends the tokens of `bytes`.
    pub fn encode(&self, vocab: &Vocab, bytes: &[u8], out: &mut Vec<u32>) {
        let escaped;
        let bytes = if self.byte_symbols.is_some() {
            bytes
        } else {
            escaped = escape(bytes);
            &escaped
        };
        let text = Text::new(bytes);
        for piece in self.pretokenizer.pieces(&text.text) {
            self.piece(vocab, &text.bytes(piece), out);
        }
    }

    fn piece(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
        match &self.byte_symbols {
            Some(byte_symbols) => {
                if self.pretokenizer.kind.whole_words
                    && let Some(id) = vocab.id(&write_bytes(text))
                {
                    return out.push(id);
                }
                let symbol = |byte: &u8| byte_symbols[usize::from(*byte)].map_or(UNKNOWN, u64::from);
                self.merge(vocab, text, text.iter().map(symbol), out);
            }
            None => {
                // Line ends are in no merge, but runs of them are tokens.
                if text.iter().all(|byte| *byte == b'\n')
                    && let Some(id) = vocab.id(text)
                {
                    return out.push(id);
                }
                let symbol = |(start, end): (u32, u32)| {
                    let symbol = self.symbol(vocab, &text[start as usize..end as usize]);
                    symbol.map_or(UNKNOWN | u64::from(start), u64::from)
                };
                self.merge(vocab, text, characters(text).map(symbol), out);
            }
        }
    }

    fn merge(&self, vocab: &Vocab, text: &[u8], symbols: impl Iterator<Item = u64>, out: &mut Vec<u32>) {
        let rank = |a: u64, b: u64| {
            let pair = (u32::try_from(a).ok()?, u32::try_from(b).ok()?);
            self.merges.get(&pair).map(|(rank, merged)| (u64::from(*rank), u64::from(*merged)))
        };
        for symbol in merge(symbols, rank) {
            if symbol & UNKNOWN == 0 {
                self.push(vocab, symbol as u32, out);
            } else if self.byte_symbols.is_none() {
                let start = (symbol & !UNKNOWN) as usize;
                let end = characters(&text[start..]).next().map_or(text.len(), |(_, end)| start + end as usize);
                push_or_bytes(vocab, &text[start..end], out);
            }
            // A byte without a token cannot be said in this vocabulary.
        }
    }

    /// The token of a symbol, or of its characters (its bytes, in a vocabulary of characters).
    fn push(&self, vocab: &Vocab, symbol: u32, out: &mut Vec<u32>) {
        if symbol < self.tokens {
            return out.push(symbol);
        }
        let text = self.extra.texts.get((symbol - self.tokens) as usize).map_or(&[][..], |text| &**text);
        if self.byte_symbols.is_some() {
            out.extend(characters(text).filter_map(|(start, end)| vocab.id(&text[start as usize..end as usize])));
        } else {
            push_or_bytes(vocab, text, out);
        }
    }

    /// The bytes that a token's text stands for.
    pub fn read(&self, text: &[u8]) -> Vec<u8> {
        if self.byte_symbols.is_some() { read_bytes(text) } else { unescape(text) }
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

//! SentencePiece with scores: characters merge by the score of what they become; what is no token becomes bytes.

use crate::merge::merge;
use crate::vocab::Vocab;

/// The character that stands for a space in SentencePiece vocabularies.
pub(crate) const SPACE: &str = "\u{2581}";

/// Spaces as the vocabulary writes them.
pub(crate) fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
    for byte in bytes {
        if *byte == b' ' { out.extend_from_slice(SPACE.as_bytes()) } else { out.push(*byte) }
    }
    out
}

/// The characters of a text that may not be UTF-8, as ranges: as long as the first byte says.
pub(crate) fn characters(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = *bytes.get(at)?;
        let length = match first >> 4 {
            0b1100 | 0b1101 => 2,
            0b1110 => 3,
            0b1111 => 4,
            _ => 1,
        };
        let start = at;
        at = (at + length).min(bytes.len());
        Some((start as u32, at as u32))
    })
}

/// Appends the tokens of `text`, whose spaces are escaped already.
pub(crate) fn encode(vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
    let slice = |symbol: (u32, u32)| &text[symbol.0 as usize..symbol.1 as usize];
    let rank = |a: (u32, u32), b: (u32, u32)| {
        let merged = (a.0, b.1);
        let id = vocab.id(slice(merged))?;
        Some((descending(vocab.scores[id as usize]), merged))
    };
    for symbol in merge(characters(text), rank) {
        push_or_bytes(vocab, slice(symbol), out);
    }
}

/// The token with this text, or one token for each of its bytes, or the unknown token.
pub(crate) fn push_or_bytes(vocab: &Vocab, text: &[u8], out: &mut Vec<u32>) {
    let byte = |byte: &u8| vocab.bytes[usize::from(*byte)];
    if let Some(id) = vocab.id(text) {
        out.push(id);
    } else if text.iter().all(|b| byte(b).is_some()) {
        out.extend(text.iter().filter_map(byte));
    } else {
        out.extend(vocab.unknown);
    }
}

/// A number that is smaller for a larger score.
fn descending(score: f32) -> u64 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(!ascending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_scores_come_first() {
        let mut scores = [3.5f32, -1.0, 0.0, -1e9, f32::INFINITY, 1e-3];
        scores.sort_by_key(|score| descending(*score));
        assert_eq!(scores, [f32::INFINITY, 3.5, 1e-3, 0.0, -1.0, -1e9]);
        assert_eq!(descending(0.0), descending(-0.0));
    }
}

//! Finding special tokens in a text.

use crate::TokenizerError;
use crate::vocab::{TokenKind, Vocab};
use aho_corasick::{AhoCorasick, MatchKind};
use std::ops::Range;

/// The most bytes that special tokens' texts may have together: the automaton takes some tens of bytes for each. The
/// largest vocabularies have some 200 KiB.
const MAX_BYTES: usize = 4 << 20;

/// Which tokens are cut out of a text before it is encoded.
pub(crate) struct Specials {
    /// Always: what the model's makers defined as one token.
    defined: Finder,
    /// Where markup is parsed: control tokens too.
    all: Finder,
}

#[derive(Default)]
struct Finder {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(Range<usize>),
    Token(u32),
}

impl Specials {
    pub fn new(vocab: &Vocab) -> Result<Specials, TokenizerError> {
        let of = |kinds: &[TokenKind]| {
            let ids =
                (0..vocab.len() as u32).filter(|id| kinds.contains(&vocab.kind(*id)) && !vocab.text(*id).is_empty());
            Finder::new(vocab, ids.collect())
        };
        Ok(Specials {
            defined: of(&[TokenKind::UserDefined])?,
            all: of(&[TokenKind::UserDefined, TokenKind::Control, TokenKind::Unknown])?,
        })
    }

    /// Cuts `text` at special tokens: the leftmost first, of those the longest.
    pub fn parts(&self, text: &[u8], parse_special: bool) -> Vec<Part> {
        let finder = if parse_special { &self.all } else { &self.defined };
        let mut parts = Vec::new();
        let mut at = 0;
        for (found, id) in finder.find(text) {
            if found.start > at {
                parts.push(Part::Text(at..found.start));
            }
            at = found.end;
            parts.push(Part::Token(id));
        }
        if at < text.len() {
            parts.push(Part::Text(at..text.len()));
        }
        parts
    }
}

impl Finder {
    fn new(vocab: &Vocab, ids: Vec<u32>) -> Result<Finder, TokenizerError> {
        if ids.is_empty() {
            return Ok(Finder::default());
        }
        let bytes: usize = ids.iter().map(|id| vocab.text(*id).len()).sum();
        if bytes > MAX_BYTES {
            return Err(TokenizerError::Damaged(format!("special tokens of {bytes} bytes, more than {MAX_BYTES}")));
        }
        let texts = ids.iter().map(|id| vocab.text(*id));
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton = automaton.map_err(|error| TokenizerError::Damaged(format!("special tokens: {error}")))?;
        Ok(Finder { automaton: Some(automaton), ids })
    }

    fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        let matches = self.automaton.iter().flat_map(move |automaton| automaton.find_iter(text));
        matches.map(|found| (found.range(), self.ids[found.pattern().as_usize()]))
    }
}

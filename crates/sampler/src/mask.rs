/// The tokens that may be chosen, as a bit set. Tokens beyond its length may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// Allows none of `len` tokens.
    pub fn none(len: usize) -> Mask {
        Mask { words: vec![0; len.div_ceil(64)], len }
    }

    /// Allows each of `len` tokens.
    pub fn all(len: usize) -> Mask {
        Mask { words: vec![u64::MAX; len.div_ceil(64)], len }
    }

    /// Number of tokens it speaks about.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allows or forbids a token. Tokens beyond the length stay forbidden.
    pub fn set(&mut self, token: u32, allowed: bool) {
        let (word, bit) = (token as usize / 64, 1u64 << (token % 64));
        if let (true, Some(word)) = ((token as usize) < self.len, self.words.get_mut(word)) {
            if allowed { *word |= bit } else { *word &= !bit }
        }
    }

    pub fn allows(&self, token: u32) -> bool {
        (token as usize) < self.len && self.words[token as usize / 64] >> (token % 64) & 1 == 1
    }
}

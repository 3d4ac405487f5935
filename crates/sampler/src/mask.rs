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

    /// Allows those of `len` tokens whose bit is set, the lowest bit of each word first. Missing words allow none.
    pub fn from_words(words: impl IntoIterator<Item = u64>, len: usize) -> Mask {
        let mut words: Vec<u64> = words.into_iter().take(len.div_ceil(64)).collect();
        words.resize(len.div_ceil(64), 0);
        Mask { words, len }
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

    /// Whether any token is allowed.
    pub fn allows_any(&self) -> bool {
        (0..self.len as u32).step_by(64).any(|token| self.word(token) != 0)
    }

    /// Makes minus infinity of every logit whose token is not allowed.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (index, logits) in logits.chunks_mut(64).enumerate() {
            let word = self.word(index as u32 * 64);
            for (bit, logit) in logits.iter_mut().enumerate() {
                *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
            }
        }
    }

    /// The 64 tokens from `token` on, a multiple of 64. Those beyond the length are not allowed.
    fn word(&self, token: u32) -> u64 {
        let word = self.words.get(token as usize / 64).copied().unwrap_or(0);
        let left = self.len.saturating_sub(token as usize);
        if left >= 64 { word } else { word & ((1 << left) - 1) }
    }
}

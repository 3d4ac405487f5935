//! A fast checksum that finds damage (not forgery): every word turns the state by a bijection, so no single changed word
//! goes unseen.

/// 2^64 divided by the golden ratio, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Debug, Default)]
pub(crate) struct Checksum {
    state: u64,
    /// Bytes of a word that is not whole yet.
    word: u64,
    len: u64,
}

impl Checksum {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.len % 8 != 0
            && let Some((first, rest)) = bytes.split_first()
        {
            self.byte(*first);
            bytes = rest;
        }
        let words = bytes.chunks_exact(8);
        let rest = words.remainder();
        self.len += (bytes.len() - rest.len()) as u64;
        for word in words {
            // Chunks of eight are eight bytes long.
            self.absorb(word.try_into().map_or(0, u64::from_le_bytes));
        }
        rest.iter().for_each(|byte| self.byte(*byte));
    }

    pub fn finish(mut self) -> u64 {
        let (word, len) = (self.word, self.len);
        self.absorb(word);
        self.absorb(len);
        self.state
    }

    fn byte(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * (self.len % 8));
        self.len += 1;
        if self.len % 8 == 0 {
            let word = std::mem::take(&mut self.word);
            self.absorb(word);
        }
    }

    fn absorb(&mut self, word: u64) {
        self.state = (self.state.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> u64 {
        let mut sum = Checksum::default();
        pieces.iter().for_each(|piece| sum.update(piece));
        sum.finish()
    }

    #[test]
    fn pieces_do_not_matter_and_every_bit_does() {
        let bytes: Vec<u8> = (0..61u8).collect();
        let whole = of(&[&bytes]);
        for at in 0..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(of(&[a, b]), whole);
            assert_ne!(of(&[a]), whole);
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_ne!(of(&[&flipped]), whole);
            }
        }
        assert_ne!(of(&[&bytes, &[0]]), whole, "zeros at the end count");
        assert_ne!(of(&[]), of(&[&[0]]));
    }
}

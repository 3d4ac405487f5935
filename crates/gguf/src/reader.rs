//! A bounded little-endian reader over the first bytes of a file.

use crate::{GgufError, MAX_HEADER_BYTES};

/// Reads from `bytes`, the first bytes of a file that is `file_len` long.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_len: u64) -> Reader<'a> {
        Reader { bytes, at: 0, file_len }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    /// Confirms that `count` items of at least `item` bytes each can still follow, so that `count` may be trusted as a
    /// capacity. Returns it as `usize`.
    pub(crate) fn expect(&self, count: u64, item: u64, what: &'static str) -> Result<usize, GgufError> {
        let truncated = |needs| GgufError::Truncated { what, at: self.at(), needs, file_len: self.file_len };
        let needs = count.checked_mul(item).ok_or_else(|| truncated(u64::MAX))?;
        let end = self.at().checked_add(needs).ok_or_else(|| truncated(needs))?;
        if end > self.file_len {
            return Err(truncated(needs));
        }
        if end > MAX_HEADER_BYTES {
            return Err(GgufError::HeaderTooLarge { needs: end, limit: MAX_HEADER_BYTES });
        }
        if end > self.bytes.len() as u64 {
            return Err(GgufError::Incomplete { needed_at_least: end });
        }
        // `end` lies within a slice, so everything below it fits `usize`.
        Ok(count as usize)
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let count = self.expect(count, 1, what)?;
        let bytes = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length (u64) and that many bytes.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a [u8], GgufError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A key or tensor name: UTF-8 of at most `limit` bytes.
    pub(crate) fn name(&mut self, what: &'static str, limit: u64) -> Result<&'a str, GgufError> {
        let at = self.at();
        let len = self.u64(what)?;
        if len > limit {
            return Err(GgufError::NameTooLong { what, len, limit });
        }
        std::str::from_utf8(self.take(len, what)?).map_err(|_| GgufError::NotUtf8 { what, at })
    }
}

//! A list of byte strings in two allocations, however many there are.

use std::fmt;

/// A string array of the metadata. GGUF promises UTF-8, but vocabularies hold tokens that are not: strings are bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`. A header is at most `MAX_HEADER_BYTES` long, so 32 bits suffice.
    ends: Vec<u32>,
}

impl Strings {
    pub(crate) fn with_capacity(count: usize) -> Strings {
        Strings { bytes: Vec::new(), ends: Vec::with_capacity(count) }
    }

    /// Appends a string. The total must stay below 4 GiB; the reader's header limit and the writer see to that.
    pub(crate) fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(u32::try_from(self.bytes.len()).expect("string arrays are bounded by the header limit"));
    }

    pub(crate) fn shrink(mut self) -> Strings {
        self.bytes.shrink_to_fit();
        self
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of string `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// The strings' bytes, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// String `index` with invalid UTF-8 replaced by U+FFFD.
    pub fn get_lossy(&self, index: usize) -> Option<std::borrow::Cow<'_, str>> {
        self.get(index).map(String::from_utf8_lossy)
    }

    /// Bytes of all strings together.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(items: I) -> Strings {
        let mut strings = Strings::default();
        for item in items {
            strings.push(item.as_ref());
        }
        strings
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strings({} strings, {} bytes)", self.len(), self.bytes.len())
    }
}

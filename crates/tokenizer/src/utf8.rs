//! Bytes to characters, leniently: what is not UTF-8 becomes U+FFFD, one for each byte.

/// Text whose characters can be classified, and the bytes that some of them really stand for.
pub(crate) struct Text {
    pub text: String,
    /// (offset in `text`, bytes), in order: encoded surrogates, which no Rust string can hold. A private-use character stands in.
    surrogates: Vec<(usize, [u8; 3])>,
}

const STAND_IN: char = '\u{f8ff}';

impl Text {
    /// Overlong forms and surrogates are taken for what they mean, as the reference does; the rest of what is not UTF-8
    /// is replaced byte by byte.
    pub fn new(bytes: &[u8]) -> Text {
        let mut text = String::with_capacity(bytes.len());
        let mut surrogates = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let good = match std::str::from_utf8(rest) {
                Ok(all) => all.len(),
                Err(error) => error.valid_up_to(),
            };
            // The prefix was just found to be valid.
            text.push_str(std::str::from_utf8(&rest[..good]).unwrap_or_default());
            rest = &rest[good..];
            let Some(first) = rest.first() else { break };
            let (code, length) = lenient(*first, rest);
            match char::from_u32(code) {
                Some(character) => text.push(character),
                None => {
                    surrogates.push((text.len(), [rest[0], rest[1], rest[2]]));
                    text.push(STAND_IN);
                }
            }
            rest = &rest[length..];
        }
        Text { text, surrogates }
    }

    /// The bytes of a range of `text`.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> std::borrow::Cow<'_, [u8]> {
        let plain = &self.text.as_bytes()[range.clone()];
        let before = self.surrogates.partition_point(|(at, _)| *at < range.start);
        let inside = self.surrogates[before..].iter().take_while(|(at, _)| *at < range.end);
        if inside.clone().next().is_none() {
            return plain.into();
        }
        let mut bytes = plain.to_vec();
        // The stand-in is 3 bytes long, as a surrogate is.
        for (at, surrogate) in inside {
            bytes[at - range.start..][..3].copy_from_slice(surrogate);
        }
        bytes.into()
    }
}

/// The code point at the start of `bytes` and its length, or U+FFFD and 1.
fn lenient(first: u8, bytes: &[u8]) -> (u32, usize) {
    let (length, bits) = match first {
        0xc0..=0xdf => (2, first & 0x1f),
        0xe0..=0xef => (3, first & 0x0f),
        0xf0..=0xf7 => (4, first & 0x07),
        _ => return (0xfffd, 1),
    };
    let mut code = u32::from(bits);
    for index in 1..length {
        match bytes.get(index) {
            Some(next) if next & 0xc0 == 0x80 => code = code << 6 | u32::from(next & 0x3f),
            _ => return (0xfffd, 1),
        }
    }
    if code > 0x10_ffff { (0xfffd, 1) } else { (code, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf8_is_replaced_byte_by_byte() {
        let text = |bytes: &[u8]| Text::new(bytes).text;
        assert_eq!(text(b"abc\xc3"), "abc\u{fffd}");
        assert_eq!(text(b"ok \xf0\x9f\x99 x"), "ok \u{fffd}\u{fffd}\u{fffd} x");
        assert_eq!(text(b"\xc0\x80"), "\0");
        assert_eq!(text(b"\xf8\x88"), "\u{fffd}\u{fffd}");
        assert_eq!(text("日本".as_bytes()), "日本");
        let surrogate = Text::new(b"a\xed\xa0\x80b");
        assert_eq!(&*surrogate.bytes(0..surrogate.text.len()), b"a\xed\xa0\x80b");
    }
}

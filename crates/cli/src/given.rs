//! Text that people give, in a file or through a pipe. Editors and shells of Windows mark it with its encoding, which is no
//! part of it, or write UTF-16.

use crate::failure::Failure;
use std::path::Path;

/// A mark at the beginning of UTF-8.
pub const MARK: char = '\u{feff}';

/// What is in a file.
pub fn text_of_file(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::io(path, error))?;
    text(bytes, &path.display().to_string())
}

/// Bytes as text; `what` names them where they are none.
pub fn text(bytes: Vec<u8>, what: &str) -> Result<String, Failure> {
    let wrong = || Failure::usage(format!("{what} is not UTF-8"));
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).ok_or_else(wrong),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).ok_or_else(wrong),
        _ => {
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            Ok(text.strip_prefix(MARK).map(str::to_owned).unwrap_or(text))
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_no_part_of_the_text() {
        const JAPANESE: &str = "日本語\n";
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
            mark.into_iter().chain(JAPANESE.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
        };
        let texts = [
            JAPANESE.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", JAPANESE.as_bytes()].concat(),
            utf16([0xff, 0xfe], u16::to_le_bytes),
            utf16([0xfe, 0xff], u16::to_be_bytes),
        ];
        for bytes in texts {
            assert_eq!(text(bytes, "it").unwrap(), JAPANESE);
        }
        assert_eq!(text(Vec::new(), "it").unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        // Shift-JIS; half a character of UTF-16; half a pair of them.
        for bytes in [&b"\x93\xfa\x96\x7b"[..], b"\xff\xfea", b"\xff\xfe\x00\xd8"] {
            let failure = text(bytes.to_vec(), "the file").unwrap_err();
            assert_eq!((failure.code.as_str(), failure.message.as_str()), ("usage", "the file is not UTF-8"));
        }
    }
}

//! Values as Python prints them: `str(x)` and `repr(x)`.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Bytes of text that the remaining fuel pays for, at 4 bytes a step.
pub(crate) fn budget(state: &State<'_, '_>) -> usize {
    let steps = state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining);
    usize::try_from(steps.saturating_mul(4)).unwrap_or(usize::MAX)
}

/// Pays for text that was made by walking a value, which costs more than copying it.
pub(crate) fn charge(state: &State<'_, '_>, text: &str) -> Result<(), Error> {
    state.consume_fuel(text.len() as u64 / 4)
}

/// `str(value)`: text as it is, everything else like [`repr`]; undefined is empty, as in Jinja2.
pub(crate) fn str(state: &State<'_, '_>, value: &Value, depth: usize) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            repr(&mut out, value, depth, budget(state))?;
            charge(state, &out)?;
            Ok(out)
        }
    }
}

/// Appends `repr(value)`; containers deeper than `depth` levels are an error, and more than `budget` bytes are.
fn repr(out: &mut String, value: &Value, depth: usize, budget: usize) -> Result<(), Error> {
    if out.len() > budget {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => repr_str(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            let depth = deeper(depth)?;
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for (i, item) in value.try_iter()?.checked().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(out, &item?, depth, budget)?;
                count = i + 1;
            }
            if tuple && count == 1 {
                out.push(',');
            }
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            let depth = deeper(depth)?;
            out.push('{');
            for (i, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                if i > 0 {
                    out.push_str(", ");
                }
                repr(out, &key, depth, budget)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth, budget)?;
            }
            out.push('}');
        }
        ValueKind::Invalid => {
            return Err(Error::new(ErrorKind::InvalidOperation, "an invalid value cannot be printed"));
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

/// One level less, or an error that names the reason.
pub(crate) fn deeper(depth: usize) -> Result<usize, Error> {
    depth.checked_sub(1).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"))
}

/// `repr` of a string: single quotes unless only they occur, unprintable characters escaped.
fn repr_str(out: &mut String, s: &str) {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character, for controls, separators, format and private-use characters
/// (Unicode categories Cc, Zl, Zp, Zs, Cf, Co). Unassigned code points count as printable.
pub(crate) fn printable(c: char) -> bool {
    if c.is_control() || (c.is_whitespace() && c != ' ') {
        return false;
    }
    !matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e
        | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064 | 0x2066..=0x206f | 0xfeff | 0xfff9..=0xfffb
        | 0xe000..=0xf8ff | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
        | 0xe0001 | 0xe0020..=0xe007f | 0xf0000..=0xffffd | 0x100000..=0x10fffd)
}

/// `repr` of a float: the shortest digits that read back, in scientific notation below 1e-4 and from 1e16 on.
pub(crate) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        // Rust writes 1e-7 and 1.5e16, Python 1e-07 and 1.5e+16.
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = x.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_like_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (18.5, "18.5"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (9999999999999998.0, "9999999999999998.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (1e300, "1e+300"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (x, text) in cases {
            assert_eq!(float(x), text);
        }
    }

    #[test]
    fn strings_are_quoted_like_python() {
        let cases = [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("it's \"so\"", "'it\\'s \"so\"'"),
            ("a\n\t\u{1}\\", "'a\\n\\t\\x01\\\\'"),
            ("全\u{3000}角", "'全\\u3000角'"),
            ("\u{a0}\u{200b}", "'\\xa0\\u200b'"),
            ("é😀", "'é😀'"),
        ];
        for (s, text) in cases {
            let mut out = String::new();
            repr_str(&mut out, s);
            assert_eq!(out, text);
        }
    }
}

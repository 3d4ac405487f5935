//! Text in quotes: escapes that Python reads otherwise than the engine.

use std::borrow::Cow;

use crate::tokens::tokens;

/// Rewrites the escapes in a tag's strings: `\a` and `\v` are control characters, `\U0001f600` is a character, a line
/// end after a backslash is nothing, and `\/` is two characters.
pub(crate) fn rewrite(tag: &str) -> Cow<'_, str> {
    if !tag.contains('\\') {
        return tag.into();
    }
    let mut out = String::with_capacity(tag.len() + 8);
    for token in tokens(tag) {
        if token.starts_with(['"', '\'']) { string(token, &mut out) } else { out.push_str(token) }
    }
    out.into()
}

fn string(mut rest: &str, out: &mut String) {
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let Some(letter) = escape.chars().next() else {
            rest = &rest[at..];
            break;
        };
        let mut length = letter.len_utf8();
        match letter {
            'a' => out.push_str("\\x07"),
            'v' => out.push_str("\\x0b"),
            '/' => out.push_str("\\\\/"),
            '\n' => {}
            'U' => match code_point(escape) {
                Some(character) => {
                    length = 9;
                    if matches!(character, '\\' | '"' | '\'') {
                        out.push('\\');
                    }
                    out.push(character);
                }
                None => out.push_str("\\U"),
            },
            _ => out.extend(['\\', letter]),
        }
        rest = &escape[length..];
    }
    out.push_str(rest);
}

/// The character of `U` and eight digits.
fn code_point(escape: &str) -> Option<char> {
    char::from_u32(u32::from_str_radix(escape.get(1..9)?, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn escapes_are_those_of_python() {
        let cases = [
            (r"{{ '\a\v\/\n\\a\'' }}", r"{{ '\x07\x0b\\/\n\\a\'' }}"),
            (r"{{ '\U0001f600\U00000027\U00110000' ~ '\U12' }}", r"{{ '😀\'\U00110000' ~ '\U12' }}"),
            ("{{ 'a\\\nb' }}", "{{ 'ab' }}"),
            (r"{{ a \ b }}", r"{{ a \ b }}"),
            (r"{{ 'open\", r"{{ 'open\"),
        ];
        for (tag, expected) in cases {
            assert_eq!(rewrite(tag), expected);
        }
    }
}

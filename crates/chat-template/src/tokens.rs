//! A tag's text in pieces.

/// Splits a tag into delimiters, words, strings, operators and space; joined again they are the tag.
pub(crate) fn tokens(tag: &str) -> Vec<&str> {
    const LONG: [&str; 15] =
        ["{{-", "-}}", "{%-", "{%+", "-%}", "+%}", "{{", "}}", "{%", "%}", "==", "!=", "<=", ">=", "//"];
    let mut tokens = Vec::new();
    let mut rest = tag;
    let end_delimiter = |t: &str| t.ends_with("}}") || t.ends_with("%}");
    while let Some(c) = rest.chars().next() {
        // `{{` and `}}` inside are nested mappings; delimiters stand only at the ends.
        let at_start = rest.len() == tag.len();
        let long = LONG.iter().find(|t| {
            rest.starts_with(**t)
                && match t.starts_with('{') {
                    true => at_start,
                    false => !end_delimiter(t) || t.len() == rest.len(),
                }
        });
        let len = if let Some(long) = long {
            long.len()
        } else if rest.starts_with("**") {
            2
        } else if c == '"' || c == '\'' {
            quoted(rest, c)
        } else {
            let class: fn(char) -> bool = match c {
                _ if c.is_whitespace() => char::is_whitespace,
                _ if c.is_alphanumeric() || c == '_' => |c| c.is_alphanumeric() || c == '_',
                _ => |_| false,
            };
            rest.find(|c: char| !class(c)).unwrap_or(rest.len()).max(c.len_utf8())
        };
        tokens.push(&rest[..len]);
        rest = &rest[len..];
    }
    tokens
}

/// Bytes of the string literal that `text` begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

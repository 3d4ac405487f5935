//! The template's text made ready for the engine.

use std::borrow::Cow;

use crate::tokens::tokens;
use crate::{keep, literals, operators};

/// Most words, literals and operators in one tag: the engine's parser recurses with the length of an expression.
const MOST_TOKENS: usize = 4096;

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment<'a> {
    /// Text, a comment or a raw block.
    Text(&'a str),
    /// `{{ ... }}` or `{% ... %}`.
    Tag(&'a str),
}

/// Makes a template ready for the engine:
/// - Line ends become `\n`, as in Jinja2's lexer.
/// - `{% generation %}` blocks become scopes. They mark what the assistant said, for training, and print their body.
/// - Values are checked before they are assigned (see [`keep`]).
/// - Operators that the engine does differently become calls (see [`operators`]), and escapes in strings become others
///   (see [`literals`]).
/// - A line end after `{% raw %}` is doubled, because Jinja2 keeps it and the engine takes it away.
///
/// # Errors
/// The line of a tag with more than [`MOST_TOKENS`] parts.
pub(crate) fn prepare(source: &str) -> Result<String, usize> {
    let source: Cow<'_, str> = match source.contains('\r') {
        true => source.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => source.into(),
    };
    let segments = segments(&source);
    let marks = segments.iter().any(|s| matches!(s, Segment::Tag(tag) if operators::marks(tag)));
    let mut out = String::with_capacity(source.len());
    for segment in segments {
        match segment {
            Segment::Text(text) if text.starts_with("{%") => raw_block(text, &mut out),
            Segment::Text(text) => out.push_str(text),
            Segment::Tag(tag) if tokens(tag).len() > MOST_TOKENS => return Err(out.matches('\n').count() + 1),
            Segment::Tag(tag) => {
                let tag = literals::rewrite(tag);
                match (tag.starts_with("{%"), tag_name(&tag)) {
                    (true, "generation") => out.push_str(&tag.replacen("generation", "with", 1)),
                    (true, "endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
                    (true, "set") => out.push_str(&keep::rewrite(&operators::rewrite(&tag, marks))),
                    _ => out.push_str(&operators::rewrite(&tag, marks)),
                }
            }
        }
    }
    Ok(out)
}

fn raw_block(text: &str, out: &mut String) {
    let (tag, body) = text.split_at(tag_end(text));
    out.push_str(tag);
    if body.starts_with('\n') && !tag.ends_with("-%}") && !tag.ends_with("+%}") {
        out.push('\n');
    }
    out.push_str(body);
}

fn segments(source: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut rest = source;
    let opens = |text: &str| {
        let pairs = text.as_bytes().windows(2);
        pairs.into_iter().position(|pair| pair[0] == b'{' && matches!(pair[1], b'%' | b'{' | b'#'))
    };
    while let Some(at) = opens(rest) {
        segments.push(Segment::Text(&rest[..at]));
        rest = &rest[at..];
        let segment = if rest.starts_with("{#") {
            Segment::Text(&rest[..rest.find("#}").map_or(rest.len(), |end| end + 2)])
        } else {
            let tag = &rest[..tag_end(rest)];
            match tag.starts_with("{%") && tag_name(tag) == "raw" {
                true => Segment::Text(&rest[..end_of_raw(rest).unwrap_or(rest.len())]),
                false => Segment::Tag(tag),
            }
        };
        let (Segment::Text(text) | Segment::Tag(text)) = segment;
        rest = &rest[text.len()..];
        segments.push(segment);
    }
    segments.push(Segment::Text(rest));
    segments
}

/// Bytes of the tag that `text` begins with, its end included; quoted text may contain the end's characters,
/// and mappings end with braces.
fn tag_end(text: &str) -> usize {
    let end = if text.starts_with("{%") { "%}" } else { "}}" };
    let mut open_braces = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if open_braces == 0 && text[at..].starts_with(end) => return at + 2,
            None if c == '{' => open_braces += 1,
            None if c == '}' => open_braces = open_braces.saturating_sub(1),
            None => {}
        }
    }
    text.len()
}

/// The word after `{%`.
fn tag_name(tag: &str) -> &str {
    let inner = tag.trim_start_matches("{%").trim_start_matches(['-', '+']).trim_start();
    &inner[..inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len())]
}

/// Bytes of the raw block that `text` begins with, its end tag included.
fn end_of_raw(text: &str) -> Option<usize> {
    let mut at = tag_end(text);
    loop {
        at += text.get(at..)?.find("{%")?;
        let len = text[at..].find("%}")? + 2;
        if tag_name(&text[at..at + len]) == "endraw" {
            return Some(at + len);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn replaces_generation_tags_only_where_they_are_tags() {
        let cases = [
            ("a{%- generation -%}b{% endgeneration %}", "a{%- with -%}b{% endwith %}"),
            ("{%generation%}{%endgeneration%}", "{%with%}{%endwith%}"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}{%- endraw -%}{% generation %}",
                "{% raw %}{% generation %}{%- endraw -%}{% with %}",
            ),
            ("{% set a = '%}{% generation %}' %}", "{% set a = keep__(('%}{% generation %}')) %}"),
            ("{% set generation = 1 %}", "{% set generation = keep__((1)) %}"),
            ("{{ {'a': {'b': 1}} }}{% generation %}", "{{ {'a': {'b': 1}} }}{% with %}"),
            ("{{ '<'|safe + a }}{% set b = a + c %}", "{{ add__('<'|safe, a) }}{% set b = keep__((add__(a, c))) %}"),
            ("{% if generation %}", "{% if generation %}"),
            ("{% generation", "{% with"),
            ("{# open", "{# open"),
            ("{% raw %}{%", "{% raw %}{%"),
            ("{% raw %}\na{% endraw %}", "{% raw %}\n\na{% endraw %}"),
            ("{% raw -%}\na{% endraw %}", "{% raw -%}\na{% endraw %}"),
            ("a\r\nb\rc", "a\nb\nc"),
        ];
        for (source, expected) in cases {
            assert_eq!(prepare(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn refuses_overlong_tags() {
        let long = format!("a\n{{{{ 1{} }}}}", "+1".repeat(super::MOST_TOKENS));
        assert_eq!(prepare(&long), Err(2));
    }
}

//! `tojson`: Python's `json.dumps(value, ensure_ascii=False)`, as transformers gives it to chat templates.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::python;

/// The keyword arguments of `json.dumps` that templates use.
#[derive(Debug, Clone)]
pub(crate) struct JsonStyle {
    pub ensure_ascii: bool,
    /// Text of one indentation level; `None` prints on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    /// Deepest nesting that is printed.
    pub depth: usize,
    /// Most bytes that are printed.
    pub budget: usize,
}

/// Prints `value` as JSON.
///
/// # Errors
/// Nesting beyond `style.depth`, text beyond `style.budget`, and values that are not data, such as functions.
pub(crate) fn dumps(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, style, 0)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, style: &JsonStyle, level: usize) -> Result<(), Error> {
    if out.len() > style.budget {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::String => quote(out, value.as_str().unwrap_or_default(), style.ensure_ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
            container(out, ('[', ']'), items.len(), style, level, |out, i, inner| write(out, &items[i], style, inner))?;
        }
        ValueKind::Map => {
            let keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
            let mut members =
                keys.into_iter().map(|k| Ok((k.clone(), value.get_item(&k)?))).collect::<Result<Vec<_>, Error>>()?;
            if style.sort_keys {
                members.sort_by(|a, b| a.0.cmp(&b.0));
            }
            container(out, ('{', '}'), members.len(), style, level, |out, i, inner| {
                let (key, value) = &members[i];
                quote(out, &key_text(key)?, style.ensure_ascii);
                out.push_str(&style.key_separator);
                write(out, value, style, inner)
            })?;
        }
        kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("{kind} is not JSON serializable"))),
    }
    Ok(())
}

fn container(
    out: &mut String,
    brackets: (char, char),
    len: usize,
    style: &JsonStyle,
    level: usize,
    mut member: impl FnMut(&mut String, usize, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let inner = level + 1;
    if inner > style.depth {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
    }
    out.push(brackets.0);
    for i in 0..len {
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(out, style, inner);
        member(out, i, inner)?;
    }
    if len > 0 {
        new_line(out, style, level);
    }
    out.push(brackets.1);
    Ok(())
}

fn new_line(out: &mut String, style: &JsonStyle, level: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..level {
            out.push_str(indent);
        }
    }
}

/// `json.dumps` turns numbers, booleans and None used as keys into strings.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Number if !key.is_integer() => float(f64::try_from(key.clone())?),
        ValueKind::Number | ValueKind::String => key.to_string(),
        kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("a JSON key cannot be a {kind}"))),
    })
}

fn float(x: f64) -> String {
    if x.is_nan() {
        "NaN".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        python::float(x)
    }
}

fn quote(out: &mut String, s: &str, ensure_ascii: bool) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && (c > '~')) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A value on one line with spaces after separators, as Python and most models write it.
pub(crate) fn spaced(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    // Writing a value to memory does not fail, and is UTF-8.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8(out).unwrap_or_default()
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spaces_follow_separators_only() {
        let value = serde_json::json!({"a": [1, "x,y:z"], "b": {}});
        assert_eq!(super::spaced(&value), r#"{"a": [1, "x,y:z"], "b": {}}"#);
    }
}

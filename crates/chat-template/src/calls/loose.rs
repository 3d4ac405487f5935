//! Values as Python and Gemma write them: other quotes than JSON's, keys without quotes, `True`, calls of functions.

use serde_json::{Map, Value as Json};

use super::{ToolCall, call};

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// Gemma's quotation mark, a token.
const QUOTE: &str = "<|\"|>";

/// One value, with nothing after it.
pub(crate) fn value(text: &str) -> Option<Json> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.space().is_empty().then_some(value)
}

/// `[name(key=value, ...), ...]` with nothing after it.
pub(crate) fn calls(text: &str) -> Option<Vec<ToolCall>> {
    let mut reader = Reader { rest: text };
    reader.take("[").then_some(())?;
    let mut calls = Vec::new();
    reader.items("]", |reader| {
        let name = reader.word()?;
        reader.take("(").then_some(())?;
        let mut arguments = Map::new();
        reader.items(")", |reader| {
            let key = reader.word()?;
            reader.take("=").then_some(())?;
            arguments.insert(key.to_owned(), reader.value(0)?);
            Some(())
        })?;
        calls.push(call(name, arguments));
        Some(())
    })?;
    reader.space().is_empty().then_some(calls)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn space(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn take(&mut self, mark: &str) -> bool {
        let Some(rest) = self.space().strip_prefix(mark) else { return false };
        self.rest = rest;
        true
    }

    /// Items between commas, up to `close`. A comma may stand after the last one.
    fn items(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        while !self.take(close) {
            item(self)?;
            if !self.take(",") && !self.space().starts_with(close) {
                return None;
            }
        }
        Some(())
    }

    /// A name: letters, digits, `_ - .`.
    fn word(&mut self) -> Option<&'a str> {
        let text = self.space();
        let len = text.find(|c: char| !c.is_alphanumeric() && !"_-.".contains(c)).unwrap_or(text.len());
        self.rest = &text[len..];
        Some(&text[..len]).filter(|word| !word.is_empty())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(text) = self.string() {
            return Some(text?.into());
        }
        if self.take("[") {
            let mut list = Vec::new();
            self.items("]", |reader| {
                list.push(reader.value(depth + 1)?);
                Some(())
            })?;
            return Some(Json::Array(list));
        }
        if self.take("{") {
            let mut object = Map::new();
            self.items("}", |reader| {
                let key = match reader.string() {
                    Some(key) => key?,
                    None => reader.word()?.to_owned(),
                };
                reader.take(":").then_some(())?;
                object.insert(key, reader.value(depth + 1)?);
                Some(())
            })?;
            return Some(Json::Object(object));
        }
        let end = |c: char| c.is_whitespace() || ",]})".contains(c);
        let text = self.space();
        let (word, rest) = text.split_at(text.find(end).unwrap_or(text.len()));
        self.rest = rest;
        match word {
            "True" => Some(true.into()),
            "False" => Some(false.into()),
            "None" => Some(Json::Null),
            word => serde_json::from_str(word).ok(),
        }
    }

    /// A text in quotes if there is one; `Some(None)` when it does not end.
    fn string(&mut self) -> Option<Option<String>> {
        if self.take(QUOTE) {
            let found = self.rest.split_once(QUOTE);
            return Some(found.map(|(text, rest)| {
                self.rest = rest;
                text.to_owned()
            }));
        }
        let quote = self.space().chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        let mut chars = self.rest[1..].chars();
        loop {
            match chars.next() {
                None => return Some(None),
                Some(c) if c == quote => break,
                Some('\\') => match escaped(&mut chars) {
                    Some(part) => text.push_str(&part),
                    None => return Some(None),
                },
                Some(c) => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(Some(text))
    }
}

/// The escapes that JSON and Python share; other ones are the two characters, as in Python.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<String> {
    Some(match chars.next()? {
        'n' => "\n".into(),
        't' => "\t".into(),
        'r' => "\r".into(),
        '\n' => String::new(),
        c @ ('\\' | '\'' | '"' | '/') => c.into(),
        'u' => {
            let digits = chars.as_str().get(..4)?;
            *chars = chars.as_str()[4..].chars();
            // Half of a pair becomes the replacement character.
            char::from_u32(u32::from_str_radix(digits, 16).ok()?).unwrap_or('\u{fffd}').into()
        }
        c => format!("\\{c}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_python_and_gemma_write() {
        assert_eq!(
            value(r#"{"a": 'b\'c\n', 'd': [1, -2.5e3, True, None,], "e": {}}"#),
            Some(json!({"a": "b'c\n", "d": [1, -2.5e3, true, null], "e": {}}))
        );
        assert_eq!(
            value(r#"{city:<|"|>K, "y"}<|"|>,days:3,ok:false}"#),
            Some(json!({"city": "K, \"y\"}", "days": 3, "ok": false}))
        );
        assert_eq!(value(r#"'\u6771\d'"#), Some(json!("東\\d")));
        for bad in ["", "{", "'a", "[1 2]", "{a}", "x", "1 2", "'\\", "'\\u12", &"[".repeat(100_000)] {
            assert_eq!(value(bad), None, "{bad:.20}");
        }
    }

    #[test]
    fn reads_calls() {
        let found = calls("[a.b(x='1', y=[2]), c()]").unwrap();
        assert_eq!(
            found.iter().map(|c| (c.name.as_str(), json!(c.arguments))).collect::<Vec<_>>(),
            [("a.b", json!({"x": "1", "y": [2]})), ("c", json!({}))]
        );
        for bad in ["[a(1)]", "[a(x=)]", "a()", "[a(x=1)", "[a]", "[a()] b"] {
            assert_eq!(calls(bad), None, "{bad}");
        }
    }
}

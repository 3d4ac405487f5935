//! Methods of Python's `str`, `list` and `dict` that minijinja-contrib lacks or does differently.

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::{compared, filters, python};

/// Looks a method up for the engine. Methods that change a value are refused, as in the sandbox that
/// transformers runs templates in.
/// What is printed is nested at most `depth` levels.
pub(crate) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
    depth: usize,
) -> Result<Value, Error> {
    let own = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(sep)) if method == "join" => {
            let (values,): (&Value,) = from_args(args)?;
            Some(Value::from(filters::join_items(state, values, sep, None, depth)?))
        }
        (ValueKind::String, Some(s)) => {
            // The engine has them pay for the text itself.
            let texts: usize = args.iter().filter_map(|arg| arg.as_str()).map(str::len).sum();
            state.consume_fuel(texts as u64 / 64)?;
            string_method(state, s, method, args)?
        }
        (ValueKind::Seq, _) => list_method(state, value, method, args)?,
        (ValueKind::Map, _) if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Python's whitespace: Unicode's, and the four information separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip(set)` and its kind, in time that does not grow with the set for every character.
pub(crate) fn strip<'a>(s: &'a str, method: &str, set: Option<&str>) -> &'a str {
    let set: Option<Vec<char>> = set.map(|set| {
        let mut set: Vec<char> = set.chars().collect();
        set.sort_unstable();
        set.dedup();
        set
    });
    let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.binary_search(&c).is_ok());
    match method {
        "strip" => s.trim_matches(strips),
        "lstrip" => s.trim_start_matches(strips),
        _ => s.trim_end_matches(strips),
    }
}

fn string_method(state: &State<'_, '_>, s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(s, method, set))
        }
        "split" | "rsplit" => {
            let (sep, max, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let sep = sep.or(kwargs.get("sep")?).filter(|v| !v.is_none());
            let max = max.or(kwargs.get("maxsplit")?).and_then(|m| usize::try_from(m).ok());
            kwargs.assert_all_used()?;
            let sep = sep.map(|v| v.to_str().ok_or_else(|| invalid("the separator must be a string"))).transpose()?;
            if sep.as_deref() == Some("") {
                return Err(invalid("empty separator"));
            }
            let from_end = method == "rsplit";
            let parts = match (&sep, from_end) {
                (Some(sep), false) => s.splitn(max.map_or(usize::MAX, |m| m.saturating_add(1)), &**sep).collect(),
                (Some(sep), true) => {
                    let mut parts: Vec<_> =
                        s.rsplitn(max.map_or(usize::MAX, |m| m.saturating_add(1)), &**sep).collect();
                    parts.reverse();
                    parts
                }
                (None, false) => split_space(s, max),
                (None, true) => rsplit_space(s, max),
            };
            parts.into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
            kwargs.assert_all_used()?;
            split_lines(s, keep).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (sep,): (&str,) = from_args(args)?;
            if sep.is_empty() {
                return Err(invalid("empty separator"));
            }
            let (found, missing) = match method {
                "partition" => (s.split_once(sep), (s, "", "")),
                _ => (s.rsplit_once(sep), ("", "", s)),
            };
            let (a, b, c) = found.map_or(missing, |(before, after)| (before, sep, after));
            Value::from(Tuple::from([Value::from(a), Value::from(b), Value::from(c)]))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(s.strip_prefix(prefix).unwrap_or(s))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(s.strip_suffix(suffix).unwrap_or(s))
        }
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" if args.len() > 1 => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let (offset, range) = char_range(s, start, end);
            let plain = call_plain(state, range, method, what)?;
            match (plain.as_i64(), method) {
                (Some(at), "find" | "rfind" | "index" | "rindex") if at >= 0 => Value::from(at + offset as i64),
                _ => plain,
            }
        }
        "index" | "rindex" => {
            let (what,): (&Value,) = from_args(args)?;
            call_plain(state, s, method, what)?
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            Value::from(pad(state, s, method, width, fill)?)
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Value::from(s.chars().map(swap).collect::<String>())
        }
        "format" if longest_number(s) > 4 => return Err(invalid("a format's width has too many digits")),
        "title" => {
            let () = from_args(args)?;
            Value::from(title(s))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(s.to_lowercase().replace('ß', "ss"))
        }
        "istitle" => {
            let () = from_args(args)?;
            Value::from(s.chars().any(char::is_alphabetic) && title(s) == s)
        }
        "isprintable" => {
            let () = from_args(args)?;
            Value::from(s.chars().all(python::printable))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let word = s.chars().all(|c| c.is_alphanumeric() || c == '_');
            Value::from(word && s.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!s.is_empty() && s.chars().all(|c| c.is_ascii_digit()))
        }
        _ => return Ok(None),
    }))
}

/// `find`, `index`, `count`, `startswith`, `endswith` on a whole string.
fn call_plain(state: &State<'_, '_>, s: &str, method: &str, what: &Value) -> Result<Value, Error> {
    let text = || what.as_str().ok_or_else(|| invalid("the argument must be a string"));
    let position = |at: Option<usize>| at.map(|at| s[..at].chars().count() as i64);
    state.consume_fuel(s.len() as u64 / 64)?;
    Ok(match method {
        "find" => Value::from(position(s.find(text()?)).unwrap_or(-1)),
        "rfind" => Value::from(position(s.rfind(text()?)).unwrap_or(-1)),
        "index" => Value::from(position(s.find(text()?)).ok_or_else(|| invalid("substring not found"))?),
        "rindex" => Value::from(position(s.rfind(text()?)).ok_or_else(|| invalid("substring not found"))?),
        "count" => Value::from(s.matches(text()?).count()),
        _ => {
            let matches = |affix: &str| if method == "startswith" { s.starts_with(affix) } else { s.ends_with(affix) };
            match what.as_str() {
                Some(affix) => Value::from(matches(affix)),
                None => {
                    let mut any = false;
                    for affix in what.try_iter()?.checked() {
                        let affix = affix?;
                        state.consume_fuel(1 + affix.as_str().map_or(0, str::len) as u64 / 64)?;
                        any |= matches(affix.as_str().ok_or_else(|| invalid("the tuple must contain only strings"))?);
                    }
                    Value::from(any)
                }
            }
        }
    })
}

/// Python's `s[start:end]` in characters, with the number of characters before it.
fn char_range(s: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let len = s.chars().count() as i64;
    let clamp = |i: i64| if i < 0 { (len.saturating_add(i)).max(0) } else { i.min(len) } as usize;
    let (start, end) = (clamp(start.unwrap_or(0)), clamp(end.unwrap_or(len)));
    let byte = |chars: usize| s.char_indices().nth(chars).map_or(s.len(), |(at, _)| at);
    (start, if start < end { &s[byte(start)..byte(end)] } else { "" })
}

/// Digits of the longest number in a text.
fn longest_number(s: &str) -> usize {
    s.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0)
}

/// `str.title`: a letter after anything but a letter becomes upper case, all others lower case.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut in_word = false;
    for c in s.chars() {
        match in_word {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// `split()` at runs of whitespace, at most `max` times.
fn split_space(s: &str, max: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s.trim_start_matches(is_space);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            parts.push(rest.trim_end_matches(is_space));
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

/// `rsplit()` at runs of whitespace, at most `max` times.
fn rsplit_space(s: &str, max: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s.trim_end_matches(is_space);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            parts.push(rest.trim_start_matches(is_space));
            break;
        }
        let tail = rest.rsplit(is_space).next().unwrap_or(rest);
        parts.push(tail);
        rest = rest[..rest.len() - tail.len()].trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// `splitlines`: every line boundary Python knows; no empty line after the last one.
pub(crate) fn split_lines(s: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let (line, end) = match rest.find(is_end) {
            None => (rest.len(), rest.len()),
            Some(at) if rest[at..].starts_with("\r\n") => (at, at + 2),
            Some(at) => (at, at + rest[at..].chars().next().map_or(1, char::len_utf8)),
        };
        lines.push(&rest[..if keep_ends { end } else { line }]);
        rest = &rest[end..];
    }
    lines
}

fn pad(state: &State<'_, '_>, s: &str, method: &str, width: i64, fill: Option<&str>) -> Result<String, Error> {
    let len = s.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(len);
    // Paid for before it is made.
    state.consume_fuel(missing as u64 / 16)?;
    let fill = fill.unwrap_or(" ");
    let mut fill_chars = fill.chars();
    let (Some(_), None) = (fill_chars.next(), fill_chars.next()) else {
        return Err(invalid("the fill character must be exactly one character long"));
    };
    Ok(match method {
        "ljust" => s.to_owned() + &fill.repeat(missing),
        "rjust" => fill.repeat(missing) + s,
        "center" => {
            // CPython puts the odd character on the left only when the width is odd too.
            let left = missing / 2 + (missing & (width as usize) & 1);
            fill.repeat(left) + s + &fill.repeat(missing - left)
        }
        _ => {
            let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
    })
}

fn list_method(state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" | "count" => {
            let (what,): (&Value,) = from_args(args)?;
            let each = compared::size(state, what)?;
            let mut count = 0;
            for (i, item) in value.try_iter()?.checked().enumerate() {
                state.consume_fuel(each)?;
                match item? == *what {
                    true if method == "index" => return Ok(Some(Value::from(i))),
                    found => count += usize::from(found),
                }
            }
            match method {
                "count" => Value::from(count),
                _ => return Err(invalid("the value is not in the list")),
            }
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" | "clear" => {
            return Err(invalid(&format!("{method} would change a list, which templates may not do")));
        }
        _ => return Ok(None),
    }))
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}

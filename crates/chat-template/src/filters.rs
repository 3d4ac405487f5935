//! Filters that minijinja lacks or does differently from Jinja2 and transformers.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::json::{self, JsonStyle};
use crate::{compared, methods, operators, python};

/// Adds the filters; what they print is nested at most `depth` levels.
pub(crate) fn add(env: &mut Environment<'_>, depth: usize) {
    env.add_filter("tojson", move |state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
        tojson(state, value, &args.into_values(), depth)
    });
    env.add_filter("string", move |state: &mut State<'_, '_>, value: &Value| match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => python::str(state, value, depth).map(Value::from),
    });
    env.add_filter("join", move |state: &mut State<'_, '_>, value: &Value, sep: Option<Value>, kwargs: Kwargs| {
        join(state, value, sep, &kwargs, depth)
    });
    env.add_filter("dictsort", |state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
        dictsort(state, value, &args.into_values())
    });
    env.add_filter("indent", move |state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
        indent(state, &python::str(state, value, depth)?, &args.into_values())
    });
    env.add_filter("int", |state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
        let (default, base, kwargs): (Option<Value>, Option<u32>, Kwargs) = from_args(&args.into_values())?;
        let default = argument(default, &kwargs, "default")?.unwrap_or_else(|| Value::from(0));
        let trimmed = value.as_str().map(|text| Value::from(text.trim()));
        minijinja::filters::int(state, trimmed.as_ref().unwrap_or(value), Some(default), base, kwargs)
    });
    for name in ["default", "d"] {
        env.add_filter(name, |value: &Value, args: Rest<ValueOrKwargs>| default(value, &args.into_values()));
    }
    for name in ["escape", "e", "forceescape"] {
        env.add_filter(name, move |state: &mut State<'_, '_>, value: &Value| {
            if value.is_safe() && name != "forceescape" {
                return Ok(value.clone());
            }
            let text = python::str(state, value, depth)?;
            Ok::<_, Error>(Value::from_safe_string(operators::escape(&text)))
        });
    }
    env.add_filter("truncate", |text: &str, args: Rest<ValueOrKwargs>| truncate(text, &args.into_values()));
    env.add_filter("float", |state: &mut State<'_, '_>, value: &Value, default: Option<Value>, kwargs: Kwargs| {
        let default = argument(default, &kwargs, "default")?.unwrap_or_else(|| Value::from(0.0));
        minijinja::filters::float(state, value, Some(default), kwargs)
    });
    env.add_filter("center", move |state: &mut State<'_, '_>, value: &Value, width: Option<i64>| {
        methods::call(state, value, "center", &[Value::from(width.unwrap_or(80))], depth)
    });
    env.add_filter("trim", move |state: &mut State<'_, '_>, value: &Value, chars: Option<Value>, kwargs: Kwargs| {
        let set = argument(chars, &kwargs, "chars")?.map(|v| python::str(state, &v, depth)).transpose()?;
        kwargs.assert_all_used()?;
        state.consume_fuel(set.as_ref().map_or(0, String::len) as u64 / 64)?;
        let text = python::str(state, value, depth)?;
        let trimmed = methods::strip(&text, "strip", set.as_deref());
        Ok::<_, Error>(match value.is_safe() {
            true => Value::from_safe_string(trimmed.to_owned()),
            false => Value::from(trimmed),
        })
    });
    env.add_filter("wordcount", |value: &str| value.split_whitespace().count());
}

/// A positional argument, or the keyword argument `name`; `None` and undefined count as absent.
fn argument(positional: Option<Value>, kwargs: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    let value = match positional {
        Some(value) => Some(value),
        None => kwargs.get::<Option<Value>>(name)?,
    };
    Ok(value.filter(|v| !v.is_none() && !v.is_undefined()))
}

/// Jinja2's `default(value, default_value="", boolean=False)`.
fn default(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (other, boolean, kwargs): (Option<Value>, Option<Value>, Kwargs) = from_args(args)?;
    let other = match other {
        Some(other) => other,
        None => kwargs.get::<Option<Value>>("default_value")?.unwrap_or_else(|| Value::from("")),
    };
    let boolean = argument(boolean, &kwargs, "boolean")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let absent = value.is_undefined() || boolean && !value.is_true();
    Ok(if absent { other } else { value.clone() })
}

/// Jinja2's `truncate(s, length=255, killwords=False, end="...", leeway=5)`, in characters.
fn truncate(text: &str, args: &[Value]) -> Result<String, Error> {
    type Args = (Option<Value>, Option<Value>, Option<Value>, Option<Value>, Kwargs);
    let (length, kill_words, end, leeway, kwargs): Args = from_args(args)?;
    let number = |value: Option<Value>, name, default: usize| match argument(value, &kwargs, name)? {
        Some(value) => usize::try_from(value),
        None => Ok(default),
    };
    let length = number(length, "length", 255)?;
    let leeway = number(leeway, "leeway", 5)?;
    let kill_words = argument(kill_words, &kwargs, "killwords")?.is_some_and(|v| v.is_true());
    let end = argument(end, &kwargs, "end")?.map_or_else(|| "...".to_owned(), |v| v.to_string());
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = text.char_indices().nth(length.saturating_sub(end.chars().count())).map_or(text.len(), |(at, _)| at);
    let kept = &text[..kept];
    Ok(if kill_words { kept } else { kept.rsplit_once(' ').map_or(kept, |(words, _)| words) }.to_owned() + &end)
}

/// transformers' `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(state: &State<'_, '_>, value: &Value, args: &[Value], depth: usize) -> Result<String, Error> {
    type Args = (Option<Value>, Option<Value>, Option<Value>, Option<Value>, Kwargs);
    let (ensure_ascii, indent, separators, sort_keys, kwargs): Args = from_args(args)?;
    let ensure_ascii = argument(ensure_ascii, &kwargs, "ensure_ascii")?;
    let indent = argument(indent, &kwargs, "indent")?.as_ref().map(indentation).transpose()?;
    let separators = argument(separators, &kwargs, "separators")?;
    let sort_keys = argument(sort_keys, &kwargs, "sort_keys")?;
    kwargs.assert_all_used()?;
    let (item_separator, key_separator) = match separators {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = JsonStyle {
        ensure_ascii: ensure_ascii.is_some_and(|v| v.is_true()),
        indent,
        item_separator,
        key_separator,
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
        depth,
        budget: python::budget(state),
    };
    let text = json::dumps(value, &style)?;
    python::charge(state, &text)?;
    Ok(text)
}

/// The text of one indentation level, given as itself or as a number of spaces.
fn indentation(indent: &Value) -> Result<String, Error> {
    const LONGEST: usize = 64;
    let text = match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(i64::try_from(indent.clone())?.clamp(0, LONGEST as i64 + 1) as usize),
    };
    match text.len() <= LONGEST {
        true => Ok(text),
        false => Err(Error::new(ErrorKind::InvalidOperation, format!("an indentation is longer than {LONGEST}"))),
    }
}

/// Jinja2's `join(value, d="", attribute=None)`.
fn join(
    state: &State<'_, '_>,
    value: &Value,
    sep: Option<Value>,
    kwargs: &Kwargs,
    depth: usize,
) -> Result<String, Error> {
    let sep = argument(sep, kwargs, "d")?.map(|v| python::str(state, &v, depth)).transpose()?.unwrap_or_default();
    let attribute = argument(None, kwargs, "attribute")?;
    kwargs.assert_all_used()?;
    join_items(state, value, &sep, attribute.as_ref(), depth)
}

/// The items of `values`, or an attribute of each, with `sep` between them.
pub(crate) fn join_items(
    state: &State<'_, '_>,
    values: &Value,
    sep: &str,
    attribute: Option<&Value>,
    depth: usize,
) -> Result<String, Error> {
    let mut out = String::new();
    for (i, item) in values.try_iter()?.checked().enumerate() {
        let mut item = item?;
        if let Some(attribute) = attribute {
            item = item.get_item(attribute)?;
        }
        if i > 0 {
            out.push_str(sep);
        }
        let text = python::str(state, &item, depth)?;
        state.consume_fuel((sep.len() + text.len()) as u64 / 64 + 1)?;
        out.push_str(&text);
    }
    Ok(out)
}

/// Jinja2's `dictsort(value, case_sensitive=False, by="key", reverse=False)`.
fn dictsort(state: &State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value, Error> {
    type Args = (Option<Value>, Option<Value>, Option<Value>, Kwargs);
    let (case_sensitive, by, reverse, kwargs): Args = from_args(args)?;
    let case_sensitive = argument(case_sensitive, &kwargs, "case_sensitive")?.is_some_and(|v| v.is_true());
    let by_value = argument(by, &kwargs, "by")?.is_some_and(|v| v.as_str() == Some("value"));
    let reverse = argument(reverse, &kwargs, "reverse")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let mut pairs = Vec::new();
    for key in value.try_iter()?.checked() {
        let key = key?;
        let item = value.get_item(&key)?;
        let sort_by = if by_value { &item } else { &key };
        let sort_key = match sort_by.as_str() {
            Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
            _ => sort_by.clone(),
        };
        pairs.push((sort_key, Value::from(Tuple::from([key, item]))));
    }
    let mut size = 0u64;
    for (key, _) in &pairs {
        size = size.saturating_add(compared::size(state, key)?);
    }
    compared::pay_for_sorting(state, size, pairs.len().max(2).ilog2() as u64 + 1)?;
    match reverse {
        true => pairs.sort_by(|a, b| b.0.cmp(&a.0)),
        false => pairs.sort_by(|a, b| a.0.cmp(&b.0)),
    }
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}

/// Jinja2's `indent(s, width=4, first=False, blank=False)`; `width` may be the text of the indentation.
fn indent(state: &State<'_, '_>, text: &str, args: &[Value]) -> Result<String, Error> {
    type Args = (Option<Value>, Option<Value>, Option<Value>, Kwargs);
    let (width, first, blank, kwargs): Args = from_args(args)?;
    let width = argument(width, &kwargs, "width")?.unwrap_or_else(|| Value::from(4));
    let first = argument(first, &kwargs, "first")?.is_some_and(|v| v.is_true());
    let blank = argument(blank, &kwargs, "blank")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let indentation = indentation(&width)?;
    // Jinja2 adds the line end before it splits, so that text that ends with one keeps it.
    let text = format!("{text}\n");
    let lines = methods::split_lines(&text, false);
    state.consume_fuel((lines.len() * (indentation.len() + 1)) as u64 / 64)?;
    let mut out = String::with_capacity(text.len() + lines.len() * indentation.len());
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    Ok(out)
}

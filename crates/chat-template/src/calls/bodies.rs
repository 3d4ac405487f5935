//! What stands between the marks of a tool call, by family. Each reader takes the body and leaves the mark after it.

use serde_json::{Map, Value as Json};

use super::cursor::{Cursor, Stop};
use super::{ToolCall, call, loose};

type Calls = Result<Vec<ToolCall>, Stop>;

/// `{"name": ..., "arguments": {...}}`, `<function=name>...` or GLM's `name<arg_key>...`.
pub(crate) fn tagged(at: &mut Cursor<'_>) -> Calls {
    at.space();
    match at.peek()? {
        '{' => json(at),
        '<' => {
            at.expect("<function=")?;
            function(at)
        }
        _ => keys_and_values(at),
    }
}

/// One call as JSON, or a list of them.
pub(crate) fn json(at: &mut Cursor<'_>) -> Calls {
    at.space();
    calls_of(at.json()?).ok_or(Stop::Bad)
}

/// The calls in a JSON value. Families name the same things differently.
fn calls_of(value: Json) -> Option<Vec<ToolCall>> {
    match value {
        Json::Array(list) => list.into_iter().map(call_of).collect(),
        value => Some(vec![call_of(value)?]),
    }
}

fn call_of(value: Json) -> Option<ToolCall> {
    let Json::Object(mut object) = value else { return None };
    if let Some(Json::Object(function)) = object.remove("function") {
        object.extend(function);
    }
    let mut first = |names: &[&str]| names.iter().find_map(|name| object.remove(*name));
    let Some(Json::String(name)) = first(&["name", "tool_name"]) else { return None };
    let arguments = arguments(first(&["arguments", "parameters"]))?;
    let id = first(&["id", "tool_call_id"]).and_then(|id| id.as_str().map(str::to_owned));
    Some(ToolCall { id, ..call(&name, arguments) })
}

/// Arguments as an object, or as one in a string.
fn arguments(value: Option<Json>) -> Option<Map<String, Json>> {
    match value {
        None | Some(Json::Null) => Some(Map::new()),
        Some(Json::Object(arguments)) => Some(arguments),
        Some(Json::String(text)) => serde_json::from_str(&text).ok(),
        Some(_) => None,
    }
}

fn object(at: &mut Cursor<'_>) -> Result<Map<String, Json>, Stop> {
    match at.json()? {
        Json::Object(arguments) => Ok(arguments),
        _ => Err(Stop::Bad),
    }
}

/// After `<function=`: `name>`, then `<parameter=key>value</parameter>`s or JSON, then `</function>`.
pub(crate) fn function(at: &mut Cursor<'_>) -> Calls {
    let name = at.name()?;
    at.expect(">")?;
    at.space();
    let mut arguments = Map::new();
    if at.peek()? == '{' {
        arguments = object(at)?;
        at.space();
    }
    while !at.take("</function>")? {
        at.expect("<parameter=")?;
        let key = at.name()?;
        at.expect(">")?;
        let value = at.until("</parameter>")?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        arguments.insert(key.to_owned(), plain(value.strip_suffix('\n').unwrap_or(value)));
        at.space();
    }
    Ok(vec![call(name, arguments)])
}

/// A value without its type: what reads as JSON (or as Python's constants) is that, everything else is text.
fn plain(text: &str) -> Json {
    match text.trim() {
        "True" => Json::Bool(true),
        "False" => Json::Bool(false),
        "None" => Json::Null,
        trimmed => match serde_json::from_str(trimmed) {
            Ok(Json::String(_)) | Err(_) => Json::String(text.to_owned()),
            Ok(value) => value,
        },
    }
}

/// `name`, then `<arg_key>key</arg_key><arg_value>value</arg_value>`s.
fn keys_and_values(at: &mut Cursor<'_>) -> Calls {
    let name = at.name()?;
    let mut arguments = Map::new();
    loop {
        at.space();
        if !at.take("<arg_key>")? {
            break;
        }
        let key = at.until("</arg_key>")?.trim();
        at.space();
        at.expect("<arg_value>")?;
        arguments.insert(key.to_owned(), plain(at.until("</arg_value>")?));
    }
    // A name alone could be anything, so this mark must be there.
    let end = at.rest();
    at.expect("</tool_call>")?;
    *at = Cursor::new(end, true);
    Ok(vec![call(name, arguments)])
}

/// `[{"name": ..., "arguments": ..., "id": ...}]`, or `name[CALL_ID]id[ARGS]{...}` with the id left out in most models.
pub(crate) fn mistral(at: &mut Cursor<'_>) -> Calls {
    at.space();
    if matches!(at.peek()?, '[' | '{') {
        return json(at);
    }
    let name = at.name()?;
    let id = if at.take("[CALL_ID]")? { Some(at.name()?.to_owned()) } else { None };
    at.take("[ARGS]")?;
    at.space();
    Ok(vec![ToolCall { id, ..call(name, object(at)?) }])
}

/// V3.1: `name<｜tool▁sep｜>{...}`. V3 and R1: `function<｜tool▁sep｜>name`, and the arguments as a block of code.
pub(crate) fn deepseek(at: &mut Cursor<'_>) -> Calls {
    let head = at.name()?;
    at.expect("<｜tool▁sep｜>")?;
    at.space();
    if at.peek()? == '{' {
        return Ok(vec![call(head, object(at)?)]);
    }
    let name = at.name()?;
    at.space();
    at.expect("```")?;
    at.take("json")?;
    at.space();
    let arguments = object(at)?;
    at.space();
    at.expect("```")?;
    Ok(vec![call(name, arguments)])
}

/// `call:name{key:value,...}`.
pub(crate) fn gemma(at: &mut Cursor<'_>) -> Calls {
    at.space();
    at.expect("call:")?;
    let name = at.name()?;
    if at.peek()? != '{' {
        return Err(Stop::Bad);
    }
    match loose::value(at.up_to("<tool_call|>")?) {
        Some(Json::Object(arguments)) => Ok(vec![call(name, arguments)]),
        _ => Err(Stop::Bad),
    }
}

/// `[name(key=value, ...), ...]`, or the same as JSON.
pub(crate) fn python_list(at: &mut Cursor<'_>) -> Calls {
    at.space();
    if !matches!(at.peek()?, '[' | '{') {
        return Err(Stop::Bad);
    }
    let body = at.up_to("<|tool_call_end|>")?;
    loose::calls(body).or_else(|| calls_of(serde_json::from_str(body).ok()?)).ok_or(Stop::Bad)
}

/// `functions.name:0<|tool_call_argument_begin|>{...}`, of which the first part is the id.
pub(crate) fn kimi(at: &mut Cursor<'_>) -> Calls {
    at.space();
    let id = at.name()?;
    at.space();
    at.expect("<|tool_call_argument_begin|>")?;
    at.space();
    let name = id.strip_prefix("functions.").unwrap_or(id);
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    Ok(vec![ToolCall { id: Some(id.to_owned()), ..call(name, object(at)?) }])
}

/// `{"name": ..., "parameters": ...}`, `name.call(key=value, ...)`, or Python to be run, up to the answer's end.
pub(crate) fn python(at: &mut Cursor<'_>) -> Calls {
    at.space();
    if at.peek()? == '{' {
        return json(at);
    }
    // No answer holds this.
    let code = at.up_to("\0\0")?.trim_end();
    let built_in = loose::calls(&format!("[{code}]")).and_then(|mut calls| match calls.as_mut_slice() {
        [call] => {
            call.name = call.name.strip_suffix(".call")?.to_owned();
            Some(calls)
        }
        _ => None,
    });
    let as_code = || vec![call("python", Map::from_iter([("code".to_owned(), code.into())]))];
    Ok(built_in.unwrap_or_else(as_code))
}

/// `{"name": ..., "parameters": {...}}` without any mark: only this form is a call.
pub(crate) fn bare(at: &mut Cursor<'_>) -> Calls {
    let mut probe = *at;
    probe.expect("{")?;
    probe.space();
    // Other JSON is an answer, which nobody should wait for.
    if !probe.take("\"name\"")? && !probe.take("\"type\"")? {
        return Err(Stop::Bad);
    }
    let value = at.json()?;
    let known = |key: &String| matches!(key.as_str(), "type" | "name" | "parameters");
    let is_call = value.get("parameters").is_some_and(Json::is_object)
        && value.as_object().is_some_and(|object| object.keys().all(known));
    if is_call { calls_of(value).ok_or(Stop::Bad) } else { Err(Stop::Bad) }
}

/// After `functools[`: the rest of a list of calls as JSON.
pub(crate) fn functools(at: &mut Cursor<'_>) -> Calls {
    let mut calls = Vec::new();
    loop {
        calls.extend(json(at)?);
        at.space();
        if at.take("]")? {
            return Ok(calls);
        }
        at.expect(",")?;
    }
}

/// `<｜DSML｜invoke name="f"><｜DSML｜parameter name="key" string="true">value</｜DSML｜parameter></｜DSML｜invoke>`s.
pub(crate) fn dsml(at: &mut Cursor<'_>) -> Calls {
    let mut calls = Vec::new();
    at.space();
    while at.take("<｜DSML｜invoke name=\"")? {
        let name = at.name()?;
        at.expect("\">")?;
        at.space();
        let mut arguments = Map::new();
        while at.take("<｜DSML｜parameter name=\"")? {
            let key = at.name()?;
            at.expect("\" string=\"")?;
            let text = at.name()? == "true";
            at.expect("\">")?;
            let value = at.until("</｜DSML｜parameter>")?;
            arguments.insert(key.to_owned(), if text { value.into() } else { plain(value) });
            at.space();
        }
        at.expect("</｜DSML｜invoke>")?;
        at.space();
        calls.push(call(name, arguments));
    }
    Ok(calls)
}

//! Conversation data as template values that look names up the way Python does.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

/// Methods of Python's `dict`. In Jinja2 `x.items` finds the method even when the mapping has a key "items"
/// (every JSON schema of an array has one); `x["items"]` finds the key.
const DICT_METHODS: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];

/// Methods that would change the mapping: undefined in the sandbox.
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// A JSON object.
#[derive(Debug)]
pub(crate) struct Dict(Value);

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.as_object()?.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match DICT_METHODS.iter().find(|m| **m == key) {
            Some(method) => Some(Value::from_object(Method(method))),
            None if DICT_CHANGES.contains(&key) => None,
            None => self.0.as_object()?.get_value_by_str(key),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.0.as_object().and_then(|o| o.try_iter()) {
            Some(keys) => Enumerator::Iter(keys),
            None => Enumerator::Empty,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.0.len()
    }
}

/// A method that was named but not called: defined, true, without attributes.
#[derive(Debug)]
struct Method(&'static str);

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.0)
    }
}

/// Converts JSON, or returns `None` when it is nested deeper than `depth` levels.
pub(crate) fn from_json(json: &serde_json::Value, depth: usize) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (_, _, f) => Value::from(f.unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => {
            let depth = depth.checked_sub(1)?;
            Value::from(items.iter().map(|v| from_json(v, depth)).collect::<Option<Vec<_>>>()?)
        }
        Json::Object(map) => {
            let depth = depth.checked_sub(1)?;
            let pairs = map.iter().map(|(k, v)| Some((k.as_str(), from_json(v, depth)?)));
            Value::from_object(Dict(Value::from_pairs(pairs.collect::<Option<Vec<_>>>()?)))
        }
    })
}

/// Bytes of text in JSON, a measure of how much a template has to work through.
pub(crate) fn json_bytes(json: &serde_json::Value) -> u64 {
    use serde_json::Value as Json;
    match json {
        Json::String(s) => s.len() as u64 + 8,
        Json::Array(items) => 8 + items.iter().map(json_bytes).sum::<u64>(),
        Json::Object(map) => 8 + map.iter().map(|(k, v)| k.len() as u64 + 8 + json_bytes(v)).sum::<u64>(),
        _ => 8,
    }
}

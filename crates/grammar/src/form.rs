//! What is prescribed, and what the library gets of it.

use crate::error::GrammarError;
use crate::{lark, limits, schema as cost};
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object or an array.
    Json,
    /// JSON that is valid under this schema (draft 2020-12 and older; what cannot be prescribed is refused by name).
    JsonSchema(String),
    /// A text that this matches as a whole: the syntax of the crate `regex`, without looking around.
    Regex(String),
    /// A grammar in llama.cpp's GBNF or in Lark's syntax; which of them, its rules tell.
    Grammar(String),
}

impl Form {
    /// # Errors
    /// Not JSON, too large or nested too deep.
    pub(crate) fn grammar(&self) -> Result<TopLevelGrammar, GrammarError> {
        match self {
            Form::Json => Ok(schema(json!({ "anyOf": [{ "type": "object" }, { "type": "array" }] }))),
            Form::JsonSchema(text) => {
                check(text)?;
                let value: Value = serde_json::from_str(text).map_err(|error| GrammarError::NotJson {
                    // The place is told beside it.
                    reason: error.to_string().split(" at line").next().unwrap_or_default().to_owned(),
                    line: error.line(),
                    column: error.column(),
                })?;
                if !matches!(value, Value::Object(_) | Value::Bool(_)) {
                    return Err(GrammarError::Invalid("a schema is a JSON object".into()));
                }
                cost::check(&value)?;
                Ok(schema(value))
            }
            Form::Regex(text) => {
                check(text)?;
                Ok(TopLevelGrammar::from_regex(text))
            }
            Form::Grammar(text) => {
                check(text)?;
                Ok(TopLevelGrammar::from_lark(lark::from_grammar(text)?))
            }
        }
    }
}

/// A schema, with our own options instead of those it may bring.
fn schema(value: Value) -> TopLevelGrammar {
    let mut object = match value {
        Value::Object(object) => object,
        // `true` allows everything.
        Value::Bool(true) => serde_json::Map::new(),
        other => return TopLevelGrammar::from_json_schema(other),
    };
    let space = format!("[\\x20\\x0A\\x0D\\x09]{{1,{}}}", limits::MAX_SPACE);
    object.insert("x-guidance".into(), json!({ "whitespace_pattern": space }));
    TopLevelGrammar::from_json_schema(object.into())
}

/// Before anything follows its nesting.
fn check(text: &str) -> Result<(), GrammarError> {
    if text.len() > limits::MAX_TEXT {
        return Err(GrammarError::TooLarge { size: text.len(), max: limits::MAX_TEXT });
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limits::MAX_DEPTH {
            return Err(GrammarError::TooDeep { max: limits::MAX_DEPTH });
        }
    }
    Ok(())
}

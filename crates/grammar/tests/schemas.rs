//! Whatever tokens are drawn, an answer is valid under its schema; and what is valid can be written.

#![allow(clippy::unwrap_used)] // a test should not go on

mod common;

use common::{Words, allowed, draw, valid};
use grammar::Form;
use sampler::{Constraint, ConstraintError};
use serde_json::{Value, json};

/// Schemas, what is valid under each, and what is not.
fn schemas() -> Vec<(Value, Vec<&'static str>, Vec<&'static str>)> {
    let closed = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    vec![
        (
            closed(
                json!({ "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0, "maximum": 130 } }),
                json!(["name", "age"]),
            ),
            vec![r#"{"name": "Aoi", "age": 7}"#, "{\n  \"name\":\"\\u0007\\n\",\n  \"age\":130\n}"],
            vec![r#"{"name": "Aoi"}"#, r#"{"name": "Aoi", "age": 131}"#, r#"{"name": 1, "age": 7}"#, "null"],
        ),
        (
            closed(
                json!({ "color": { "enum": ["red", "green", "赤", 3, null, true] }, "kind": { "const": "x\"y" } }),
                json!(["color", "kind"]),
            ),
            vec![r#"{"color":"赤","kind":"x\"y"}"#, r#"{"color":3,"kind":"x\"y"}"#, r#"{"color":null,"kind":"x\"y"}"#],
            vec![r#"{"color":"blue","kind":"x\"y"}"#, r#"{"color":false,"kind":"x\"y"}"#],
        ),
        (
            json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 4 }),
            vec!["[1, 2.5]", "[-0.5,1e3,0,7]"],
            vec!["[1]", "[1,2,3,4,5]", "[1,\"2\"]", "[01,2]"],
        ),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "boolean" }], "items": false, "minItems": 2 }),
            vec![r#"["a", true]"#],
            vec![r#"["a"]"#, r#"["a", true, 1]"#, r#"[true, "a"]"#],
        ),
        (
            json!({ "anyOf": [{ "type": "string", "maxLength": 5 }, { "type": "integer" }, { "type": "null" }] }),
            vec!["\"東京タワー\"", "\"\"", "42", "null"],
            vec!["\"123456\"", "4.2", "[]"],
        ),
        (
            json!({ "type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$" }),
            vec!["\"AB-123\""],
            vec!["\"ab-123\"", "\"AB-12\"", "\"xAB-123\""],
        ),
        (
            json!({
                "$ref": "#/$defs/tree",
                "$defs": { "tree": closed(json!({
                    "value": { "type": "integer", "minimum": -9, "maximum": 9 },
                    "children": { "type": "array", "items": { "$ref": "#/$defs/tree" }, "maxItems": 2 }
                }), json!(["value", "children"])) }
            }),
            vec![r#"{"value":1,"children":[{"value":-2,"children":[]},{"value":0,"children":[]}]}"#],
            vec![r#"{"value":1,"children":[{"value":-2}]}"#],
        ),
        (
            json!({ "allOf": [
                { "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"] },
                { "type": "object", "properties": { "b": { "type": ["boolean", "null"] } }, "required": ["b"] }
            ] }),
            vec![r#"{"a":true,"b":null}"#],
            vec![r#"{"a":true}"#, r#"{"a":null,"b":null}"#],
        ),
        (
            json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
            vec!["{}", r#"{"x":1,"y":-2}"#],
            vec![r#"{"x":"1"}"#],
        ),
    ]
}

#[test]
fn what_is_drawn_is_valid() {
    for (kind, words) in [("BPE", Words::bpe()), ("SPM", Words::spm())] {
        for (schema, ..) in schemas() {
            let mut whole = 0;
            for seed in 0..60 {
                let Some(ids) = draw(&words, words.schema(&schema), seed, 1500) else { continue };
                let text = words.text(&ids);
                let value: Value = match serde_json::from_str(&text) {
                    Ok(value) => value,
                    // It is JSON; a number may have any size there.
                    Err(error) if error.to_string().contains("out of range") => continue,
                    Err(error) => panic!("{error}: {text}"),
                };
                assert!(valid(&schema, &schema, &value), "{kind} {schema}: {text}");
                whole += 1;
            }
            assert!(whole >= 30, "{kind} {schema}: only {whole} came to an end");
        }
    }
}

#[test]
fn what_is_valid_can_be_written_and_nothing_else() {
    for (kind, words) in [("BPE", Words::bpe()), ("SPM", Words::spm())].into_iter().chain(Words::real()) {
        if kind.ends_with(".trim") && kind != "qwen-3.trim" {
            continue;
        }
        for (schema, good, bad) in schemas() {
            for text in good {
                assert!(
                    valid(&schema, &schema, &serde_json::from_str(text).unwrap()),
                    "the check itself: {schema} {text}"
                );
                assert!(words.takes(words.schema(&schema), text), "{kind} {schema} {text}");
            }
            for text in bad {
                if let Ok(value) = serde_json::from_str(text) {
                    assert!(!valid(&schema, &schema, &value), "the check itself: {schema} {text}");
                }
                assert!(!words.takes(words.schema(&schema), text), "{kind} {schema} {text}");
            }
        }
    }
}

#[test]
fn any_json_is_an_object_or_an_array() {
    let words = Words::bpe();
    for (text, fits) in [("{}", true), ("[1, {\"a\": [null]}]", true), ("1", false), ("\"a\"", false), ("", false)] {
        assert_eq!(!text.is_empty() && words.takes(words.compile(Form::Json), text), fits, "{text}");
    }
    for seed in 0..40 {
        if let Some(ids) = draw(&words, words.compile(Form::Json), seed, 800) {
            let value: Value = serde_json::from_str(&words.text(&ids)).unwrap();
            assert!(value.is_object() || value.is_array());
        }
    }
}

#[test]
fn the_last_bracket_completes_an_answer() {
    let words = Words::bpe();
    let mut grammar = words.schema(&json!({ "type": "array", "items": { "type": "null" }, "maxItems": 0 }));
    for byte in *b"[]" {
        assert!(!grammar.is_complete() && !grammar.may_end().unwrap());
        grammar.accept(words.byte(byte)).unwrap();
    }
    assert!(grammar.is_complete(), "nothing can follow");
    // Whoever asks all the same may end the answer, and nothing else.
    let ends: Vec<u32> = allowed(grammar.mask().unwrap().unwrap());
    assert_eq!(ends, words.tokenizer.end_of_generation());
    assert_eq!(grammar.accept(ends[0]), Err(ConstraintError::Refused { token: ends[0] }));
}

#[test]
fn the_end_is_allowed_where_the_answer_may_end() {
    let words = Words::bpe();
    let end = words.tokenizer.end_of_generation()[0];
    let mut grammar = words.schema(&json!({ "type": "integer" }));
    assert!(!grammar.mask().unwrap().unwrap().allows(end));
    assert_eq!(grammar.accept(end), Err(ConstraintError::Refused { token: end }));
    grammar.accept(words.byte(b'-')).unwrap();
    assert!(!grammar.mask().unwrap().unwrap().allows(end), "a sign alone is no number");
    grammar.accept(words.byte(b'4')).unwrap();
    assert!(grammar.mask().unwrap().unwrap().allows(end) && !grammar.is_complete(), "more digits may come");
    grammar.accept(end).unwrap();
    assert!(grammar.is_complete());
}

#[test]
fn white_space_comes_to_its_end() {
    let words = Words::bpe();
    let mut grammar = words.schema(&json!({ "type": "array", "items": { "type": "null" }, "minItems": 1 }));
    grammar.accept(words.byte(b'[')).unwrap();
    let newline = words.byte(b'\n');
    for _ in 0..grammar::limits::MAX_SPACE {
        grammar.accept(newline).unwrap();
    }
    assert_eq!(grammar.accept(newline), Err(ConstraintError::Refused { token: newline }));
    let allowed = allowed(grammar.mask().unwrap().unwrap());
    assert!(!allowed.is_empty() && allowed.iter().all(|id| words.tokenizer.token_bytes(*id)[0] == b'n'), "{allowed:?}");
}

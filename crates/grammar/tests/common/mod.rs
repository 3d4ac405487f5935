//! Vocabularies, random answers, and what a schema says of them.

#![allow(dead_code)] // every test uses a part of this
#![allow(clippy::unwrap_used)] // a test should not go on

use gguf::Gguf;
use grammar::{Form, Grammar, Vocabulary};
use sampler::{Constraint, Mask};
use serde_json::Value;
use test_models::ModelSpec;
use tokenizer::{TokenKind, Tokenizer};

/// A tokenizer and its vocabulary.
pub struct Words {
    pub tokenizer: Tokenizer,
    pub vocabulary: Vocabulary,
}

impl Words {
    pub fn of_file(file: &[u8]) -> Words {
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(file, file.len() as u64).unwrap()).unwrap();
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        Words { tokenizer, vocabulary }
    }

    pub fn bpe() -> Words {
        Words::of_file(&ModelSpec::qwen3().build())
    }

    pub fn spm() -> Words {
        Words::of_file(&ModelSpec::llama().build())
    }

    /// Parts of vocabularies of real models; llama's is whole.
    pub fn real() -> Vec<(&'static str, Words)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tokenizer/tests/fixtures");
        ["ggml-vocab-llama-spm", "qwen-3.trim", "gemma-4pre.trim", "gpt-4o.trim", "llama-3.trim"]
            .map(|name| {
                let file = std::fs::read(folder.join(format!("{name}.gguf")));
                (name, Words::of_file(&file.unwrap()))
            })
            .into()
    }

    pub fn schema(&self, schema: &Value) -> Grammar {
        self.compile(Form::JsonSchema(schema.to_string()))
    }

    pub fn compile(&self, form: Form) -> Grammar {
        self.vocabulary.compile(&form).unwrap_or_else(|error| panic!("{form:?}: {error}"))
    }

    /// Whether the grammar takes the text as the tokenizer writes it, and may end after it.
    pub fn takes(&self, mut grammar: Grammar, text: &str) -> bool {
        let ids = self.tokenizer.encode(text, tokenizer::Encode { add_special: false, parse_special: false });
        // A space that the tokenizer adds is not part of the text.
        let ids = if self.tokenizer.token_bytes(ids[0]).first() == Some(&b' ') && !text.starts_with(' ') {
            text.bytes().map(|byte| self.byte(byte)).collect()
        } else {
            ids
        };
        ids.iter().all(|id| grammar.accept(*id).is_ok()) && grammar.may_end().unwrap()
    }

    /// The token that is one byte; of two, the one that text becomes.
    pub fn byte(&self, byte: u8) -> u32 {
        let all = 0..self.tokenizer.vocab_size() as u32;
        let found = all.filter(|id| self.tokenizer.token_bytes(*id) == [byte]);
        let found = found.min_by_key(|id| (self.tokenizer.token_kind(*id) == TokenKind::Byte, *id));
        found.unwrap_or_else(|| panic!("no token for {byte}"))
    }

    pub fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.tokenizer.token_bytes(*id)).collect();
        String::from_utf8(bytes).expect("whole characters")
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

pub fn allowed(mask: &Mask) -> Vec<u32> {
    (0..mask.len() as u32).filter(|token| mask.allows(*token)).collect()
}

/// An answer of tokens that are drawn evenly, with some haste to close what is open; `None` if it did not end.
pub fn draw(words: &Words, mut grammar: Grammar, seed: u64, most: usize) -> Option<Vec<u32>> {
    let mut random = Random(seed);
    let mut ids = Vec::new();
    while ids.len() < most {
        let tokens = allowed(grammar.mask().unwrap().expect("always a mask"));
        let closes = |id: &u32| matches!(words.tokenizer.token_bytes(*id)[..], [b'"' | b'}' | b']']);
        let closing: Vec<u32> = tokens.iter().copied().filter(closes).collect();
        let from = if !closing.is_empty() && random.below(4) == 0 { &closing } else { &tokens };
        let token = from[random.below(from.len())];
        if words.tokenizer.is_eog(token) {
            assert!(grammar.may_end().unwrap());
            return Some(ids);
        }
        grammar.accept(token).unwrap();
        ids.push(token);
        if grammar.is_complete() {
            return Some(ids);
        }
    }
    None
}

/// Whether a value is valid under a schema of the keywords that the tests use.
pub fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    schema.iter().all(|(keyword, is)| match keyword.as_str() {
        "type" => match is {
            Value::Array(types) => types.iter().any(|ty| is_type(ty, value)),
            ty => is_type(ty, value),
        },
        "const" => equal(is, value),
        "enum" => list("enum").iter().any(|one| equal(one, value)),
        "anyOf" => list("anyOf").iter().any(|schema| valid(root, schema, value)),
        "allOf" => list("allOf").iter().all(|schema| valid(root, schema, value)),
        "$ref" => valid(root, root.pointer(is.as_str().unwrap().trim_start_matches('#')).unwrap(), value),
        "minimum" => value.as_f64().is_none_or(|value| value >= number("minimum").unwrap()),
        "maximum" => value.as_f64().is_none_or(|value| value <= number("maximum").unwrap()),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 >= number("minLength").unwrap()),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 <= number("maxLength").unwrap()),
        "pattern" => value.as_str().is_none_or(|text| regex::Regex::new(is.as_str().unwrap()).unwrap().is_match(text)),
        "minItems" => value.as_array().is_none_or(|list| list.len() as f64 >= number("minItems").unwrap()),
        "maxItems" => value.as_array().is_none_or(|list| list.len() as f64 <= number("maxItems").unwrap()),
        "prefixItems" => value.as_array().is_none_or(|values| {
            values.iter().zip(list("prefixItems")).all(|(value, schema)| valid(root, schema, value))
        }),
        "items" => value
            .as_array()
            .is_none_or(|values| values.iter().skip(list("prefixItems").len()).all(|value| valid(root, is, value))),
        "required" => value
            .as_object()
            .is_none_or(|object| list("required").iter().all(|name| object.contains_key(name.as_str().unwrap()))),
        "properties" => value.as_object().is_none_or(|object| {
            let known = is.as_object().unwrap();
            object.iter().all(|(name, value)| known.get(name).is_none_or(|schema| valid(root, schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = schema.get("properties").and_then(Value::as_object);
            let more = object.iter().filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)));
            more.into_iter().all(|(_, value)| valid(root, is, value))
        }),
        "$defs" | "title" | "description" => true,
        other => panic!("the check does not know {other}"),
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn is_type(ty: &Value, value: &Value) -> bool {
    match ty.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    }
}

//! Vocabularies that lack something, contradict themselves or were made to hurt.

#![allow(clippy::unwrap_used)]

use gguf::{Array, Gguf, GgufWriter, Strings, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use tokenizer::{Encode, Tokenizer, TokenizerError};

const FULL: Encode = Encode { add_special: true, parse_special: true };

fn strings<T: AsRef<[u8]>>(texts: &[T]) -> Value {
    Value::Array(Array::Strings(Strings::from_iter(texts.iter().map(|text| text.as_ref().to_vec()))))
}

fn numbers(numbers: &[i32]) -> Value {
    Value::Array(Array::from(numbers))
}

fn build(metadata: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let mut writer = GgufWriter::new();
    for (key, value) in metadata {
        writer.set(&format!("tokenizer.ggml.{key}"), value.clone()).unwrap();
    }
    let header = writer.header().unwrap();
    Tokenizer::from_gguf(&Gguf::parse(&header, header.len() as u64).unwrap())
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(build(&[]).err(), Some(TokenizerError::Missing("tokenizer.ggml.model")));
    let model = ("model", text("gpt2"));
    assert_eq!(build(std::slice::from_ref(&model)).err(), Some(TokenizerError::Missing("tokenizer.ggml.tokens")));
    let tokens = ("tokens", strings(&["a"]));
    assert_eq!(build(&[model.clone(), tokens.clone()]).err(), Some(TokenizerError::Missing("tokenizer.ggml.merges")));
    let wrong_type = ("merges", numbers(&[1]));
    assert!(build(&[model.clone(), tokens.clone(), wrong_type]).is_err());
    let no_tokens = ("tokens", strings::<&str>(&[]));
    assert!(matches!(build(&[model.clone(), no_tokens]), Err(TokenizerError::Damaged(_))));
    let no_pair = ("merges", strings(&["ab"]));
    assert!(matches!(build(&[model, tokens.clone(), no_pair]), Err(TokenizerError::Damaged(_))));
    let unknown = build(&[("model", text("bert")), tokens]);
    assert_eq!(unknown.err(), Some(TokenizerError::Unsupported("bert".into())));
}

#[test]
fn ids_and_lists_of_wrong_size_do_no_harm() {
    let tokenizer = build(&[
        ("model", text("llama")),
        ("tokens", strings(&["<unk>", "▁a", "a"])),
        ("scores", Value::Array(Array::from([f32::NAN].as_slice()))),
        ("token_type", numbers(&[2])),
        ("bos_token_id", Value::U32(7)),
        ("eos_token_id", Value::I32(-1)),
        ("add_eos_token", Value::Bool(true)),
    ])
    .unwrap();
    // Without bytes, what is no token is the unknown token.
    assert_eq!(tokenizer.encode("ab", FULL), [1, 1, 0, 2]);
    assert_eq!(tokenizer.token_bytes(99), b"");
    assert_eq!(tokenizer.decode(&[1, 99]), b"a");
}

#[test]
fn tokens_that_double_do_not_take_quadratic_time() {
    let tokens: Vec<String> = (0..18).map(|power| "a".repeat(1 << power)).collect();
    let merges: Vec<String> = (0..17).map(|power| format!("{0} {0}", "a".repeat(1 << power))).collect();
    let tokenizer =
        build(&[("model", text("gpt2")), ("tokens", strings(&tokens)), ("merges", strings(&merges))]).unwrap();
    assert_eq!(tokenizer.encode("a".repeat(3 << 17), FULL), [17; 3]);
}

#[test]
fn special_tokens_have_a_bound() {
    let tokens: Vec<String> = (0..6).map(|index| format!("{index}{}", "x".repeat(1 << 20))).collect();
    let types = numbers(&[3; 6]);
    let tokenizer = build(&[("model", text("llama")), ("tokens", strings(&tokens)), ("token_type", types)]);
    assert!(matches!(tokenizer, Err(TokenizerError::Damaged(_))));
}

proptest! {
    /// Any vocabulary and any text: an error or ids of the vocabulary.
    #[test]
    fn any_vocabulary_is_survived(
        model in prop::sample::select(vec!["llama", "gpt2", "gemma4"]),
        pre in prop::sample::select(vec!["qwen2", "deepseek-llm", "gemma4", "superbpe", "kimi-k2", "?"]),
        tokens in vec(prop_oneof![vec(any::<u8>(), 0..4), "[ab ▁\n<>]{0,3}".prop_map(String::into_bytes)], 1..40),
        merges in vec("[abĠ▁]{1,2} [abĠ▁]{1,2}", 0..10),
        types in vec(0i32..8, 0..40),
        scores in vec(any::<f32>(), 0..40),
        input in vec(prop_oneof![any::<u8>(), Just(b'a'), Just(b' ')], 0..40),
    ) {
        let tokenizer = build(&[
            ("model", text(model)),
            ("pre", text(pre)),
            ("tokens", strings(&tokens)),
            ("merges", strings(&merges)),
            ("token_type", numbers(&types)),
            ("scores", Value::Array(Array::from(scores.as_slice()))),
        ]);
        if let Ok(tokenizer) = tokenizer {
            let ids = tokenizer.encode(&input, FULL);
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            tokenizer.decode(&ids);
        }
    }
}

//! Ids and texts recorded from llama.cpp, and properties.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;
use tokenizer::{Encode, Tokenizer};

const PLAIN: Encode = Encode { add_special: false, parse_special: false };

fn load(name: &str) -> Tokenizer {
    let path = format!("{}/tests/fixtures/{name}.gguf", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    Tokenizer::from_gguf(&gguf::Gguf::parse(&bytes, bytes.len() as u64).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn check(name: &str) {
    let tokenizer = load(name);
    let path = format!("{}/tests/fixtures/{name}.expected.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 80);
    for case in cases {
        let text = case["text"].as_str().map_or_else(|| unhex(case["hex"].as_str().unwrap()), |text| text.into());
        let shown = String::from_utf8_lossy(&text).into_owned();
        let full = tokenizer.encode(&text, Encode { add_special: true, parse_special: true });
        assert_eq!(full, ids(&case["ids"]), "{name} {shown:?}");
        assert_eq!(tokenizer.encode(&text, PLAIN), ids(&case["ids_plain"]), "{name} {shown:?}");
        let back = case["plain_detok_hex"].as_str().map_or(text, unhex);
        assert_eq!(tokenizer.decode(&ids(&case["ids_plain"])), back, "{name} {shown:?}");
    }
}

#[test]
fn qwen_3() {
    check("qwen-3.trim");
}

#[test]
fn llama_3() {
    check("llama-3.trim");
}

#[test]
fn gpt_4o() {
    check("gpt-4o.trim");
}

#[test]
fn sentencepiece() {
    check("ggml-vocab-llama-spm");
}

#[test]
fn gemma_4() {
    check("gemma-4pre.trim");
}

#[test]
fn turns_end_with_the_tokens_that_the_models_end_them_with() {
    let qwen = load("qwen-3.trim");
    for text in ["<|im_end|>", "<|endoftext|>"] {
        assert!(qwen.is_eog(qwen.token_id(text).unwrap()), "{text}");
    }
    assert!(!qwen.is_eog(qwen.token_id("<|im_start|>").unwrap()));
    assert!(!qwen.is_eog(1_000_000));
}

#[test]
fn markup_in_what_a_user_typed_stays_text() {
    let qwen = load("qwen-3.trim");
    let end = qwen.token_id("<|im_end|>").unwrap();
    assert!(!qwen.encode("a<|im_end|>b", PLAIN).contains(&end));
    assert!(qwen.encode("a<|im_end|>b", Encode { add_special: false, parse_special: true }).contains(&end));
}

#[test]
fn a_long_line_of_one_character_is_encoded_in_bounded_time() {
    let qwen = load("qwen-3.trim");
    let spm = load("ggml-vocab-llama-spm");
    let gemma = load("gemma-4pre.trim");
    for character in [" ", "a", "日", "\n", "\u{200d}", " \n", "aA", "'s"] {
        let text = character.repeat(300_000 / character.len());
        for tokenizer in [&qwen, &spm, &gemma] {
            let ids = tokenizer.encode(&text, PLAIN);
            assert_eq!(lossy(tokenizer, &ids).trim_start_matches([' ', '▁']), text.trim_start_matches(' '));
        }
    }
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.detokenizer();
    let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
    text.push_str(&stream.finish());
    text
}

/// What the tokens' bytes say, with U+FFFD for what is no character.
fn lossy(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let whole: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
    String::from_utf8_lossy(&whole).into_owned()
}

static QWEN: LazyLock<Tokenizer> = LazyLock::new(|| load("qwen-3.trim"));
static SPM: LazyLock<Tokenizer> = LazyLock::new(|| load("ggml-vocab-llama-spm"));

proptest! {
    #[test]
    fn text_survives(text in "\\PC{0,60}|[a-z \n\t]{0,80}") {
        prop_assert_eq!(QWEN.decode(&QWEN.encode(&text, PLAIN)), text.as_bytes());
    }

    #[test]
    fn bytes_never_fail(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for tokenizer in [&*QWEN, &*SPM] {
            let ids = tokenizer.encode(&bytes, Encode { add_special: true, parse_special: true });
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            prop_assert_eq!(stream(tokenizer, &ids), lossy(tokenizer, &ids));
        }
    }

    #[test]
    fn streaming_gives_the_text_of_random_tokens(ids in prop::collection::vec(0u32..20_000, 0..40)) {
        prop_assert_eq!(stream(&QWEN, &ids), lossy(&QWEN, &ids));
    }

    /// Ids 3 to 258 are the bytes, which spell characters, parts of them and what is no character.
    #[test]
    fn byte_tokens_become_characters(ids in prop::collection::vec(prop_oneof![3u32..259, 131u32..259, 0u32..32_000], 0..60)) {
        prop_assert_eq!(stream(&SPM, &ids), lossy(&SPM, &ids));
    }

    /// A character comes out with its last byte, and nothing of it before.
    #[test]
    fn characters_come_out_whole(text in "\\PC{0,20}") {
        let mut stream = SPM.detokenizer();
        for character in text.chars() {
            let bytes = character.to_string().into_bytes();
            let pieces: Vec<String> = bytes.iter().map(|byte| stream.push(3 + u32::from(*byte))).collect();
            prop_assert!(pieces[..bytes.len() - 1].iter().all(String::is_empty));
            prop_assert_eq!(pieces[bytes.len() - 1].as_str(), character.to_string());
        }
        prop_assert_eq!(stream.finish(), "");
    }
}

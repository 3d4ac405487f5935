//! A vocabulary's own bytes: characters in pieces, control tokens, tokens that are the same, damage.

#![allow(clippy::unwrap_used)] // a test should not go on

mod common;

use common::{Words, allowed};
use gguf::{GgufWriter, Strings, Value};
use grammar::{Form, Vocabulary};
use sampler::{Constraint, ConstraintError};
use serde_json::json;
use tokenizer::{TokenKind, Tokenizer};

#[test]
fn characters_come_in_pieces_and_whole() {
    for (kind, words) in [("BPE", Words::bpe()), ("SPM", Words::spm())].into_iter().chain(Words::real()) {
        let mut grammar = words.schema(&json!({ "type": "string", "minLength": 2, "maxLength": 2 }));
        for byte in "\"語".bytes() {
            grammar.accept(words.byte(byte)).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        // Within a character nothing comes but the rest of it.
        let [first, second, third, fourth] = "🦀".bytes().collect::<Vec<_>>()[..] else { panic!() };
        grammar.accept(words.byte(first)).unwrap();
        let quote = words.byte(b'"');
        assert_eq!(grammar.accept(quote), Err(ConstraintError::Refused { token: quote }), "{kind}");
        let mask = grammar.mask().unwrap().unwrap();
        let continues = |id: &u32| (0x80..=0xbf).contains(&words.tokenizer.token_bytes(*id)[0]);
        assert!(allowed(mask).iter().all(continues), "{kind}");
        for byte in [second, third, fourth, b'"'] {
            grammar.accept(words.byte(byte)).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        assert!(grammar.is_complete(), "{kind}");
    }
}

#[test]
fn control_tokens_are_no_text() {
    for (kind, words) in [("BPE", Words::bpe()), ("SPM", Words::spm())].into_iter().chain(Words::real()) {
        let ids = 0..words.tokenizer.vocab_size() as u32;
        let apart = |id: u32| {
            matches!(words.tokenizer.token_kind(id), TokenKind::Control | TokenKind::Unknown | TokenKind::Unused)
        };
        let mut text = words.compile(Form::Regex("(?s).*x".into()));
        let mut string = words.schema(&json!({ "type": "string" }));
        string.accept(words.byte(b'"')).unwrap();
        for grammar in [&mut text, &mut string] {
            let mask = grammar.mask().unwrap().unwrap().clone();
            assert!(allowed(&mask).len() > 100, "{kind}: text is allowed");
            for id in ids.clone().filter(|id| apart(*id)) {
                assert!(!mask.allows(id), "{kind}: {:?}", String::from_utf8_lossy(words.tokenizer.token_text(id)));
                assert_eq!(grammar.accept(id), Err(ConstraintError::Refused { token: id }), "{kind}");
            }
        }
    }
}

#[test]
fn a_grammar_may_ask_for_a_control_token() {
    let words = Words::bpe();
    let start = words.tokenizer.token_id("<|im_start|>").unwrap();
    let mut grammar = words.compile(Form::Grammar("start: <|im_start|> \"a\"".into()));
    assert_eq!(allowed(grammar.mask().unwrap().unwrap()), [start]);
    grammar.accept(start).unwrap();
    grammar.accept(words.byte(b'a')).unwrap();
    assert!(grammar.is_complete());
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused() {
    let words = Words::bpe();
    let mut grammar = words.compile(Form::Json);
    for token in [words.tokenizer.vocab_size() as u32, u32::MAX] {
        assert_eq!(grammar.accept(token), Err(ConstraintError::Refused { token }));
    }
    assert!(grammar.mask().unwrap().unwrap().allows(words.byte(b'{')), "the grammar goes on");
}

/// A vocabulary of SentencePiece with these tokens and their kinds, after the usual three and the bytes.
fn spm(tokens: &[(Vec<u8>, i32)]) -> Tokenizer {
    spm_with(BYTE, tokens)
}

const NORMAL: i32 = 1;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

fn spm_with(bytes: i32, tokens: &[(Vec<u8>, i32)]) -> Tokenizer {
    let mut texts: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(|text| text.as_bytes().to_vec()).into();
    let mut kinds = vec![2, 3, 3];
    for byte in 0..=255u8 {
        texts.push(format!("<0x{byte:02X}>").into_bytes());
        kinds.push(bytes);
    }
    for (text, kind) in tokens {
        texts.push(text.clone());
        kinds.push(*kind);
    }
    let mut writer = GgufWriter::new();
    let entries: [(&str, Value); 5] = [
        ("general.architecture", "llama".into()),
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.scores", Value::from(&vec![0f32; texts.len()][..])),
        ("tokenizer.ggml.token_type", Value::from(&kinds[..])),
        ("tokenizer.ggml.tokens", Strings::from_iter(&texts).into()),
    ];
    for (key, value) in entries {
        writer.set(key, value).unwrap();
    }
    let file = writer.header().unwrap();
    Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64).unwrap()).unwrap()
}

fn token(text: &str) -> (Vec<u8>, i32) {
    (text.as_bytes().to_vec(), NORMAL)
}

#[test]
fn of_tokens_with_the_same_bytes_the_one_that_text_becomes_is_offered() {
    let tokenizer = spm(&[token("a"), token("ab"), token("ab"), token("\u{2581}"), token(" ")]);
    let words = Words { vocabulary: Vocabulary::new(&tokenizer).unwrap(), tokenizer };
    let offered = |pattern: &str| allowed(words.compile(Form::Regex(pattern.into())).mask().unwrap().unwrap());
    let (byte_a, a, first_ab) = (3 + u32::from(b'a'), 259, 260);
    assert_eq!(offered("ab"), [a, first_ab]);
    assert!(!offered("ab").contains(&byte_a));
    assert_eq!(offered(" "), [262], "the escaped space, which text becomes, comes first");
    assert_eq!(offered("c"), [3 + u32::from(b'c')], "a byte that no other token has");
}

#[test]
fn damaged_vocabularies_are_refused_or_work() {
    // Bytes that are no text, the mark of control tokens, and tokens too long for the tree.
    let odd = [vec![0xff], b"\xff[259]".to_vec(), vec![0xc3], vec![], vec![b'x'; 2000], vec![b'y'; 100_000]];
    let tokenizer = spm(&odd.map(|text| (text, NORMAL)));
    let words = Words { vocabulary: Vocabulary::new(&tokenizer).unwrap(), tokenizer };
    let grammar = || words.compile(Form::Regex("x{3000}|é".into()));
    let offered = allowed(grammar().mask().unwrap().unwrap());
    assert!(offered.contains(&(3 + u32::from(b'x'))) && !offered.iter().any(|id| [259, 260, 263].contains(id)));
    assert!(grammar().accept(263).is_err(), "too long to be offered, and to be taken");
    // A tree of more nodes than it can number.
    let long = |i: u32| ([&i.to_le_bytes()[..], &[b'z'; 500]].concat(), NORMAL);
    let tokenizer = spm(&(0..9000).map(long).collect::<Vec<_>>());
    let error = Vocabulary::new(&tokenizer).err().unwrap();
    assert!(matches!(error, grammar::GrammarError::Vocabulary(_)), "{error}");
}

#[test]
fn what_the_vocabulary_cannot_write_is_said() {
    let tokenizer = spm_with(UNUSED, &[token("a"), token("{")]);
    let words = Words { vocabulary: Vocabulary::new(&tokenizer).unwrap(), tokenizer };
    let mut grammar = words.compile(Form::Regex("aé".into()));
    grammar.accept(259).unwrap();
    assert_eq!(grammar.mask(), Err(ConstraintError::Stuck));
    assert_eq!(words.compile(Form::Regex("é".into())).mask(), Err(ConstraintError::Stuck));
}

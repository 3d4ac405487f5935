//! Two small vocabularies that encode every text: all bytes, some merges, the usual control tokens.

use gguf::{Strings, Value};

use crate::Vocabulary;

/// ChatML.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
     message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' \
     }}{% endif %}";

/// The fewest tokens a vocabulary can have: all bytes, all pieces, all control tokens of either kind.
pub const MIN_VOCABULARY: u32 = 384;

/// Token types of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Merges in order of rank; each side is a byte or the result of an earlier merge.
const MERGES: &[(&str, &str)] = &[
    (" ", "t"),
    ("h", "e"),
    (" t", "he"),
    (" ", "a"),
    ("i", "n"),
    ("e", "r"),
    ("o", "n"),
    (" ", "s"),
    ("r", "e"),
    (" ", "w"),
    ("a", "n"),
    (" ", "o"),
    ("a", "t"),
    ("e", "n"),
    ("n", "d"),
    (" ", "c"),
    ("e", "s"),
    ("o", "r"),
    ("i", "s"),
    ("i", "t"),
    (" ", "b"),
    ("in", "g"),
    (" ", "f"),
    ("o", "u"),
    (" ", "p"),
    (" ", "m"),
    ("e", "d"),
    (" a", "nd"),
    (" o", "f"),
    (" t", "o"),
    (" ", "in"),
    ("l", "l"),
    ("he", "ll"),
    ("hell", "o"),
    (" w", "or"),
    ("l", "d"),
    (" wor", "ld"),
    (" ", "is"),
    (" ", "h"),
    (" ", "y"),
    (" y", "ou"),
    (" ", "on"),
];

/// All `tokenizer.*` entries for `count` tokens.
pub(crate) fn metadata(vocabulary: Vocabulary, count: u32) -> Vec<(String, Value)> {
    assert!(count >= MIN_VOCABULARY, "a vocabulary needs {MIN_VOCABULARY} tokens at least, not {count}");
    let mut entries = match vocabulary {
        Vocabulary::Bpe { pre } => bpe(pre, count as usize),
        Vocabulary::Spm => spm(count as usize),
    };
    entries.push(("chat_template", CHAT_TEMPLATE.into()));
    entries.into_iter().map(|(key, value)| (format!("tokenizer.{key}"), value)).collect()
}

type Entries = Vec<(&'static str, Value)>;

/// GPT-2's printable stand-in for every byte.
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or(' ')
}

fn bpe(pre: &str, count: usize) -> Entries {
    let spell = |text: &str| text.bytes().map(stand_in).collect::<String>();
    let mut tokens: Vec<String> = (0..=255).map(|byte| stand_in(byte).into()).collect();
    tokens.extend(MERGES.iter().map(|(left, right)| spell(left) + &spell(right)));
    let mut types = vec![NORMAL; tokens.len()];
    let control = ["<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>"];
    let first_control = count - control.len();
    pad(&mut tokens, &mut types, first_control);
    tokens.extend(control.map(String::from));
    types.resize(count, CONTROL);

    let id = |n: usize| Value::U32((first_control + n) as u32);
    vec![
        ("ggml.model", "gpt2".into()),
        ("ggml.pre", pre.into()),
        ("ggml.tokens", Strings::from_iter(&tokens).into()),
        ("ggml.token_type", types.as_slice().into()),
        ("ggml.merges", Strings::from_iter(MERGES.iter().map(|(l, r)| spell(l) + " " + &spell(r))).into()),
        ("ggml.bos_token_id", id(1)),
        ("ggml.eos_token_id", id(0)),
        ("ggml.eot_token_id", id(3)),
        ("ggml.add_bos_token", false.into()),
    ]
}

fn spm(count: usize) -> Entries {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut types = vec![UNKNOWN, CONTROL, CONTROL];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), BYTE);
    let mut scores = vec![0f32; tokens.len()];
    let spell = |text: &str| text.replace(' ', "\u{2581}");
    // SentencePiece joins the neighbours that make the piece with the highest score: earlier merges score higher.
    for (rank, (left, right)) in MERGES.iter().enumerate() {
        tokens.push(spell(left) + &spell(right));
        scores.push(-(rank as f32));
    }
    for piece in ('a'..='z').map(String::from).chain([" ", ".", ",", "\u{3042}", "\u{3044}"].map(String::from)) {
        tokens.push(spell(&piece));
        scores.push(-1000.0 - tokens.len() as f32);
    }
    types.resize(tokens.len(), NORMAL);
    let control = ["<|im_start|>", "<|im_end|>"];
    let first_control = count - control.len();
    pad(&mut tokens, &mut types, first_control);
    tokens.extend(control.map(String::from));
    types.resize(count, CONTROL);
    scores.resize(count, 0.0);
    vec![
        ("ggml.model", "llama".into()),
        ("ggml.tokens", Strings::from_iter(&tokens).into()),
        ("ggml.scores", scores.as_slice().into()),
        ("ggml.token_type", types.as_slice().into()),
        ("ggml.bos_token_id", 1u32.into()),
        ("ggml.eos_token_id", 2u32.into()),
        ("ggml.eot_token_id", ((count - 1) as u32).into()),
        ("ggml.unknown_token_id", 0u32.into()),
        ("ggml.add_bos_token", true.into()),
    ]
}

/// Unused tokens up to `count`.
fn pad(tokens: &mut Vec<String>, types: &mut Vec<i32>, count: usize) {
    for n in tokens.len()..count {
        tokens.push(format!("<unused{n}>"));
        types.push(UNUSED);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_merge_joins_what_exists() {
        let mut known: HashSet<String> = (0..=127u8).map(|byte| char::from(byte).into()).collect();
        for (left, right) in MERGES {
            assert!(known.contains(*left) && known.contains(*right), "{left:?} + {right:?}");
            assert!(known.insert(format!("{left}{right}")), "{left:?} + {right:?} twice");
        }
    }

    #[test]
    fn stand_ins_are_distinct_and_gpt2s() {
        let all: HashSet<char> = (0..=255).map(stand_in).collect();
        assert_eq!(all.len(), 256);
        assert_eq!((stand_in(b' '), stand_in(b'a'), stand_in(0), stand_in(0x81)), ('Ġ', 'a', 'Ā', 'ģ'));
    }

    #[test]
    fn vocabularies_have_the_asked_size_and_distinct_tokens() {
        for vocabulary in [Vocabulary::Spm, Vocabulary::Bpe { pre: "qwen2" }] {
            for count in [MIN_VOCABULARY, 1000] {
                let entries = metadata(vocabulary, count);
                let get = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                let tokens = get("tokenizer.ggml.tokens").unwrap();
                let strings = tokens.as_array().unwrap().strings().unwrap();
                assert_eq!(strings.iter().collect::<HashSet<_>>().len(), count as usize);
                assert_eq!(get("tokenizer.ggml.token_type").unwrap().as_array().unwrap().len(), count as usize);
                let eot = get("tokenizer.ggml.eot_token_id").unwrap().as_u64().unwrap();
                assert_eq!(strings.get(eot as usize), Some(b"<|im_end|>".as_slice()));
            }
        }
    }
}

//! How texts are cut into pieces before BPE merges: one list of patterns for each kind of pre-tokenizer.
//!
//! The patterns are those of the models' own tokenizers. Each pattern cuts the pieces that the ones before have left,
//! into its matches and what lies between them.

use fancy_regex::{Regex, RegexBuilder};
use std::ops::Range;

/// A kind of pre-tokenizer (`tokenizer.ggml.pre`).
pub(crate) struct Pretokenizer {
    patterns: Vec<Regex>,
    /// A piece that is a token as a whole is not merged.
    pub whole_words: bool,
    /// BOS is added unless the file says otherwise.
    pub adds_bos: bool,
    /// The name was not known: GPT-2's rules are used.
    pub unknown: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &[&str] = &[
    r"\p{N}{1,3}",
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
const DEEPSEEK_CODER: &[&str] =
    &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+", r"\p{N}"];
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    r"\s?[\p{Lu}\p{Ll}\p{Lt}--[ªº]]+",
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
    r"\s+$",
    r"[\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+",
    r"\p{N}+",
];
const FALCON: &[&str] = &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"];
const DIGITS_THEN_GPT2: &[&str] = &[r"\p{N}", GPT2];
const LINES: &[&str] = &[r"[^\n]+|[\n]+"];

/// (names, patterns, whole words, adds BOS)
type Kind = (&'static [&'static str], &'static [&'static str], bool, bool);

const KINDS: &[Kind] = &[
    (&["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "llama4", "lfm2", "smaug-bpe"], &[LLAMA3], true, true),
    (&["dbrx", "chatglm-bpe", "glm4", "minimax-m2", "bailingmoe"], &[LLAMA3], false, false),
    (&["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "mimo"], &[QWEN2], false, false),
    (&["qwen35"], &[QWEN35], false, false),
    (&["tekken"], &[TEKKEN], true, true),
    (&["gpt-4o"], &[GPT4O], false, false),
    (&["deepseek-v3", "deepseek-v3.1", "deepseek-r1", "hunyuan-dense", "joyai-llm"], DEEPSEEK3, false, false),
    (&["deepseek-coder"], DEEPSEEK_CODER, false, false),
    (&["deepseek-llm"], DEEPSEEK_LLM, false, false),
    (&["falcon"], FALCON, false, false),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
        DIGITS_THEN_GPT2,
        false,
        false,
    ),
    (&["gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "phi-2", "gigachat"], &[GPT2], false, false),
    (&["gemma4"], LINES, false, true),
];

impl Pretokenizer {
    /// The kind of this name; an unknown one cuts as GPT-2 does and says so.
    pub fn new(name: &str) -> Pretokenizer {
        let known = KINDS.iter().find(|kind| kind.0.contains(&name));
        let (patterns, whole_words, adds_bos) =
            known.map_or((&[GPT2][..], false, false), |kind| (kind.1, kind.2, kind.3));
        Pretokenizer {
            patterns: patterns.iter().map(|pattern| compile(pattern)).collect(),
            whole_words,
            adds_bos,
            unknown: known.is_none(),
        }
    }

    /// Cuts `text` into pieces that cover it.
    pub fn pieces(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces = vec![0..text.len()];
        for pattern in &self.patterns {
            let mut cut = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                split(pattern, &text[piece.clone()], piece.start, &mut cut);
            }
            pieces = cut;
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

fn compile(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        // Steps back are bounded by the length of a run of white space; a limit would make long runs fail.
        .backtrack_limit(usize::MAX)
        .build()
        .expect("the patterns are constants, and a test compiles each")
}

fn split(pattern: &Regex, text: &str, offset: usize, out: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while at < text.len() {
        // An error of the engine leaves the rest in one piece.
        let Ok(Some(found)) = pattern.find_from_pos(text, at) else { break };
        if found.end() == found.start() {
            break;
        }
        if found.start() > at {
            out.push(offset + at..offset + found.start());
        }
        out.push(offset + found.start()..offset + found.end());
        at = found.end();
    }
    if at < text.len() {
        out.push(offset + at..offset + text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        Pretokenizer::new(name).pieces(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn every_kind_compiles_and_covers_the_text() {
        let text = "Hello, I'll pay 12345 yen for 日本語のテキスト!!\n\n  ok\t\r\n x_1=é  ";
        for kind in KINDS {
            for name in kind.0 {
                assert_eq!(cut(name, text).concat(), text, "{name}");
            }
        }
    }

    #[test]
    fn numbers_words_and_spaces_are_cut_by_kind() {
        assert_eq!(cut("llama-bpe", "I'LL be 12345  ok"), ["I", "'LL", " be", " ", "123", "45", " ", " ok"]);
        assert_eq!(cut("qwen2", "x123"), ["x", "1", "2", "3"]);
        assert_eq!(cut("gpt-2", "x123"), ["x", "123"]);
        assert_eq!(cut("gpt-4o", "HelloWorld"), ["Hello", "World"]);
        assert!(Pretokenizer::new("nobody-knows").unknown);
    }

    #[test]
    fn long_runs_of_one_character_take_linear_time() {
        for name in ["llama-bpe", "qwen35", "gpt-4o", "tekken", "deepseek-v3", "deepseek-llm", "falcon", "gemma4"] {
            for character in [" ", "a", "A", "1", "!", "\n", "é", "日"] {
                let text = character.repeat(100_000);
                assert_eq!(cut(name, &text).iter().map(|piece| piece.len()).sum::<usize>(), text.len());
            }
        }
    }
}

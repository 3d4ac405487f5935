//! Every pre-tokenizer that files name (`tokenizer.ggml.pre`).

use crate::patterns::Rule::{DigitGroups, Pattern};
use crate::patterns::*;

/// A pre-tokenizer: passes, each over the pieces that the one before has left.
pub(crate) struct Kind {
    pub names: &'static [&'static str],
    pub rules: &'static [Rule],
    /// A piece that is a token as a whole is not merged.
    pub whole_words: bool,
    /// BOS is added unless the file says otherwise.
    pub adds_bos: bool,
    /// Bytes are written as printable characters in the vocabulary (GPT-2's way); otherwise as they are, "▁" for space.
    pub byte_level: bool,
}

const PLAIN: Kind = Kind { names: &[], rules: &[], whole_words: false, adds_bos: false, byte_level: true };

/// llama.cpp's rules where a file names none.
pub(crate) const DEFAULT: Kind = Kind {
    names: &["default"],
    rules: &[Pattern(r"[\p{P}$+<=>^~|]+"), GPT2, Pattern(r"\p{N}+"), Pattern("[0-9][0-9][0-9]")],
    ..PLAIN
};

/// What an unknown name is taken for.
pub(crate) const UNKNOWN: Kind = Kind { rules: &[GPT2], ..PLAIN };

pub(crate) const KINDS: &[Kind] = &[
    DEFAULT,
    Kind {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        rules: &[LLAMA3],
        whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
    Kind { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], rules: &[LLAMA3], ..PLAIN },
    Kind { names: &["glm4", "glm5"], rules: &[LLAMA3], whole_words: true, ..PLAIN },
    Kind {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "hunyuan",
            "megrez",
            "grok-2",
            "solar-open",
        ],
        rules: &[QWEN2],
        ..PLAIN
    },
    Kind { names: &["qwen35"], rules: &[QWEN35], ..PLAIN },
    Kind { names: &["ufakzeka"], rules: &[UFAKZEKA], ..PLAIN },
    Kind { names: &["laguna"], rules: &[LINES, QWEN2], ..PLAIN },
    Kind { names: &["minicpm5"], rules: &[THREE_DIGITS, MINICPM], whole_words: true, ..PLAIN },
    Kind { names: &["tekken"], rules: &[TEKKEN], whole_words: true, adds_bos: true, ..PLAIN },
    Kind { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], rules: &[GPT4O], ..PLAIN },
    Kind { names: &["tiny_aya", "cohere2moe"], rules: &[DigitGroups { whole: true }, TINY_AYA], ..PLAIN },
    Kind { names: &["youtu"], rules: &[YOUTU_SCRIPTS, YOUTU], whole_words: true, ..PLAIN },
    Kind { names: &["kimi-k2"], rules: &[KIMI_K2], ..PLAIN },
    Kind {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        rules: &[THREE_DIGITS, CJK, DEEPSEEK3],
        ..PLAIN
    },
    Kind { names: &["spark2_5"], rules: &[THREE_DIGITS, CJK, SPARK, Pattern(r"\p{N}")], ..PLAIN },
    Kind { names: &["afmoe"], rules: &[DigitGroups { whole: false }, AFMOE_SCRIPTS, DEEPSEEK3], ..PLAIN },
    Kind {
        names: &["deepseek-coder"],
        rules: &[LINE_END, Pattern(r"\s?\p{L}+"), Pattern(r"\s?\p{P}+"), DEEPSEEK_CJK, Pattern(r"\p{N}")],
        ..PLAIN
    },
    Kind {
        names: &["deepseek-llm"],
        rules: &[
            LINE_END,
            DEEPSEEK_LLM_WORDS,
            // From ':' to '~' are letters too; what is one was a word already.
            DEEPSEEK_LLM_SIGNS,
            Pattern(r"\s+$"),
            DEEPSEEK_CJK,
            Pattern(r"\p{N}+"),
        ],
        ..PLAIN
    },
    Kind { names: &["falcon"], rules: &[Pattern(r"[\p{P}$+<=>^~|`]+"), GPT2, Pattern("[0-9][0-9][0-9]")], ..PLAIN },
    Kind {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        rules: &[Pattern(r"\p{N}"), GPT2],
        ..PLAIN
    },
    Kind {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "modern-bert",
            "roberta-bpe",
        ],
        rules: &[GPT2],
        ..PLAIN
    },
    Kind { names: &["exaone-moe"], rules: &[EXAONE_MOE], ..PLAIN },
    Kind { names: &["bailingmoe", "bailingmoe2", "llada-moe"], rules: &[BAILING], ..PLAIN },
    Kind { names: &["seed-coder"], rules: &[SEED_CODER], ..PLAIN },
    Kind {
        names: &["chameleon"],
        rules: &[
            Pattern("<sentinel:[0-9]+>"),
            Pattern("IMGIMG[A-I]{1,4}Z"),
            Pattern(r"[\t\n]|    |  "),
            Pattern(r"\p{N}"),
            Pattern(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
        adds_bos: true,
        ..PLAIN
    },
    Kind { names: &["superbpe"], rules: &[Pattern(r"\p{N}+"), DigitGroups { whole: false }], ..PLAIN },
    Kind { names: &["poro-chat", "bloom", "gpt3-finnish"], rules: &[BLOOM], ..PLAIN },
    Kind { names: &["viking"], rules: &[BLOOM, Pattern(r"\p{N}")], ..PLAIN },
    Kind { names: &["gemma4"], rules: &[LINES], adds_bos: true, byte_level: false, ..PLAIN },
    Kind { names: &["sarvam-moe"], rules: &[LINES], byte_level: false, ..PLAIN },
];

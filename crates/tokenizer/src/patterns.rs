//! The rules by which pre-tokenizers cut a text.
//!
//! The patterns are those of the models' own `tokenizer.json`, in the form in which llama.cpp applies them. Where the
//! two differ (gpt-4o and tekken: combining marks; deepseek-llm and -coder: white space beyond ASCII), llama.cpp's is
//! taken, because files are made and measured with it. Not so where llama.cpp cannot say what the model's pattern says:
//! it has no upper and lower case (kimi-k2, tiny_aya, youtu), and one of its ranges begins at another sign of the same
//! shape (afmoe).

/// How one pass cuts a piece.
pub(crate) enum Rule {
    /// Into the matches of a pattern and what lies between them.
    Pattern(&'static str),
    /// The same, then the rule that most patterns end with: `\s+(?!\S)|\s+`. A run of white space that nothing before
    /// has matched leaves its last character to the word that follows. It is applied to the matches instead of being
    /// part of the pattern, because engines with look-ahead step back, and the others take linear time.
    Words(&'static str),
    /// Runs of digits into groups of three, counted from the right.
    DigitGroups {
        /// Only runs that end at the end of a word: `1234` in `1234 x`, not in `1234x`.
        whole: bool,
    },
}

use Rule::{Pattern, Words};

macro_rules! contractions {
    () => {
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}

/// Line ends with the white space before them, and other white space.
macro_rules! spaces {
    () => {
        r"\s*[\r\n]+|\s+"
    };
}

/// Words with one other character before them, numbers as `$digits` says, the rest with line ends.
macro_rules! gpt4 {
    ($digits:literal) => {
        concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|", spaces!())
    };
}

/// Words cut between lower and upper case: `$upper` are the characters of their first part, `$lower` of their second,
/// `$after` may follow.
macro_rules! cased {
    ($upper:literal, $lower:literal, $after:expr, $digits:literal, $ends:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?",
            $upper,
            "*",
            $lower,
            "+",
            $after,
            r"|[^\r\n\p{L}\p{N}]?",
            $upper,
            "+",
            $lower,
            "*",
            $after,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+",
            $ends,
            "*|",
            spaces!()
        )
    };
}

pub(crate) const GPT2: Rule = Words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+");
pub(crate) const LLAMA3: Rule = Words(gpt4!(r"\p{N}{1,3}"));
pub(crate) const QWEN2: Rule = Words(gpt4!(r"\p{N}"));
pub(crate) const QWEN35: Rule = Words(concat!(
    contractions!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
    spaces!()
));
pub(crate) const TEKKEN: Rule = Words(cased!(r"[\p{L}--[a-z]]", r"[\p{L}--[A-Z]]", "", r"\p{N}", r"[\r\n/]"));
pub(crate) const GPT4O: Rule =
    Words(cased!(r"[\p{L}--[a-z]]", r"[\p{L}--[A-Z]]", concat!(contractions!(), "?"), r"\p{N}{1,3}", r"[\r\n/]"));
pub(crate) const TINY_AYA: Rule = Words(cased!(
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    concat!(contractions!(), "?"),
    r"\p{N}{1,3}",
    r"[\r\n/]"
));
pub(crate) const YOUTU: Rule = Words(cased!(
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    concat!(contractions!(), "?"),
    r"\p{N}",
    r"[\r\n/]"
));
pub(crate) const KIMI_K2: Rule = Words(concat!(
    r"\p{Han}+|",
    cased!(
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
        concat!(contractions!(), "?"),
        r"\p{N}{1,3}",
        r"[\r\n]"
    )
));
pub(crate) const THREE_DIGITS: Rule = Pattern(r"\p{N}{1,3}");
pub(crate) const CJK: Rule = Pattern(r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+");
pub(crate) const DEEPSEEK3: Rule = Words(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|",
    spaces!()
));
/// Cased letters as of the model's own list: without the Armenian and Georgian small letters and the mathematical ones.
pub(crate) const DEEPSEEK_LLM_WORDS: Rule = Pattern(concat!(
    r"\s?[A-Za-z\xb5\xc0-\xd6\xd8-\xf6\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}\x{370}-\x{373}",
    r"\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}",
    r"\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}",
    r"\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}",
    r"\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}",
    r"\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}",
    r"\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}",
    r"\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}",
    r"\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}",
    r"\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}",
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}",
    r"\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+"
));
pub(crate) const LINE_END: Rule = Pattern(r"[\r\n]");
pub(crate) const DEEPSEEK_CJK: Rule = Pattern(r"[\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}&&\S]+");
pub(crate) const LINES: Rule = Pattern(r"[^\n]+|[\n]+");
pub(crate) const BLOOM: Rule = Pattern(r" ?[^(\s|.,!?…。，、।۔،)]+");

pub(crate) const SPARK: Rule = Words(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+"
));
pub(crate) const UFAKZEKA: Rule =
    Words(concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|", spaces!()));
pub(crate) const MINICPM: Rule = Words(gpt4!(r"\p{N}+"));
pub(crate) const YOUTU_SCRIPTS: Rule = Pattern(concat!(
    r"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[！…“”‘’—：；，\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+",
    r"|[\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
));
pub(crate) const AFMOE_SCRIPTS: Rule = Pattern(concat!(
    r"[\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{f900}-\x{faff}\x{3040}-\x{309f}\x{30a0}-\x{30ff}\x{ff65}-\x{ff9f}",
    r"\x{2f00}-\x{2fdf}\x{0e40}-\x{0e7f}\x{0e80}-\x{0eff}\x{1780}-\x{17ff}\x{1000}-\x{109f}\x{aa60}-\x{aa7f}",
    r"\x{a9e0}-\x{a9ff}\x{ac00}-\x{d7af}\x{1100}-\x{11ff}]+"
));
pub(crate) const EXAONE_MOE: Rule = Words(concat!(
    contractions!(),
    r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?",
    r"|\s*[\r\n]|\s+"
));
pub(crate) const BAILING: Rule = Words(concat!(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+"
));
pub(crate) const SEED_CODER: Rule =
    Words(concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|", spaces!()));
pub(crate) const DEEPSEEK_LLM_SIGNS: Rule =
    Pattern(r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3001}\x{3002}]+");

//! Cutting texts into pieces before BPE merges, by the rules of a [`Kind`].

use crate::kinds::{DEFAULT, KINDS, Kind, UNKNOWN};
use crate::patterns::Rule;
use regex::Regex;
use std::ops::Range;

/// The rules of one pre-tokenizer, ready for use.
pub(crate) struct Pretokenizer {
    passes: Vec<Pass>,
    pub kind: &'static Kind,
    /// The name was not known: GPT-2's rules are used.
    pub unknown: bool,
}

enum Pass {
    Pattern(Regex),
    Words {
        pattern: Regex,
        /// The pattern takes line ends with the white space before them: that is not a run that leaves its last one.
        line_ends: bool,
    },
    DigitGroups {
        whole: bool,
    },
}

impl Pretokenizer {
    /// The pre-tokenizer of this name (`tokenizer.ggml.pre`); an unknown one cuts as GPT-2 does and says so.
    pub fn new(name: Option<&str>) -> Pretokenizer {
        let known = match name {
            Some(name) => KINDS.iter().find(|kind| kind.names.contains(&name)),
            None => Some(&DEFAULT),
        };
        let kind = known.unwrap_or(&UNKNOWN);
        let passes = kind.rules.iter().map(|rule| match rule {
            Rule::Pattern(pattern) => Pass::Pattern(compile(pattern)),
            Rule::Words(pattern) => {
                Pass::Words { pattern: compile(pattern), line_ends: pattern.contains(r"|\s*[\r\n]") }
            }
            Rule::DigitGroups { whole } => Pass::DigitGroups { whole: *whole },
        });
        Pretokenizer { passes: passes.collect(), kind, unknown: known.is_none() }
    }

    /// Cuts `text` into pieces that cover it, in order.
    pub fn pieces(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces: Vec<_> = std::iter::once(0..text.len()).collect();
        for pass in &self.passes {
            let mut cut = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                let (text, offset) = (&text[piece.clone()], piece.start);
                match pass {
                    Pass::Pattern(pattern) => split(pattern, text, offset, &mut cut, |found| found.end),
                    Pass::Words { pattern, line_ends } => {
                        split(pattern, text, offset, &mut cut, |found| end_of_words(text, found, *line_ends))
                    }
                    Pass::DigitGroups { whole } => group_digits(text, *whole, offset, &mut cut),
                }
            }
            pieces = cut;
        }
        pieces
    }
}

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are constants, and a test compiles each")
}

fn split(
    pattern: &Regex,
    text: &str,
    offset: usize,
    out: &mut Vec<Range<usize>>,
    end_of: impl Fn(Range<usize>) -> usize,
) {
    let mut at = 0;
    while let Some(found) = pattern.find_at(text, at) {
        let end = end_of(found.range());
        // No pattern matches nothing; should one, the rest stays whole.
        if end <= found.start() {
            break;
        }
        if found.start() > at {
            out.push(offset + at..offset + found.start());
        }
        out.push(offset + found.start()..offset + end);
        at = end;
    }
    if at < text.len() {
        out.push(offset + at..offset + text.len());
    }
}

/// Where a match ends by [`Rule::Words`].
fn end_of_words(text: &str, found: Range<usize>, line_ends: bool) -> usize {
    let mut characters = text[found.clone()].chars();
    let Some(last) = characters.next_back() else { return found.end };
    if !last.is_whitespace() || line_ends && matches!(last, '\r' | '\n') {
        return found.end;
    }
    let cut = found.end - last.len_utf8();
    // A run of white space is as long as possible: if something follows, it is not white space.
    let followed = cut > found.start && found.end < text.len();
    if followed && characters.all(char::is_whitespace) { cut } else { found.end }
}

/// `1234567` to `1`, `234`, `567`. What lies between the runs of digits stays whole.
fn group_digits(text: &str, whole: bool, offset: usize, out: &mut Vec<Range<usize>>) {
    let mut at = 0;
    let mut starts = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        if !character.is_numeric() {
            continue;
        }
        starts.clear();
        starts.push(start);
        while let Some((index, _)) = characters.next_if(|(_, next)| next.is_numeric()) {
            starts.push(index);
        }
        let (end, next) = characters.peek().map_or((text.len(), None), |(index, next)| (*index, Some(*next)));
        if whole && next.is_some_and(|next| next.is_alphanumeric() || next == '_') {
            continue;
        }
        if start > at {
            out.push(offset + at..offset + start);
        }
        at = start;
        for index in 1..=starts.len() {
            if (starts.len() - index).is_multiple_of(3) {
                let group_end = starts.get(index).copied().unwrap_or(end);
                out.push(offset + at..offset + group_end);
                at = group_end;
            }
        }
    }
    if at < text.len() {
        out.push(offset + at..offset + text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        Pretokenizer::new(Some(name)).pieces(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn every_kind_compiles_and_covers_the_text() {
        let text = "Hello, I'll pay 12345 yen 1234x for 日本語のテキスト!!\n\n  ok\t\r\n x_1=é ½ \u{1d400}\u{301}  ";
        for name in KINDS.iter().flat_map(|kind| kind.names) {
            let pieces = cut(name, text);
            assert_eq!(pieces.concat(), text, "{name}");
            assert!(pieces.iter().all(|piece| !piece.is_empty()), "{name}");
            assert!(!Pretokenizer::new(Some(name)).unknown, "{name}");
        }
    }

    #[test]
    fn names_are_given_once() {
        let mut names: Vec<_> = KINDS.iter().flat_map(|kind| kind.names).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn numbers_words_and_spaces_are_cut_by_kind() {
        assert_eq!(cut("llama-bpe", "I'LL be 12345  ok"), ["I", "'LL", " be", " ", "123", "45", " ", " ok"]);
        assert_eq!(cut("qwen2", "x123"), ["x", "1", "2", "3"]);
        assert_eq!(cut("qwen2", "a  \n \n  b \n"), ["a", "  \n \n", " ", " b", " \n"]);
        assert_eq!(cut("gpt-2", "a  \n \n  b \n"), ["a", "  \n \n ", " b", " \n"]);
        assert_eq!(
            cut("gpt-2", "a \u{3000}b!\u{3000} \u{3000}"),
            ["a", " ", "\u{3000}", "b", "!", "\u{3000} \u{3000}"]
        );
        assert_eq!(cut("qwen2", "e\u{301}a"), ["e", "\u{301}a"]);
        assert_eq!(cut("qwen35", "e\u{301}a"), ["e\u{301}a"]);
        assert_eq!(cut("gpt-2", "I'LL x123  "), ["I", "'", "LL", " x", "123", "  "]);
        assert_eq!(cut("gpt-4o", "HelloWorld's"), ["Hello", "World's"]);
        assert_eq!(cut("tekken", "HelloWorld's 12"), ["Hello", "World", "'s", " ", "1", "2"]);
        assert_eq!(cut("deepseek-v3", "a中文b 1234"), ["a", "中文", "b", " ", "123", "4"]);
        assert_eq!(cut("deepseek-llm", "Ab ა 𝐀1!\n"), ["Ab", " ", "ა", " 𝐀", "1", "!", "\n"]);
        assert_eq!(cut("starcoder", "a 12 b"), ["a", " ", "1", "2", " b"]);
        assert_eq!(cut("falcon", "a=1234`"), ["a", "=", "123", "4", "`"]);
        assert_eq!(cut("default", "a=1234`"), ["a", "=", "123", "4", "`"]);
        assert_eq!(cut("kimi-k2", "日本Hello漢"), ["日本", "Hello", "漢"]);
        assert_eq!(cut("gemma4", "a b\n\n c"), ["a b", "\n\n", " c"]);
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(cut("superbpe", "a 1234567 b12"), ["a ", "1", "234", "567", " b", "12"]);
        assert_eq!(cut("tiny_aya", "1234 1234x"), ["1", "234", " ", "123", "4", "x"]);
        assert_eq!(cut("afmoe", "123456"), ["123", "456"]);
    }

    #[test]
    fn no_name_is_the_default_and_an_unknown_one_is_told() {
        let default = Pretokenizer::new(None);
        assert!(!default.unknown);
        assert_eq!(default.kind.names, ["default"]);
        let unknown = Pretokenizer::new(Some("nobody-knows"));
        assert!(unknown.unknown);
        assert_eq!(unknown.pieces("a 12"), [0..1, 1..4]);
    }

    #[test]
    fn long_runs_of_one_character_are_cut() {
        for kind in KINDS {
            let pretokenizer = Pretokenizer::new(Some(kind.names[0]));
            for character in [" ", "a", "A", "1", "!", "\n", "é", "日", "\u{301}", "aA", " a", "x1", " \n", "'s"] {
                let text = character.repeat(10_000);
                assert_eq!(pretokenizer.pieces(&text).iter().map(|piece| piece.len()).sum::<usize>(), text.len());
            }
        }
    }
}

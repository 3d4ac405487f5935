//! Mutants that compute the same, with the reason: `ptx/equivalent.tsv`.

use super::ROOT;
use anyhow::{Result, bail};
use std::path::Path;

/// What was done to a barrier.
pub const LEFT_OUT: &str = "left out";

/// Lines of module, kernel, what was done, instruction, mutant, reason; of barriers also the place, after the kernel. `*` is
/// any text within a field, where the reason is one for all kernels.
pub struct Equivalent {
    lines: Vec<Line>,
}

struct Line {
    fields: Vec<String>,
    /// A mutant was asked for that is one of them.
    met: bool,
}

impl Equivalent {
    pub fn load() -> Result<Equivalent> {
        Equivalent::parse(&std::fs::read_to_string(Path::new(ROOT).join("ptx/equivalent.tsv"))?)
    }

    fn parse(text: &str) -> Result<Equivalent> {
        let mut lines = Vec::new();
        for line in text.lines() {
            let mut fields: Vec<String> = line.split('\t').map(String::from).collect();
            let reason = fields.pop().unwrap_or_default();
            if fields.len() < 5 || reason.trim().is_empty() {
                bail!("equivalent.tsv: no reason: {line}");
            }
            lines.push(Line { fields, met: false });
        }
        Ok(Equivalent { lines })
    }

    /// Whether a mutant is one of them: what `ptx.py` says of it, and its module.
    pub fn has(&mut self, module: &str, mutant: &[&str]) -> bool {
        let [_, kernel, place, what, rest @ ..] = mutant else { return false };
        let mut fields = vec![module, *kernel];
        // The place of an instruction changes with what comes before it: its text is enough, except of barriers.
        if *what == LEFT_OUT {
            fields.push(*place);
        }
        fields.push(*what);
        fields.extend(rest);
        let mut found = false;
        for line in self.lines.iter_mut().filter(|line| line.says(&fields)) {
            (line.met, found) = (true, true);
        }
        found
    }

    /// Lines, of barriers or of all others, that no mutant was: its kernel has changed, and they may come to excuse another one.
    pub fn unmet(&self, barriers: bool) -> impl Iterator<Item = String> {
        let wanted = move |line: &&Line| !line.met && line.fields.iter().any(|field| field == LEFT_OUT) == barriers;
        self.lines.iter().filter(wanted).map(|line| line.fields.join(" | "))
    }
}

impl Line {
    fn says(&self, fields: &[&str]) -> bool {
        self.fields.len() == fields.len() && self.fields.iter().zip(fields).all(|(pattern, field)| fits(pattern, field))
    }
}

/// Whether a text is what a pattern says, in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(begin) else { return false };
    (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| fits(rest, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in [("a", "a"), ("*", ""), ("*", "mov"), ("mov %f*, 0f1", "mov %f12, 0f1"), ("*a*", "bab")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a", ""), ("mov %f*, 0f1", "mov %f12, 0f12"), ("a*b", "ba"), ("*a", "ab")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn places_count_for_barriers_only() {
        let text = "norm\tnorm\t67\tleft out\tbar.sync 0\t-\tthe first\n*\t*\ta constant\tmov.f32 %f*, 0f1\tmov.f32 %f*, 0f2\tso\n";
        let mut known = Equivalent::parse(text).unwrap();
        assert!(known.has("norm", &["0", "norm", "67", "left out", "bar.sync 0", "-"]));
        assert!(!known.has("norm", &["0", "norm", "68", "left out", "bar.sync 0", "-"]));
        assert!(known.has("glu", &["7", "glu", "5", "a constant", "mov.f32 %f9, 0f1", "mov.f32 %f9, 0f2"]));
        assert!(!known.has("glu", &["7", "glu", "5", "a constant", "mov.f32 %f9, 0f1", "mov.f32 %f9, 0f3"]));
        assert!(Equivalent::parse("norm\tnorm\t67\tleft out\tbar.sync 0\t-\t \n").is_err());
    }

    #[test]
    fn lines_that_no_mutant_was_are_told() {
        let text = "a\tb\t7\tleft out\tbar.sync 0\t-\tso\na\tb\tswapped\tx\ty\tso\na\t*\tswapped\tx\ty\tso\na\tb\tswapped\tx\tz\tso\n";
        let mut known = Equivalent::parse(text).unwrap();
        assert!(known.has("a", &["0", "b", "1", "swapped", "x", "y"]), "by two lines");
        assert_eq!(known.unmet(false).collect::<Vec<_>>(), ["a | b | swapped | x | z"]);
        assert_eq!(known.unmet(true).collect::<Vec<_>>(), ["a | b | 7 | left out | bar.sync 0 | -"]);
    }
}

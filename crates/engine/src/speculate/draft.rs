//! A second, smaller model that guesses what the first will say.

use crate::core::{Core, Loaded};
use crate::{Cancel, EngineError, Placement};
use sampler::argmax;
use std::sync::Arc;
use std::time::Instant;
use tokenizer::{TokenKind, Tokenizer};

pub(crate) struct DraftModel {
    loaded: Arc<Loaded>,
    core: Core,
}

/// More tokens than this are read at once, which is not what a guess costs.
const BACKLOG: usize = 16;

/// What a draft model says comes next.
#[derive(Default)]
pub(crate) struct Guesses {
    pub tokens: Vec<u32>,
    /// For making them, without the reading of what was said meanwhile.
    pub seconds: f64,
}

impl DraftModel {
    pub fn new(loaded: Arc<Loaded>, core: Core) -> DraftModel {
        DraftModel { loaded, core }
    }

    /// Up to `max` likeliest tokens after `sequence`, one after the other. None where its context ends or a token is not in its
    /// vocabulary.
    pub fn guess(&mut self, sequence: &[u32], max: usize, cancel: &Cancel) -> Result<Guesses, EngineError> {
        let (params, vocab) = (&self.loaded.layout.params, self.loaded.model.vocab_size as u32);
        let room = (params.context as usize).saturating_sub(sequence.len());
        let (max, ubatch) = (max.min(room), params.ubatch as usize);
        if max == 0 || sequence.iter().any(|token| *token >= vocab) {
            return Ok(Guesses::default());
        }
        self.loaded.file.check()?;
        self.core.relieve()?;
        self.core.take_recoveries();
        let mut done = self.core.reuse(sequence);
        let mut started = Instant::now();
        let backlog = sequence.len() - done;
        let mut next = None;
        while done < sequence.len() {
            let end = sequence.len().min(done + ubatch);
            let rows: &[u32] = if end == sequence.len() { &[(end - done - 1) as u32] } else { &[] };
            self.core.feed(&sequence[done..end], rows, cancel, &mut |row| next = argmax(row))?;
            done = end;
        }
        self.core.keep_states();
        if backlog > BACKLOG {
            started = Instant::now();
        }
        let mut tokens = Vec::new();
        while let Some(token) = next {
            tokens.push(token);
            if tokens.len() == max {
                break;
            }
            self.core.feed(&[token], &[0], cancel, &mut |row| next = argmax(row))?;
        }
        Ok(Guesses { tokens, seconds: started.elapsed().as_secs_f64() })
    }

    pub fn placement(&self) -> Placement {
        self.core.placement()
    }
}

/// Tokens by which vocabularies of one family differ, because they are padded to round numbers.
pub const VOCABULARY_PADDING: usize = 1024;

/// A draft model must mean the same by a token: the texts of all that both vocabularies have are compared, but for tokens
/// that neither uses. One may be padded with more than the other.
///
/// # Errors
/// The first token that differs.
pub fn same_vocabulary(target: &Tokenizer, draft: &Tokenizer) -> Result<(), EngineError> {
    let both = [target, draft];
    let token = |which: usize, id| (both[which].token_text(id), both[which].token_kind(id) == TokenKind::Unused);
    match difference(both.map(Tokenizer::vocab_size), &token) {
        None => Ok(()),
        Some(detail) => Err(EngineError::DraftVocabulary { detail }),
    }
}

/// The first difference between two vocabularies of these sizes. `token`: text, and whether it is unused.
fn difference<'a>(sizes: [usize; 2], token: &dyn Fn(usize, u32) -> (&'a [u8], bool)) -> Option<String> {
    for id in 0..sizes[0].min(sizes[1]) as u32 {
        let (ours, theirs) = (token(0, id), token(1, id));
        if ours.0 != theirs.0 && !(ours.1 && theirs.1) {
            let [ours, theirs] = [ours.0, theirs.0].map(String::from_utf8_lossy);
            return Some(format!("token {id} is '{ours}', there '{theirs}'"));
        }
    }
    let [ours, theirs] = sizes;
    (ours.abs_diff(theirs) > VOCABULARY_PADDING).then(|| format!("it has {theirs} tokens, the model {ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_differ_in_texts_and_by_more_than_padding() {
        type Token = (&'static str, bool);
        let find = |ours: &[Token], theirs: &[Token], padding: usize| {
            let token = |which: usize, id: u32| {
                let (text, unused) = [ours, theirs][which].get(id as usize).copied().unwrap_or(("pad", true));
                (text.as_bytes(), unused)
            };
            difference([ours.len(), theirs.len() + padding], &token)
        };
        let base = [("a", false), ("b", false), ("<unused>", true)];
        assert_eq!(find(&base, &base, 0), None);
        assert_eq!(find(&base, &base[..2], 0), None, "padded");
        assert_eq!(find(&base, &base, VOCABULARY_PADDING), None);
        assert_eq!(find(&base, &base, VOCABULARY_PADDING + 1), Some("it has 1028 tokens, the model 3".into()));
        assert_eq!(find(&base, &[("a", false), ("b", false), ("<extra>", true)], 0), None, "nobody uses it");
        let used = [("a", false), ("b", false), ("c", false)];
        assert_eq!(find(&base, &used, 0), Some("token 2 is '<unused>', there 'c'".into()));
        assert_eq!(find(&base, &[("a", false), ("B", false)], 0), Some("token 1 is 'b', there 'B'".into()));
    }

    #[test]
    fn the_likeliest_is_a_number() {
        assert_eq!(argmax(&[1.0, f32::NAN, 3.0, f32::NEG_INFINITY]), Some(2));
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), None);
    }
}

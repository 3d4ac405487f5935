//! A grammar at work on one answer.

use crate::error::{GrammarError, first_words};
use llguidance::{Matcher, TokenParser};
use sampler::{Constraint, ConstraintError, Mask};

/// What may come next in one answer. A copy goes on by itself.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
    vocabulary: usize,
    ends: Vec<u32>,
    /// As long as it holds.
    mask: Option<Mask>,
}

impl Grammar {
    pub(crate) fn new(parser: TokenParser, vocabulary: usize, ends: &[u32]) -> Result<Grammar, GrammarError> {
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(GrammarError::told(&error)),
            None => Ok(Grammar { matcher, vocabulary, ends: ends.to_vec(), mask: None }),
        }
    }

    /// Whether the answer may end here.
    ///
    /// # Errors
    /// [`ConstraintError::TooComplex`]
    pub fn may_end(&mut self) -> Result<bool, ConstraintError> {
        self.matcher.is_accepting().map_err(|error| failed(&error.to_string()))
    }
}

impl Constraint for Grammar {
    fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError> {
        if self.mask.is_none() {
            let set = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error.to_string()))?;
            let words = set.as_slice().chunks(2).map(|pair| {
                let high = pair.get(1).copied().unwrap_or(0);
                u64::from(pair[0]) | u64::from(high) << 32
            });
            let mask = Mask::from_words(words, self.vocabulary);
            if !mask.allows_any() {
                return Err(ConstraintError::Stuck);
            }
            self.mask = Some(mask);
        }
        Ok(self.mask.as_ref())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let refused = ConstraintError::Refused { token };
        // Beyond the vocabulary the library takes it for a failure of its own.
        if token as usize >= self.vocabulary || self.is_complete() {
            return Err(refused);
        }
        let accepted = match self.ends.contains(&token) {
            true if !self.may_end()? => 0,
            true => self.matcher.consume_token(token).map(|()| 1).map_err(|error| failed(&error.to_string()))?,
            false => self.matcher.try_consume_tokens(&[token]).map_err(|error| failed(&error.to_string()))?,
        };
        if accepted == 0 {
            return Err(refused);
        }
        self.mask = None;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}

/// The library's failure to go on. Its text is all that tells the kinds apart.
fn failed(error: &str) -> ConstraintError {
    if error.contains("NoExtension") {
        return ConstraintError::Stuck;
    }
    let text = if error.contains("panic: ") { "its parser failed".into() } else { first_words(error) };
    ConstraintError::TooComplex(text)
}

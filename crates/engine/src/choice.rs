//! Choosing tokens: the sampler, within what is prescribed for the answer.

use crate::EngineError;
use crate::masks::Masks;
use sampler::{Sampler, SamplerError};

/// The sampler and the constraint of a request, which hear of the same tokens in the same order. Drafted tokens go
/// through here one by one like any others: chosen from their own logits, then accepted.
pub(crate) struct Choice<'s, 'e> {
    sampler: Sampler,
    constraint: Option<Masks<'s, 'e>>,
}

impl<'s, 'e> Choice<'s, 'e> {
    /// The prompt counts for the penalties and is not constrained.
    pub fn new(
        sampling: sampler::Params,
        prompt: &[u32],
        constraint: Option<Masks<'s, 'e>>,
    ) -> Result<Choice<'s, 'e>, EngineError> {
        let mut sampler = Sampler::new(sampling).map_err(|error| EngineError::Invalid(error.to_string()))?;
        for token in prompt {
            sampler.accept(*token);
        }
        Ok(Choice { sampler, constraint })
    }

    /// The next token. It is not accepted yet.
    ///
    /// # Errors
    /// [`EngineError::Constraint`] if nothing may come next, [`EngineError::Numbers`] if what may has no probability.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let mask = match &mut self.constraint {
            Some(constraint) => constraint.mask()?,
            None => None,
        };
        let chosen = match mask {
            Some(mask) => self.sampler.sample_masked(logits, mask),
            None => self.sampler.sample(logits),
        };
        chosen.map_err(|error| match error {
            SamplerError::NoCandidate { not_a_number: 0, .. } if mask.is_some() => {
                sampler::ConstraintError::Stuck.into()
            }
            error => EngineError::Numbers(error),
        })
    }

    /// The token is part of the answer now.
    pub fn accept(&mut self, token: u32) -> Result<(), EngineError> {
        self.sampler.accept(token);
        match &mut self.constraint {
            Some(constraint) => Ok(constraint.accept(token)?),
            None => Ok(()),
        }
    }

    /// A step of the model begins, after which a token is chosen.
    pub fn begin(&mut self) {
        if let Some(constraint) = &mut self.constraint {
            constraint.begin();
        }
    }

    /// The answer is whole, whatever the model would add.
    pub fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.is_complete())
    }
}

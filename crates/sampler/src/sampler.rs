use crate::exp::exp;
use crate::history::History;
use crate::random::Random;
use crate::select::{self, Candidate};
use crate::{Mask, Params, SamplerError};

/// Chooses tokens one after the other.
///
/// Logits may be anything: NaN counts as minus infinity (never chosen), plus infinity as the largest finite number.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: Params,
    random: Random,
    history: History,
    /// The logits after bias, mask and penalties; kept for its allocation.
    logits: Vec<f32>,
    /// What can still be chosen; kept for its allocation.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Fails with [`SamplerError::OutOfRange`].
    pub fn new(params: Params) -> Result<Sampler, SamplerError> {
        params.validate()?;
        let random = Random::new(params.seed);
        // Without penalties nobody asks for the history.
        let history = History::new(if params.penalizes() { params.repeat_last_n } else { 0 });
        Ok(Sampler { params, random, history, logits: Vec::new(), candidates: Vec::new() })
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Tells the sampler of a token that is now part of the text, for the penalties: of the prompt or chosen.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
    }

    /// Back to the state after [`Sampler::new`]: no tokens accepted, the random numbers from the start.
    pub fn reset(&mut self) {
        self.random = Random::new(self.params.seed);
        self.history.clear();
    }

    /// Chooses a token from `logits` (one per token of the vocabulary). It is not accepted yet.
    ///
    /// Fails with [`SamplerError::NoCandidate`].
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplerError> {
        self.choose(logits, None)
    }

    /// [`Sampler::sample`] among the tokens that `mask` allows, for output with a prescribed structure.
    pub fn sample_masked(&mut self, logits: &[f32], mask: &Mask) -> Result<u32, SamplerError> {
        self.choose(logits, Some(mask))
    }

    fn choose(&mut self, logits: &[f32], mask: Option<&Mask>) -> Result<u32, SamplerError> {
        self.prepare(logits, mask);
        let chosen = if self.params.temperature == 0.0 { select::argmax(&self.logits) } else { self.draw() };
        chosen.ok_or_else(|| SamplerError::NoCandidate {
            vocabulary: logits.len(),
            not_a_number: logits.iter().filter(|logit| logit.is_nan()).count(),
        })
    }

    /// Fills `self.logits`: each finite or minus infinity.
    fn prepare(&mut self, logits: &[f32], mask: Option<&Mask>) {
        self.logits.clear();
        self.logits.extend(logits.iter().map(|&logit| defined(logit)));
        for &(token, bias) in &self.params.logit_bias {
            if let Some(logit) = self.logits.get_mut(token as usize) {
                *logit = defined(*logit + bias);
            }
        }
        if let Some(mask) = mask {
            mask.apply(&mut self.logits);
        }
        let params = &self.params;
        for (token, count) in self.history.counts() {
            if let Some(logit) = self.logits.get_mut(token as usize) {
                let factor = if *logit > 0.0 { 1.0 / params.repeat_penalty } else { params.repeat_penalty };
                let penalty = count as f32 * params.frequency_penalty + params.presence_penalty;
                *logit = defined(*logit * factor - penalty);
            }
        }
    }

    fn draw(&mut self) -> Option<u32> {
        let vocabulary = self.logits.len();
        let count = if self.params.top_k == 0 { vocabulary } else { vocabulary.min(self.params.top_k as usize) };
        select::likeliest(&self.logits, count, &mut self.candidates);
        select::nucleus(&mut self.candidates, self.params.top_p, self.params.min_p);
        let max = f64::from(select::max_logit(&self.candidates));
        let temperature = f64::from(self.params.temperature);
        let weight = |candidate: &Candidate| exp((f64::from(candidate.logit) - max) / temperature);
        // The likeliest weighs 1: the sum is positive unless there is no candidate.
        let mut left = self.random.unit() * self.candidates.iter().map(weight).sum::<f64>();
        for candidate in &self.candidates {
            left -= weight(candidate);
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding can leave a crumb: it falls to the likeliest.
        self.candidates.first().map(|candidate| candidate.token)
    }
}

/// A logit that can be computed with: finite or minus infinity.
fn defined(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

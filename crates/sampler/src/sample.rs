use crate::random::Random;
use crate::{Params, SamplerError};
use std::collections::VecDeque;

/// Chooses tokens; remembers the last ones for the penalties.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: Params,
    random: Random,
    recent: VecDeque<u32>,
    /// Reused between tokens: (token, logit).
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// # Errors
    /// A parameter outside its range.
    pub fn new(params: Params) -> Result<Sampler, SamplerError> {
        params.check()?;
        let random = Random::new(params.seed);
        Ok(Sampler { params, random, recent: VecDeque::new(), candidates: Vec::new() })
    }

    /// Tells of a token of the sequence (of the prompt, or one that was chosen).
    pub fn accept(&mut self, token: u32) {
        let keep = self.params.repeat_last_n as usize;
        if keep == 0 {
            return;
        }
        if self.recent.len() >= keep {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Forgets the sequence and starts the seed anew.
    pub fn reset(&mut self) {
        self.recent.clear();
        self.random = Random::new(self.params.seed);
    }

    /// Chooses a token from `logits` [vocab_size]. NaN counts as impossible; equal logits: the lower token.
    ///
    /// # Errors
    /// [`SamplerError::NoLogits`] if no token is possible.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplerError> {
        self.sample_masked(logits, |_| true)
    }

    /// As [`Sampler::sample`], among the tokens that `allowed` admits.
    pub fn sample_masked(&mut self, logits: &[f32], allowed: impl Fn(u32) -> bool) -> Result<u32, SamplerError> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        candidates.extend((0u32..).zip(logits.iter().copied()).filter(|(token, _)| allowed(*token)));
        self.penalize(&mut candidates);
        candidates.retain(|(_, logit)| *logit > f32::NEG_INFINITY);
        let chosen = self.choose(&mut candidates);
        self.candidates = candidates;
        chosen.ok_or(SamplerError::NoLogits)
    }

    fn penalize(&self, candidates: &mut [(u32, f32)]) {
        let p = &self.params;
        if self.recent.is_empty()
            || (p.repeat_penalty == 1.0 && p.presence_penalty == 0.0 && p.frequency_penalty == 0.0)
        {
            return;
        }
        let mut counts = std::collections::HashMap::<u32, u32>::new();
        self.recent.iter().for_each(|token| *counts.entry(*token).or_default() += 1);
        for (token, logit) in candidates {
            if let Some(count) = counts.get(token) {
                *logit = if *logit > 0.0 { *logit / p.repeat_penalty } else { *logit * p.repeat_penalty };
                *logit -= p.presence_penalty + *count as f32 * p.frequency_penalty;
            }
        }
    }

    fn choose(&mut self, candidates: &mut Vec<(u32, f32)>) -> Option<u32> {
        if self.params.temperature == 0.0 {
            return candidates
                .iter()
                .copied()
                .reduce(|best, next| if next.1 > best.1 { next } else { best })
                .map(|c| c.0);
        }
        let before = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let top_k = self.params.top_k as usize;
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, before);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(before);
        let best = candidates.first()?.1;
        // An infinite logit is certain: it leaves nothing to chance (and would make every difference NaN).
        if best == f32::INFINITY {
            return candidates.first().map(|candidate| candidate.0);
        }
        let weight = |logit: f32, temperature: f32| f64::from((logit - best) / temperature).exp();
        // min-p and top-p look at the probabilities before the temperature, as llama.cpp's default chain does.
        let min_p = f64::from(self.params.min_p);
        let likely = candidates.iter().take_while(|(_, logit)| weight(*logit, 1.0) >= min_p).count().max(1);
        let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit, 1.0)).sum();
        let mut sum = 0.0;
        let mut nucleus = candidates.len();
        if self.params.top_p < 1.0 {
            for (index, (_, logit)) in candidates.iter().enumerate() {
                sum += weight(*logit, 1.0) / total;
                if sum >= f64::from(self.params.top_p) {
                    nucleus = index + 1;
                    break;
                }
            }
        }
        candidates.truncate(likely.min(nucleus));
        let temperature = self.params.temperature;
        let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit, temperature)).sum();
        let mut target = self.random.unit() * total;
        for (token, logit) in candidates.iter() {
            target -= weight(*logit, temperature);
            if target < 0.0 {
                return Some(*token);
            }
        }
        candidates.last().map(|candidate| candidate.0)
    }
}

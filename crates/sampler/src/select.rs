//! The truncating samplers on a list of candidates, none of which sorts the whole vocabulary.

use crate::exp::exp;
use std::cmp::Ordering;

/// A token with its logit, which is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) token: u32,
    pub(crate) logit: f32,
}

/// Likelier first; equals by token, so that the order is total and every selection is defined.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// The `count` likeliest candidates in no particular order, in one pass with room for a few times `count`.
pub(crate) fn likeliest(logits: &[f32], count: usize, into: &mut Vec<Candidate>) {
    into.clear();
    let room = count.saturating_mul(2).max(256);
    // A candidate that is not above `floor` cannot be among the likeliest: `count` earlier ones are at least as likely.
    let mut floor = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > floor {
            into.push(Candidate { token: token as u32, logit });
            if into.len() == room {
                floor = cut(into, count).unwrap_or(floor);
            }
        }
    }
    cut(into, count);
}

/// Keeps the `count` likeliest; gives the smallest logit kept if anything was cut.
fn cut(candidates: &mut Vec<Candidate>, count: usize) -> Option<f32> {
    if count == 0 || candidates.len() <= count {
        return None;
    }
    let (_, last, _) = candidates.select_nth_unstable_by(count - 1, likelier);
    let floor = last.logit;
    candidates.truncate(count);
    Some(floor)
}

/// Keeps what top-p and min-p both keep, likeliest first. At least one candidate stays.
///
/// Both keep a prefix of the order by probability, and min-p's bound depends on the likeliest only. So min-p may go
/// first, if top-p's share is taken of the mass from before.
pub(crate) fn nucleus(candidates: &mut Vec<Candidate>, top_p: f32, min_p: f32) {
    let max = max_logit(candidates);
    let weight = |candidate: &Candidate| exp(f64::from(candidate.logit) - f64::from(max));
    if top_p >= 1.0 {
        candidates.retain(|candidate| weight(candidate) >= f64::from(min_p));
        candidates.sort_unstable_by(likelier);
        return;
    }
    // In order of token: the sum does not depend on how the candidates were found.
    candidates.sort_unstable_by_key(|candidate| candidate.token);
    let wanted = f64::from(top_p) * candidates.iter().map(weight).sum::<f64>();
    candidates.retain(|candidate| weight(candidate) >= f64::from(min_p));
    let (mut sorted, mut sum) = (0, 0.0);
    while sorted < candidates.len() {
        // Sort some more of the likeliest; the nucleus is small as a rule.
        let rest = &mut candidates[sorted..];
        let step = rest.len().min(sorted.max(64));
        if step < rest.len() {
            rest.select_nth_unstable_by(step, likelier);
        }
        rest[..step].sort_unstable_by(likelier);
        for candidate in &rest[..step] {
            sorted += 1;
            sum += weight(candidate);
            if sum >= wanted {
                candidates.truncate(sorted);
                return;
            }
        }
    }
}

pub(crate) fn max_logit(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit))
}

/// The first of the largest logits; `None` if all are minus infinity.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best = (None, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (Some(token as u32), logit);
        }
    }
    best.0
}

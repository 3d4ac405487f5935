//! Speculative decoding: guesses at the next tokens are computed together with a token, in one step.
//!
//! Nothing depends on whether a guess is right but the time. Each token is still drawn by the one sampler, in order, from
//! the logits of its row, and a row does not depend on the micro-batch that it is computed in. A guess only decides
//! whether the next row is there already. So the tokens are those of decoding one by one, at any temperature, for the same
//! seed; their distribution is the model's own.

mod draft;
mod lookup;
mod odds;
mod pace;

use crate::core::Core;
use crate::{Cancel, Drafting, Drafts, EngineError, Speculation};
pub(crate) use draft::DraftModel;
pub use draft::{VOCABULARY_PADDING, same_vocabulary};
use model::Layout;
use pace::{Pace, Source, Step};
use std::collections::VecDeque;
use std::time::Instant;

/// What is known of speculation with a loaded model, over all its answers.
pub(crate) struct Speculator {
    options: Speculation,
    pub draft: Option<DraftModel>,
    pace: Pace,
}

impl Speculator {
    pub fn new(options: Speculation, layout: &Layout) -> Speculator {
        Speculator { options, draft: None, pace: Pace::new(layout.is_recurrent()) }
    }

    /// Up to `max` guesses at what follows `sequence`, where `pending` tokens are fed besides its last one.
    fn guess(&mut self, sequence: &[u32], max: usize, pending: usize, cancel: &Cancel) -> Result<Guess, EngineError> {
        if max == 0 || self.options.drafting == Drafting::Never {
            return Ok(Guess::default());
        }
        let mut found = if self.options.lookup { lookup::guess(sequence, max) } else { Vec::new() };
        let modelled = if self.draft.is_some() { max } else { 0 };
        let offers = [(Source::Lookup, found.len()), (Source::Model, modelled)];
        let choice = match self.options.drafting {
            Drafting::Always => offers.into_iter().find(|(_, count)| *count > 0),
            _ => self.pace.choose(&offers, pending),
        };
        match (choice, &mut self.draft) {
            (Some((Source::Lookup, count)), _) => {
                found.truncate(count);
                Ok(Guess { tokens: found, source: Some(Source::Lookup), seconds: 0.0 })
            }
            (Some((Source::Model, count)), Some(draft)) => match draft.guess(sequence, count, cancel) {
                Ok(draft::Guesses { tokens, seconds }) => Ok(Guess { tokens, source: Some(Source::Model), seconds }),
                Err(EngineError::Cancelled) => Err(EngineError::Cancelled),
                Err(_) => {
                    // The answer does not need it.
                    self.draft = None;
                    Ok(Guess::default())
                }
            },
            _ => Ok(Guess::default()),
        }
    }
}

#[derive(Default)]
struct Guess {
    tokens: Vec<u32>,
    source: Option<Source>,
    seconds: f64,
}

/// The text and the logits of what follows it; ahead of it, guesses that were computed and not yet compared.
pub(crate) struct Ahead<'a> {
    speculator: &'a mut Speculator,
    /// Tokens that are part of the text, all of which the core has computed (or can compute again).
    sequence: Vec<u32>,
    guesses: VecDeque<u32>,
    /// Rows of logits: after the text, after each guess.
    rows: VecDeque<Vec<f32>>,
    /// The last step, until all its guesses are compared.
    step: Step,
    gpu_layers: usize,
    drafts: Drafts,
}

impl<'a> Ahead<'a> {
    /// After a prompt was read, of which `computed` tokens took `seconds`.
    pub fn new(
        speculator: &'a mut Speculator,
        core: &Core,
        prompt: &[u32],
        logits: Vec<f32>,
        (computed, seconds): (usize, f64),
    ) -> Ahead<'a> {
        let gpu_layers = core.gpu_layers();
        let rows = computed.min(core.layout().params.ubatch as usize);
        speculator.pace.begin();
        speculator.pace.prompt(rows, seconds * rows as f64 / computed.max(1) as f64);
        Ahead {
            speculator,
            sequence: prompt.to_vec(),
            guesses: VecDeque::new(),
            rows: VecDeque::from([logits]),
            step: Step::default(),
            gpu_layers,
            drafts: Drafts::default(),
        }
    }

    /// Tokens of the text.
    pub fn len(&self) -> usize {
        self.sequence.len()
    }

    /// Of the token after the text, [vocab_size].
    pub fn logits(&self) -> &[f32] {
        self.rows.front().map_or(&[], Vec::as_slice)
    }

    /// Whether the logits after this token are there.
    pub fn is_next(&self, token: u32) -> bool {
        self.guesses.front() == Some(&token)
    }

    /// Adds `token` to the text. Its logits are computed, unless they were ahead; then along with those of guesses, if
    /// these are worth it and not more than `room` tokens are wanted.
    ///
    /// # Errors
    /// As [`Core::feed`]; the text is as it was.
    pub fn push(&mut self, core: &mut Core, token: u32, room: usize, cancel: &Cancel) -> Result<(), EngineError> {
        self.sequence.push(token);
        let ahead = self.is_next(token);
        self.guesses.pop_front();
        if ahead {
            self.rows.pop_front();
            self.step.accepted += 1;
            self.drafts.accepted += 1;
            return Ok(());
        }
        self.step.rejected = self.step.guesses.is_some_and(|(_, count)| self.step.accepted < count);
        let result = self.compute(core, room, cancel);
        if result.is_err() {
            self.sequence.pop();
        }
        result
    }

    /// One step from the end of the text.
    fn compute(&mut self, core: &mut Core, room: usize, cancel: &Cancel) -> Result<(), EngineError> {
        self.settle(core);
        let (params, len) = (core.layout().params, self.sequence.len());
        let mut done = core.cut(len - 1);
        let max = (self.speculator.options.max as usize)
            .min(room.saturating_sub(1))
            .min((params.context as usize).saturating_sub(len))
            .min(params.ubatch as usize - 1);
        let guess = self.speculator.guess(&self.sequence, max, len - 1 - done, cancel)?;
        let (guesses, most) = (guess.tokens.len(), params.ubatch as usize);
        let tokens: Vec<u32> = self.sequence.iter().copied().chain(guess.tokens.iter().copied()).collect();
        let started = Instant::now();
        // What could not be kept of the text comes first, as far as it does not fit into one step with the rest.
        while tokens.len() - done > most {
            let end = (done + most).min(len - 1);
            core.feed(&tokens[done..end], &[], cancel, &mut |_| {})?;
            done = end;
        }
        let rows: Vec<u32> = (len - 1 - done..tokens.len() - done).map(|row| row as u32).collect();
        let (mut logits, vocab) = (VecDeque::with_capacity(rows.len()), core.vocab_size());
        core.feed(&tokens[done..], &rows, cancel, &mut |piece| {
            logits.extend(piece.chunks_exact(vocab).map(<[f32]>::to_vec));
        })?;
        self.step = Step {
            rows: tokens.len() - done,
            guesses: guess.source.filter(|_| guesses > 0).map(|source| (source, guesses)),
            seconds: started.elapsed().as_secs_f64(),
            guess_seconds: guess.seconds,
            ..Step::default()
        };
        self.drafts.proposed += guesses as u32;
        self.guesses = guess.tokens.into();
        self.rows = logits;
        Ok(())
    }

    /// The last step's guesses are compared as far as they will be.
    fn settle(&mut self, core: &Core) {
        let step = std::mem::take(&mut self.step);
        self.guesses.clear();
        let gpu_layers = core.gpu_layers();
        if gpu_layers != self.gpu_layers {
            self.gpu_layers = gpu_layers;
            self.speculator.pace.forget_costs();
        } else if step.rows > 0 {
            self.speculator.pace.observe(&step);
        }
    }

    /// Takes back what was computed beyond the text.
    pub fn end(mut self, core: &mut Core) -> Drafts {
        self.settle(core);
        core.cut(self.sequence.len());
        self.drafts
    }
}

//! Experts come from disk when the router has chosen them, and some before: what the next layer's router will choose is
//! guessed from this layer's stream (`crate::feed_forward`). A guess that was right has its bytes on their way while this
//! layer is computed; one that was wrong has cost reading, and goes first when there is need of room.

use crate::Paged;
use crate::file::Weights;
use crate::paging::{Advice, invalid};
use crate::trial::Trial;
use backend::{BackendError, Router};
use model::{Model, Residency, Tensor};
use std::collections::HashMap;
use std::time::Instant;
use weights::{Pattern, Recent, Ticket, WeightBytes};

/// An expert's part of a tensor: the tensor's index, the expert.
type Expert = (usize, usize);

/// How to guess what the next layer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// It does not pay.
    Nothing,
    /// As its router would choose.
    AsRouted,
    /// So many rows need nearly all of its experts.
    All,
}

pub(crate) struct ExpertPaging {
    recent: Recent<Expert>,
    /// The tensors that experts are parts of, by index.
    stacks: HashMap<usize, Tensor>,
    /// Bytes of all of them.
    all: u64,
    /// How many were touched last for the layer at work, and as guesses.
    in_use: usize,
    /// The tensor that was guessed for, and the experts that were not there.
    missing: Option<(usize, Vec<usize>)>,
    /// Guesses that are being read.
    guessed: HashMap<Expert, WeightBytes>,
    /// Read for a batch that uses nearly all: the next batch needs them as late as can be.
    passing: Vec<Expert>,
    share: Share,
    trial: Trial,
}

impl ExpertPaging {
    pub fn new(residency: &Residency, model: &Model, file: &Weights) -> Result<ExpertPaging, BackendError> {
        let mut stacks = HashMap::new();
        for stack in model.layers.iter().filter_map(|layer| layer.experts()).flat_map(|experts| experts.stacks()) {
            // A page that is touched before it was asked for brings no neighbours: these may never be used.
            file.raw(&stack)?.advise(Pattern::Random);
            stacks.insert(stack.index, stack);
        }
        Ok(ExpertPaging {
            recent: Recent::new(residency.experts),
            stacks,
            all: residency.all_experts,
            in_use: 0,
            missing: None,
            guessed: HashMap::new(),
            passing: Vec::new(),
            share: Share::default(),
            trial: Trial::default(),
        })
    }

    pub fn held(&self) -> u64 {
        self.recent.held()
    }

    /// As [`crate::paging::Paging::choose`].
    pub fn choose(&mut self, at: &mut Disk<'_>, stacks: &[Tensor], ids: &[u32]) -> Result<Vec<Ticket>, BackendError> {
        let mut chosen: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
        chosen.sort_unstable();
        chosen.dedup();
        self.trial.choice(stacks.first().map_or(0, |stack| stack.index), ids.len(), Instant::now());
        self.judge(at, stacks, &chosen);
        for passed in self.passing.drain(..) {
            self.recent.let_go_first(passed);
        }
        let most = stacks.first().is_some_and(|stack| nearly_all(ids.len(), stack.experts));
        let mut tickets = Vec::with_capacity(stacks.len());
        for stack in stacks {
            let mut last = Ticket::default();
            for expert in &chosen {
                let key = (stack.index, *expert);
                let bytes = self.bytes(at.file, key)?;
                let (len, guessed) = (bytes.len() as u64, self.guessed.remove(&key).is_some());
                if self.recent.touch(key, len) {
                    at.told.read += len;
                    last = at.advice.fetch(bytes);
                } else if guessed {
                    last = last.max(at.advice.confirm(&bytes));
                } else {
                    continue;
                }
                if most {
                    self.passing.push(key);
                }
            }
            tickets.push(last);
        }
        self.let_go_of_guesses(at);
        self.in_use = stacks.len() * chosen.len();
        while let Some(gone) = self.recent.give_up(self.in_use) {
            at.advice.evict(self.bytes(at.file, gone)?);
        }
        Ok(tickets)
    }

    /// How to guess for a layer with this router, for so many rows.
    pub fn how(&self, router: Router, rows: usize) -> Guess {
        if self.recent.held() >= self.all {
            Guess::Nothing
        } else if nearly_all(rows * router.used, router.experts) {
            Guess::All
        } else if self.trial.guesses() {
            Guess::AsRouted
        } else {
            Guess::Nothing
        }
    }

    /// The next layer may choose these experts, the first the likeliest.
    pub fn guess(
        &mut self,
        at: &mut Disk<'_>,
        stacks: &[Tensor],
        experts: impl Iterator<Item = usize>,
        how: Guess,
    ) -> Result<(), BackendError> {
        let Some(first) = stacks.first() else { return Ok(()) };
        self.let_go_of_guesses(at);
        let read = how == Guess::All || self.share.is_worth_reading();
        let mut missing = Vec::new();
        let mut room = read;
        for expert in experts {
            if missing.contains(&expert) {
                continue;
            }
            if !self.recent.holds(&(first.index, expert)) {
                missing.push(expert);
            }
            for stack in stacks {
                room = room && self.read_ahead(at, (stack.index, expert))?;
            }
        }
        if how == Guess::AsRouted {
            self.missing = Some((first.index, missing));
        }
        Ok(())
    }

    /// False: there is no room for it.
    fn read_ahead(&mut self, at: &mut Disk<'_>, key: Expert) -> Result<bool, BackendError> {
        let bytes = self.bytes(at.file, key)?;
        let len = bytes.len() as u64;
        if !self.recent.holds(&key) {
            while let Some(gone) = self.recent.make_room(len, self.in_use) {
                at.advice.evict(self.bytes(at.file, gone)?);
            }
            if !self.recent.has_room(len) {
                return Ok(false);
            }
            at.told.read += len;
            at.advice.guess(bytes.clone());
            self.guessed.insert(key, bytes);
        }
        self.recent.touch(key, len);
        self.in_use += 1;
        Ok(true)
    }

    /// Compares what was guessed for a layer with what was chosen.
    fn judge(&mut self, at: &mut Disk<'_>, stacks: &[Tensor], chosen: &[usize]) {
        let Some((stack, missing)) = self.missing.take() else { return };
        if stacks.first().is_some_and(|first| first.index == stack) {
            let right = missing.iter().filter(|expert| chosen.binary_search(expert).is_ok()).count();
            self.share.learn(right, missing.len());
            at.told.guessed += missing.len() as u64;
            at.told.guessed_right += right as u64;
        }
    }

    /// Those that are left were wrong.
    fn let_go_of_guesses(&mut self, at: &mut Disk<'_>) {
        for waiting in at.advice.call_off() {
            let found = self.guessed.iter().find(|(_, bytes)| bytes.as_ptr() == waiting.as_ptr()).map(|(key, _)| *key);
            if let Some(key) = found {
                self.guessed.remove(&key);
                self.recent.forget(key);
                at.told.read -= waiting.len() as u64;
            }
        }
        for key in self.guessed.drain().map(|(key, _)| key) {
            self.recent.let_go_first(key);
        }
    }

    pub fn bytes(&self, file: &Weights, (tensor, expert): Expert) -> Result<WeightBytes, BackendError> {
        let stack = self.stacks.get(&tensor).ok_or_else(|| invalid(format!("tensor {tensor} has no experts")))?;
        let bytes = file.raw(stack)?;
        let len = bytes.len() / stack.experts.max(1);
        let slice = bytes.slice(expert * len..(expert + 1) * len);
        slice.ok_or_else(|| invalid(format!("tensor {tensor} has no expert {expert}")))
    }
}

/// What experts are read with.
pub(crate) struct Disk<'a> {
    pub file: &'a Weights,
    pub advice: &'a mut dyn Advice,
    pub told: &'a mut Paged,
}

/// So many choices among so many experts leave few out.
fn nearly_all(choices: usize, experts: usize) -> bool {
    choices >= 2 * experts
}

/// Of missing experts that are guessed, the share that must be right: reading one takes as much of the processor whether it
/// is used or not.
const WORTH: f32 = 0.5;
/// What a guess adds to that.
const WEIGHT: f32 = 1.0 / 64.0;

/// How many guesses are right, of late.
#[derive(Debug)]
struct Share(f32);

impl Default for Share {
    fn default() -> Self {
        // A few wrong ones are enough to stop reading.
        Share(WORTH + 0.1)
    }
}

impl Share {
    fn is_worth_reading(&self) -> bool {
        self.0 >= WORTH
    }

    fn learn(&mut self, right: usize, guessed: usize) {
        for n in 0..guessed {
            let held = if n < right { 1.0 } else { 0.0 };
            self.0 += (held - self.0) * WEIGHT;
        }
    }
}

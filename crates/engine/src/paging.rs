//! The order in which weights come from disk and go again, where RAM does not hold all of them.
//!
//! What a step will use is known: one layer after the other, round and round. When a layer begins, the matrices used before
//! it that do not stay are given up, and those of the layers to come are asked for, as far as the window goes. What
//! stays is used from the mapping; what comes and goes is read past the system's cache where that can be, into memory that
//! the layer's products are then given instead of the mapping.
//! Experts are asked for when the router has chosen them, all at once; `expert_paging` has that part.

use crate::Paged;
use crate::expert_paging::{Disk, ExpertPaging, Guess};
use crate::file::Weights;
use backend::{BackendError, HostBytes, Router};
use model::{Model, Piece, Residency, Tensor};
use std::collections::{HashMap, HashSet};
use weights::{Load, Loader, Pager, Ticket, WeightBytes};

/// Takes advice about bytes.
pub(crate) trait Advice: Send {
    fn fetch(&mut self, bytes: WeightBytes) -> Ticket;
    fn guess(&mut self, bytes: WeightBytes);
    fn confirm(&mut self, bytes: &WeightBytes) -> Ticket;
    fn call_off(&mut self) -> Vec<WeightBytes>;
    fn evict(&mut self, bytes: WeightBytes);
    fn wait(&mut self, ticket: Ticket);
}

impl Advice for Pager {
    fn fetch(&mut self, bytes: WeightBytes) -> Ticket {
        Pager::fetch(self, bytes)
    }

    fn guess(&mut self, bytes: WeightBytes) {
        Pager::guess(self, bytes);
    }

    fn confirm(&mut self, bytes: &WeightBytes) -> Ticket {
        Pager::confirm(self, bytes)
    }

    fn call_off(&mut self) -> Vec<WeightBytes> {
        Pager::call_off(self)
    }

    fn evict(&mut self, bytes: WeightBytes) {
        Pager::evict(self, bytes);
    }

    fn wait(&mut self, ticket: Ticket) {
        Pager::wait(self, ticket);
    }
}

pub(crate) struct Paging {
    file: Weights,
    advice: Box<dyn Advice>,
    /// Reads past the system's cache.
    loader: Option<Loader>,
    residency: Residency,
    /// Index of each tensor that is in memory because a step uses it.
    held: HashSet<usize>,
    /// Those that are being read into memory of our own, or are there.
    loads: HashMap<usize, Load>,
    /// Their bytes, by whether they stay.
    kept: u64,
    streamed: u64,
    experts: ExpertPaging,
    /// Counted since the model was loaded.
    told: Paged,
}

impl Paging {
    /// Nothing of what comes and goes is in memory afterwards.
    pub fn new(
        file: Weights,
        advice: Box<dyn Advice>,
        loader: Option<Loader>,
        residency: Residency,
        model: &Model,
    ) -> Result<Paging, BackendError> {
        let experts = ExpertPaging::new(&residency, model, &file)?;
        let budget = residency.kept + residency.window + residency.experts;
        let told = Paged { budget, ..Paged::default() };
        let mut paging = Paging {
            file,
            advice,
            loader,
            residency,
            held: HashSet::new(),
            loads: HashMap::new(),
            kept: 0,
            streamed: 0,
            experts,
            told,
        };
        paging.clear(model)?;
        Ok(paging)
    }

    /// Whoever made the file, or read it for another placement, may have left it in memory.
    fn clear(&mut self, model: &Model) -> Result<(), BackendError> {
        let stays: HashSet<usize> =
            self.residency.layers.iter().flatten().filter(|piece| piece.kept).map(|piece| piece.tensor.index).collect();
        let all = model.layers.iter().flat_map(|layer| layer.tensors()).chain(model.output.tensors());
        for tensor in all.filter(|tensor| !tensor.as_f32 && !stays.contains(&tensor.index)) {
            self.advice.evict(self.file.raw(&tensor)?);
        }
        Ok(())
    }

    /// The advice of one that is no longer needed, for the next one.
    pub fn into_advice(self) -> Box<dyn Advice> {
        self.advice
    }

    pub fn told(&self) -> Paged {
        self.told
    }

    /// Layer `index` is about to be computed, and what was given for the one before is no longer used: returns when its
    /// bytes are there or on their way, with those that are elsewhere than in the mapping, by the tensor's index.
    pub fn begin(&mut self, index: usize) -> Result<Vec<(usize, HostBytes)>, BackendError> {
        let wanted = self.wanted(index);
        let gone = |piece: &&Piece| !piece.kept && self.held.contains(&piece.tensor.index);
        let left: Vec<Tensor> = self.residency.layers.iter().flatten().filter(gone).map(|piece| piece.tensor).collect();
        for tensor in left {
            if !wanted.iter().any(|piece| piece.tensor.index == tensor.index) {
                self.held.remove(&tensor.index);
                self.loads.remove(&tensor.index);
                self.streamed -= tensor.bytes;
                self.advice.evict(self.file.raw(&tensor)?);
            }
        }
        let own = self.residency.layers[index].len();
        let mut ready = None;
        for (n, piece) in wanted.iter().enumerate() {
            if self.held.insert(piece.tensor.index) {
                *(if piece.kept { &mut self.kept } else { &mut self.streamed }) += piece.tensor.bytes;
                self.told.read += piece.tensor.bytes;
                if self.load(piece)? {
                    continue;
                }
                let ticket = self.advice.fetch(self.file.raw(&piece.tensor)?);
                if n < own {
                    ready = Some(ticket);
                }
            }
        }
        self.count();
        if let Some(ticket) = ready {
            self.advice.wait(ticket);
        }
        let loads =
            self.residency.layers[index].iter().filter_map(|piece| self.loads.get_key_value(&piece.tensor.index));
        // What could not be read is touched in the mapping, which says what is wrong with it.
        let loaded = loads.filter_map(|(index, load)| Some((*index, load.wait()? as HostBytes)));
        Ok(loaded.collect())
    }

    /// Begins to read what comes and goes past the system's cache. False: it cannot be done.
    fn load(&mut self, piece: &Piece) -> Result<bool, BackendError> {
        let Some(loader) = self.loader.as_ref().filter(|_| !piece.kept) else { return Ok(false) };
        let bytes = self.file.raw(&piece.tensor)?;
        // Of others, devices have copies.
        let usable = bytes.as_ptr() as usize % 4 == 0;
        let Some(load) = usable.then(|| loader.load(&bytes)).flatten() else { return Ok(false) };
        self.loads.insert(piece.tensor.index, load);
        self.told.direct += piece.tensor.bytes;
        Ok(true)
    }

    /// What layer `index` uses, then what comes after it as far as the window goes.
    fn wanted(&self, index: usize) -> Vec<Piece> {
        let count = self.residency.layers.len();
        let mut wanted = self.residency.layers[index].clone();
        let mut bytes: u64 = wanted.iter().filter(|piece| !piece.kept).map(|piece| piece.tensor.bytes).sum();
        for piece in (index + 1..index + count).flat_map(|next| &self.residency.layers[next % count]) {
            // What stays is read once only.
            if piece.kept && self.held.contains(&piece.tensor.index) {
                continue;
            }
            bytes += piece.tensor.bytes;
            if bytes > self.residency.window.max(1) {
                break;
            }
            wanted.push(*piece);
        }
        wanted
    }

    /// The router has chosen: asks for these experts of each stack, stack by stack, and returns what to wait for before
    /// each stack is used.
    pub fn choose(&mut self, stacks: &[Tensor], ids: &[u32]) -> Result<Vec<Ticket>, BackendError> {
        let Paging { file, advice, told, experts, .. } = self;
        let tickets = experts.choose(&mut Disk { file, advice: &mut **advice, told }, stacks, ids);
        self.count();
        tickets
    }

    /// How to guess what a layer with this router will choose for so many rows.
    pub fn how_to_guess(&self, router: Router, rows: usize) -> Guess {
        self.experts.how(router, rows)
    }

    /// The layer after this one may choose these experts, the first the likeliest.
    pub fn guess(
        &mut self,
        stacks: &[Tensor],
        ids: impl Iterator<Item = usize>,
        how: Guess,
    ) -> Result<(), BackendError> {
        let Paging { file, advice, told, experts, .. } = self;
        experts.guess(&mut Disk { file, advice: &mut **advice, told }, stacks, ids, how)?;
        self.count();
        Ok(())
    }

    pub fn wait(&mut self, ticket: Ticket) {
        self.advice.wait(ticket);
    }

    fn count(&mut self) {
        self.told.held = self.kept + self.streamed + self.experts.held();
        self.told.most_held = self.told.most_held.max(self.told.held);
    }
}

pub(crate) fn invalid(detail: String) -> BackendError {
    BackendError::Invalid { op: "weights", detail }
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;

//! The order in which weights come from disk and go again, where RAM does not hold all of them.
//!
//! What a step will use is known: one layer after the other, round and round. When a layer begins, the matrices used before
//! it that do not stay are given up, and those of the layers to come are asked for, as far as the window goes.
//! Experts are asked for when the router has chosen them, all at once.

use crate::Paged;
use crate::file::Weights;
use backend::BackendError;
use model::{Model, Piece, Residency, Tensor};
use std::collections::{HashMap, HashSet};
use weights::{Pager, Pattern, Recent, Ticket, WeightBytes};

/// Takes advice about bytes.
pub(crate) trait Advice: Send {
    fn fetch(&mut self, bytes: WeightBytes) -> Ticket;
    fn evict(&mut self, bytes: WeightBytes);
    fn wait(&mut self, ticket: Ticket);
}

impl Advice for Pager {
    fn fetch(&mut self, bytes: WeightBytes) -> Ticket {
        Pager::fetch(self, bytes)
    }

    fn evict(&mut self, bytes: WeightBytes) {
        Pager::evict(self, bytes);
    }

    fn wait(&mut self, ticket: Ticket) {
        Pager::wait(self, ticket);
    }
}

/// An expert's part of a tensor: the tensor's index, the expert.
type Expert = (usize, usize);

pub(crate) struct Paging {
    file: Weights,
    advice: Box<dyn Advice>,
    residency: Residency,
    /// Index of each tensor that is in memory because a step uses it.
    held: HashSet<usize>,
    /// Their bytes, by whether they stay.
    kept: u64,
    streamed: u64,
    experts: Recent<Expert>,
    /// The tensors that experts are parts of, by index.
    stacks: HashMap<usize, Tensor>,
    /// Counted since the model was loaded.
    told: Paged,
}

impl Paging {
    /// Nothing of what comes and goes is in memory afterwards.
    pub fn new(
        file: Weights,
        advice: Box<dyn Advice>,
        residency: Residency,
        model: &Model,
    ) -> Result<Paging, BackendError> {
        let experts = Recent::new(residency.experts);
        let budget = residency.kept + residency.window + residency.experts;
        let told = Paged { budget, ..Paged::default() };
        let mut paging = Paging {
            file,
            advice,
            residency,
            held: HashSet::new(),
            kept: 0,
            streamed: 0,
            experts,
            stacks: HashMap::new(),
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
        for stack in model.layers.iter().filter_map(|layer| layer.experts()).flat_map(|experts| experts.stacks()) {
            // A page that is touched before it was asked for brings no neighbours: these may never be used.
            self.file.raw(&stack)?.advise(Pattern::Random);
            self.stacks.insert(stack.index, stack);
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

    /// Layer `index` is about to be computed: returns when its bytes are there or on their way.
    pub fn begin(&mut self, index: usize) -> Result<(), BackendError> {
        let wanted = self.wanted(index);
        let gone = |piece: &&Piece| !piece.kept && self.held.contains(&piece.tensor.index);
        let left: Vec<Tensor> = self.residency.layers.iter().flatten().filter(gone).map(|piece| piece.tensor).collect();
        for tensor in left {
            if !wanted.iter().any(|piece| piece.tensor.index == tensor.index) {
                self.held.remove(&tensor.index);
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
        Ok(())
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
        let mut chosen: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let mut tickets = Vec::with_capacity(stacks.len());
        for stack in stacks {
            let mut last = Ticket::default();
            for expert in &chosen {
                let bytes = self.expert((stack.index, *expert))?;
                let len = bytes.len() as u64;
                if self.experts.touch((stack.index, *expert), len) {
                    self.told.read += len;
                    last = self.advice.fetch(bytes);
                }
            }
            tickets.push(last);
        }
        while let Some(gone) = self.experts.give_up(stacks.len() * chosen.len()) {
            let bytes = self.expert(gone)?;
            self.advice.evict(bytes);
        }
        self.count();
        Ok(tickets)
    }

    pub fn wait(&mut self, ticket: Ticket) {
        self.advice.wait(ticket);
    }

    fn expert(&self, (tensor, expert): Expert) -> Result<WeightBytes, BackendError> {
        let stack = self.stacks.get(&tensor).ok_or_else(|| invalid(format!("tensor {tensor} has no experts")))?;
        let bytes = self.file.raw(stack)?;
        let len = bytes.len() / stack.experts.max(1);
        let slice = bytes.slice(expert * len..(expert + 1) * len);
        slice.ok_or_else(|| invalid(format!("tensor {tensor} has no expert {expert}")))
    }

    fn count(&mut self) {
        self.told.held = self.kept + self.streamed + self.experts.held();
        self.told.most_held = self.told.most_held.max(self.told.held);
    }
}

fn invalid(detail: String) -> BackendError {
    BackendError::Invalid { op: "weights", detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Layout, LayoutParams, Placement};
    use quant::GgmlType;
    use std::sync::{Arc, Mutex};
    use test_models::ModelSpec;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Said {
        Fetch(usize),
        Evict(usize),
        Wait(usize),
    }

    /// Writes down what it is told, by the address of the bytes; tickets are addresses, too.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Said>>>);

    impl Advice for Recorder {
        fn fetch(&mut self, bytes: WeightBytes) -> Ticket {
            self.0.lock().unwrap().push(Said::Fetch(bytes.as_ptr() as usize));
            Ticket::from(bytes.as_ptr() as u64)
        }

        fn evict(&mut self, bytes: WeightBytes) {
            self.0.lock().unwrap().push(Said::Evict(bytes.as_ptr() as usize));
        }

        fn wait(&mut self, ticket: Ticket) {
            self.0.lock().unwrap().push(Said::Wait(u64::from(ticket) as usize));
        }
    }

    impl Recorder {
        fn take(&self) -> Vec<Said> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    /// A model with RAM for this share of its weights.
    fn paging(spec: &ModelSpec, percent: u64) -> (Paging, Recorder, Model) {
        let path = tempfile::NamedTempFile::with_suffix(".gguf").unwrap().into_temp_path();
        std::fs::write(&path, spec.build()).unwrap();
        let file = Weights::new(weights::ModelFile::open(&path, weights::Access::Map).unwrap());
        let model = model::describe(file.gguf()).unwrap();
        let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
        let params = LayoutParams { context: 64, ubatch: 8, kv_type_k, kv_type_v, logits_rows: 1 };
        let layout = Layout::new(&model, params).unwrap();
        let host = layout.totals(0).host;
        let ram = host.kv + host.compute + host.weights / 100 * percent;
        let residency = Residency::new(&model, &layout, Placement::new(0, layout.block_count()), ram).unwrap();
        let recorder = Recorder::default();
        let paging = Paging::new(file, Box::new(recorder.clone()), residency, &model).unwrap();
        (paging, recorder, model)
    }

    #[test]
    fn what_comes_next_is_asked_for_before_what_was_used_is_needed_again() {
        let spec = ModelSpec { n_layer: 8, ..ModelSpec::quantized(GgmlType::Q4_K) };
        let (mut paging, recorder, _) = paging(&spec, 60);
        recorder.take();
        let address = |paging: &Paging, tensor: &Tensor| paging.file.raw(tensor).unwrap().as_ptr() as usize;
        let layers = paging.residency.layers.clone();
        let mut held: HashSet<usize> = HashSet::new();
        let mut fetched = Vec::new();
        for step in 0..3 {
            for index in 0..layers.len() {
                paging.begin(index).unwrap();
                let own: Vec<usize> = layers[index].iter().map(|piece| address(&paging, &piece.tensor)).collect();
                for said in recorder.take() {
                    match said {
                        Said::Fetch(at) => {
                            assert!(held.insert(at), "nothing is asked for twice");
                            fetched.push((step, at));
                        }
                        Said::Evict(at) => {
                            assert!(held.remove(&at), "only what is there is given up");
                            assert!(!own.contains(&at), "what is used now stays");
                        }
                        Said::Wait(at) => assert!(own.contains(&at), "only what is used now is waited for"),
                    }
                }
                assert!(own.iter().all(|at| held.contains(at)), "layer {index} is there or on its way");
                let told = paging.told();
                assert!(told.held <= told.budget, "{told:?}");
                // Something of what follows, too.
                let ahead = held.iter().filter(|at| !own.contains(at));
                assert!(ahead.count() > 0, "layer {index} of step {step}");
            }
        }
        // What stays is read once, everything else in the order of use, once a step.
        let in_order = |kept: bool| -> Vec<usize> {
            let pieces = layers.iter().flatten().filter(|piece| piece.kept == kept);
            pieces.map(|piece| address(&paging, &piece.tensor)).collect()
        };
        let (kept, streamed) = (in_order(true), in_order(false));
        assert!(!kept.is_empty() && !streamed.is_empty());
        let of =
            |set: &[usize]| -> Vec<usize> { fetched.iter().map(|(_, at)| *at).filter(|at| set.contains(at)).collect() };
        assert_eq!(of(&kept), kept);
        let rounds = of(&streamed);
        assert!(rounds.len() >= 3 * streamed.len() && rounds.len() < 4 * streamed.len());
        for (n, at) in rounds.iter().enumerate() {
            assert_eq!(*at, streamed[n % streamed.len()]);
        }
    }

    #[test]
    fn a_step_that_was_cancelled_leaves_nothing_behind() {
        let spec = ModelSpec { n_layer: 8, ..ModelSpec::quantized(GgmlType::Q4_K) };
        let (mut paging, ..) = paging(&spec, 50);
        for index in [0, 1, 2, 3, 0, 5, 0, 1, 8, 4, 0] {
            paging.begin(index).unwrap();
            let told = paging.told();
            assert!(told.held <= told.budget, "{index}: {told:?}");
        }
    }

    #[test]
    fn chosen_experts_are_asked_for_stack_by_stack_and_only_once() {
        let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
        let (mut paging, recorder, model) = paging(&spec, 70);
        let stacks = model.layers[0].experts().unwrap().stacks();
        paging.begin(0).unwrap();
        recorder.take();
        let place = |paging: &Paging, stack: &Tensor, expert: usize| {
            paging.expert((stack.index, expert)).unwrap().as_ptr() as usize
        };
        let tickets = paging.choose(&stacks, &[2, 0, 2]).unwrap();
        assert_eq!(tickets.len(), stacks.len());
        let expected: Vec<Said> =
            stacks.iter().flat_map(|stack| [0, 2].map(|expert| Said::Fetch(place(&paging, stack, expert)))).collect();
        assert_eq!(recorder.take(), expected);
        paging.choose(&stacks, &[0]).unwrap();
        assert_eq!(recorder.take(), [], "they are there");
        assert!(paging.choose(&stacks, &[1_000_000]).is_err());
    }

    #[test]
    fn experts_beyond_the_budget_go_when_others_come() {
        let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
        let (mut paging, recorder, model) = paging(&spec, 60);
        recorder.take();
        let mut gone = 0;
        for round in 0..6u32 {
            for layer in &model.layers {
                let stacks = layer.experts().unwrap().stacks();
                paging.choose(&stacks, &[round % 4, (round + 1) % 4]).unwrap();
                gone += recorder.take().iter().filter(|said| matches!(said, Said::Evict(_))).count();
                assert!(paging.experts.held() <= paging.residency.experts, "{:?}", paging.told());
            }
        }
        assert!(gone > 0);
    }
}

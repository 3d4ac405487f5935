//! A loaded model at work: devices, the sequence in the KV cache, steps with recovery. One thread at a time is in here.

use crate::checkpoint::States;
use crate::decoder::{Context, StepError};
use crate::file::Weights;
use crate::paging::{Advice, Paging};
use crate::read_ahead::ReadAhead;
use crate::site::Site;
use crate::sites::Sites;
use crate::streaming::{Stream, Streamer};
use crate::{Cancel, Devices, EngineError, Recovery, RecoveryCause};
use backend::{BackendError, Device};
use model::{Layout, MAX_ACCELERATORS, Model, Offload, Place, Placement, Residency, Split};
use std::sync::Arc;
use std::time::Instant;

/// What never changes while a model is loaded; shared with whoever only asks.
pub(crate) struct Loaded {
    pub model: Model,
    pub layout: Layout,
    pub file: Weights,
}

impl Loaded {
    /// An accelerator without layers.
    pub fn accelerator(&self, number: usize, device: Box<dyn Device>) -> Site {
        let offload = Offload::new(&self.model, &self.layout.params, &|need| device.scratch(need));
        Site::new(Place::Accelerator(number), device, Some(offload))
    }
}

pub(crate) struct Core {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) sites: Sites,
    /// The tokens fed so far, by position.
    pub(crate) sequence: Vec<u32>,
    /// How many of them have their K and V in the caches: all, unless a device was lost.
    pub(crate) computed: usize,
    /// The most positions that were written since the caches were empty: what is beyond `computed` is in cells that a
    /// window wanted back.
    pub(crate) written: usize,
    pub(crate) states: States,
    /// RAM for weights and buffers on the host, where there is a limit.
    host_ram: Option<u64>,
    /// The placement for which it was decided what stays in RAM.
    paged_for: Option<Placement>,
    /// Where all of it stays.
    reads: Option<ReadAhead>,
    /// Recoveries that nobody was told of yet.
    pub(crate) recoveries: Vec<Recovery>,
    /// Layers before this one leave their routed experts on the host.
    pub(crate) cpu_moe: usize,
    /// When accelerators were last asked whether other programs need their memory.
    pub(crate) watched: Option<Instant>,
    pub(crate) streamer: Streamer,
}

impl Core {
    /// Puts every layer on a device: those of `gpu_layers` on accelerators as long as there is room, the rest on the
    /// host, as are the routed experts of the first `cpu_moe` layers. `progress` goes from 0 to 1.
    pub fn load(
        loaded: Arc<Loaded>,
        devices: Devices,
        (gpu_layers, cpu_moe): (Split, usize),
        host_ram: Option<u64>,
        progress: &mut dyn FnMut(f32),
        cancel: &Cancel,
    ) -> Result<Core, EngineError> {
        let accelerators = devices.accelerators.into_iter().take(MAX_ACCELERATORS).enumerate();
        let accelerator =
            |(number, device): (usize, Option<_>)| device.map(|device| loaded.accelerator(number, device));
        let accelerators = accelerators.map(accelerator).collect();
        let sites = Sites { host: Site::new(Place::Host, devices.host, None), accelerators };
        let wanted = Placement::split(gpu_layers, loaded.layout.block_count()).with_cpu_moe(cpu_moe);
        let mut core = Core {
            loaded,
            cpu_moe: wanted.cpu_moe,
            sites,
            sequence: Vec::new(),
            computed: 0,
            written: 0,
            states: States::default(),
            host_ram,
            paged_for: None,
            reads: None,
            recoveries: Vec::new(),
            watched: None,
            streamer: Streamer::default(),
        };
        let Loaded { model, layout, file } = &*core.loaded;
        core.sites.host.add_input(model, layout, file)?;
        let count = core.loaded.layout.block_count() + 1;
        let wanted = core.possible(wanted);
        let order: Vec<usize> = core.order().filter(|index| wanted.on_accelerator(*index)).collect();
        let (mut full, mut failed, mut next) = (core.none_full(), None, 0);
        while let Some(index) = order.get(next) {
            if cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            if core.sites.on_accelerator(*index) {
                next += 1;
                continue;
            }
            match core.bring(*index, &wanted, true, &mut full, &mut failed) {
                Ok(true) => progress(core.gpu_layers() as f32 / count as f32),
                // It stays on the host; what is wanted on another accelerator may have room there.
                Ok(false) => next += 1,
                Err(fault) => {
                    let (RecoveryCause::DeviceLost, number) = fault.of_accelerator()? else {
                        return Err(fault.error.into());
                    };
                    failed.get_or_insert((RecoveryCause::DeviceLost, number));
                    // Its layers begin anew: on others, if these have room.
                    core.abandon(number);
                    next = 0;
                }
            }
        }
        if let Some((cause, number)) = failed {
            core.note_since(cause, number, &wanted);
        }
        let rest: Vec<usize> = (0..count).filter(|index| !core.sites.on_accelerator(*index)).collect();
        for (done, index) in rest.iter().enumerate() {
            if cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            let Loaded { model, layout, file } = &*core.loaded;
            core.sites.host.add_layer(*index, true, model, layout, file, None)?;
            progress((count - rest.len() + done + 1) as f32 / count as f32);
        }
        core.page()?;
        Ok(core)
    }

    pub fn layout(&self) -> &Layout {
        &self.loaded.layout
    }

    pub fn vocab_size(&self) -> usize {
        self.loaded.model.vocab_size
    }

    pub fn sequence_len(&self) -> usize {
        self.sequence.len()
    }

    /// Keeps the part of the sequence that `prompt` shares, and returns its length. At least the last token of the
    /// prompt is left to compute, because its logits are needed. Recurrent states only go back to
    /// checkpoints, and cells that a window no longer needs are gone: then less is kept, down to nothing.
    pub fn reuse(&mut self, prompt: &[u32]) -> usize {
        let shared = self.sequence.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.cut(shared.min(prompt.len().saturating_sub(1)))
    }

    /// Keeps the first `wanted` tokens of the sequence, or as many as can be gone back to, and says how many.
    pub fn cut(&mut self, wanted: usize) -> usize {
        let wanted = wanted.min(self.sequence.len());
        let layout = &self.loaded.layout;
        let mut kept = wanted;
        if layout.is_recurrent() && wanted < self.computed {
            kept = self.states.rewind(wanted);
        }
        if kept < self.computed && !layout.can_rewind(self.written, kept) {
            kept = 0;
            self.states.clear();
        }
        self.sequence.truncate(kept);
        self.computed = self.computed.min(kept);
        if self.computed == 0 {
            self.written = 0;
        }
        kept
    }

    /// The next sequence shares nothing with this one.
    pub fn forget(&mut self) {
        self.sequence.clear();
        (self.computed, self.written) = (0, 0);
        self.states.clear();
    }

    /// Keeps the recurrent states of the sequence so far: a later prompt may go back to here.
    pub fn keep_states(&mut self) {
        // After the loss of a device they may not be there yet.
        if self.computed == self.sequence.len() {
            self.states.keep(self.computed);
        }
    }

    /// Computes one micro-batch after the sequence, recovering from accelerators' failures, and adds it to it.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        rows: &[u32],
        cancel: &Cancel,
        logits: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        let start = self.sequence.len();
        let context = self.loaded.layout.params.context;
        if start + tokens.len() > context as usize {
            return Err(EngineError::ContextFull { needed: (start + tokens.len()) as u32, context });
        }
        loop {
            // After the loss of a device the tokens before this batch come first.
            if self.computed < start {
                let end = start.min(self.computed + self.loaded.layout.params.ubatch as usize);
                let piece = self.sequence[self.computed..end].to_vec();
                if self.try_step(&piece, &[], cancel, &mut |_| {})? {
                    self.computed = end;
                }
                continue;
            }
            // A step that fails in its output layer is done again: logits are only given on when it has ended.
            let mut collected: Vec<Vec<f32>> = Vec::new();
            if self.try_step(tokens, rows, cancel, &mut |piece| collected.push(piece.to_vec()))? {
                collected.iter().for_each(|piece| logits(piece));
                self.sequence.extend_from_slice(tokens);
                self.computed = self.sequence.len();
                return Ok(());
            }
        }
    }

    /// Weights are being read in before they are asked for.
    pub fn reads(&self) -> bool {
        self.reads.as_ref().is_some_and(ReadAhead::is_at_work)
    }

    /// Decides which weights on the host stay in RAM, if layers were moved since that was decided.
    fn page(&mut self) -> Result<(), BackendError> {
        let placed = self.placed();
        let Some(ram) = self.host_ram.filter(|_| self.paged_for.as_ref() != Some(&placed)) else { return Ok(()) };
        let before = self.sites.host.paging.take().map(Paging::into_advice);
        let Loaded { model, layout, file } = &*self.loaded;
        let placed = &*self.paged_for.insert(placed);
        let residency = Residency::new(model, layout, placed, ram);
        self.reads = None;
        let Some(residency) = residency else {
            file.stays();
            let tensors = (0..=layout.block_count()).flat_map(|index| model.host_tensors(index, placed));
            let weights = tensors.map(|tensor| file.raw(&tensor)).collect::<Result<_, _>>()?;
            self.reads = ReadAhead::start(weights);
            return Ok(());
        };
        let pager = || weights::Pager::new().ok().map(|pager| Box::new(pager) as Box<dyn Advice>);
        // Without a thread for it, the system reads pages when they are touched, as for any file.
        let Some(advice) = before.or_else(pager) else { return Ok(()) };
        let loader = weights::Loader::new(residency.window).ok().filter(|_| residency.streamed > 0);
        self.sites.host.paging = Some(Paging::new(file.clone(), advice, loader, residency, model)?);
        Ok(())
    }

    /// One step at the end of what is computed. False: it failed, the failure is mended, try again.
    fn try_step(
        &mut self,
        tokens: &[u32],
        rows: &[u32],
        cancel: &Cancel,
        logits: &mut dyn FnMut(&[f32]),
    ) -> Result<bool, EngineError> {
        self.page()?;
        let ready = self.ready_to_stream(tokens.len());
        let streamed = match ready {
            Ok(streamed) => streamed,
            Err(fault) => return self.recover(fault).map(|_| false),
        };
        let Loaded { model, layout, file } = &*self.loaded;
        let context = Context { model, layout, file, cancel, states: &self.states };
        let positions = self.computed..self.computed + tokens.len();
        let stream = streamed.then(|| Stream::new(&mut self.streamer, &self.loaded, &self.states, positions)).flatten();
        let result = context.step(&mut self.sites, stream, tokens, self.computed, rows, logits);
        if streamed {
            self.sites.accelerators.iter_mut().flatten().for_each(Site::take_all_back);
        }
        match result {
            Ok(()) => {
                self.states.advance(self.computed);
                self.written = self.written.max(self.computed + tokens.len());
                Ok(true)
            }
            Err(StepError::Cancelled) => Err(EngineError::Cancelled),
            // What was to be faster goes first.
            Err(StepError::Fault(fault)) if self.streamer.is_short(&fault) && self.stop_streaming() => Ok(false),
            Err(StepError::Fault(fault)) => self.recover(fault).map(|_| false),
        }
    }
}

//! A loaded model at work: devices, the sequence in the KV cache, steps with recovery. One thread at a time is in here.

use crate::checkpoint::States;
use crate::decoder::{Context, Sites, StepError};
use crate::file::Weights;
use crate::paging::{Advice, Paging};
use crate::site::Site;
use crate::transfer::copy_layer;
use crate::{Cancel, Devices, EngineError, Placement, Recovery, RecoveryCause};
use backend::{BackendError, Device};
use model::{Layout, Model, Offload, Residency};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What never changes while a model is loaded; shared with whoever only asks.
pub(crate) struct Loaded {
    pub model: Model,
    pub layout: Layout,
    pub file: Weights,
}

impl Loaded {
    /// The most layers that a device can compute.
    fn most_on(&self, device: &dyn Device) -> usize {
        Offload::new(&self.model, &self.layout.params, &|need| device.scratch(need)).layers()
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
    /// The number of layers elsewhere for which it was decided what stays in RAM.
    paged_for: Option<usize>,
    /// Recoveries that nobody was told of yet.
    recoveries: Vec<Recovery>,
    /// The most layers that the accelerator can compute.
    most: usize,
    /// When the accelerator was last asked whether other programs need its memory.
    watched: Option<Instant>,
}

/// How often that is.
const WATCH: Duration = Duration::from_millis(250);

impl Core {
    /// Puts every layer on a device: up to `gpu_layers` on the accelerator as long as there is room, the rest on the
    /// host. `progress` goes from 0 to 1.
    pub fn load(
        loaded: Arc<Loaded>,
        devices: Devices,
        gpu_layers: usize,
        host_ram: Option<u64>,
        progress: &mut dyn FnMut(f32),
        cancel: &Cancel,
    ) -> Result<Core, EngineError> {
        let sites = Sites { host: Site::new(devices.host), accelerator: devices.accelerator.map(Site::new) };
        let most = sites.accelerator.as_ref().map_or(0, |site| loaded.most_on(&*site.device));
        let mut core = Core {
            loaded,
            most,
            sites,
            sequence: Vec::new(),
            computed: 0,
            written: 0,
            states: States::default(),
            host_ram,
            paged_for: None,
            recoveries: Vec::new(),
            watched: None,
        };
        let Loaded { model, layout, file } = &*core.loaded;
        core.sites.host.add_input(model, layout, file)?;
        let count = core.loaded.layout.block_count() + 1;
        let wanted = gpu_layers.min(most);
        let mut room = true;
        for (done, index) in core.order().take(wanted).enumerate() {
            if cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            match core.add_to_accelerator(index) {
                Ok(()) => progress((done + 1) as f32 / count as f32),
                Err(error) => {
                    let cause = recoverable(&error).ok_or(error)?;
                    if cause == RecoveryCause::DeviceLost {
                        core.abandon_accelerator();
                    }
                    let moved = wanted - core.gpu_layers();
                    core.note(cause, moved);
                    room = false;
                }
            }
            if !room {
                break;
            }
        }
        let rest: Vec<usize> = (0..count).filter(|index| !core.sites.on_accelerator(*index)).collect();
        for (done, index) in rest.iter().enumerate() {
            if cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            let Loaded { model, layout, file } = &*core.loaded;
            core.sites.host.add_layer(*index, model, layout, file)?;
            progress((count - rest.len() + done + 1) as f32 / count as f32);
        }
        Ok(core)
    }

    /// Layer indices in the order in which they go to the accelerator: the model's last first, the output at the end.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let blocks = self.loaded.layout.block_count();
        (0..blocks).rev().chain([blocks])
    }

    pub fn gpu_layers(&self) -> usize {
        (0..=self.loaded.layout.block_count()).filter(|index| self.sites.on_accelerator(*index)).count()
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

    pub fn placement(&self) -> Placement {
        let gpu_layers = self.gpu_layers();
        let totals = self.loaded.layout.totals(gpu_layers);
        Placement {
            has_accelerator: self.sites.accelerator.is_some(),
            gpu_layers: gpu_layers as u32,
            layers: self.loaded.layout.block_count() as u32 + 1,
            host_planned: totals.host.kv + totals.host.compute,
            host_used: self.sites.host.used(),
            accelerator_planned: totals.accelerator.total(),
            accelerator_used: self.sites.accelerator.as_ref().map_or(0, Site::used),
            paged: self.sites.host.paging.as_ref().map(Paging::told),
        }
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        std::mem::take(&mut self.recoveries)
    }

    fn note(&mut self, cause: RecoveryCause, layers_moved: usize) {
        let gpu_layers = self.gpu_layers() as u32;
        self.recoveries.push(Recovery { cause, layers_moved: layers_moved as u32, gpu_layers });
    }

    fn add_to_accelerator(&mut self, index: usize) -> Result<(), BackendError> {
        let Loaded { model, layout, file } = &*self.loaded;
        match &mut self.sites.accelerator {
            Some(site) => site.add_layer(index, model, layout, file),
            None => Err(BackendError::Lost { device: "the accelerator".into(), detail: "there is none".into() }),
        }
    }

    /// Moves layers, with their part of the KV cache, until `wanted` (of those that it can compute) are on the accelerator
    /// or it is full.
    /// Layers that do not fit stay where they are: a recovery says how many. `moved` is called after each layer and says
    /// whether to go on.
    pub fn set_gpu_layers(&mut self, wanted: usize, moved: &mut dyn FnMut(&Core) -> bool) -> Result<(), EngineError> {
        if self.sites.accelerator.is_none() {
            return Ok(());
        }
        let wanted = wanted.min(self.most);
        let order: Vec<usize> = self.order().collect();
        while self.gpu_layers() > wanted {
            let index = order[self.gpu_layers() - 1];
            if let Err(error) = self.move_layer(index, false) {
                return self.recover(error).map(|_| ());
            }
            if !moved(self) {
                return Ok(());
            }
        }
        while self.gpu_layers() < wanted {
            let index = order[self.gpu_layers()];
            if let Err(error) = self.move_layer(index, true) {
                let Some(cause) = recoverable(&error) else { return Err(error.into()) };
                let missing = wanted - self.gpu_layers();
                if cause == RecoveryCause::DeviceLost {
                    self.lose_accelerator()?;
                }
                self.note(cause, missing);
                return Ok(());
            }
            if !moved(self) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes a device in the place of a lost one, or of none.
    pub fn attach(&mut self, device: Box<dyn Device>) {
        if self.sites.accelerator.is_none() {
            self.most = self.loaded.most_on(&*device);
            self.sites.accelerator = Some(Site::new(device));
        }
    }

    /// Moves layers to the host while other programs press for the accelerator's memory, so that nothing has to fail
    /// first. Asks now and then only.
    pub fn relieve(&mut self) -> Result<(), EngineError> {
        if self.watched.is_some_and(|at| at.elapsed() < WATCH) {
            return Ok(());
        }
        self.watched = Some(Instant::now());
        let (before, order): (usize, Vec<usize>) = (self.gpu_layers(), self.order().collect());
        let mut failed = None;
        while self.gpu_layers() > 0
            && self.sites.accelerator.as_mut().is_some_and(|site| site.device.pressure() > 0)
            && failed.is_none()
        {
            failed = self.move_layer(order[self.gpu_layers() - 1], false).err();
        }
        if self.gpu_layers() < before {
            self.note(RecoveryCause::OutOfMemory, before - self.gpu_layers());
        }
        failed.map_or(Ok(()), |error| self.recover(error).map(drop))
    }

    /// Moves one layer; on an error it is still where it was.
    fn move_layer(&mut self, index: usize, to_accelerator: bool) -> Result<(), BackendError> {
        let Loaded { model, layout, file } = &*self.loaded;
        let Some(accelerator) = &mut self.sites.accelerator else { return Ok(()) };
        let (from, to) = match to_accelerator {
            true => (&mut self.sites.host, accelerator),
            false => (accelerator, &mut self.sites.host),
        };
        let source = layout.layers.get(index).and_then(|layer| layer.cache_source);
        let had_copy = source.is_some_and(|source| to.copy(source).is_some());
        to.add_layer(index, model, layout, file)?;
        if let Some(layer) = model.layers.get(index)
            && let Err(error) = copy_layer(from, to, (index, layer), layout, self.computed, had_copy)
        {
            to.remove_layer(index, layout);
            return Err(error);
        }
        from.remove_layer(index, layout);
        Ok(())
    }

    /// The accelerator is gone with its caches: everything is on the host, and the sequence must be computed again.
    fn lose_accelerator(&mut self) -> Result<(), EngineError> {
        self.abandon_accelerator();
        self.computed = 0;
        self.written = 0;
        self.states.clear();
        let Loaded { model, layout, file } = &*self.loaded;
        for index in 0..=layout.block_count() {
            if !self.sites.host.has(index) {
                self.sites.host.add_layer(index, model, layout, file)?;
            }
        }
        Ok(())
    }

    fn abandon_accelerator(&mut self) {
        if let Some(mut site) = self.sites.accelerator.take() {
            site.abandon();
        }
    }

    /// Makes it possible to go on after an accelerator's error, or gives the error back.
    /// True: the caches hold what they held before. False: the sequence must be computed again.
    pub(crate) fn recover(&mut self, error: BackendError) -> Result<bool, EngineError> {
        let cause = recoverable(&error).ok_or_else(|| EngineError::from(error.clone()))?;
        let before = self.gpu_layers();
        if cause == RecoveryCause::DeviceLost || before == 0 {
            self.lose_accelerator()?;
            self.note(RecoveryCause::DeviceLost, before);
            return Ok(false);
        }
        // One layer, then as many more as it takes to be below the limit that holds now.
        let order: Vec<usize> = self.order().collect();
        while self.gpu_layers() > 0 {
            if let Err(error) = self.move_layer(order[self.gpu_layers() - 1], false) {
                if matches!(recoverable(&error), Some(RecoveryCause::DeviceLost)) {
                    self.lose_accelerator()?;
                    self.note(RecoveryCause::DeviceLost, before);
                    return Ok(false);
                }
                return Err(error.into());
            }
            let memory = self.sites.accelerator.as_ref().map(|site| site.device.memory()).unwrap_or_default();
            if memory.limit.is_none_or(|limit| memory.used <= limit) {
                break;
            }
        }
        self.note(cause, before - self.gpu_layers());
        Ok(true)
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

    /// Computes one micro-batch after the sequence, recovering from the accelerator's failures, and adds it to it.
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

    /// Decides which weights on the host stay in RAM, if layers were moved since that was decided.
    fn page(&mut self) -> Result<(), BackendError> {
        let gpu_layers = self.gpu_layers();
        let Some(ram) = self.host_ram.filter(|_| self.paged_for != Some(gpu_layers)) else { return Ok(()) };
        self.paged_for = Some(gpu_layers);
        let before = self.sites.host.paging.take().map(Paging::into_advice);
        let Loaded { model, layout, file } = &*self.loaded;
        let Some(residency) = Residency::new(model, layout, gpu_layers, ram) else { return Ok(()) };
        let pager = || weights::Pager::new().ok().map(|pager| Box::new(pager) as Box<dyn Advice>);
        // Without a thread for it, the system reads pages when they are touched, as for any file.
        let Some(advice) = before.or_else(pager) else { return Ok(()) };
        self.sites.host.paging = Some(Paging::new(file.clone(), advice, residency, model)?);
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
        let Loaded { model, layout, file } = &*self.loaded;
        let context = Context { model, layout, file, cancel, states: &self.states };
        match context.step(&mut self.sites, tokens, self.computed, rows, logits) {
            Ok(()) => {
                self.states.advance(self.computed);
                self.written = self.written.max(self.computed + tokens.len());
                Ok(true)
            }
            Err(StepError::Cancelled) => Err(EngineError::Cancelled),
            Err(StepError::Host(error)) => Err(error.into()),
            Err(StepError::Accelerator(error)) => self.recover(error).map(|_| false),
        }
    }
}

fn recoverable(error: &BackendError) -> Option<RecoveryCause> {
    match error {
        BackendError::OutOfMemory { .. } => Some(RecoveryCause::OutOfMemory),
        BackendError::Lost { .. } => Some(RecoveryCause::DeviceLost),
        BackendError::Unsupported { .. } | BackendError::Invalid { .. } => None,
    }
}

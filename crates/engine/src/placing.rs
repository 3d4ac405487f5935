//! Layers and their experts go from device to device between two steps: because somebody wishes it, because memory is short,
//! because a device is gone.

use crate::core::{Core, Loaded};
use crate::paging::Paging;
use crate::site::Site;
use crate::transfer::copy_layer;
use crate::{EngineError, Placement, Recovery, RecoveryCause};
use backend::{BackendError, Device};
use std::time::{Duration, Instant};

/// How often the accelerator is asked whether other programs need its memory.
const WATCH: Duration = Duration::from_millis(250);

impl Core {
    /// Layer indices in the order in which they go to the accelerator: the model's last first, the output at the end.
    pub(crate) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let blocks = self.loaded.layout.block_count();
        (0..blocks).rev().chain([blocks])
    }

    pub fn gpu_layers(&self) -> usize {
        (0..=self.loaded.layout.block_count()).filter(|index| self.sites.on_accelerator(*index)).count()
    }

    /// What holds now.
    pub(crate) fn placed(&self) -> model::Placement {
        model::Placement::new(self.gpu_layers(), self.loaded.layout.block_count()).with_cpu_moe(self.cpu_moe)
    }

    /// The most layers that the accelerator can compute, where those before layer `cpu_moe` leave their experts.
    pub(crate) fn most(&self, cpu_moe: usize) -> usize {
        self.offload.as_ref().map_or(0, |offload| offload.layers(cpu_moe))
    }

    pub fn placement(&self) -> Placement {
        let (layout, placed) = (&self.loaded.layout, self.placed());
        let totals = layout.placed(placed);
        let apart = (0..layout.block_count()).filter(|index| layout.experts_apart(placed, *index)).count();
        Placement {
            has_accelerator: self.sites.accelerator.is_some(),
            gpu_layers: placed.gpu_layers as u32,
            cpu_moe: placed.cpu_moe as u32,
            experts_apart: apart as u32,
            layers: layout.block_count() as u32 + 1,
            host_planned: totals.host.kv + totals.host.compute,
            host_used: self.sites.host.used(),
            accelerator_planned: totals.accelerator.total() + self.streamer.held(),
            accelerator_used: self.sites.accelerator.as_ref().map_or(0, Site::used),
            streamed: self.streamer.bytes,
            paged: self.sites.host.paging.as_ref().map(Paging::told),
        }
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        std::mem::take(&mut self.recoveries)
    }

    /// Notes what is not where it was, or was wished: so many layers on the accelerator, those from one on with experts.
    pub(crate) fn note_since(&mut self, cause: RecoveryCause, (layers, cpu_moe): (usize, usize)) {
        let now = self.placed();
        let apart = (cpu_moe..now.cpu_moe).filter(|index| self.loaded.layout.experts_apart(now, *index));
        self.recoveries.push(Recovery {
            cause,
            experts_moved: apart.count() as u32,
            layers_moved: layers.saturating_sub(now.gpu_layers) as u32,
            gpu_layers: now.gpu_layers as u32,
        });
    }

    /// Whether layer `index` leaves its experts on the host when it goes to the accelerator.
    fn leaves_experts(&self, index: usize) -> bool {
        index < self.cpu_moe && self.loaded.layout.layers[index].experts > 0
    }

    /// Puts a layer there that is nowhere yet.
    pub(crate) fn add_to_accelerator(&mut self, index: usize) -> Result<(), BackendError> {
        let apart = self.leaves_experts(index);
        let Loaded { model, layout, file } = &*self.loaded;
        let Some(site) = &mut self.sites.accelerator else {
            return Err(BackendError::Lost { device: "the accelerator".into(), detail: "there is none".into() });
        };
        if apart {
            self.sites.host.add_guest((index, &model.layers[index]), layout, file)?;
        }
        let added = site.add_layer(index, !apart, model, layout, file);
        if added.is_err() {
            self.sites.host.remove_guest(index, layout);
        }
        added
    }

    /// Moves layers, with their part of the KV cache, until `gpu_layers` (of those that it can compute) are on the
    /// accelerator or it is full, and the routed experts of the first `cpu_moe` layers to the host, those of others to their
    /// layers. What does not fit stays where it is: a recovery says how much. `moved` is called after each move and says
    /// whether to go on.
    pub fn place(
        &mut self,
        (gpu_layers, cpu_moe): (usize, usize),
        moved: &mut dyn FnMut(&Core) -> bool,
    ) -> Result<(), EngineError> {
        let cpu_moe = cpu_moe.min(self.loaded.layout.block_count());
        if self.sites.accelerator.is_none() {
            self.cpu_moe = cpu_moe;
            return Ok(());
        }
        self.renew_streaming();
        let wanted = gpu_layers.min(self.most(cpu_moe));
        let order: Vec<usize> = self.order().collect();
        // What makes room comes first.
        let mut failed = None;
        while failed.is_none() && (self.cpu_moe < cpu_moe || self.gpu_layers() > wanted) {
            let step = match self.cpu_moe < cpu_moe {
                true => self.leave_experts_of(self.cpu_moe),
                false => self.move_layer(order[self.gpu_layers() - 1], false),
            };
            failed = step.err();
            if failed.is_none() && !moved(self) {
                return Ok(());
            }
        }
        if let Some(error) = failed {
            return self.recover(error).map(drop);
        }
        while self.gpu_layers() < wanted || self.cpu_moe > cpu_moe {
            let step = match self.gpu_layers() < wanted {
                true => self.move_layer(order[self.gpu_layers()], true),
                false => self.bring_experts_of(self.cpu_moe - 1),
            };
            if let Err(error) = step {
                let Some(cause) = recoverable(&error) else { return Err(error.into()) };
                if cause == RecoveryCause::DeviceLost {
                    self.lose_accelerator()?;
                }
                self.note_since(cause, (wanted, cpu_moe));
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
            self.offload = Some(self.loaded.offload(&*device));
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
        let (before, mut failed, mut moved) = (self.placed(), None, false);
        if self.streamer.held() > 0 && self.sites.accelerator.as_mut().is_some_and(|site| site.device.pressure() > 0) {
            self.stop_streaming();
        }
        while self.gpu_layers() > 0
            && self.sites.accelerator.as_mut().is_some_and(|site| site.device.pressure() > 0)
            && failed.is_none()
        {
            failed = self.retreat().err();
            moved |= failed.is_none();
        }
        if moved {
            self.note_since(RecoveryCause::OutOfMemory, (before.gpu_layers, before.cpu_moe));
        }
        failed.map_or(Ok(()), |error| self.recover(error).map(drop))
    }

    /// One step back from the accelerator: the experts of one layer more, where layers leave theirs on the host, or else a
    /// layer.
    fn retreat(&mut self) -> Result<(), BackendError> {
        let layers = self.gpu_layers();
        if self.leave_experts(layers)? {
            return Ok(());
        }
        let last = self.order().nth(layers.saturating_sub(1));
        last.map_or(Ok(()), |index| self.move_layer(index, false))
    }

    /// Where some of so many layers leave their experts on the host, one more does. False: none does, or all do.
    pub(crate) fn leave_experts(&mut self, gpu_layers: usize) -> Result<bool, BackendError> {
        let layout = &self.loaded.layout;
        let blocks = layout.block_count();
        let has = |index: &usize| layout.layers[*index].experts > 0;
        let first = blocks - gpu_layers.min(blocks);
        let next = (self.cpu_moe.max(first)..blocks).find(has);
        let Some(next) = next.filter(|_| (first..self.cpu_moe).any(|index| has(&index))) else { return Ok(false) };
        self.leave_experts_of(next)?;
        Ok(true)
    }

    /// The experts of layer `index`, and of all before it, are on the host: those before are already.
    fn leave_experts_of(&mut self, index: usize) -> Result<(), BackendError> {
        let Loaded { model, layout, file } = &*self.loaded;
        if let Some(site) = self.sites.accelerator.as_mut().filter(|site| site.has(index))
            && layout.layers[index].experts > 0
        {
            let layer = (index, &model.layers[index]);
            self.sites.host.add_guest(layer, layout, file)?;
            site.remove_experts(layer);
        }
        self.cpu_moe = index + 1;
        Ok(())
    }

    /// The experts of layer `index`, the last that left them on the host, go to their layer.
    fn bring_experts_of(&mut self, index: usize) -> Result<(), BackendError> {
        let Loaded { model, layout, file } = &*self.loaded;
        if let Some(site) = self.sites.accelerator.as_mut().filter(|site| site.has(index))
            && self.sites.host.has_guest(index)
        {
            site.add_experts((index, &model.layers[index]), file)?;
            self.sites.host.remove_guest(index, layout);
        }
        self.cpu_moe = index;
        Ok(())
    }

    /// Moves one layer; on an error it is still where it was.
    fn move_layer(&mut self, index: usize, to_accelerator: bool) -> Result<(), BackendError> {
        let apart = to_accelerator && self.leaves_experts(index);
        let Loaded { model, layout, file } = &*self.loaded;
        let Some(accelerator) = &mut self.sites.accelerator else { return Ok(()) };
        let host = &mut self.sites.host;
        if apart {
            host.add_guest((index, &model.layers[index]), layout, file)?;
        }
        let (from, to) = if to_accelerator { (host, accelerator) } else { (accelerator, host) };
        let source = layout.layers.get(index).and_then(|layer| layer.cache_source);
        let had_copy = source.is_some_and(|source| to.copy(source).is_some());
        let mut moved = to.add_layer(index, !apart, model, layout, file);
        if moved.is_ok()
            && let Some(layer) = model.layers.get(index)
        {
            moved = copy_layer(from, to, (index, layer), layout, self.computed, had_copy);
            if moved.is_err() {
                to.remove_layer(index, layout);
            }
        }
        if moved.is_ok() {
            from.remove_layer(index, layout);
        }
        // Whole on the host, or not on the accelerator after all.
        if moved.is_ok() != to_accelerator {
            self.sites.host.remove_guest(index, layout);
        }
        moved
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
                self.sites.host.add_layer(index, true, model, layout, file)?;
            }
        }
        Ok(())
    }

    pub(crate) fn abandon_accelerator(&mut self) {
        if let Some(mut site) = self.sites.accelerator.take() {
            site.abandon();
        }
        self.streamer.forget();
        self.offload = None;
        for index in 0..self.loaded.layout.block_count() {
            self.sites.host.remove_guest(index, &self.loaded.layout);
        }
    }

    /// Makes it possible to go on after an accelerator's error, or gives the error back.
    /// True: the caches hold what they held before. False: the sequence must be computed again.
    pub(crate) fn recover(&mut self, error: BackendError) -> Result<bool, EngineError> {
        let cause = recoverable(&error).ok_or_else(|| EngineError::from(error.clone()))?;
        let before = self.placed();
        let before = (before.gpu_layers, before.cpu_moe);
        if cause == RecoveryCause::DeviceLost || before.0 == 0 {
            self.lose_accelerator()?;
            self.note_since(RecoveryCause::DeviceLost, before);
            return Ok(false);
        }
        // One step back, then as many more as it takes to be below the limit that holds now.
        while self.gpu_layers() > 0 {
            if let Err(error) = self.retreat() {
                if matches!(recoverable(&error), Some(RecoveryCause::DeviceLost)) {
                    self.lose_accelerator()?;
                    self.note_since(RecoveryCause::DeviceLost, before);
                    return Ok(false);
                }
                return Err(error.into());
            }
            let memory = self.sites.accelerator.as_ref().map(|site| site.device.memory()).unwrap_or_default();
            if memory.limit.is_none_or(|limit| memory.used <= limit) {
                break;
            }
        }
        self.note_since(cause, before);
        Ok(true)
    }
}

pub(crate) fn recoverable(error: &BackendError) -> Option<RecoveryCause> {
    match error {
        BackendError::OutOfMemory { .. } => Some(RecoveryCause::OutOfMemory),
        BackendError::Lost { .. } => Some(RecoveryCause::DeviceLost),
        BackendError::Unsupported { .. } | BackendError::Invalid { .. } => None,
    }
}

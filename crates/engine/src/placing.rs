//! Layers and their experts go from device to device between two steps: because somebody wishes it, because memory is short,
//! because a device is gone.

use crate::core::{Core, Loaded};
use crate::paging::Paging;
use crate::site::Site;
use crate::sites::Fault;
use crate::transfer::copy_layer;
use crate::{EngineError, Held, Placement, Recovery, RecoveryCause};
use backend::{BackendError, Device};
use model::{MAX_ACCELERATORS, Place};
use std::time::{Duration, Instant};

/// How often accelerators are asked whether other programs need their memory.
const WATCH: Duration = Duration::from_millis(250);

impl Core {
    /// Layer indices in the order in which they go to accelerators: the model's last first, the output at the end.
    pub(crate) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let blocks = self.loaded.layout.block_count();
        (0..blocks).rev().chain([blocks])
    }

    pub fn gpu_layers(&self) -> usize {
        (0..=self.loaded.layout.block_count()).filter(|index| self.sites.on_accelerator(*index)).count()
    }

    /// What holds now.
    pub(crate) fn placed(&self) -> model::Placement {
        let places = (0..=self.loaded.layout.block_count()).map(|index| self.sites.place(index));
        model::Placement::at(places).with_cpu_moe(self.cpu_moe)
    }

    /// A wish without what accelerators cannot compute: from the first layer on that one cannot, all stay on the host; so
    /// do those of accelerators that are not there.
    pub(crate) fn possible(&self, wanted: model::Placement) -> model::Placement {
        let (mut possible, mut lacking) = (wanted.clone(), false);
        for index in self.order() {
            let Place::Accelerator(number) = wanted.place(index) else { continue };
            let site = self.sites.accelerator(number);
            lacking |= site.is_some_and(|site| !site.can(index, !wanted.without_experts(index)));
            if lacking || site.is_none() {
                possible.set(index, Place::Host);
            }
        }
        possible
    }

    pub fn placement(&self) -> Placement {
        let (layout, placed) = (&self.loaded.layout, self.placed());
        let totals = layout.placed(&placed);
        let apart = (0..layout.block_count()).filter(|index| layout.experts_apart(&placed, *index)).count();
        let held = |(number, site): (usize, &Option<Site>)| Held {
            present: site.is_some(),
            layers: placed.count(Place::Accelerator(number)) as u32,
            planned: totals.accelerator(number).total() + self.streamer.held(number),
            used: site.as_ref().map_or(0, Site::used),
        };
        Placement {
            gpu_layers: placed.gpu_layers() as u32,
            cpu_moe: placed.cpu_moe as u32,
            experts_apart: apart as u32,
            layers: layout.block_count() as u32 + 1,
            host_planned: totals.host.kv + totals.host.compute,
            host_used: self.sites.host.used(),
            accelerators: self.sites.accelerators.iter().enumerate().map(held).collect(),
            streamed: self.streamer.bytes,
            paged: self.sites.host.paging.as_ref().map(Paging::told),
            placed,
        }
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        std::mem::take(&mut self.recoveries)
    }

    /// Notes what is not where it was, or was wished, after a failure of an accelerator.
    pub(crate) fn note_since(&mut self, cause: RecoveryCause, accelerator: usize, before: &model::Placement) {
        let now = self.placed();
        let apart = (before.cpu_moe..now.cpu_moe).filter(|index| self.loaded.layout.experts_apart(&now, *index));
        let shifted = self.order().filter(|index| {
            before.on_accelerator(*index) && now.on_accelerator(*index) && before.place(*index) != now.place(*index)
        });
        self.recoveries.push(Recovery {
            cause,
            accelerator,
            experts_moved: apart.count() as u32,
            layers_moved: before.gpu_layers().saturating_sub(now.gpu_layers()) as u32,
            layers_shifted: shifted.count() as u32,
            gpu_layers: now.gpu_layers() as u32,
        });
    }

    /// Whether layer `index` leaves its experts on the host when it goes to an accelerator.
    fn leaves_experts(&self, index: usize) -> bool {
        index < self.cpu_moe && self.loaded.layout.layers[index].experts > 0
    }

    /// For [`Core::bring`]: no accelerator is known to be full.
    pub(crate) fn none_full(&self) -> Vec<bool> {
        vec![false; self.sites.accelerators.len()]
    }

    /// Puts a layer that is on the host, or nowhere yet, on the accelerator where it is wanted; or on the next one that
    /// welcomes it and is not full. Where `leave`, experts that may stay behind make room first. `Ok(false)`: no room
    /// anywhere. `failed` keeps what failed first.
    pub(crate) fn bring(
        &mut self,
        index: usize,
        wanted: &model::Placement,
        leave: bool,
        full: &mut [bool],
        failed: &mut Option<(RecoveryCause, usize)>,
    ) -> Result<bool, Fault> {
        let Place::Accelerator(first) = wanted.place(index) else { return Ok(false) };
        for number in (first..full.len()).chain(0..first) {
            let place = Place::Accelerator(number);
            if full[number] || number != first && !self.welcomes(number, index, wanted) {
                continue;
            }
            while !full[number] && self.can(number, index) {
                match self.move_layer(index, place) {
                    Ok(()) => return Ok(true),
                    Err(fault) if fault.is_full(place) => {
                        failed.get_or_insert((RecoveryCause::OutOfMemory, number));
                        full[number] = !(leave && self.leave_experts(wanted, place)?);
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(false)
    }

    /// Whether an accelerator is there and can compute a layer, as it would be there now.
    fn can(&self, number: usize, index: usize) -> bool {
        let whole = index >= self.cpu_moe;
        self.sites.accelerator(number).is_some_and(|site| site.can(index, whole))
    }

    /// Whether an accelerator takes layer `index`, which was not meant for it: it can compute it, nobody presses for its
    /// memory, and with all that is wanted there, too, other programs keep what a plan leaves to them.
    fn welcomes(&mut self, number: usize, index: usize, wanted: &model::Placement) -> bool {
        let place = Place::Accelerator(number);
        if !self.can(number, index) || self.pressure(number) > 0 {
            return false;
        }
        let now = self.placed();
        let mut then = now.clone();
        let meant = |other: &usize| *other == index || wanted.place(*other) == place;
        self.order().filter(meant).for_each(|other| then.set(other, place));
        let Some(site) = self.sites.at(place) else { return false };
        let layout = &self.loaded.layout;
        let takes =
            |placed: &model::Placement| layout.placed(placed).accelerator(number).total() + site.scratch(placed);
        let more = takes(&then).saturating_sub(takes(&now));
        site.device.spare() >= more
    }

    /// Moves layers, with their part of the KV cache, until they are where they are wanted (as far as devices can compute
    /// them) or accelerators are full, and the routed experts of the first layers to the host, those of others to their
    /// layers. What has no room where it is wanted goes to another accelerator that welcomes it, or stays on the host: a
    /// recovery says how much. `moved` is called after each move and
    /// says whether to go on.
    pub fn place(&mut self, wanted: model::Placement, moved: &mut dyn FnMut(&Core) -> bool) -> Result<(), EngineError> {
        if self.sites.accelerators.iter().all(Option::is_none) {
            self.cpu_moe = wanted.cpu_moe;
            return Ok(());
        }
        self.renew_streaming();
        let wanted = self.possible(wanted);
        let (before, mut full, mut failed) = (self.placed(), self.none_full(), None);
        loop {
            match self.next_move(&wanted, &mut full, &mut failed) {
                Ok(true) if moved(self) => {}
                Ok(true) => return Ok(()),
                Ok(false) => break,
                Err(fault) => {
                    let (cause, number) = fault.of_accelerator()?;
                    if cause == RecoveryCause::OutOfMemory {
                        // On the way out: it makes no sense to go on.
                        return self.recover(fault).map(drop);
                    }
                    self.lose(number)?;
                    // Also of layers that were to leave it anyway.
                    let more = if before.gpu_layers() > wanted.gpu_layers() { &before } else { &wanted };
                    self.note_since(cause, number, more);
                    return Ok(());
                }
            }
        }
        if let Some((cause, number)) = failed {
            self.note_since(cause, number, &wanted);
        }
        Ok(())
    }

    /// One move of [`Core::place`]. False: all is where it is wanted, or there is no room for what is not.
    fn next_move(
        &mut self,
        wanted: &model::Placement,
        full: &mut [bool],
        failed: &mut Option<(RecoveryCause, usize)>,
    ) -> Result<bool, Fault> {
        let order: Vec<usize> = self.order().collect();
        // What makes room comes first.
        if self.cpu_moe < wanted.cpu_moe {
            return self.leave_experts_of(self.cpu_moe).map(|()| true);
        }
        let leaves = |index: &&usize| self.sites.on_accelerator(**index) && !wanted.on_accelerator(**index);
        if let Some(index) = order.iter().rev().find(leaves) {
            return self.move_layer(*index, Place::Host).map(|()| true);
        }
        // From one accelerator to another; where all of those are full, one goes by way of the host.
        let strayed = |index: &usize| {
            let place = self.sites.place(*index);
            place != Place::Host && place != wanted.place(*index) && failed.is_none()
        };
        let strayed: Vec<usize> = order.iter().copied().filter(strayed).collect();
        for index in &strayed {
            let place = wanted.place(*index);
            match self.move_layer(*index, place) {
                Ok(()) => return Ok(true),
                Err(fault) if fault.is_full(place) => {}
                Err(fault) => return Err(fault),
            }
        }
        if let Some(index) = strayed.first() {
            return self.move_layer(*index, Place::Host).map(|()| true);
        }
        let waits = |index: &usize| !self.sites.on_accelerator(*index) && wanted.on_accelerator(*index);
        for index in order.iter().copied().filter(waits).collect::<Vec<_>>() {
            if self.bring(index, wanted, false, full, failed)? {
                return Ok(true);
            }
        }
        if self.cpu_moe == wanted.cpu_moe || failed.is_some() {
            return Ok(false);
        }
        let index = self.cpu_moe - 1;
        match self.bring_experts_of(index) {
            Err(fault) if fault.is_full(self.sites.place(index)) => {
                *failed = fault.of_accelerator().ok();
                Ok(false)
            }
            brought => brought.map(|()| true),
        }
    }

    /// Takes a device in the place of a lost one, or of none.
    pub fn attach(&mut self, number: usize, device: Box<dyn Device>) {
        if number >= MAX_ACCELERATORS || self.sites.accelerator(number).is_some() {
            return;
        }
        if self.sites.accelerators.len() <= number {
            self.sites.accelerators.resize_with(number + 1, || None);
        }
        self.sites.accelerators[number] = Some(self.loaded.accelerator(number, device));
    }

    /// Moves layers away from accelerators whose memory other programs press for, so that nothing has to fail first. Asks now
    /// and then only.
    pub fn relieve(&mut self) -> Result<(), EngineError> {
        if self.watched.is_some_and(|at| at.elapsed() < WATCH) {
            return Ok(());
        }
        self.watched = Some(Instant::now());
        for number in 0..self.sites.accelerators.len() {
            let (before, mut failed, mut moved) = (self.placed(), None, false);
            if self.streamer.held(number) > 0 && self.pressure(number) > 0 {
                self.stop_streaming();
            }
            while self.has_layers(number) && self.pressure(number) > 0 && failed.is_none() {
                failed = self.retreat(number).err();
                moved |= failed.is_none();
            }
            if moved {
                self.note_since(RecoveryCause::OutOfMemory, number, &before);
            }
            if let Some(fault) = failed {
                self.recover(fault)?;
            }
        }
        Ok(())
    }

    fn pressure(&mut self, number: usize) -> u64 {
        self.sites.at(Place::Accelerator(number)).map_or(0, |site| site.device.pressure())
    }

    fn has_layers(&self, number: usize) -> bool {
        self.order().any(|index| self.sites.place(index) == Place::Accelerator(number))
    }

    /// One step back from an accelerator: the experts of one layer more, where layers there leave theirs on the host, or else
    /// a layer, to another accelerator that welcomes it, or to the host.
    fn retreat(&mut self, number: usize) -> Result<(), Fault> {
        let place = Place::Accelerator(number);
        if self.leave_experts(&self.placed(), place)? {
            return Ok(());
        }
        let last = self.order().filter(|index| self.sites.place(*index) == place).last();
        let Some(index) = last else { return Ok(()) };
        let (count, placed) = (self.sites.accelerators.len(), self.placed());
        for other in (number + 1..count).chain(0..number) {
            if !self.welcomes(other, index, &placed) {
                continue;
            }
            match self.move_layer(index, Place::Accelerator(other)) {
                // It must not be the next one that has to give something up.
                Ok(()) if self.pressure(other) > 0 => break,
                Err(fault) if fault.is_full(Place::Accelerator(other)) => {}
                done => return done,
            }
        }
        self.move_layer(index, Place::Host)
    }

    /// Where some of the layers that are, or will be, at `place` leave their experts on the host, one more does. False: none
    /// does, or all do, or those of another place would be next.
    fn leave_experts(&mut self, placed: &model::Placement, place: Place) -> Result<bool, Fault> {
        let layout = &self.loaded.layout;
        let has = |index: &usize| layout.layers[*index].experts > 0;
        let mut left = (0..self.cpu_moe).filter(has);
        let next = (self.cpu_moe..layout.block_count()).find(has);
        let next = next.filter(|next| placed.place(*next) == place && left.any(|index| placed.place(index) == place));
        let Some(next) = next else { return Ok(false) };
        self.leave_experts_of(next)?;
        Ok(true)
    }

    /// The experts of layer `index`, and of all before it, are on the host: those before are already.
    fn leave_experts_of(&mut self, index: usize) -> Result<(), Fault> {
        let Loaded { model, layout, file } = &*self.loaded;
        let place = self.sites.place(index);
        if let Some((site, host)) = self.sites.pair(place, Place::Host)
            && layout.layers[index].experts > 0
        {
            let layer = (index, &model.layers[index]);
            host.add_guest(layer, layout, file).map_err(|error| Fault::at(Place::Host, error))?;
            site.remove_experts(layer);
        }
        self.cpu_moe = index + 1;
        Ok(())
    }

    /// The experts of layer `index`, the last that left them on the host, go to their layer.
    fn bring_experts_of(&mut self, index: usize) -> Result<(), Fault> {
        let Loaded { model, layout, file } = &*self.loaded;
        let place = self.sites.place(index);
        if let Some((site, host)) = self.sites.pair(place, Place::Host)
            && host.has_guest(index)
        {
            let added = site.add_experts((index, &model.layers[index]), file);
            added.map_err(|error| Fault::at(place, error))?;
            host.remove_guest(index, layout);
        }
        self.cpu_moe = index;
        Ok(())
    }

    /// Moves one layer, or puts one there that is nowhere yet; on an error it is still where it was.
    fn move_layer(&mut self, index: usize, place: Place) -> Result<(), Fault> {
        let apart = place != Place::Host && self.leaves_experts(index);
        let from = self.sites.place(index);
        let moved = self.move_between(index, apart, from, place);
        // Whole on the host, or not on an accelerator after all.
        if self.sites.place(index) == Place::Host {
            self.sites.host.remove_guest(index, &self.loaded.layout);
        }
        moved
    }

    fn move_between(&mut self, index: usize, apart: bool, from: Place, place: Place) -> Result<(), Fault> {
        let Loaded { model, layout, file } = &*self.loaded;
        if apart && !self.sites.host.has_guest(index) {
            let guest = self.sites.host.add_guest((index, &model.layers[index]), layout, file);
            guest.map_err(|error| Fault::at(Place::Host, error))?;
        }
        let Some((from, to)) = self.sites.pair(from, place) else {
            let (device, detail) = ("an accelerator".into(), "it is not there".into());
            return Err(Fault::at(place, BackendError::Lost { device, detail }));
        };
        let source = layout.layers.get(index).and_then(|layer| layer.cache_source);
        let had_copy = source.is_some_and(|source| to.copy(source).is_some());
        to.add_layer(index, !apart, model, layout, file, Some(&mut *from)).map_err(|error| Fault::at(place, error))?;
        let layer = model.layers.get(index);
        let copied =
            layer.map_or(Ok(()), |layer| copy_layer(from, to, (index, layer), layout, self.computed, had_copy));
        // Weights and caches that came from one that had failed are nothing.
        let sent = copied.and_then(|()| from.device.finish().map_err(|error| Fault::at(from.place, error)));
        if let Err(fault) = sent {
            to.remove_layer(index, layout);
            return Err(fault);
        }
        from.remove_layer(index, layout);
        Ok(())
    }

    /// An accelerator is gone with its caches: its layers are on the host, and the sequence must be computed again.
    fn lose(&mut self, number: usize) -> Result<(), EngineError> {
        let had_layers = self.has_layers(number);
        self.abandon(number);
        if !had_layers {
            return Ok(());
        }
        self.computed = 0;
        self.written = 0;
        self.states.clear();
        let Loaded { model, layout, file } = &*self.loaded;
        for index in 0..=layout.block_count() {
            if !self.sites.on_accelerator(index) && !self.sites.host.has(index) {
                self.sites.host.add_layer(index, true, model, layout, file, None)?;
            }
        }
        Ok(())
    }

    pub(crate) fn abandon(&mut self, number: usize) {
        let place = Place::Accelerator(number);
        let there: Vec<usize> = self.order().filter(|index| self.sites.place(*index) == place).collect();
        if let Some(mut site) = self.sites.accelerators.get_mut(number).and_then(Option::take) {
            site.abandon();
        }
        self.streamer.forget(number);
        for index in there {
            self.sites.host.remove_guest(index, &self.loaded.layout);
        }
    }

    /// Makes it possible to go on after an accelerator's error, or gives the error back.
    /// True: the caches hold what they held before. False: the sequence must be computed again.
    pub(crate) fn recover(&mut self, fault: Fault) -> Result<bool, EngineError> {
        let (cause, number) = fault.of_accelerator()?;
        let before = self.placed();
        if cause == RecoveryCause::DeviceLost || !self.has_layers(number) {
            self.lose(number)?;
            // Nobody need be told of one that had nothing.
            if before.has(Place::Accelerator(number)) {
                self.note_since(RecoveryCause::DeviceLost, number, &before);
            }
            return Ok(false);
        }
        // One step back, then as many more as it takes to be below the limit that holds now.
        while self.has_layers(number) {
            if let Err(fault) = self.retreat(number) {
                let (RecoveryCause::DeviceLost, number) = fault.of_accelerator()? else {
                    return Err(fault.error.into());
                };
                self.lose(number)?;
                self.note_since(RecoveryCause::DeviceLost, number, &before);
                return Ok(false);
            }
            let memory = self.sites.accelerator(number).map(|site| site.device.memory()).unwrap_or_default();
            if memory.limit.is_none_or(|limit| memory.used <= limit) {
                break;
            }
        }
        self.note_since(cause, number, &before);
        Ok(true)
    }
}

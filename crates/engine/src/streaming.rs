//! Long prompts: layers and routed experts on the host are computed on an accelerator for one micro-batch, where what was
//! measured says that this is faster. Their weights go through two slots of its memory, those of the next layer while one is
//! computed. What a layer remembers goes with it and comes back: the host's caches stay the ones that count.

use crate::checkpoint::States;
use crate::core::{Core, Loaded};
use crate::site::{Cache, LayerBuffers, Site};
use crate::sites::{Fault, Sites};
use crate::transfer::{copy_cells, rows, runs};
use backend::{BackendError, BufferId, Device};
use model::{CacheShape, Place, Placement, STATE_SLOTS, STREAM_SLOTS, StreamRates, StreamSlot, Streaming};
use std::ops::Range;

/// Whether to stream, what, and where.
#[derive(Default)]
pub(crate) struct Streamer {
    /// `None`: never.
    rates: Option<StreamRates>,
    /// What was decided for a placement.
    decided: Option<(Placement, Option<Streaming>)>,
    /// On the accelerator, once they were needed.
    slots: Option<Slots>,
    /// Bytes that went to the accelerator for it so far.
    pub bytes: u64,
}

/// Buffers of the accelerator, each for one layer at a time.
struct Slots {
    on: usize,
    all: [Buffers; STREAM_SLOTS],
    /// Bytes of all.
    bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Buffers {
    weights: Option<BufferId>,
    k: Option<BufferId>,
    v: Option<BufferId>,
    state: Option<BufferId>,
}

impl Slots {
    fn new(on: usize, device: &mut dyn Device, slot: StreamSlot) -> Result<Slots, BackendError> {
        let mut slots = Slots { on, all: [Buffers::default(); STREAM_SLOTS], bytes: slot.total() };
        let filled = slots.all.iter_mut().try_for_each(|buffers| {
            let mut buffer = |bytes| if bytes == 0 { Ok(None) } else { device.allocate(bytes).map(Some) };
            buffers.weights = buffer(slot.weights)?;
            buffers.k = buffer(slot.k)?;
            buffers.v = buffer(slot.v)?;
            buffers.state = buffer(slot.state)?;
            Ok(())
        });
        if filled.is_err() {
            slots.free(device);
        }
        filled.map(|()| slots)
    }

    fn free(&self, device: &mut dyn Device) {
        let buffers = self.all.iter().flat_map(|slot| [slot.weights, slot.k, slot.v, slot.state]);
        buffers.flatten().for_each(|buffer| device.free(buffer));
    }
}

impl Streamer {
    pub fn set(&mut self, rates: Option<StreamRates>) {
        if self.rates != rates {
            (self.rates, self.decided) = (rates, None);
        }
    }

    /// Bytes of an accelerator's memory that it holds.
    pub fn held(&self, number: usize) -> u64 {
        self.slots.as_ref().filter(|slots| slots.on == number).map_or(0, |slots| slots.bytes)
    }

    /// Whether there was no room where it holds memory.
    pub fn is_short(&self, fault: &Fault) -> bool {
        self.slots.as_ref().is_some_and(|slots| fault.is_full(Place::Accelerator(slots.on)))
    }

    /// Gives its memory back; it is taken again when it is needed.
    fn release(&mut self, sites: &mut Sites) {
        if let Some(slots) = self.slots.take()
            && let Some(site) = sites.at(Place::Accelerator(slots.on))
        {
            slots.free(&mut *site.device);
        }
    }

    /// An accelerator is gone with everything on it.
    pub fn forget(&mut self, number: usize) {
        self.slots.take_if(|slots| slots.on == number);
        self.decided = None;
    }
}

impl Core {
    pub fn set_streaming(&mut self, rates: Option<StreamRates>) {
        self.streamer.set(rates);
        if rates.is_none() {
            self.streamer.release(&mut self.sites);
        }
    }

    /// Nothing is streamed any more until layers have moved. True: that has given memory back.
    pub(crate) fn stop_streaming(&mut self) -> bool {
        let held = self.streamer.slots.is_some();
        self.streamer.release(&mut self.sites);
        if let Some((_, streaming)) = &mut self.streamer.decided {
            *streaming = None;
        }
        held
    }

    /// Layers are about to move: what is streamed is decided anew, and they may need the memory.
    pub(crate) fn renew_streaming(&mut self) {
        self.streamer.release(&mut self.sites);
        self.streamer.decided = None;
    }

    /// Makes ready to stream a micro-batch; false: it does not pay, or there is no memory for it.
    pub(crate) fn ready_to_stream(&mut self, tokens: usize) -> Result<bool, Fault> {
        // Weights that come from disk are read for the host, which computes meanwhile.
        let (Some(rates), None) = (self.streamer.rates, &self.sites.host.paging) else { return Ok(false) };
        let placed = self.placed();
        let Some(on) = Streaming::accelerator(&placed) else { return Ok(false) };
        if self.streamer.decided.as_ref().is_none_or(|(before, _)| *before != placed) {
            let Loaded { model, layout, .. } = &*self.loaded;
            let can = |index| self.sites.accelerator(on).is_some_and(|site| site.can(index, true));
            let streaming = Streaming::new(model, layout, &placed, &can, rates);
            self.streamer.release(&mut self.sites);
            self.streamer.decided = Some((placed, streaming));
        }
        let place = Place::Accelerator(on);
        let (Some((_, Some(streaming))), Some(site)) = (&self.streamer.decided, self.sites.at(place)) else {
            return Ok(false);
        };
        if !streaming.pays(tokens as u32, self.computed as u32) {
            return Ok(false);
        }
        if self.streamer.slots.is_none() {
            match Slots::new(on, &mut *site.device, streaming.slot) {
                Ok(slots) => self.streamer.slots = Some(slots),
                // It was to be faster, and need not be.
                Err(BackendError::OutOfMemory { .. }) => {
                    self.stop_streaming();
                    return Ok(false);
                }
                Err(error) => return Err(Fault::at(place, error)),
            }
        }
        Ok(true)
    }
}

/// The streamed layers of one micro-batch, as the decoder goes through them.
pub(crate) struct Stream<'a> {
    loaded: &'a Loaded,
    states: &'a States,
    streaming: &'a Streaming,
    slots: &'a Slots,
    bytes: &'a mut u64,
    /// Tokens before the micro-batch, and with it.
    positions: Range<usize>,
    /// The slot that the next layer is in, or goes to.
    slot: usize,
    /// The layer that is there already.
    ready: Option<usize>,
}

impl<'a> Stream<'a> {
    /// `None`: nothing was made ready.
    pub fn new(
        streamer: &'a mut Streamer,
        loaded: &'a Loaded,
        states: &'a States,
        positions: Range<usize>,
    ) -> Option<Stream<'a>> {
        let Streamer { decided: Some((_, Some(streaming))), slots: Some(slots), bytes, .. } = streamer else {
            return None;
        };
        Some(Stream { loaded, states, streaming, slots, bytes, positions, slot: 0, ready: None })
    }

    pub fn has(&self, index: usize) -> bool {
        self.streaming.has(index)
    }

    /// Where its layers are computed.
    pub fn place(&self) -> Place {
        Place::Accelerator(self.slots.on)
    }

    /// Layer `index` is on the accelerator from now on.
    pub fn begin(&mut self, sites: &mut Sites, index: usize) -> Result<(), Fault> {
        let place = self.place();
        let there = |error| Fault::at(place, error);
        if self.ready != Some(index) {
            // Nothing before may still use the slot.
            self.both(sites)?.0.device.turn().map_err(there)?;
            self.load(sites, index)?;
        }
        let buffers = self.slots.all[self.slot];
        let layout = &self.loaded.layout.layers[index];
        let (site, host) = self.both(sites)?;
        let apart = host.has_guest(index);
        site.device.turn().map_err(there)?;
        let tensors = Streaming::tensors(&self.loaded.model.layers[index], apart).0;
        let weights = buffers.weights.ok_or_else(|| there(no_slot()))?;
        let streamed = tensors.into_iter().map(|(tensor, offset)| (tensor.index, weights, offset)).collect();
        if apart {
            return site.lend_experts(index, streamed).map_err(there);
        }
        let cache = buffers.k.filter(|_| layout.k > 0).map(|k| Cache { k, v: buffers.v.filter(|_| layout.v > 0) });
        let state = buffers.state.filter(|_| layout.state > 0);
        let state = state.map(|state| (state, layout.state as usize / (4 * STATE_SLOTS)));
        site.lend_layer(index, LayerBuffers::lent(streamed, cache, state));
        Ok(())
    }

    /// The operations of layer `index` were given: while they run the next layer comes, then what is new goes to the host.
    pub fn end(&mut self, sites: &mut Sites, index: usize) -> Result<(), Fault> {
        let place = self.place();
        self.both(sites)?.0.device.start().map_err(|error| Fault::at(place, error))?;
        let used = self.slots.all[self.slot];
        self.slot = (self.slot + 1) % STREAM_SLOTS;
        self.ready = self.streaming.layers().find(|next| *next > index);
        if let Some(next) = self.ready {
            self.load(sites, next)?;
        }
        if !sites.host.has_guest(index) {
            self.bring_back(sites, index, used)?;
        }
        self.both(sites)?.0.take_back(index);
        Ok(())
    }

    /// The accelerator and the host.
    fn both<'s>(&self, sites: &'s mut Sites) -> Result<(&'s mut Site, &'s mut Site), Fault> {
        sites.pair(self.place(), Place::Host).ok_or_else(|| Fault::at(self.place(), no_slot()))
    }

    /// Writes a layer into the slot, beside what the accelerator is doing.
    fn load(&mut self, sites: &mut Sites, index: usize) -> Result<(), Fault> {
        let Loaded { model, layout, file } = self.loaded;
        let (layer, buffers, place) = (&model.layers[index], self.slots.all[self.slot], self.place());
        let (site, host) = self.both(sites)?;
        let there = |error| Fault::at(place, error);
        let apart = host.has_guest(index);
        let weights = buffers.weights.ok_or_else(|| there(no_slot()))?;
        for (tensor, offset) in Streaming::tensors(layer, apart).0 {
            let bytes = file.bytes(&tensor).map_err(on_host)?;
            let bytes: &[u8] = (*bytes).as_ref();
            *self.bytes += bytes.len() as u64;
            site.device.write_beside(weights, offset, bytes).map_err(there)?;
        }
        if apart || self.positions.start == 0 {
            return Ok(());
        }
        if let (Some(shape), Some(k)) = (cache_shape(layer), buffers.k) {
            let (bytes, source) = (&layout.layers[index], host.cache(index).map_err(on_host)?);
            let held = self.positions.start.saturating_sub(bytes.cells)..self.positions.start;
            let mut pairs = vec![(source.k, k)];
            pairs.extend(source.v.zip(buffers.v));
            let rows = rows(&shape, &layout.params).map_err(on_host)?;
            for ((source, target), row) in pairs.into_iter().zip(rows) {
                for range in runs(shape.head_count_kv, bytes.cells, row, held.clone()) {
                    *self.bytes += beside((host, source), (site, target), range)?;
                }
            }
        }
        if let (true, Some(target)) = (layout.layers[index].state > 0, buffers.state) {
            let (source, len) = host.layer(index).and_then(LayerBuffers::state).map_err(on_host)?;
            *self.bytes += beside((host, source), (site, target), state_range(self.states.current, len))?;
        }
        Ok(())
    }

    /// New cells and the new state, as the host would have written them but for the accelerator's rounding.
    fn bring_back(&self, sites: &mut Sites, index: usize, used: Buffers) -> Result<(), Fault> {
        let Loaded { model, layout, .. } = self.loaded;
        let (site, host) = self.both(sites)?;
        if let (Some(shape), Some(k)) = (cache_shape(&model.layers[index]), used.k) {
            let cells = layout.layers[index].cells;
            let target = host.cache(index).map_err(on_host)?;
            let positions = self.positions.end.saturating_sub(cells).max(self.positions.start)..self.positions.end;
            copy_cells((site, Cache { k, v: used.v }), (host, target), &shape, &layout.params, cells, positions)?;
        }
        if let (true, Some(source)) = (layout.layers[index].state > 0, used.state) {
            let (target, len) = host.layer(index).and_then(LayerBuffers::state).map_err(on_host)?;
            let range = state_range(self.states.next(), len);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let read = site.device.read(source, range.start, &mut bytes);
            read.map_err(|error| Fault::at(self.place(), error))?;
            host.device.write(target, range.start, &bytes).map_err(on_host)?;
        }
        Ok(())
    }
}

/// Copies a range of a buffer of the host to the same range of the accelerator's, and gives its length.
fn beside(
    (host, source): (&mut Site, BufferId),
    (site, target): (&mut Site, BufferId),
    range: Range<u64>,
) -> Result<u64, Fault> {
    let mut bytes = vec![0u8; (range.end - range.start) as usize];
    host.device.read(source, range.start, &mut bytes).map_err(on_host)?;
    let written = site.device.write_beside(target, range.start, &bytes);
    written.map_err(|error| Fault::at(site.place, error))?;
    Ok(range.end - range.start)
}

fn state_range(slot: usize, len: usize) -> Range<u64> {
    let bytes = 4 * len as u64;
    slot as u64 * bytes..(slot as u64 + 1) * bytes
}

fn cache_shape(layer: &model::Layer) -> Option<CacheShape> {
    layer.mixer.as_ref().and_then(|mixer| mixer.part.cache())
}

fn no_slot() -> BackendError {
    BackendError::Invalid { op: "stream", detail: "there is no slot for the layer".into() }
}

fn on_host(error: BackendError) -> Fault {
    Fault::at(Place::Host, error)
}

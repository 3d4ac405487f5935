//! One device with the layers that are on it: their weights, caches, states and activation buffers.

mod guests;
mod lent;

use crate::file::Weights;
use crate::paging::Paging;
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, KvCache, View, Weight};
use model::{BufferPlan, CacheShape, Layout, Linear, Model, Offload, Place, Placement, STATE_SLOTS, Slot, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Buffers of a KV cache. Where values are a part of the keys there is no second one.
#[derive(Clone, Copy)]
pub(crate) struct Cache {
    pub k: BufferId,
    pub v: Option<BufferId>,
}

/// Device buffers of one layer (or of the output layer, which has no cache).
#[derive(Default)]
pub(crate) struct LayerBuffers {
    /// (index in the file, buffer); short enough to search.
    tensors: Vec<(usize, BufferId)>,
    /// Those that are elsewhere while the layer is computed.
    loaded: Vec<(usize, BufferId)>,
    /// Those in memory that belongs to others, with their places there, while the layer is computed ([`lent`]).
    lent: Vec<(usize, BufferId, u64)>,
    cache: Option<Cache>,
    /// The recurrent states, and f32 values in one.
    state: Option<(BufferId, usize)>,
}

impl LayerBuffers {
    pub fn tensor(&self, tensor: &Tensor) -> Result<View, BackendError> {
        let own = self.loaded.iter().chain(&self.tensors).map(|(index, buffer)| (*index, *buffer, 0));
        let mut all = own.chain(self.lent.iter().copied());
        let found = all.find_map(|(index, buffer, offset)| (index == tensor.index).then_some(View { buffer, offset }));
        found.ok_or_else(|| missing(format!("tensor {} is not on the device", tensor.index)))
    }

    /// The rows of a tensor that a product reads.
    pub fn weight(&self, linear: &Linear) -> Result<Weight, BackendError> {
        let tensor = &linear.weight;
        let row = tensor.ty.row_bytes(tensor.cols).ok_or_else(|| missing("rows are not whole blocks".into()))?;
        let View { buffer, offset } = self.tensor(tensor)?;
        let offset = offset + (linear.first_row * row) as u64;
        Ok(Weight { buffer, offset, ty: tensor.ty, rows: linear.rows, cols: tensor.cols })
    }

    pub fn state(&self) -> Result<(BufferId, usize), BackendError> {
        self.state.ok_or_else(|| missing("the layer has no state".into()))
    }
}

fn missing(detail: String) -> BackendError {
    BackendError::Invalid { op: "layer", detail }
}

/// A device and what is on it.
pub(crate) struct Site {
    pub place: Place,
    pub device: Box<dyn Device>,
    /// Which layers an accelerator can compute; the host can compute all.
    offload: Option<Offload>,
    slots: HashMap<Slot, BufferId>,
    /// What was read of the logits last; kept for its memory.
    pub logits: Vec<f32>,
    /// By layer index; the output layer is the one after the last.
    layers: HashMap<usize, LayerBuffers>,
    /// Routed experts of layers that are elsewhere.
    guests: HashMap<usize, LayerBuffers>,
    /// Copies of the caches of layers that are elsewhere, for layers here that read them.
    copies: HashMap<usize, Cache>,
    /// What computes per-layer inputs; on the host.
    input: LayerBuffers,
    /// On the host, where RAM does not hold its weights.
    pub paging: Option<Paging>,
}

impl Site {
    pub fn new(place: Place, device: Box<dyn Device>, offload: Option<Offload>) -> Site {
        Site {
            place,
            device,
            offload,
            slots: HashMap::new(),
            logits: Vec::new(),
            layers: HashMap::new(),
            guests: HashMap::new(),
            copies: HashMap::new(),
            input: LayerBuffers::default(),
            paging: None,
        }
    }

    /// Layer `index` is about to be computed here.
    pub fn begin(&mut self, index: usize) -> Result<(), BackendError> {
        let Some(paging) = &mut self.paging else { return Ok(()) };
        for (_, buffer) in self.layers.values_mut().flat_map(|layer| layer.loaded.drain(..)) {
            self.device.free(buffer);
        }
        for (tensor, bytes) in paging.begin(index)? {
            let buffer = self.device.adopt(bytes)?;
            if let Some(layer) = self.layers.get_mut(&index) {
                layer.loaded.push((tensor, buffer));
            }
        }
        Ok(())
    }

    /// Whether the device can compute layer `index`, whole or without its routed experts.
    pub fn can(&self, index: usize, whole: bool) -> bool {
        self.offload.as_ref().is_none_or(|offload| offload.can(index, whole))
    }

    /// Bytes besides buffers that the layers of a placement that are here take.
    pub fn scratch(&self, placement: &Placement) -> u64 {
        self.offload.as_ref().map_or(0, |offload| offload.scratch(placement, self.place))
    }

    pub fn has(&self, index: usize) -> bool {
        self.layers.contains_key(&index)
    }

    /// Whether the routed experts of layer `index` are here and the rest of it is not.
    pub fn has_guest(&self, index: usize) -> bool {
        self.guests.contains_key(&index)
    }

    /// What is here of layer `index`.
    pub fn layer(&self, index: usize) -> Result<&LayerBuffers, BackendError> {
        let found = self.layers.get(&index).or_else(|| self.guests.get(&index));
        found.ok_or_else(|| missing(format!("layer {index} is not on {}", self.device.name())))
    }

    /// The cache of a layer: its own, or the copy of one elsewhere.
    pub fn cache(&self, index: usize) -> Result<Cache, BackendError> {
        let own = self.layers.get(&index).and_then(|layer| layer.cache);
        own.or(self.copy(index)).ok_or_else(|| missing(format!("layer {index} has no cache on {}", self.device.name())))
    }

    pub fn copy(&self, index: usize) -> Option<Cache> {
        self.copies.get(&index).copied()
    }

    pub fn kv_cache(&self, index: usize, shape: &CacheShape, layout: &Layout) -> Result<KvCache, BackendError> {
        let Cache { k, v } = self.cache(index)?;
        let shape = shape.stored(&layout.params);
        Ok(KvCache {
            k,
            v,
            k_type: layout.params.kv_type_k,
            v_type: layout.params.kv_type_v,
            capacity: layout.layers[index].cells,
            head_count_kv: shape.head_count_kv,
            head_dim_k: shape.head_dim_k,
            head_dim_v: shape.head_dim_v,
        })
    }

    /// Puts what computes before the first layer here.
    pub fn add_input(&mut self, model: &Model, layout: &Layout, file: &Weights) -> Result<(), BackendError> {
        self.ensure_slots(&layout.input_slots)?;
        for tensor in model.input_tensors() {
            let buffer = self.device.adopt(file.bytes(&tensor)?)?;
            self.input.tensors.push((tensor.index, buffer));
        }
        Ok(())
    }

    pub fn input_weight(&self, linear: &Linear) -> Result<Weight, BackendError> {
        self.input.weight(linear)
    }

    pub fn input_view(&self, tensor: Option<Tensor>) -> Result<Option<View>, BackendError> {
        tensor.map(|tensor| self.input.tensor(&tensor)).transpose()
    }

    pub fn slot(&self, slot: Slot) -> Result<View, BackendError> {
        self.slots.get(&slot).map(|buffer| View::new(*buffer)).ok_or_else(|| BackendError::Invalid {
            op: "slot",
            detail: format!("{slot:?} is not on {}", self.device.name()),
        })
    }

    /// Allocates activation buffers that are not there yet.
    fn ensure_slots(&mut self, plans: &[BufferPlan]) -> Result<(), BackendError> {
        for plan in plans {
            if !self.slots.contains_key(&plan.slot) {
                let buffer = self.device.allocate(plan.bytes)?;
                if plan.slot == Slot::Zeros {
                    self.device.write(buffer, 0, &vec![0; plan.bytes as usize])?;
                }
                self.slots.insert(plan.slot, buffer);
            }
        }
        Ok(())
    }

    fn release_slots(&mut self, plans: &[BufferPlan]) {
        for plan in plans {
            if let Some(buffer) = self.slots.remove(&plan.slot) {
                self.device.free(buffer);
            }
        }
    }

    /// Puts layer `index` on this device with an empty cache, whole or without its routed experts. All or nothing. Weights
    /// come from the file, or directly from the device that has them.
    pub fn add_layer(
        &mut self,
        index: usize,
        whole: bool,
        model: &Model,
        layout: &Layout,
        file: &Weights,
        from: Option<&mut Site>,
    ) -> Result<(), BackendError> {
        let mut buffers = LayerBuffers::default();
        let result = self.fill_layer(index, whole, model, layout, file, from, &mut buffers);
        match result {
            Ok(()) => {
                self.layers.insert(index, buffers);
                Ok(())
            }
            Err(error) => {
                self.free_buffers(buffers);
                self.release_unused_copies(layout);
                self.release_unused_slots(layout);
                Err(error)
            }
        }
    }

    fn fill_layer(
        &mut self,
        index: usize,
        whole: bool,
        model: &Model,
        layout: &Layout,
        file: &Weights,
        from: Option<&mut Site>,
        buffers: &mut LayerBuffers,
    ) -> Result<(), BackendError> {
        self.ensure_slots(&layout.slots)?;
        let tensors = match model.layers.get(index) {
            Some(layer) if !whole => layer.tensors_without_experts(),
            Some(layer) => layer.tensors(),
            None => {
                self.ensure_slots(&layout.output_slots)?;
                model.output.tensors()
            }
        };
        match from {
            Some(from) => self.adopt_from(from, index, &tensors, file, buffers)?,
            None => self.adopt(&tensors, file, buffers)?,
        }
        let Some(bytes) = layout.layers.get(index) else { return Ok(()) };
        if bytes.state > 0 {
            buffers.state = Some((self.device.allocate(bytes.state)?, bytes.state as usize / (4 * STATE_SLOTS)));
        }
        if let Some(source) = bytes.cache_source
            && self.cache(source).is_err()
        {
            let copy = self.allocate_cache(source, layout)?;
            self.copies.insert(source, copy);
        }
        // A copy that is here already becomes the layer's own.
        if bytes.k > 0 {
            buffers.cache = Some(match self.copies.remove(&index) {
                Some(copy) => copy,
                None => self.allocate_cache(index, layout)?,
            });
        }
        Ok(())
    }

    fn adopt(&mut self, tensors: &[Tensor], file: &Weights, buffers: &mut LayerBuffers) -> Result<(), BackendError> {
        for tensor in tensors {
            let buffer = self.device.adopt(file.bytes(tensor)?)?;
            buffers.tensors.push((tensor.index, buffer));
        }
        Ok(())
    }

    /// The same of a layer that another device has: straight from there, where the two can do that.
    fn adopt_from(
        &mut self,
        other: &mut Site,
        index: usize,
        tensors: &[Tensor],
        file: &Weights,
        buffers: &mut LayerBuffers,
    ) -> Result<(), BackendError> {
        for tensor in tensors {
            let found = other.layers.get(&index).and_then(|layer| layer.tensor(tensor).ok());
            let kinds = [self.device.kind(), other.device.kind()];
            let Some(View { buffer: from, offset }) = found.filter(|_| kinds == [DeviceKind::Accelerator; 2]) else {
                self.adopt(std::slice::from_ref(tensor), file, buffers)?;
                continue;
            };
            let bytes = tensor.device_bytes();
            let buffer = self.device.allocate(bytes)?;
            buffers.tensors.push((tensor.index, buffer));
            if !self.device.copy_from((buffer, 0), &mut *other.device, (from, offset), bytes) {
                self.device.write(buffer, 0, (*file.bytes(tensor)?).as_ref())?;
            }
        }
        Ok(())
    }

    fn allocate_cache(&mut self, index: usize, layout: &Layout) -> Result<Cache, BackendError> {
        let bytes = &layout.layers[index];
        let k = self.device.allocate(bytes.k)?;
        if bytes.v == 0 {
            return Ok(Cache { k, v: None });
        }
        match self.device.allocate(bytes.v) {
            Ok(v) => Ok(Cache { k, v: Some(v) }),
            Err(error) => {
                self.device.free(k);
                Err(error)
            }
        }
    }

    /// Takes layer `index` off this device and gives its memory back, but for a cache that other layers here read.
    pub fn remove_layer(&mut self, index: usize, layout: &Layout) {
        if let Some(mut buffers) = self.layers.remove(&index) {
            if self.reads(index, layout)
                && let Some(cache) = buffers.cache.take()
            {
                self.copies.insert(index, cache);
            }
            self.free_buffers(buffers);
        }
        self.release_unused_copies(layout);
        self.release_unused_slots(layout);
    }

    /// Whether a layer here reads the cache of layer `source`.
    fn reads(&self, source: usize, layout: &Layout) -> bool {
        self.layers.keys().filter_map(|index| layout.layers.get(*index)).any(|layer| layer.cache_source == Some(source))
    }

    fn release_unused_copies(&mut self, layout: &Layout) {
        let unused: Vec<usize> = self.copies.keys().copied().filter(|source| !self.reads(*source, layout)).collect();
        for source in unused {
            if let Some(cache) = self.copies.remove(&source) {
                self.free_cache(cache);
            }
        }
    }

    fn release_unused_slots(&mut self, layout: &Layout) {
        if !self.has(layout.block_count()) {
            self.release_slots(&layout.output_slots);
        }
        if self.layers.is_empty() && self.guests.is_empty() {
            self.release_slots(&layout.slots);
        }
    }

    fn free_buffers(&mut self, buffers: LayerBuffers) {
        for (_, buffer) in buffers.tensors.into_iter().chain(buffers.loaded) {
            self.device.free(buffer);
        }
        if let Some(cache) = buffers.cache {
            self.free_cache(cache);
        }
        if let Some((state, _)) = buffers.state {
            self.device.free(state);
        }
    }

    fn free_cache(&mut self, cache: Cache) {
        self.device.free(cache.k);
        if let Some(v) = cache.v {
            self.device.free(v);
        }
    }

    /// Forgets everything without asking the device: it is gone.
    pub fn abandon(&mut self) {
        self.slots.clear();
        self.copies.clear();
        self.layers.clear();
        self.guests.clear();
    }

    /// Bytes that our own buffers take on the device.
    pub fn used(&self) -> u64 {
        self.device.memory().used
    }
}

/// Owned bytes as a handle that devices can adopt.
pub(crate) fn owned(bytes: Vec<u8>) -> HostBytes {
    Arc::new(bytes)
}

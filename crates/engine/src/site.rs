//! One device with the layers that are on it: their weights, KV caches and activation buffers.

use crate::file::Weights;
use backend::{BackendError, BufferId, Device, HostBytes, KvCache, View};
use model::{Attention, BufferPlan, Layout, Model, Slot, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Device buffers of one layer (or of the output layer, which has no cache).
#[derive(Default)]
pub(crate) struct LayerBuffers {
    /// (index in the file, buffer); short enough to search.
    tensors: Vec<(usize, BufferId)>,
    cache: Option<(BufferId, BufferId)>,
}

impl LayerBuffers {
    pub fn tensor(&self, tensor: &Tensor) -> Result<BufferId, BackendError> {
        self.tensors.iter().find(|(index, _)| *index == tensor.index).map(|(_, buffer)| *buffer).ok_or_else(|| {
            BackendError::Invalid { op: "layer", detail: format!("tensor {} is not on the device", tensor.index) }
        })
    }

    pub fn cache(&self, attention: &Attention, layout: &Layout) -> Result<KvCache, BackendError> {
        let (k, v) = self
            .cache
            .ok_or_else(|| BackendError::Invalid { op: "layer", detail: "the layer has no KV cache".into() })?;
        Ok(KvCache {
            k,
            v,
            k_type: layout.params.kv_type_k,
            v_type: layout.params.kv_type_v,
            capacity: layout.params.context as usize,
            head_count_kv: attention.head_count_kv,
            head_dim_k: attention.head_dim_k,
            head_dim_v: attention.head_dim_v,
        })
    }
}

/// A device and what is on it.
pub(crate) struct Site {
    pub device: Box<dyn Device>,
    slots: HashMap<Slot, BufferId>,
    /// By layer index; the output layer is the one after the last.
    layers: HashMap<usize, LayerBuffers>,
}

impl Site {
    pub fn new(device: Box<dyn Device>) -> Site {
        Site { device, slots: HashMap::new(), layers: HashMap::new() }
    }

    pub fn has(&self, index: usize) -> bool {
        self.layers.contains_key(&index)
    }

    pub fn layer(&self, index: usize) -> Result<&LayerBuffers, BackendError> {
        self.layers.get(&index).ok_or_else(|| BackendError::Invalid {
            op: "layer",
            detail: format!("layer {index} is not on {}", self.device.name()),
        })
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

    /// Puts layer `index` on this device with an empty cache. All or nothing.
    pub fn add_layer(
        &mut self,
        index: usize,
        model: &Model,
        layout: &Layout,
        file: &Weights,
    ) -> Result<(), BackendError> {
        let mut buffers = LayerBuffers::default();
        let result = self.fill_layer(index, model, layout, file, &mut buffers);
        match result {
            Ok(()) => {
                self.layers.insert(index, buffers);
                Ok(())
            }
            Err(error) => {
                self.free_buffers(buffers);
                self.release_unused_slots(layout);
                Err(error)
            }
        }
    }

    fn fill_layer(
        &mut self,
        index: usize,
        model: &Model,
        layout: &Layout,
        file: &Weights,
        buffers: &mut LayerBuffers,
    ) -> Result<(), BackendError> {
        self.ensure_slots(&layout.slots)?;
        let tensors = match model.layers.get(index) {
            Some(layer) => layer.tensors(),
            None => {
                self.ensure_slots(&layout.output_slots)?;
                model.output.tensors()
            }
        };
        for tensor in tensors {
            let buffer = self.device.adopt(file.bytes(&tensor)?)?;
            buffers.tensors.push((tensor.index, buffer));
        }
        if let Some(bytes) = layout.layers.get(index) {
            let k = self.device.allocate(bytes.k)?;
            match self.device.allocate(bytes.v) {
                Ok(v) => buffers.cache = Some((k, v)),
                Err(error) => {
                    self.device.free(k);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes layer `index` off this device and gives its memory back.
    pub fn remove_layer(&mut self, index: usize, layout: &Layout) {
        if let Some(buffers) = self.layers.remove(&index) {
            self.free_buffers(buffers);
        }
        self.release_unused_slots(layout);
    }

    fn release_unused_slots(&mut self, layout: &Layout) {
        if !self.has(layout.block_count()) {
            self.release_slots(&layout.output_slots);
        }
        if self.layers.is_empty() {
            self.release_slots(&layout.slots);
        }
    }

    fn free_buffers(&mut self, buffers: LayerBuffers) {
        for (_, buffer) in buffers.tensors {
            self.device.free(buffer);
        }
        if let Some((k, v)) = buffers.cache {
            self.device.free(k);
            self.device.free(v);
        }
    }

    /// Forgets everything without asking the device: it is gone.
    pub fn abandon(&mut self) -> Vec<usize> {
        self.slots.clear();
        let mut indices: Vec<usize> = self.layers.drain().map(|(index, _)| index).collect();
        indices.sort_unstable();
        indices
    }

    /// Bytes that our own buffers take on the device.
    pub fn used(&self) -> u64 {
        self.device.memory().used
    }
}

/// Copies the first `cells` cells of a layer's cache from one device to another.
pub(crate) fn copy_cache(
    from: &mut Site,
    to: &mut Site,
    index: usize,
    attention: &Attention,
    layout: &Layout,
    cells: usize,
) -> Result<(), BackendError> {
    if cells == 0 {
        return Ok(());
    }
    let source = from.layer(index)?.cache(attention, layout)?;
    let target = to.layer(index)?.cache(attention, layout)?;
    let streams = [
        (source.k, target.k, source.k_type.row_bytes(source.head_dim_k)),
        (source.v, target.v, source.v_type.row_bytes(source.head_dim_v)),
    ];
    let mut staging = Vec::new();
    for (source_buffer, target_buffer, row_bytes) in streams {
        let row = row_bytes
            .ok_or_else(|| BackendError::Invalid { op: "cache", detail: "heads are not whole blocks".into() })?;
        staging.resize(cells * row, 0);
        // Heads are contiguous streams: only their used part is touched, so unused memory stays uncommitted.
        for head in 0..source.head_count_kv {
            let offset = (head * source.capacity * row) as u64;
            from.device.read(source_buffer, offset, &mut staging)?;
            to.device.write(target_buffer, offset, &staging)?;
        }
    }
    Ok(())
}

/// Owned bytes as a handle that devices can adopt.
pub(crate) fn owned(bytes: Vec<u8>) -> HostBytes {
    Arc::new(bytes)
}

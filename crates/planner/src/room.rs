//! What an accelerator has for a model, and what a placement takes of it.

use crate::Facts;
use model::{BufferPlan, Layout, Model, Offload, Placement, STREAM_SLOTS, Streaming};

pub(crate) struct Room {
    /// Bytes.
    pub free: u64,
    pub overhead: u64,
    pub offload: Offload,
    /// What buffers take beyond their size, by layer, the output layer last: whole, and without routed experts.
    padding: Vec<[u64; 2]>,
    /// The same of the buffers that every device with layers has.
    slots: u64,
    footprint: fn(u64) -> u64,
}

impl Room {
    pub fn new(model: &Model, facts: &Facts, layout: &Layout) -> Option<Room> {
        let accelerator = facts.accelerator.as_ref()?;
        let free = accelerator.memory_free.saturating_sub(accelerator.margin);
        let offload = Offload::new(model, &layout.params, &accelerator.scratch);
        let pad = |bytes: u64| (accelerator.footprint)(bytes).saturating_sub(bytes);
        let weights = |tensors: Vec<model::Tensor>| tensors.iter().map(|t| pad(t.device_bytes())).sum::<u64>();
        let slots = |slots: &[BufferPlan]| slots.iter().map(|slot| pad(slot.bytes)).sum::<u64>();
        let layer = |(layer, bytes): (&model::Layer, &model::LayerBytes)| {
            let memory: u64 = [bytes.k, bytes.v, bytes.state].map(pad).iter().sum();
            [layer.tensors(), layer.tensors_without_experts()].map(|tensors| memory + weights(tensors))
        };
        let mut padding: Vec<_> = model.layers.iter().zip(&layout.layers).map(layer).collect();
        padding.push([weights(model.output.tensors()) + slots(&layout.output_slots); 2]);
        Some(Room {
            free,
            overhead: accelerator.overhead,
            offload,
            padding,
            slots: slots(&layout.slots),
            footprint: accelerator.footprint,
        })
    }

    /// Bytes besides the layout's: the one place that counts them.
    pub fn other(&self, placement: Placement) -> u64 {
        if placement.gpu_layers == 0 {
            return 0;
        }
        let there = self.padding.iter().enumerate().filter(|(index, _)| placement.on_accelerator(*index));
        let padding: u64 = there.map(|(index, sizes)| sizes[usize::from(placement.without_experts(index))]).sum();
        self.overhead + self.offload.scratch(placement) + self.slots + padding
    }

    /// What streaming takes besides: slots for layers, and what more of scratch memory those want.
    pub fn streams(&self, placement: &Placement, streaming: &Streaming) -> u64 {
        let slots: u64 = streaming.slot.buffers().map(|bytes| STREAM_SLOTS as u64 * (self.footprint)(bytes)).sum();
        let scratch = self.offload.scratch_with(*placement, streaming.layers());
        slots + scratch.saturating_sub(self.offload.scratch(*placement))
    }

    pub fn takes(&self, layout: &Layout, placement: Placement) -> u64 {
        layout.placed(placement).accelerator.total().saturating_add(self.other(placement))
    }

    /// Whether the accelerator can compute this and has the memory for it.
    pub fn holds(&self, layout: &Layout, placement: Placement) -> bool {
        self.offload.layers(placement.cpu_moe) >= placement.gpu_layers && self.takes(layout, placement) <= self.free
    }
}

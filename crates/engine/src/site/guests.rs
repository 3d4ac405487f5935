//! Routed experts come to a device and leave it without the rest of their layer.

use crate::file::Weights;
use crate::site::{LayerBuffers, Site};
use backend::BackendError;
use model::{Layer, Layout};

impl Site {
    /// Takes the experts of a layer that is, or will be, elsewhere. All or nothing.
    pub fn add_guest(
        &mut self,
        (index, layer): (usize, &Layer),
        layout: &Layout,
        file: &Weights,
    ) -> Result<(), BackendError> {
        let mut buffers = LayerBuffers::default();
        let slots = self.ensure_slots(&layout.slots);
        if let Err(error) = slots.and_then(|()| self.adopt(&layer.expert_tensors(), file, &mut buffers)) {
            self.free_buffers(buffers);
            self.release_unused_slots(layout);
            return Err(error);
        }
        self.guests.insert(index, buffers);
        Ok(())
    }

    pub fn remove_guest(&mut self, index: usize, layout: &Layout) {
        if let Some(buffers) = self.guests.remove(&index) {
            self.free_buffers(buffers);
        }
        self.release_unused_slots(layout);
    }

    /// Takes the experts of a layer that is here without them. All or nothing.
    pub fn add_experts(&mut self, (index, layer): (usize, &Layer), file: &Weights) -> Result<(), BackendError> {
        let mut experts = LayerBuffers::default();
        if let Err(error) = self.adopt(&layer.expert_tensors(), file, &mut experts) {
            self.free_buffers(experts);
            return Err(error);
        }
        match self.layers.get_mut(&index) {
            Some(buffers) => buffers.tensors.append(&mut experts.tensors),
            None => self.free_buffers(experts),
        }
        Ok(())
    }

    /// Gives up the experts of a layer that stays here.
    pub fn remove_experts(&mut self, (index, layer): (usize, &Layer)) {
        let experts = layer.expert_tensors();
        let Some(buffers) = self.layers.get_mut(&index) else { return };
        let is_expert = |(tensor, _): &mut (usize, _)| experts.iter().any(|expert| expert.index == *tensor);
        let gone: Vec<_> = buffers.tensors.extract_if(.., is_expert).collect();
        for (_, buffer) in gone {
            self.device.free(buffer);
        }
    }
}

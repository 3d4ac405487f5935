//! Layers and experts that are on a device while they are computed, in memory that is not theirs.

use crate::site::{Cache, LayerBuffers, Site};
use backend::{BackendError, BufferId};

impl LayerBuffers {
    /// A layer in memory of others: (index in the file, buffer, byte in it) of its tensors, its cache, its state and the values
    /// of that.
    pub fn lent(
        tensors: Vec<(usize, BufferId, u64)>,
        cache: Option<Cache>,
        state: Option<(BufferId, usize)>,
    ) -> LayerBuffers {
        LayerBuffers { lent: tensors, cache, state, ..LayerBuffers::default() }
    }
}

impl Site {
    /// Layer `index`, which is elsewhere, is here until it is taken back.
    pub fn lend_layer(&mut self, index: usize, buffers: LayerBuffers) {
        self.layers.insert(index, buffers);
    }

    /// The experts of layer `index`, which is here without them, are here until they are taken back.
    pub fn lend_experts(&mut self, index: usize, tensors: Vec<(usize, BufferId, u64)>) -> Result<(), BackendError> {
        let layer = self.layers.get_mut(&index).ok_or_else(|| super::missing(format!("layer {index} is elsewhere")))?;
        layer.lent = tensors;
        Ok(())
    }

    /// Whether layer `index`, or what it needs of others, was lent.
    pub fn is_lent(&self, index: usize) -> bool {
        self.layers.get(&index).is_some_and(|layer| !layer.lent.is_empty())
    }

    /// Layer `index` is where it was before. The memory stays with its owner.
    pub fn take_back(&mut self, index: usize) {
        let Some(layer) = self.layers.get_mut(&index) else { return };
        let whole = layer.tensors.is_empty() && !layer.lent.is_empty();
        layer.lent.clear();
        if whole {
            self.layers.remove(&index);
        }
    }

    /// Everything that was lent is taken back.
    pub fn take_all_back(&mut self) {
        let lent: Vec<usize> = self.layers.keys().copied().filter(|index| self.is_lent(*index)).collect();
        lent.into_iter().for_each(|index| self.take_back(index));
    }
}

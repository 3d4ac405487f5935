//! Which layers an accelerator can compute, and what of its memory besides buffers that takes.

use crate::{LayoutParams, Model};
use backend::Need;

/// A layer that an accelerator cannot compute, and what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// As [`crate::Placement`] counts: the number of layers is the output layer.
    pub layer: usize,
    pub need: Need,
}

/// What a kind of accelerator says to a model's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Why there are no more layers that can go there.
    pub lack: Option<Lack>,
    /// Bytes of scratch memory with 0, 1, 2, ... layers there, as many as can go.
    scratch: Vec<u64>,
}

impl Offload {
    /// Asks for every layer in the order in which they go to the accelerator: the model's last first, the output at the
    /// end. `scratch` is [`backend::Device::scratch`] of the device.
    pub fn new(model: &Model, params: &LayoutParams, scratch: &dyn Fn(&Need) -> Option<u64>) -> Offload {
        let count = model.layers.len();
        let mut offload = Offload { lack: None, scratch: vec![0] };
        // Products share one piece of memory, attention has another: each grows to what the largest takes.
        let (mut products, mut attention) = (0u64, 0u64);
        for layer in (0..count).rev().chain([count]) {
            let needs = match model.layers.get(layer) {
                Some(layer) => layer.needs(params),
                None => model.output.needs(params),
            };
            for need in needs {
                let Some(bytes) = scratch(&need) else {
                    offload.lack = Some(Lack { layer, need });
                    return offload;
                };
                let most = if matches!(need, Need::Attention { .. }) { &mut attention } else { &mut products };
                *most = bytes.max(*most);
            }
            offload.scratch.push(products.saturating_add(attention));
        }
        offload
    }

    /// The most layers that can go to the accelerator, the output layer counted.
    pub fn layers(&self) -> usize {
        self.scratch.len() - 1
    }

    /// Bytes of scratch memory with so many layers there.
    pub fn scratch(&self, gpu_layers: usize) -> u64 {
        self.scratch[gpu_layers.min(self.layers())]
    }
}

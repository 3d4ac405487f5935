//! Which layers an accelerator can compute, and what of its memory besides buffers that takes.

use crate::{LayoutParams, Model, Place, Placement};
use backend::Need;

/// A layer that an accelerator cannot compute, and what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// As [`Placement`] counts: the number of layers is the output layer.
    pub layer: usize,
    pub need: Need,
}

/// Bytes of scratch memory. Products share one piece of memory, attention has another: each grows to what the largest
/// takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scratch {
    products: u64,
    attention: u64,
}

/// What a kind of accelerator says to a model's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offload {
    /// By layer, the output layer last: what it takes whole, and without its routed experts; or what the device lacks.
    layers: Vec<[Result<Scratch, Need>; 2]>,
}

impl Offload {
    /// `scratch` is [`backend::Device::scratch`] of the device.
    pub fn new(model: &Model, params: &LayoutParams, scratch: &dyn Fn(&Need) -> Option<u64>) -> Offload {
        let most = |needs: Vec<Need>| {
            let mut most = Scratch::default();
            for need in needs {
                let Some(bytes) = scratch(&need) else { return Err(need) };
                let of = if matches!(need, Need::Attention { .. }) { &mut most.attention } else { &mut most.products };
                *of = bytes.max(*of);
            }
            Ok(most)
        };
        let blocks = model.layers.iter().map(|layer| [true, false].map(|routed| most(layer.needs(params, routed))));
        Offload { layers: blocks.chain([[most(model.output.needs(params)); 2]]).collect() }
    }

    /// In the order in which layers go to the accelerator: the model's last first, the output at the end.
    fn ordered(&self, cpu_moe: usize) -> impl Iterator<Item = (usize, Result<Scratch, Need>)> {
        let blocks = self.layers.len() - 1;
        let order = (0..blocks).rev().chain([blocks]);
        order.map(move |layer| (layer, self.layers[layer][usize::from(layer < cpu_moe && layer < blocks)]))
    }

    /// The most layers that can go to the accelerator, the output layer counted, where those before layer `cpu_moe` leave
    /// their experts behind.
    pub fn layers(&self, cpu_moe: usize) -> usize {
        self.ordered(cpu_moe).take_while(|(_, scratch)| scratch.is_ok()).count()
    }

    /// Why there are no more of them.
    pub fn lack(&self, cpu_moe: usize) -> Option<Lack> {
        self.ordered(cpu_moe).find_map(|(layer, scratch)| Some(Lack { layer, need: scratch.err()? }))
    }

    /// Whether layer `index` can be computed, whole or without its experts.
    pub fn can(&self, index: usize, whole: bool) -> bool {
        self.layers.get(index).is_some_and(|layer| layer[usize::from(!whole)].is_ok())
    }

    /// Bytes of scratch memory for the layers at `place`.
    pub fn scratch(&self, placement: &Placement, place: Place) -> u64 {
        self.scratch_with(placement, place, [])
    }

    /// The same with further layers, each of them whole, that are there now and then.
    pub fn scratch_with(&self, placement: &Placement, place: Place, streamed: impl IntoIterator<Item = usize>) -> u64 {
        let there = self.ordered(placement.cpu_moe).filter(|(layer, _)| placement.place(*layer) == place);
        let there = there.filter_map(|(_, scratch)| scratch.ok());
        let streamed = streamed.into_iter().filter_map(|layer| self.layers[layer][0].ok());
        let most = there.chain(streamed).fold(Scratch::default(), |most, layer| Scratch {
            products: most.products.max(layer.products),
            attention: most.attention.max(layer.attention),
        });
        most.products.saturating_add(most.attention)
    }
}

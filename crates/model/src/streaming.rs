//! Layers and experts on the host that an accelerator computes when many tokens come at once: their weights go through its
//! memory, those of the next layer while this one is computed. When that pays follows from what was measured.

use crate::{Layer, Layout, Model, Place, Placement, STATE_SLOTS, Tensor};

/// What was measured, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamRates {
    /// 8-bit multiply-adds of the host and of the accelerator.
    pub host: f64,
    pub accelerator: f64,
    /// Bytes from RAM to the accelerator.
    pub upload: f64,
}

/// Bytes of the buffers that one layer at a time is in; the largest layer of each kind counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSlot {
    pub weights: u64,
    pub k: u64,
    pub v: u64,
    pub state: u64,
}

/// One is computed while the other is filled.
pub const STREAM_SLOTS: usize = 2;

impl StreamSlot {
    /// The buffers that are needed.
    pub fn buffers(&self) -> impl Iterator<Item = u64> {
        [self.weights, self.k, self.v, self.state].into_iter().filter(|bytes| *bytes > 0)
    }

    /// Bytes of all slots.
    pub fn total(&self) -> u64 {
        STREAM_SLOTS as u64 * self.buffers().sum::<u64>()
    }

    fn grow(&mut self, other: StreamSlot) {
        let StreamSlot { weights, k, v, state } = other;
        self.weights = self.weights.max(weights);
        (self.k, self.v, self.state) = (self.k.max(k), self.v.max(v), self.state.max(state));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Streamed {
    index: usize,
    /// Multiply-adds of a token.
    adds: u64,
    /// Bytes that always go, those of a position in its cache, and the positions that this has.
    weights: u64,
    cell: u64,
    cells: u64,
}

/// Which layers are streamed, what that takes of the accelerator's memory, and when it pays.
#[derive(Clone, Debug, PartialEq)]
pub struct Streaming {
    /// The accelerator that they go to.
    pub on: usize,
    pub slot: StreamSlot,
    rates: StreamRates,
    layers: Vec<Streamed>,
    /// Tokens of the largest micro-batch.
    most: u32,
}

/// Starts of tensors in a slot: what kernels and copies like.
const ALIGNMENT: u64 = 256;

impl Streaming {
    /// The accelerator that layers are streamed to: the one that has the first of the layers on accelerators, so that the
    /// stream goes on there.
    pub fn accelerator(placement: &Placement) -> Option<usize> {
        (0..=placement.block_count()).find_map(|index| match placement.place(index) {
            Place::Accelerator(number) => Some(number),
            Place::Host => None,
        })
    }

    /// What can be streamed of a placement with layers on accelerators: layers on the host that [`Streaming::accelerator`] can
    /// compute (`can`), and routed experts that its layers left there. Layers that read another one's cache stay on the
    /// host. `None`: there is nothing, or nothing was measured.
    pub fn new(
        model: &Model,
        layout: &Layout,
        placement: &Placement,
        can: &dyn Fn(usize) -> bool,
        rates: StreamRates,
    ) -> Option<Streaming> {
        let known = |rate: f64| rate.is_finite() && rate > 0.0;
        let on = Streaming::accelerator(placement)?;
        if ![rates.host, rates.accelerator, rates.upload].into_iter().all(known) {
            return None;
        }
        let (mut slot, mut layers) = (StreamSlot::default(), Vec::new());
        for (index, (layer, bytes)) in model.layers.iter().zip(&layout.layers).enumerate() {
            let apart = placement.without_experts(index) && placement.place(index) == Place::Accelerator(on);
            let apart = apart && bytes.experts > 0;
            let host = !placement.on_accelerator(index) && bytes.cache_source.is_none();
            if !(apart || host) || !can(index) {
                continue;
            }
            let (_, weights) = Streaming::tensors(layer, apart);
            if apart {
                slot.grow(StreamSlot { weights, ..StreamSlot::default() });
                let adds = layer.expert_multiply_adds_per_token();
                layers.push(Streamed { index, adds, weights, cell: 0, cells: 0 });
                continue;
            }
            slot.grow(StreamSlot { weights, k: bytes.k, v: bytes.v, state: bytes.state });
            let (adds, cells) = (layer.multiply_adds_per_token(), bytes.cells as u64);
            // A state goes there and comes back.
            let weights = weights + 2 * bytes.state / STATE_SLOTS as u64;
            layers.push(Streamed { index, adds, weights, cell: bytes.cache() / cells.max(1), cells });
        }
        (!layers.is_empty()).then_some(Streaming { on, slot, rates, layers, most: layout.params.ubatch })
    }

    /// What goes into a slot of a layer, each tensor with its place, and the bytes of all: the layer, or only its experts.
    pub fn tensors(layer: &Layer, only_experts: bool) -> (Vec<(Tensor, u64)>, u64) {
        let tensors = if only_experts { layer.expert_tensors() } else { layer.tensors() };
        let mut end = 0u64;
        let place = |tensor: Tensor| {
            let start = end;
            end = (start + tensor.device_bytes()).next_multiple_of(ALIGNMENT);
            (tensor, start)
        };
        (tensors.into_iter().map(place).collect(), end)
    }

    /// Indices of the layers, in order.
    pub fn layers(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().map(|layer| layer.index)
    }

    /// Whether layer `index`, or what it left on the host, is one of them.
    pub fn has(&self, index: usize) -> bool {
        self.layers().any(|layer| layer == index)
    }

    /// Whether streaming is faster for a micro-batch of `tokens` at position `start`. On the host, the matrices' arithmetic
    /// counts at the rate measured for it; on the accelerator, the longer of arithmetic and copies, the first layer's copy,
    /// which nothing hides, and the way back of what is new in the caches.
    pub fn pays(&self, tokens: u32, start: u32) -> bool {
        self.seconds(tokens, start) < self.host_seconds(tokens)
    }

    /// Seconds that a micro-batch takes in these layers when they are streamed.
    pub fn seconds(&self, tokens: u32, start: u32) -> f64 {
        let StreamRates { accelerator, upload, .. } = self.rates;
        let copy = |layer: &Streamed| (layer.weights + layer.cell * layer.cells.min(start.into())) as f64 / upload;
        let one = |layer: &Streamed| {
            let (there, adds) = (copy(layer), layer.adds as f64 * f64::from(tokens));
            let back = (layer.cell * u64::from(tokens)) as f64 / upload;
            there.max(adds / accelerator) + back
        };
        self.layers.first().map_or(0.0, copy) + self.layers.iter().map(one).sum::<f64>()
    }

    /// The same on the host.
    pub fn host_seconds(&self, tokens: u32) -> f64 {
        self.adds_per_token() as f64 * f64::from(tokens) / self.rates.host
    }

    /// Multiply-adds of a token in these layers.
    pub fn adds_per_token(&self) -> u64 {
        self.layers.iter().map(|layer| layer.adds).sum()
    }

    /// The fewest tokens of a prompt, at position `start`, for which it pays; `None`: not in a micro-batch.
    pub fn break_even(&self, start: u32) -> Option<u32> {
        (1..=self.most).find(|tokens| self.pays(*tokens, start))
    }
}

//! The one place that counts bytes: every buffer of a loaded model, per layer and device.
//!
//! The planner shows these numbers, the engine allocates them. A host computes with weights where they lie in the
//! mapped file; accelerators hold copies.

use crate::slots::{input_slots, layer_slots, output_slots};
use crate::{BufferPlan, CacheShape, Layer, Model, ModelError, Place, Placement, Tensor};
use quant::GgmlType;
use std::ops::Range;

/// What the sizes depend on besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutParams {
    /// Cells of the KV cache: tokens a sequence may have.
    pub context: u32,
    /// Tokens computed at once.
    pub ubatch: u32,
    pub kv_type_k: GgmlType,
    pub kv_type_v: GgmlType,
    /// Rows of logits computed at once (1 for a chat).
    pub logits_rows: u32,
}

/// Bytes of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerBytes {
    /// In the file.
    pub weights: u64,
    /// As copies on an accelerator.
    pub device_weights: u64,
    /// What of both the routed experts are; 0 in layers without.
    pub experts: u64,
    pub device_experts: u64,
    pub k: u64,
    pub v: u64,
    /// Positions that the KV cache holds: all, or what a window needs.
    pub cells: usize,
    /// [`STATE_SLOTS`] recurrent states.
    pub state: u64,
    /// The earlier layer whose cache this one reads. On another device than that layer it needs a copy.
    pub cache_source: Option<usize>,
}

impl LayerBytes {
    pub fn cache(&self) -> u64 {
        self.k + self.v
    }

    /// The positions whose cells hold what a sequence of `computed` tokens left, where `written` were computed before it was
    /// cut to that.
    pub fn held(&self, computed: usize, written: usize) -> Range<usize> {
        written.max(computed).saturating_sub(self.cells).min(computed)..computed
    }
}

/// Bytes in one memory, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// On the host: the range of the mapped file that is used. On an accelerator: copies.
    pub weights: u64,
    /// KV caches and recurrent states.
    pub kv: u64,
    pub compute: u64,
}

impl Parts {
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.compute
    }
}

impl std::ops::Add for Parts {
    type Output = Parts;

    fn add(self, other: Parts) -> Parts {
        Parts { weights: self.weights + other.weights, kv: self.kv + other.kv, compute: self.compute + other.compute }
    }
}

/// Bytes of a placement, memory by memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub host: Parts,
    /// Up to the last accelerator that has layers.
    pub accelerators: Vec<Parts>,
}

impl Totals {
    /// Bytes on one accelerator.
    pub fn accelerator(&self, number: usize) -> Parts {
        self.accelerators.get(number).copied().unwrap_or_default()
    }

    /// Bytes on all accelerators together.
    pub fn on_accelerators(&self) -> Parts {
        self.accelerators.iter().fold(Parts::default(), |all, parts| all + *parts)
    }

    fn at(&mut self, place: Place) -> &mut Parts {
        match place {
            Place::Accelerator(number) => {
                if self.accelerators.len() <= number {
                    self.accelerators.resize(number + 1, Parts::default());
                }
                &mut self.accelerators[number]
            }
            Place::Host => &mut self.host,
        }
    }
}

/// Sizes of everything that a model with these parameters needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub params: LayoutParams,
    pub layers: Vec<LayerBytes>,
    pub output: LayerBytes,
    /// The token embedding stays in the mapped file.
    pub embedding: u64,
    /// So does what feeds per-layer inputs and further parts of the stream.
    pub per_layer_input: u64,
    /// The output layer uses the token embedding's bytes.
    pub tied: bool,
    /// Wherever there is a layer.
    pub slots: Vec<BufferPlan>,
    /// Also where the output layer is.
    pub output_slots: Vec<BufferPlan>,
    /// On the host, whatever else is there.
    pub input_slots: Vec<BufferPlan>,
}

impl Layout {
    /// # Errors
    /// Sizes that overflow, or a KV type that saves nothing because heads are shorter than its blocks.
    pub fn new(model: &Model, params: LayoutParams) -> Result<Layout, ModelError> {
        let layers = model.layers.iter().map(|layer| layer_bytes(layer, &params)).collect::<Result<_, _>>()?;
        let tensors = model.output.tensors();
        let output = LayerBytes {
            weights: sum(tensors.iter().map(|t| t.bytes))?,
            device_weights: sum(tensors.iter().map(Tensor::device_bytes))?,
            ..LayerBytes::default()
        };
        Ok(Layout {
            params,
            layers,
            output,
            embedding: model.token_embedding.bytes,
            tied: model.output.weight.weight.index == model.token_embedding.index,
            per_layer_input: {
                let embedding = model.per_layer_input.map(|input| input.embedding);
                sum(model.input_tensors().iter().chain(&embedding).map(|t| t.bytes))?
            },
            slots: layer_slots(model, &params)?,
            output_slots: output_slots(model, &params)?,
            input_slots: input_slots(model, &params)?,
        })
    }

    pub fn block_count(&self) -> usize {
        self.layers.len()
    }

    /// Bytes with this many layers, each of them whole, on one accelerator.
    pub fn totals(&self, gpu_layers: usize) -> Totals {
        self.placed(&Placement::new(gpu_layers, self.block_count()))
    }

    /// Bytes in every memory.
    pub fn placed(&self, placement: &Placement) -> Totals {
        let mut totals = Totals::default();
        let size = |slots: &[BufferPlan]| slots.iter().map(|slot| slot.bytes).sum::<u64>();
        totals.host.weights = self.embedding + self.per_layer_input;
        totals.host.compute = size(&self.input_slots);
        for (index, layer) in self.layers.iter().enumerate() {
            let place = placement.place(index);
            let parts = totals.at(place);
            parts.weights += if place == Place::Host { layer.weights } else { layer.device_weights };
            parts.kv += layer.cache() + layer.state;
            if placement.without_experts(index) {
                parts.weights -= layer.device_experts;
                totals.host.weights += layer.experts;
            }
        }
        let output = placement.place(self.block_count());
        for place in placement.used() {
            let copies = self.copied_sources(placement, place).into_iter();
            totals.at(place).kv += copies.map(|source| self.layers[source].cache()).sum::<u64>();
        }
        let experts_on_host = (0..self.block_count()).any(|index| self.experts_apart(placement, index));
        let host = Some(Place::Host).filter(|_| experts_on_host && !placement.has(Place::Host));
        for place in placement.used().into_iter().chain(host) {
            totals.at(place).compute += size(&self.slots);
        }
        totals.at(output).weights += match output {
            Place::Accelerator(_) => self.output.device_weights,
            Place::Host if self.tied => self.output.weights - self.embedding,
            Place::Host => self.output.weights,
        };
        totals.at(output).compute += size(&self.output_slots);
        totals
    }
}

impl Layout {
    /// Whether layer `index` is on an accelerator and its routed experts are on the host.
    pub fn experts_apart(&self, placement: &Placement, index: usize) -> bool {
        placement.without_experts(index) && self.layers.get(index).is_some_and(|layer| layer.experts > 0)
    }

    /// Layers that have routed experts.
    pub fn expert_layers(&self) -> usize {
        self.layers.iter().filter(|layer| layer.experts > 0).count()
    }

    /// Layers elsewhere whose caches layers at `place` read: these have copies there.
    pub fn copied_sources(&self, placement: &Placement, place: Place) -> Vec<usize> {
        let users = self.layers.iter().enumerate().filter(|(index, _)| placement.place(*index) == place);
        let sources = users.filter_map(|(_, layer)| layer.cache_source);
        let mut sources: Vec<usize> = sources.filter(|source| placement.place(*source) != place).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Whether there are layers with a state, which can only go back to checkpoints.
    pub fn is_recurrent(&self) -> bool {
        self.layers.iter().any(|layer| layer.state > 0)
    }

    /// Bytes that a sequence leaves in caches and states ([`LayerBytes::held`]), with `states` of its recurrent states.
    pub fn sequence_bytes(&self, computed: usize, written: usize, states: usize) -> u64 {
        let layer = |layer: &LayerBytes| {
            let cell = layer.cache() / layer.cells.max(1) as u64;
            cell * layer.held(computed, written).len() as u64 + layer.state / STATE_SLOTS as u64 * states as u64
        };
        self.layers.iter().map(layer).sum()
    }

    /// Whether the caches still have what the first `kept` of `written` tokens left: a window's cells are overwritten in
    /// time.
    pub fn can_rewind(&self, written: usize, kept: usize) -> bool {
        let context = self.params.context as usize;
        let lost = written.saturating_sub(kept);
        let whole = |layer: &LayerBytes| layer.k == 0 || layer.cells >= context || layer.cells >= written;
        lost <= REWIND as usize || self.layers.iter().all(whole)
    }
}

/// Recurrent states that a layer has room for: what the last step left, what the next one writes, two checkpoints.
pub const STATE_SLOTS: usize = 4;

/// Cells that a windowed layer keeps beyond its window and a micro-batch, so that a chat can go back some messages
/// without being read again.
const REWIND: u64 = 1024;

fn sum(bytes: impl Iterator<Item = u64>) -> Result<u64, ModelError> {
    bytes.into_iter().try_fold(0u64, |total, n| total.checked_add(n)).ok_or(ModelError::Overflow)
}

fn layer_bytes(layer: &Layer, params: &LayoutParams) -> Result<LayerBytes, ModelError> {
    let (tensors, experts) = (layer.tensors(), layer.expert_tensors());
    let mixer = layer.mixer.as_ref().map(|mixer| &mixer.part);
    let (conv, recurrent) = mixer.map_or((0, 0), |mixer| mixer.state_lens());
    let mut bytes = LayerBytes {
        weights: sum(tensors.iter().map(|t| t.bytes))?,
        device_weights: sum(tensors.iter().map(Tensor::device_bytes))?,
        experts: sum(experts.iter().map(|t| t.bytes))?,
        device_experts: sum(experts.iter().map(Tensor::device_bytes))?,
        state: sum([conv, recurrent].into_iter().map(|len| STATE_SLOTS as u64 * 4 * len as u64))?,
        cache_source: mixer.and_then(|mixer| mixer.cache_source()),
        ..LayerBytes::default()
    };
    if let Some(shape) = mixer.and_then(|mixer| mixer.cache()) {
        bytes.cells = cells(&shape, params);
        let stored = shape.stored(params);
        bytes.k = cache(&shape, bytes.cells, params.kv_type_k, [shape.head_dim_k, stored.head_dim_k])?;
        if shape.v_in_k {
            // The values must be whole blocks of the keys' type.
            cache(&shape, bytes.cells, params.kv_type_k, [shape.head_dim_v; 2])?;
        } else {
            bytes.v = cache(&shape, bytes.cells, params.kv_type_v, [shape.head_dim_v, stored.head_dim_v])?;
        }
    }
    Ok(bytes)
}

fn cells(shape: &CacheShape, params: &LayoutParams) -> usize {
    let context = u64::from(params.context);
    let windowed = (shape.window as u64).saturating_add(u64::from(params.ubatch)).saturating_add(REWIND);
    if shape.window == 0 { context as usize } else { context.min(windowed) as usize }
}

/// Heads of so many values, and as they are stored. A type that saves nothing for short heads is refused.
fn cache(shape: &CacheShape, cells: usize, ty: GgmlType, [dim, stored]: [usize; 2]) -> Result<u64, ModelError> {
    let row = ty.row_bytes(stored).filter(|row| ty.block_size() == 1 || *row < 2 * dim).ok_or_else(|| {
        ModelError::Unsupported(format!(
            "a KV cache of type {ty} stores blocks of {} values, which saves nothing with this model's heads of {dim}: \
             take F16",
            ty.block_size()
        ))
    })?;
    let rows = (cells as u64).checked_mul(shape.head_count_kv as u64);
    rows.and_then(|rows| rows.checked_mul(row as u64)).ok_or(ModelError::Overflow)
}

//! The one place that counts bytes: every buffer of a loaded model, per layer and device.
//!
//! The planner shows these numbers, the engine allocates them. A host computes with weights where they lie in the
//! mapped file; an accelerator holds copies.

use crate::{FeedForward, Layer, Model, ModelError, Tensor};
use quant::GgmlType;

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

/// Activation buffers that every device with layers has once. Shapes for `u` = ubatch rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The residual stream, f32 [u, embedding_length]
    Hidden,
    /// Its normalised copy, f32 [u, embedding_length]
    Normed,
    /// f32 [u, head_count * head_dim_k]
    Q,
    /// f32 [u, head_count_kv * head_dim_k]
    K,
    /// f32 [u, head_count_kv * head_dim_v]
    V,
    /// f32 [u, head_count * head_dim_v]
    Attended,
    /// What a sub-layer adds to the stream, f32 [u, embedding_length]
    Delta,
    /// f32 [u, (used experts) * feed_forward_length]
    Gate,
    Up,
    /// f32 [u, experts]
    RouterLogits,
    /// u32 [u, used]
    ExpertIds,
    /// f32 [u, used]
    ExpertWeights,
    /// f32 [u, used, embedding_length]
    ExpertDelta,
    /// u32 [u]
    Positions,
    /// Rows that become logits, f32 [logits_rows, embedding_length]; only where the output layer is.
    Selected,
    /// f32 [logits_rows, vocab_size]; only where the output layer is.
    Logits,
}

/// A buffer and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferPlan {
    pub slot: Slot,
    pub bytes: u64,
}

/// Bytes of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerBytes {
    /// In the file.
    pub weights: u64,
    /// As copies on an accelerator.
    pub device_weights: u64,
    pub k: u64,
    pub v: u64,
}

/// Bytes in one memory, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// On the host: the range of the mapped file that is used. On an accelerator: copies.
    pub weights: u64,
    pub kv: u64,
    pub compute: u64,
}

impl Parts {
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.compute
    }
}

/// Bytes on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub host: Parts,
    pub accelerator: Parts,
}

/// Which layers are on the accelerator: the last of the model first, the output layer after all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub gpu_layers: usize,
    /// Layers without the output layer.
    pub block_count: usize,
}

impl Placement {
    /// As many layers as asked for, or all there are.
    pub fn new(gpu_layers: usize, block_count: usize) -> Placement {
        Placement { gpu_layers: gpu_layers.min(block_count + 1), block_count }
    }

    /// Whether layer `index` is on the accelerator (`block_count` is the output layer).
    pub fn on_accelerator(&self, index: usize) -> bool {
        if index >= self.block_count {
            self.gpu_layers > self.block_count
        } else {
            index + self.gpu_layers.min(self.block_count) >= self.block_count
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
    /// The output layer uses the token embedding's bytes.
    pub tied: bool,
    /// Wherever there is a layer.
    pub slots: Vec<BufferPlan>,
    /// Also where the output layer is.
    pub output_slots: Vec<BufferPlan>,
}

impl Layout {
    /// # Errors
    /// Sizes that overflow, or a KV type whose blocks do not divide the heads.
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
            slots: slots(model, &params)?,
            output_slots: vec![
                buffer(Slot::Selected, params.logits_rows, model.embedding_length)?,
                buffer(Slot::Logits, params.logits_rows, model.vocab_size)?,
            ],
        })
    }

    pub fn block_count(&self) -> usize {
        self.layers.len()
    }

    /// Bytes on host and accelerator with this many layers on the accelerator.
    pub fn totals(&self, gpu_layers: usize) -> Totals {
        let placement = Placement::new(gpu_layers, self.block_count());
        let mut totals = Totals::default();
        totals.host.weights = self.embedding;
        for (index, layer) in self.layers.iter().enumerate() {
            let on_accelerator = placement.on_accelerator(index);
            let side = if on_accelerator { &mut totals.accelerator } else { &mut totals.host };
            side.weights += if on_accelerator { layer.device_weights } else { layer.weights };
            side.kv += layer.k + layer.v;
        }
        let size = |slots: &[BufferPlan]| slots.iter().map(|slot| slot.bytes).sum::<u64>();
        let host_has_layers = (0..=self.block_count()).any(|index| !placement.on_accelerator(index));
        if host_has_layers {
            totals.host.compute += size(&self.slots);
        }
        if placement.gpu_layers > 0 {
            totals.accelerator.compute += size(&self.slots);
        }
        if placement.on_accelerator(self.block_count()) {
            totals.accelerator.weights += self.output.device_weights;
            totals.accelerator.compute += size(&self.output_slots);
        } else {
            totals.host.weights += if self.tied { self.output.weights - self.embedding } else { self.output.weights };
            totals.host.compute += size(&self.output_slots);
        }
        totals
    }
}

fn sum(bytes: impl Iterator<Item = u64>) -> Result<u64, ModelError> {
    bytes.into_iter().try_fold(0u64, |total, n| total.checked_add(n)).ok_or(ModelError::Overflow)
}

fn layer_bytes(layer: &Layer, params: &LayoutParams) -> Result<LayerBytes, ModelError> {
    let tensors = layer.tensors();
    let attention = &layer.attention;
    let cache = |ty: GgmlType, head_dim: usize| -> Result<u64, ModelError> {
        let row = ty.row_bytes(head_dim).ok_or_else(|| {
            ModelError::Unsupported(format!(
                "a KV cache of type {ty} needs heads of a multiple of {} values; this model's have {head_dim}: take F16",
                ty.block_size()
            ))
        })?;
        let rows = u64::from(params.context).checked_mul(attention.head_count_kv as u64);
        rows.and_then(|rows| rows.checked_mul(row as u64)).ok_or(ModelError::Overflow)
    };
    Ok(LayerBytes {
        weights: sum(tensors.iter().map(|t| t.bytes))?,
        device_weights: sum(tensors.iter().map(Tensor::device_bytes))?,
        k: cache(params.kv_type_k, attention.head_dim_k)?,
        v: cache(params.kv_type_v, attention.head_dim_v)?,
    })
}

/// `rows` x `width` 4-byte values.
fn buffer(slot: Slot, rows: u32, width: usize) -> Result<BufferPlan, ModelError> {
    let bytes = u64::from(rows).checked_mul(width as u64).and_then(|n| n.checked_mul(4)).ok_or(ModelError::Overflow)?;
    Ok(BufferPlan { slot, bytes })
}

fn slots(model: &Model, params: &LayoutParams) -> Result<Vec<BufferPlan>, ModelError> {
    let widest = |width: &dyn Fn(&Layer) -> usize| model.layers.iter().map(width).max().unwrap_or(0);
    let experts = |of: fn(&crate::Experts) -> usize| {
        move |layer: &Layer| match &layer.feed_forward {
            FeedForward::Dense(_) => 0,
            FeedForward::Experts(experts) => of(experts),
        }
    };
    let feed_forward = |layer: &Layer| match &layer.feed_forward {
        FeedForward::Dense(dense) => dense.up.weight.rows,
        FeedForward::Experts(experts) => experts.up.weight.rows * experts.router.used,
    };
    let width = model.embedding_length;
    let all = [
        (Slot::Hidden, width),
        (Slot::Normed, width),
        (Slot::Q, widest(&|l| l.attention.head_count * l.attention.head_dim_k)),
        (Slot::K, widest(&|l| l.attention.head_count_kv * l.attention.head_dim_k)),
        (Slot::V, widest(&|l| l.attention.head_count_kv * l.attention.head_dim_v)),
        (Slot::Attended, widest(&|l| l.attention.head_count * l.attention.head_dim_v)),
        (Slot::Delta, width),
        (Slot::Gate, widest(&feed_forward)),
        (Slot::Up, widest(&feed_forward)),
        (Slot::RouterLogits, widest(&experts(|e| e.router.experts))),
        (Slot::ExpertIds, widest(&experts(|e| e.router.used))),
        (Slot::ExpertWeights, widest(&experts(|e| e.router.used))),
        (Slot::ExpertDelta, width * widest(&experts(|e| e.router.used))),
        (Slot::Positions, 1),
    ];
    all.into_iter().filter(|(_, width)| *width > 0).map(|(slot, width)| buffer(slot, params.ubatch, width)).collect()
}

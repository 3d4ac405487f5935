//! The activation buffers of a device: which there are, and how wide the model makes them.

use crate::{
    CacheShape, DeltaInput, Expansion, ExpertInput, FeedForward, KeysValues, Layer, LayoutParams, Mixer, Model,
    ModelError,
};

/// Activation buffers that every device with layers has once. Shapes for `u` = ubatch rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The residual stream, f32 [u, parts, embedding_length]
    Hidden,
    /// Its normalised copy, f32 [u, embedding_length]
    Normed,
    /// f32 [u, head_count * head_dim_k]; what a recurrent mixer's convolution gives
    Q,
    /// f32 [u, head_count_kv * head_dim_k]; per-head inputs of a recurrent mixer
    K,
    /// f32 [u, head_count_kv * head_dim_v]; per-head inputs of a recurrent mixer
    V,
    /// f32 [u, head_count * head_dim_v]; what a recurrent mixer gives
    Attended,
    /// Keys and then queries, values and then what attention makes of them, as [`CacheShape::stored`] has their heads; and
    /// nothing but zeros
    PaddedK,
    PaddedV,
    Zeros,
    /// What a sub-layer adds to the stream, f32 [u, embedding_length]
    Delta,
    /// What is added to that: a shared expert, the second of two parallel parts, f32 [u, embedding_length]
    Branch,
    /// f32 [u, (used experts) * feed_forward_length]; what mixers compute on the way to Q, K and V
    Gate,
    Up,
    /// f32 [u, experts]
    RouterLogits,
    /// u32 [u, used]
    ExpertIds,
    /// f32 [u, used]
    ExpertWeights,
    /// f32 [u, used, width of the experts]
    ExpertDelta,
    /// What experts compute on and their sum, where that is narrower than the stream, f32 [u, width of the experts]
    Latent,
    /// The stream as AltUp predicts it, f32 [u, parts, embedding_length]; its active part
    Predicted,
    Active,
    /// f32 [u, parts]; f32 [u, parts, parts]
    Modalities,
    Coefficients,
    /// u32 [u]
    Positions,
    /// Factors on the queries, f32 [u]
    Temperatures,
    /// 0, 1, 2, ... for every row: heads as experts, u32 [u, head_count]
    HeadIds,
    /// Every layer's input beside the stream, f32 [layers, u, dim]
    PerLayer,
    /// Embeddings that it is made from, f32 [u, embedding_length]; only on the host.
    Embedded,
    /// f32 [u, layers * dim]; only on the host.
    Projected,
    /// Rows that become logits, f32 [logits_rows, parts, embedding_length]; only where the output layer is.
    Selected,
    /// Their parts as one; a part; its projection, f32 [logits_rows, embedding_length]; only where the output layer is.
    Merged,
    Part,
    PartProjected,
    /// f32 [logits_rows, vocab_size]; only where the output layer is.
    Logits,
}

/// A buffer and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferPlan {
    pub slot: Slot,
    pub bytes: u64,
}

/// `rows` x `width` 4-byte values.
fn buffer(slot: Slot, rows: u32, width: usize) -> Result<BufferPlan, ModelError> {
    let bytes = u64::from(rows).checked_mul(width as u64).and_then(|n| n.checked_mul(4)).ok_or(ModelError::Overflow)?;
    Ok(BufferPlan { slot, bytes })
}

fn buffers(rows: u32, widths: &[(Slot, usize)]) -> Result<Vec<BufferPlan>, ModelError> {
    widths.iter().filter(|(_, width)| *width > 0).map(|(slot, width)| buffer(*slot, rows, *width)).collect()
}

pub(crate) fn layer_slots(model: &Model, params: &LayoutParams) -> Result<Vec<BufferPlan>, ModelError> {
    let width = model.embedding_length;
    let mut widest = vec![
        (Slot::Hidden, model.stream_length()),
        (Slot::Normed, width),
        (Slot::Delta, width),
        (Slot::Positions, 1),
        (Slot::PerLayer, model.per_layer_input.map_or(0, |input| input.dim * model.layers.len())),
    ];
    for (slot, width) in model.layers.iter().flat_map(|layer| widths(layer, width, params)) {
        match widest.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, known)) => *known = width.max(*known),
            None => widest.push((slot, width)),
        }
    }
    buffers(params.ubatch, &widest)
}

pub(crate) fn output_slots(model: &Model, params: &LayoutParams) -> Result<Vec<BufferPlan>, ModelError> {
    let part = if model.output.merge.is_some() { model.embedding_length } else { 0 };
    let mut all = vec![(Slot::Selected, model.stream_length()), (Slot::Logits, model.vocab_size)];
    all.extend([Slot::Merged, Slot::Part, Slot::PartProjected].map(|slot| (slot, part)));
    buffers(params.logits_rows, &all)
}

pub(crate) fn input_slots(model: &Model, params: &LayoutParams) -> Result<Vec<BufferPlan>, ModelError> {
    let projections =
        [model.per_layer_input.map(|input| input.projection), model.alt_up.map(|alt_up| alt_up.expansion)];
    let Some(widest) = projections.iter().flatten().map(|linear| linear.rows).max() else { return Ok(Vec::new()) };
    buffers(params.ubatch, &[(Slot::Embedded, model.embedding_length), (Slot::Projected, widest)])
}

/// What one layer needs.
fn widths(layer: &Layer, width: usize, params: &LayoutParams) -> Vec<(Slot, usize)> {
    let mut all = Vec::new();
    if let Some(mixer) = &layer.mixer {
        all.extend(mixer_widths(&mixer.part));
        if let Some((shape, heads)) = mixer.part.attended() {
            all.extend(padded_widths(&shape, heads, params));
        }
    }
    if let Some(feed_forward) = &layer.feed_forward {
        all.extend(feed_forward_widths(&feed_forward.part, width));
    }
    if layer.parallel || layer.laurel.is_some() {
        all.push((Slot::Branch, width));
    }
    if let Some(laurel) = &layer.laurel {
        all.push((Slot::Gate, laurel.left.rows));
    }
    if let Some(alt_up) = &layer.alt_up {
        let count = alt_up.streams.count;
        all.extend([(Slot::Predicted, count * width), (Slot::Active, width)]);
        all.extend([(Slot::Modalities, count), (Slot::Coefficients, count * count)]);
    }
    if let Some(per_layer) = &layer.per_layer {
        all.push((Slot::Gate, per_layer.gate.rows));
    }
    all
}

fn padded_widths(shape: &CacheShape, heads: usize, params: &LayoutParams) -> [(Slot, usize); 3] {
    let (stored, heads) = (shape.stored(params), heads.max(shape.head_count_kv));
    let missing = [stored.head_dim_k - shape.head_dim_k, stored.head_dim_v - shape.head_dim_v];
    let padded = |missing, dim| if missing > 0 { heads * dim } else { 0 };
    [
        (Slot::PaddedK, padded(missing[0], stored.head_dim_k)),
        (Slot::PaddedV, padded(missing[1], stored.head_dim_v)),
        (Slot::Zeros, heads * missing[0].max(missing[1])),
    ]
}

fn mixer_widths(mixer: &Mixer) -> Vec<(Slot, usize)> {
    match mixer {
        Mixer::Attention(a) => {
            let own = matches!(a.kv, KeysValues::Own { .. });
            vec![
                (Slot::Q, a.head_count * a.head_dim_k),
                (Slot::K, if own { a.head_count_kv * a.head_dim_k } else { 0 }),
                (Slot::V, if own { a.head_count_kv * a.head_dim_v } else { 0 }),
                (Slot::Attended, a.head_count * a.head_dim_v),
                // Queries with their gates, then the gates alone.
                (Slot::Gate, if a.gated { a.q.rows } else { 0 }),
                (Slot::Up, if a.gated { a.q.rows / 2 } else { 0 }),
                (Slot::Temperatures, usize::from(a.temperature.is_some())),
            ]
        }
        Mixer::Latent(a) => {
            let (heads, shape) = (a.head_count, a.cache_shape());
            let low = a.q_a.map_or(0, |(q_a, _)| q_a.rows);
            let full = if let Expansion::Full { kv_b } = &a.expansion { kv_b.rows } else { 0 };
            vec![
                (Slot::Q, heads * shape.head_dim_k),
                (Slot::K, (shape.head_count_kv * shape.head_dim_k).max(a.kv_a.rows)),
                (Slot::V, (shape.head_count_kv * shape.head_dim_v).max(a.rank)),
                (Slot::Attended, heads * shape.head_dim_v),
                (Slot::Gate, low.max(heads * a.nope_dim.max(a.rope_dim).max(a.head_dim_v))),
                (Slot::Up, a.q.rows.max(full)),
                (Slot::HeadIds, heads),
                (Slot::Temperatures, usize::from(a.temperature.is_some())),
            ]
        }
        Mixer::ShortConv(m) => {
            let channels = m.conv.channels;
            [Slot::Q, Slot::Gate, Slot::Up, Slot::Attended].map(|slot| (slot, channels)).into()
        }
        Mixer::DeltaNet(m) => {
            let heads = m.spec.heads_v;
            let wide = if let DeltaInput::ByKeyHead(all) = &m.input { all.rows } else { 0 };
            vec![
                (Slot::Gate, m.conv.channels.max(2 * heads)),
                (Slot::Q, m.conv.channels.max(wide)),
                (Slot::Up, heads * m.spec.head_dim),
                (Slot::K, heads),
                (Slot::V, heads),
                (Slot::Attended, heads * m.spec.head_dim),
            ]
        }
        Mixer::Mamba(m) => vec![
            (Slot::Gate, m.conv.channels),
            (Slot::Q, m.conv.channels),
            (Slot::Up, m.z.rows),
            (Slot::K, m.spec.heads),
            (Slot::Attended, m.z.rows),
        ],
    }
}

fn feed_forward_widths(feed_forward: &FeedForward, width: usize) -> Vec<(Slot, usize)> {
    match feed_forward {
        FeedForward::Dense(dense) => [Slot::Gate, Slot::Up].map(|slot| (slot, dense.up.rows)).into(),
        FeedForward::Experts(f) => {
            let used = f.router.used;
            let inner = match &f.input {
                ExpertInput::Gated { up, .. } | ExpertInput::Up(up) => up.rows,
                ExpertInput::Fused(both) => both.rows,
            };
            let shared = f.shared.map_or(0, |shared| shared.dense.up.rows);
            vec![
                (Slot::Gate, (used * inner).max(shared)),
                (Slot::Up, (used * inner).max(shared)),
                (Slot::RouterLogits, f.router.experts),
                (Slot::ExpertIds, used),
                (Slot::ExpertWeights, used),
                (Slot::ExpertDelta, used * f.down.rows),
                (Slot::Latent, f.latent.map_or(0, |latent| latent.down.rows)),
                (Slot::Branch, if f.shared.is_some() { width } else { 0 }),
            ]
        }
    }
}

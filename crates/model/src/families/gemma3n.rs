//! Gemma 3n: Gemma 4's values, shared caches and per-layer inputs; a stream of several parts, a low-rank branch beside
//! attention, sparse gates in the first layers.

use super::gemma4::{KvSharing, attention_of, per_layer, per_layer_input};
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::Activation;

/// Where files say nothing: 95 % of the gates of the first ten layers are 0, in deviations of a normal distribution.
const SPARSE_LAYERS: usize = 10;
const DEVIATIONS: f32 = 1.644_853_6;
/// Layers with caches of their own.
const OWN_CACHES: usize = 20;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let (width, blocks) = (builder.sizes.embedding_length, builder.sizes.block_count);
    let dim = header.count("embedding_length_per_layer_input", 1 << 16)?;
    let streams = streams(header)?;
    let shared = match header.u64_or("attention.shared_kv_layers") {
        Some(shared) => shared as usize,
        // Converters write it as a float.
        None => header.f32_or("attention.shared_kv_layers").map_or(blocks.saturating_sub(OWN_CACHES), |n| n as usize),
    };
    let sharing = KvSharing { first: blocks.saturating_sub(shared), pattern: 5 };
    let mut model = builder.model(|index| {
        let heads = builder.heads(index)?;
        let attention = attention_of(&builder, index, heads, "rope.dimension_count", &sharing)?;
        let mut dense = builder.dense(index, Activation::GeluTanh)?;
        dense.sparsity = sparsity(header, index)?;
        let layer = builder.layer(index, Mixer::Attention(attention), FeedForward::Dense(dense))?;
        Ok(Layer {
            per_layer: Some(per_layer(&builder, index, dim)?),
            alt_up: Some(alt_up(&builder, index, streams)?),
            laurel: Some(laurel(&builder, index)?),
            ..layer
        })
    })?;
    let others = |name: &str| -> Result<Linear, ModelError> {
        let stack = header.tensor(name, &[width, width, streams.count - 1])?;
        Ok(Linear::whole(Tensor { rows: stack.rows * stack.experts, experts: 1, ..stack }))
    };
    model.embedding_scale = (width as f32).sqrt();
    model.per_layer_input = Some(per_layer_input(&builder, dim)?);
    model.alt_up = Some(AltUp { streams, expansion: others("altup_proj.weight")? });
    model.output.merge = Some(Merge { streams, projection: others("altup_unembd_proj.weight")? });
    Ok(model)
}

fn streams(header: &Header<'_>) -> Result<Streams, ModelError> {
    let (count, active) =
        (header.u64_or("altup.num_inputs").unwrap_or(4), header.u64_or("altup.active_idx").unwrap_or(0));
    if !(2..=64).contains(&count) {
        return Err(header.bad_value("altup.num_inputs", count, "2 to 64"));
    }
    if active >= count {
        return Err(header.bad_value("altup.active_idx", active, "0 to altup.num_inputs - 1"));
    }
    Ok(Streams { count: count as usize, active: active as usize })
}

fn alt_up(builder: &Builder<'_>, index: usize, streams: Streams) -> Result<AltUpLayer, ModelError> {
    let (width, count) = (builder.sizes.embedding_length, streams.count);
    Ok(AltUpLayer {
        streams,
        router_norm: builder.norm(&block(index, "altup_router_norm"), width)?,
        router: builder.linear(index, "altup_router", count, width)?,
        predict: builder.linear(index, "altup_predict_coef", count * count, count)?,
        correct: builder.linear(index, "altup_correct_coef", count, count)?,
        correct_scale: builder.header.vector(&block(index, "altup_correct_scale.weight"), &[width])?,
    })
}

fn laurel(builder: &Builder<'_>, index: usize) -> Result<Laurel, ModelError> {
    let width = builder.sizes.embedding_length;
    let rank = builder.header.rows(&block(index, "laurel_l.weight"))?;
    Ok(Laurel {
        left: builder.linear(index, "laurel_l", rank, width)?,
        right: builder.linear(index, "laurel_r", width, rank)?,
        norm: builder.norm(&block(index, "laurel_post_norm"), width)?,
    })
}

/// How many deviations above its row's mean a gate must be; minus infinity in files: however small.
fn sparsity(header: &Header<'_>, index: usize) -> Result<Option<f32>, ModelError> {
    const KEY: &str = "activation_sparsity_scale";
    let Some(array) = header.gguf.metadata.array(&header.key(KEY)) else {
        return Ok((index < SPARSE_LAYERS).then_some(DEVIATIONS));
    };
    let scale = array.f32s().and_then(|scales| scales.get(index).copied());
    match scale.ok_or_else(|| ModelError::MissingKey(format!("{} for layer {index}", header.key(KEY))))? {
        f32::NEG_INFINITY => Ok(None),
        scale if scale.is_finite() => Ok(Some(scale)),
        scale => Err(header.bad_value(KEY, scale, "finite numbers and -inf")),
    }
}

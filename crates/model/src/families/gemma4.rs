//! Gemma 4: heads and rotary embeddings of their own for layers with a window, values normalised without weights, last
//! layers that read the caches of earlier ones, per-layer inputs (small models), experts beside the dense feed-forward.

use super::feed_forward::SOFTMAX;
use super::gemma::window_rope;
use super::standard::{Builder, Heads, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

const ACT: Activation = Activation::GeluTanh;
/// Every sixth layer has no window, where the file does not say.
const PATTERN: u64 = 6;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let width = builder.sizes.embedding_length;
    let dim = match header.u64_or("embedding_length_per_layer_input") {
        None | Some(0) => 0,
        Some(_) => header.count("embedding_length_per_layer_input", 1 << 16)?,
    };
    let mut model = builder.model(|index| {
        let mixer = Mixer::Attention(attention(&builder, index)?);
        let mut layer = builder.layer(index, mixer, FeedForward::Dense(builder.dense(index, ACT)?))?;
        if header.has(&block(index, "ffn_gate_inp.weight")) {
            layer.feed_forward = layer.feed_forward.map(|dense| experts(&builder, index, dense)).transpose()?;
        }
        if dim > 0 {
            layer.per_layer = Some(per_layer(&builder, index, dim)?);
        }
        layer.output_scale = header.vector_or(&block(index, "layer_output_scale.weight"), &[1])?;
        Ok(layer)
    })?;
    model.embedding_scale = (width as f32).sqrt();
    if dim > 0 {
        model.per_layer_input = Some(per_layer_input(&builder, dim)?);
    }
    Ok(model)
}

pub(super) fn per_layer(builder: &Builder<'_>, index: usize, dim: usize) -> Result<PerLayer, ModelError> {
    let width = builder.sizes.embedding_length;
    Ok(PerLayer {
        gate: builder.linear(index, "inp_gate", dim, width)?,
        projection: builder.linear(index, "proj", width, dim)?,
        norm: builder.norm(&block(index, "post_norm"), width)?,
    })
}

pub(super) fn per_layer_input(builder: &Builder<'_>, dim: usize) -> Result<PerLayerInput, ModelError> {
    let (header, sizes) = (builder.header, &builder.sizes);
    let all = dim.checked_mul(sizes.block_count).ok_or(ModelError::Overflow)?;
    Ok(PerLayerInput {
        dim,
        embedding: header.tensor("per_layer_token_embd.weight", &[all, sizes.vocab_size])?,
        projection: header.linear("per_layer_model_proj", all, sizes.embedding_length)?,
        norm: builder.norm("per_layer_proj_norm", dim)?,
    })
}

/// The dense feed-forward becomes the shared expert; the router has its own view of the stream.
fn experts(
    builder: &Builder<'_>,
    index: usize,
    dense: Residual<FeedForward>,
) -> Result<Residual<FeedForward>, ModelError> {
    let width = builder.sizes.embedding_length;
    let FeedForward::Dense(shared) = dense.part else { return Ok(dense) };
    let norm = |part: &str| builder.norm(&block(index, part), width).map(Some);
    let router_scale = builder.header.vector(&block(index, "ffn_gate_inp.scale"), &[width])?;
    let experts = Experts {
        logits_norm: Some(Norm { weight: Some(router_scale), ..builder.plain_norm(width) }),
        logits_scale: 1.0 / (width as f32).sqrt(),
        norm: norm("pre_ffw_norm_2")?,
        post_norm: norm("post_ffw_norm_2")?,
        shared: Some(SharedExpert { norm: dense.norm, dense: shared, post_norm: norm("post_ffw_norm_1")?, gate: None }),
        ..builder.experts(index, SOFTMAX, ACT)?
    };
    Ok(Residual { norm: None, part: FeedForward::Experts(experts), post_norm: dense.post_norm })
}

fn attention(builder: &Builder<'_>, index: usize) -> Result<Attention, ModelError> {
    let shared = builder.header.u64_or("attention.shared_kv_layers").unwrap_or(0);
    let first = (builder.sizes.block_count as u64).saturating_sub(shared) as usize;
    let swa = builder.window(index, PATTERN)? > 0;
    let lengths = match swa {
        true => ["attention.key_length_swa", "attention.value_length_swa"],
        false => ["attention.key_length", "attention.value_length"],
    };
    let dims = if swa { "rope.dimension_count_swa" } else { "rope.dimension_count" };
    attention_of(builder, index, builder.heads_of(index, lengths)?, dims, &KvSharing { first, pattern: PATTERN })
}

/// Which layers read the caches of earlier ones: from `first` on, of the last layer of their kind before it. Every
/// `pattern`-th layer has no window, where the file does not say.
pub(super) struct KvSharing {
    pub first: usize,
    pub pattern: u64,
}

pub(super) fn attention_of(
    builder: &Builder<'_>,
    index: usize,
    heads: Heads,
    dims: &str,
    sharing: &KvSharing,
) -> Result<Attention, ModelError> {
    let (header, width) = (builder.header, builder.sizes.embedding_length);
    let window = builder.window(index, sharing.pattern)?;
    let kv = match shared_source(builder, index, sharing)? {
        Some(layer) => KeysValues::Shared { layer },
        None => KeysValues::Own {
            k: builder.linear(index, "attn_k", heads.kv * heads.dim_k, width)?,
            v: header.linear_or(&block(index, "attn_v"), heads.kv * heads.dim_v, width)?,
            k_norm: builder.head_norm(index, "attn_k_norm", heads.dim_k, heads.kv)?,
            v_norm: Some(builder.plain_norm(heads.dim_v)),
        },
    };
    let q = builder.linear(index, "attn_q", heads.count * heads.dim_k, width)?;
    let rope = builder.rope_of(RopePairs::Halves, heads.dim_k, dims, window == 0)?;
    let attention = builder.attention_with(index, heads, q, kv, rope)?;
    let rope = if window > 0 { window_rope(builder, attention.rope)? } else { attention.rope };
    Ok(Attention { window, rope, scale: 1.0, ..attention })
}

fn shared_source(builder: &Builder<'_>, index: usize, sharing: &KvSharing) -> Result<Option<usize>, ModelError> {
    if index < sharing.first {
        return Ok(None);
    }
    let window = builder.window(index, sharing.pattern)?;
    for source in (0..sharing.first).rev() {
        if builder.window(source, sharing.pattern)? == window {
            return Ok(Some(source));
        }
    }
    let shared = builder.sizes.block_count - sharing.first;
    Err(builder.header.bad_value("attention.shared_kv_layers", shared, "what leaves a layer of each kind"))
}

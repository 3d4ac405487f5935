//! Gemma 4: heads and rotary embeddings of their own for layers with a window, values normalised without weights, last
//! layers that read the caches of earlier ones, per-layer inputs (small models), experts beside the dense feed-forward.

use super::feed_forward::SOFTMAX;
use super::gemma::window_rope;
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

const ACT: Activation = Activation::GeluTanh;

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
            layer.per_layer = Some(PerLayer {
                gate: builder.linear(index, "inp_gate", dim, width)?,
                projection: builder.linear(index, "proj", width, dim)?,
                norm: builder.norm(&block(index, "post_norm"), width)?,
            });
        }
        layer.output_scale = header.vector_or(&block(index, "layer_output_scale.weight"), &[1])?;
        Ok(layer)
    })?;
    model.embedding_scale = (width as f32).sqrt();
    if dim > 0 {
        let all = dim.checked_mul(builder.sizes.block_count).ok_or(ModelError::Overflow)?;
        model.per_layer_input = Some(PerLayerInput {
            dim,
            embedding: header.tensor("per_layer_token_embd.weight", &[all, builder.sizes.vocab_size])?,
            projection: header.linear("per_layer_model_proj", all, width)?,
            norm: builder.norm("per_layer_proj_norm", dim)?,
        });
    }
    Ok(model)
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
    let header = builder.header;
    let window = builder.window(index, 6)?;
    let swa = window > 0;
    let lengths = match swa {
        true => ["attention.key_length_swa", "attention.value_length_swa"],
        false => ["attention.key_length", "attention.value_length"],
    };
    let heads = builder.heads_of(index, lengths)?;
    let width = builder.sizes.embedding_length;
    let kv = match shared_source(builder, index)? {
        Some(layer) => KeysValues::Shared { layer },
        None => KeysValues::Own {
            k: builder.linear(index, "attn_k", heads.kv * heads.dim_k, width)?,
            v: header.linear_or(&block(index, "attn_v"), heads.kv * heads.dim_v, width)?,
            k_norm: builder.head_norm(index, "attn_k_norm", heads.dim_k, heads.kv)?,
            v_norm: Some(builder.plain_norm(heads.dim_v)),
        },
    };
    let q = builder.linear(index, "attn_q", heads.count * heads.dim_k, width)?;
    let dims = if swa { "rope.dimension_count_swa" } else { "rope.dimension_count" };
    let rope = builder.rope_of(RopePairs::Halves, heads.dim_k, dims, !swa)?;
    let attention = builder.attention_with(index, heads, q, kv, rope)?;
    let rope = if swa { window_rope(builder, attention.rope)? } else { attention.rope };
    Ok(Attention { window, rope, scale: 1.0, ..attention })
}

/// The last `shared_kv_layers` read the cache of the last layer of their kind before them.
fn shared_source(builder: &Builder<'_>, index: usize) -> Result<Option<usize>, ModelError> {
    let shared = builder.header.u64_or("attention.shared_kv_layers").unwrap_or(0);
    let first = (builder.sizes.block_count as u64).saturating_sub(shared) as usize;
    if index < first {
        return Ok(None);
    }
    let window = builder.window(index, 6)?;
    for source in (0..first).rev() {
        if builder.window(source, 6)? == window {
            return Ok(Some(source));
        }
    }
    Err(builder.header.bad_value("attention.shared_kv_layers", shared, "what leaves a layer of each kind"))
}

//! DeepSeek 2 and 3, Kimi K2, Mistral Large 3 and Small 4, GLM 4.7 Flash and others of this shape: latent attention, leading dense layers, shared experts, routers
//! with groups and biases.

use super::feed_forward::{Routing, SIGMOID, SOFTMAX};
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::RopePairs;

const MAX_RANK: u64 = 1 << 16;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    // Files of GLM 4.7 Flash may not say what its router is.
    let flash = matches!(builder.sizes.block_count, 47 | 48) && builder.sizes.vocab_size == 154_880;
    let routing = Routing { normalize: false, ..if flash { SIGMOID } else { SOFTMAX } };
    builder.model(|index| {
        let latent = latent(&builder, index)?;
        builder.layer(index, Mixer::Latent(latent), builder.experts_after_dense(index, routing)?)
    })
}

fn latent(builder: &Builder<'_>, index: usize) -> Result<LatentAttention, ModelError> {
    let (header, width) = (builder.header, builder.sizes.embedding_length);
    let lengths = match header.u64_or("attention.key_length_mla") {
        Some(_) => ["attention.key_length_mla", "attention.value_length_mla"],
        None => ["attention.key_length", "attention.value_length"],
    };
    let heads = builder.heads_of(index, lengths)?;
    let rank = header.count("attention.kv_lora_rank", MAX_RANK)?;
    let rope_dim = header.count("rope.dimension_count", heads.dim_k as u64 - 1)?;
    let nope_dim = heads.dim_k - rope_dim;
    let q_rows = heads.count * heads.dim_k;
    let q_rank = header.u64_or("attention.q_lora_rank").unwrap_or(0) as usize;
    let (q_a, q) = if q_rank > 0 && header.has(&block(index, "attn_q_a.weight")) {
        let q_rank = header.count("attention.q_lora_rank", MAX_RANK)?;
        let norm = builder.norm(&block(index, "attn_q_a_norm"), q_rank)?;
        let q_a = builder.linear(index, "attn_q_a", q_rank, width)?;
        (Some((q_a, norm)), builder.linear(index, "attn_q_b", q_rows, q_rank)?)
    } else {
        (None, builder.linear(index, "attn_q", q_rows, width)?)
    };
    let mut rope = builder.rope(RopePairs::Adjacent, rope_dim)?;
    let per_head = |part: &str, rows, cols| header.expert_linear(&block(index, part), heads.count, rows, cols);
    let expansion = if header.has(&block(index, "attn_k_b.weight")) {
        Expansion::Absorbed {
            k_b: per_head("attn_k_b", rank, nope_dim)?,
            v_b: per_head("attn_v_b", heads.dim_v, rank)?,
        }
    } else {
        Expansion::Full { kv_b: builder.linear(index, "attn_kv_b", heads.count * (nope_dim + heads.dim_v), rank)? }
    };
    Ok(LatentAttention {
        head_count: heads.count,
        nope_dim,
        rope_dim,
        head_dim_v: heads.dim_v,
        rank,
        q_a,
        q,
        kv_a: builder.linear(index, "attn_kv_a_mqa", rank + rope_dim, width)?,
        kv_a_norm: builder.norm(&block(index, "attn_kv_a_norm"), rank)?,
        expansion,
        output: builder.linear(index, "attn_output", width, heads.count * heads.dim_v)?,
        scale: magnitude(header, &mut rope)?.powi(2) / (heads.dim_k as f32).sqrt(),
        rope,
        temperature: temperature(header)?,
    })
}

/// Queries get sharper with their position, where the file says how fast.
fn temperature(header: &Header<'_>) -> Result<Option<Temperature>, ModelError> {
    let scale = header.f32_at_least("attention.temperature_scale", 0.0, 0.0)?;
    if scale == 0.0 {
        return Ok(None);
    }
    let floor = header.count("attention.temperature_length", u64::from(u32::MAX))? as u32;
    Ok(Some(Temperature { scale, floor }))
}

/// With YaRN the scores are stretched, all of them, instead of the dimensions that turn. Returns the factor on queries
/// and keys. Converters write the multiplier times 0.1.
fn magnitude(header: &Header<'_>, rope: &mut Rope) -> Result<f32, ModelError> {
    if rope.spec.ext_factor == 0.0 {
        return Ok(1.0);
    }
    let grown = (1.0 / rope.spec.freq_scale).ln().max(0.0);
    let attn_factor = header.f32_at_least("rope.scaling.attn_factor", 1.0, 0.0)?;
    let multiplier = header.f32_at_least("rope.scaling.yarn_log_multiplier", 0.0, 0.0)? / 0.1;
    let turned = if multiplier == 0.0 { attn_factor } else { attn_factor / (1.0 + 0.1 * grown) };
    rope.spec.attn_factor = turned;
    Ok(turned * (1.0 + 0.1 * grown) * (1.0 + 0.1 * multiplier * grown))
}

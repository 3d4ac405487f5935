//! Mamba-2 mixers, as several hybrids have them, and the hybrid that is nothing but parts: Nemotron-H.

use super::feed_forward::SIGMOID;
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, ConvSpec, RopePairs, StateSpaceSpec};

const MAX_SIZE: u64 = 1 << 20;

impl Builder<'_> {
    /// Layers without KV heads are recurrent in hybrids (or have no mixer at all).
    pub fn has_kv_heads(&self, index: usize) -> Result<bool, ModelError> {
        Ok(self.header.layer_u64("attention.head_count_kv", index)? != Some(0))
    }

    pub fn mamba(&self, index: usize) -> Result<Mamba, ModelError> {
        let (header, width) = (self.header, self.sizes.embedding_length);
        let kernel = header.count("ssm.conv_kernel", 64)?;
        let (inner, state_size) =
            (header.count("ssm.inner_size", MAX_SIZE)?, header.count("ssm.state_size", MAX_SIZE)?);
        let (heads, groups) =
            (header.count("ssm.time_step_rank", MAX_SIZE)?, header.count("ssm.group_count", MAX_SIZE)?);
        if inner % heads != 0 || heads % groups != 0 {
            return Err(header.bad_value("ssm.time_step_rank", heads, "what divides the inner size into groups"));
        }
        let channels = groups
            .checked_mul(2 * state_size)
            .and_then(|shared| shared.checked_add(inner))
            .filter(|channels| *channels as u64 <= MAX_SIZE)
            .ok_or(ModelError::Overflow)?;
        let input = self.linear(index, "ssm_in", inner + channels + heads, width)?;
        let vector = |part: &str, shape: &[usize]| header.vector(&block(index, part), shape);
        let norm = header.vector_or(&block(index, "ssm_norm.weight"), &[inner / groups, groups])?;
        Ok(Mamba {
            spec: StateSpaceSpec { heads, head_dim: inner / heads, state_size, groups },
            z: input.part(0, inner),
            xbc: input.part(inner, channels),
            dt: input.part(inner + channels, heads),
            conv: ConvSpec { channels, kernel, act: Some(Activation::Silu) },
            conv_weight: vector("ssm_conv1d.weight", &[kernel, channels])?,
            conv_bias: header.vector_or(&block(index, "ssm_conv1d.bias"), &[channels])?,
            dt_bias: vector("ssm_dt.bias", &[heads])?,
            a: vector("ssm_a", &[1, heads])?,
            skip: vector("ssm_d", &[1, heads])?,
            norm: norm.map(|weight| GroupNorm { groups, weight, eps: self.sizes.eps }),
            output: self.linear(index, "ssm_out", width, inner)?,
        })
    }
}

/// Nemotron-H: every layer is one part, a Mamba-2 mixer, attention without positions or a feed-forward without a gate.
pub(crate) fn nemotron_h(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let norm = Some(builder.norm(&block(index, "attn_norm"), builder.sizes.embedding_length)?);
        let mixer = if builder.has_kv_heads(index)? {
            Some(Mixer::Attention(Attention { rope: None, ..builder.attention(index, RopePairs::Adjacent)? }))
        } else if header.has(&block(index, "ssm_in.weight")) {
            Some(Mixer::Mamba(builder.mamba(index)?))
        } else {
            None
        };
        let feed_forward = match mixer {
            Some(_) => None,
            None => Some(feed_forward(&builder, index)?),
        };
        Ok(Layer {
            mixer: mixer.map(|part| Residual { norm, part, post_norm: None }),
            feed_forward: feed_forward.map(|part| Residual { norm, part, post_norm: None }),
            parallel: false,
            residual_scale: 1.0,
            per_layer: None,
            output_scale: None,
            alt_up: None,
            laurel: None,
        })
    })
}

fn feed_forward(builder: &Builder<'_>, index: usize) -> Result<FeedForward, ModelError> {
    if builder.header.has(&block(index, "ffn_gate_inp.weight")) {
        return Ok(FeedForward::Experts(builder.experts(index, SIGMOID, Activation::Relu2)?));
    }
    Ok(FeedForward::Dense(builder.dense(index, Activation::Relu2)?))
}

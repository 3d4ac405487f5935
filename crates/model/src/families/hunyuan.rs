//! Hunyuan: queries and keys are turned before their norms; a base of the rotary embedding that grows with a factor; in the
//! mixtures a shared expert and a softmax whose chosen shares are normalised.

use super::feed_forward::SOFTMAX;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn dense(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| builder.dense_layer(index, attention(&builder, index)?, Activation::Silu))
}

pub(crate) fn moe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let experts = builder.experts(index, SOFTMAX, Activation::Silu)?;
        builder.layer(index, Mixer::Attention(attention(&builder, index)?), FeedForward::Experts(experts))
    })
}

fn attention(builder: &Builder<'_>, index: usize) -> Result<Attention, ModelError> {
    let mut attention = builder.attention(index, RopePairs::Halves)?;
    let alpha = builder.header.f32_at_least("rope.scaling.alpha", 0.0, 0.0)?;
    if let Some(rope) = attention.rope.as_mut().filter(|_| alpha > 0.0 && attention.head_dim_k > 2) {
        // NTK-aware scaling
        let dim = attention.head_dim_k as f32;
        rope.spec.freq_base *= alpha.powf(dim / (dim - 2.0));
    }
    Ok(Attention { rope_first: true, ..attention })
}

//! Command R and Command R7B: attention and feed-forward side by side, layer norms without biases, a factor on the
//! logits; in the second generation three layers with a window, then one that sees everything and has no positions.

use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn command_r(header: &Header<'_>) -> Result<Model, ModelError> {
    if header.has(&block(0, "attn_q_norm.weight")) {
        return Err(ModelError::Unsupported("Command R+ with a norm for each head is not supported".into()));
    }
    describe(header, |_, _, attention| Ok(attention))
}

pub(crate) fn cohere2(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, |builder, index, attention| {
        let window = builder.window(index, 4)?;
        Ok(Attention { window, rope: attention.rope.filter(|_| window > 0), ..attention })
    })
}

fn describe(
    header: &Header<'_>,
    change: impl Fn(&Builder<'_>, usize, Attention) -> Result<Attention, ModelError>,
) -> Result<Model, ModelError> {
    let builder = Builder::with_layer_norms(header)?;
    let mut model = builder.model(|index| {
        let attention = change(&builder, index, builder.attention(index, RopePairs::Adjacent)?)?;
        let dense = builder.dense(index, Activation::Silu)?;
        builder.parallel_layer(index, Mixer::Attention(attention), FeedForward::Dense(dense))
    })?;
    model.output.scale = header.f32_at_least("logit_scale", 1.0, f32::MIN_POSITIVE)?;
    Ok(model)
}

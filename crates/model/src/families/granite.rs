//! Granite 3 and 4: factors on embeddings, residuals and scores, a divisor of the logits.

use super::feed_forward::SOFTMAX;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn dense(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |index| {
        let dense = FeedForward::Dense(builder.dense(index, Activation::Silu)?);
        builder.layer(index, Mixer::Attention(builder.attention(index, RopePairs::Adjacent)?), dense)
    })
}

pub(crate) fn experts(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |index| {
        let experts = FeedForward::Experts(builder.experts(index, SOFTMAX, Activation::Silu)?);
        builder.layer(index, Mixer::Attention(builder.attention(index, RopePairs::Adjacent)?), experts)
    })
}

pub(super) fn finish(
    builder: &Builder<'_>,
    layer: impl Fn(usize) -> Result<Layer, ModelError>,
) -> Result<Model, ModelError> {
    let factor = |name: &str| builder.header.f32_at_least(name, 1.0, f32::MIN_POSITIVE);
    let residual_scale = factor("residual_scale")?;
    let mut model = builder.model(|index| Ok(Layer { residual_scale, ..layer(index)? }))?;
    model.embedding_scale = factor("embedding_scale")?;
    model.output.scale = 1.0 / factor("logit_scale")?;
    Ok(model)
}

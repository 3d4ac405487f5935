//! Granite 3 and 4: factors on embeddings, residuals and scores, a divisor of the logits.

use super::feed_forward::SOFTMAX;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |index| builder.layer(index, attention(&builder, index)?, feed_forward(&builder, index)?))
}

/// Granite 4: Mamba-2 in the layers without KV heads.
pub(crate) fn hybrid(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |index| {
        let mixer = match builder.has_kv_heads(index)? {
            true => attention(&builder, index)?,
            false => Mixer::Mamba(builder.mamba(index)?),
        };
        builder.layer(index, mixer, feed_forward(&builder, index)?)
    })
}

/// Files say with this key whether there are positions at all.
fn attention(builder: &Builder<'_>, index: usize) -> Result<Mixer, ModelError> {
    let attention = builder.attention(index, RopePairs::Adjacent)?;
    let turns = builder.header.bool_or("rope.scaling.finetuned").unwrap_or(true);
    Ok(Mixer::Attention(Attention { rope: attention.rope.filter(|_| turns), ..attention }))
}

fn feed_forward(builder: &Builder<'_>, index: usize) -> Result<FeedForward, ModelError> {
    match builder.header.u64_or("expert_count") {
        None | Some(0) => Ok(FeedForward::Dense(builder.dense(index, Activation::Silu)?)),
        Some(_) => Ok(FeedForward::Experts(builder.experts(index, SOFTMAX, Activation::Silu)?)),
    }
}

fn finish(builder: &Builder<'_>, layer: impl Fn(usize) -> Result<Layer, ModelError>) -> Result<Model, ModelError> {
    let factor = |name: &str| builder.header.f32_at_least(name, 1.0, f32::MIN_POSITIVE);
    let residual_scale = factor("residual_scale")?;
    let mut model = builder.model(|index| Ok(Layer { residual_scale, ..layer(index)? }))?;
    model.embedding_scale = factor("embedding_scale")?;
    model.output.scale = 1.0 / factor("logit_scale")?;
    Ok(model)
}

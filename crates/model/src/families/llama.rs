//! Llama 1-3, Mistral, Mixtral and their many fine-tunes; Ministral 3; SmolLM 3. Adjacent rotary pairs, optional biases,
//! optional experts.

use super::feed_forward::SOFTMAX;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn llama(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| layer(&builder, index, builder.attention(index, RopePairs::Adjacent)?))
}

fn layer(builder: &Builder<'_>, index: usize, attention: Attention) -> Result<Layer, ModelError> {
    let feed_forward = if builder.header.u64_or("expert_count").unwrap_or(0) > 0 {
        FeedForward::Experts(builder.experts(index, SOFTMAX, Activation::Silu)?)
    } else {
        FeedForward::Dense(builder.dense(index, Activation::Silu)?)
    };
    builder.layer(index, Mixer::Attention(attention), feed_forward)
}

/// Queries get sharper with their position.
pub(crate) fn mistral3(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let scale = header.f32_at_least("attention.temperature_scale", 0.0, 0.0)?;
    builder.model(|index| {
        let mut attention = builder.attention(index, RopePairs::Adjacent)?;
        let floor = attention.rope.map_or(1, |rope| rope.spec.original_context);
        attention.temperature = (scale > 0.0).then_some(Temperature { scale, floor });
        layer(&builder, index, attention)
    })
}

/// Every fourth layer has no rotary embedding (NoPE, arXiv 2501.18795).
pub(crate) fn smollm3(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let mut attention = builder.attention(index, RopePairs::Adjacent)?;
        attention.rope = attention.rope.filter(|_| (index + 1) % 4 != 0);
        layer(&builder, index, attention)
    })
}

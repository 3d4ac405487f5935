//! Mixtures of experts that differ in their routers: Qwen 2 and 3, OLMoE; GLM 4, Dots, Ling 2 and MiniMax M2 (a sigmoid with
//! a bias for the choice, dense layers first); ERNIE 4.5 (adjacent rotary pairs, experts in every so many layers).

use super::feed_forward::{Routing, SIGMOID, SOFTMAX};
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

/// The chosen experts' shares stay as they are.
pub(crate) fn unnormalized(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, Routing { normalize: false, ..SOFTMAX })
}

pub(crate) fn normalized(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, SOFTMAX)
}

pub(crate) fn sigmoid(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, SIGMOID)
}

fn describe(header: &Header<'_>, routing: Routing) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let attention = builder.attention(index, RopePairs::Halves)?;
        builder.layer(index, Mixer::Attention(attention), builder.experts_after_dense(index, routing)?)
    })
}

pub(crate) fn ernie(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let step = header.u64_or("interleave_moe_layer_step").unwrap_or(1).max(1);
    builder.model(|index| {
        let attention = builder.attention(index, RopePairs::Adjacent)?;
        let feed_forward = match (index as u64 + 1) % step {
            0 => builder.experts_after_dense(index, SOFTMAX)?,
            _ => FeedForward::Dense(builder.dense(index, Activation::Silu)?),
        };
        builder.layer(index, Mixer::Attention(attention), feed_forward)
    })
}

//! Qwen 2 and 2.5 (biases on q, k and v) and Qwen 3 (norms of each q and k head), dense and with experts: NeoX rotary
//! pairs. Of the multi-axis rotary embedding of the models that see, text uses one position for all axes: the same.

use super::feed_forward::{Routing, SOFTMAX};
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn dense(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let dense = builder.dense(index, Activation::Silu)?;
        layer(&builder, index, FeedForward::Dense(dense))
    })
}

/// Qwen 2 leaves the chosen experts' shares as they are.
pub(crate) fn qwen2moe(header: &Header<'_>) -> Result<Model, ModelError> {
    experts(header, Routing { normalize: false, ..SOFTMAX })
}

pub(crate) fn qwen3moe(header: &Header<'_>) -> Result<Model, ModelError> {
    experts(header, SOFTMAX)
}

fn experts(header: &Header<'_>, routing: Routing) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let experts = builder.experts(index, routing, Activation::Silu)?;
        layer(&builder, index, FeedForward::Experts(experts))
    })
}

fn layer(builder: &Builder<'_>, index: usize, feed_forward: FeedForward) -> Result<Layer, ModelError> {
    builder.layer(index, Mixer::Attention(builder.attention(index, RopePairs::Halves)?), feed_forward)
}

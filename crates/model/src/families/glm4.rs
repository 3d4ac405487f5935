//! GLM 4: partial rotary embedding, biases, norms on both sides; with experts a sigmoid router with a bias for the
//! choice and NeoX pairs.

use super::feed_forward::SIGMOID;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn dense(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let dense = builder.dense(index, Activation::Silu)?;
        let attention = builder.attention(index, RopePairs::Adjacent)?;
        builder.layer(index, Mixer::Attention(attention), FeedForward::Dense(dense))
    })
}

pub(crate) fn experts(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let experts = builder.experts_after_dense(index, SIGMOID)?;
        builder.layer(index, Mixer::Attention(builder.attention(index, RopePairs::Halves)?), experts)
    })
}

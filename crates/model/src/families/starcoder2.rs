//! StarCoder 2: layer norms with biases, a feed-forward without a gate.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let attention = builder.attention(index, RopePairs::Halves)?;
        let dense = builder.dense(index, Activation::GeluTanh)?;
        builder.layer(index, Mixer::Attention(attention), FeedForward::Dense(dense))
    })
}

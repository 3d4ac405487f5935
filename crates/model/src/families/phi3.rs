//! Phi 3 and 4: fused projections, LongRoPE factors.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let attention = builder.attention(index, RopePairs::Halves)?;
        let dense = builder.dense(index, Activation::Silu)?;
        builder.layer(index, Mixer::Attention(attention), FeedForward::Dense(dense))
    })
}

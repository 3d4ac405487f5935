//! Mixtures of experts that differ in their routers: Qwen 2 and 3 (NeoX rotary pairs), GLM 4 (a sigmoid with a bias for
//! the choice, dense layers first).

use super::feed_forward::{Routing, SIGMOID, SOFTMAX};
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::RopePairs;

/// Qwen 2 leaves the chosen experts' shares as they are.
pub(crate) fn qwen2moe(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, Routing { normalize: false, ..SOFTMAX })
}

pub(crate) fn qwen3moe(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, SOFTMAX)
}

pub(crate) fn glm4moe(header: &Header<'_>) -> Result<Model, ModelError> {
    describe(header, SIGMOID)
}

fn describe(header: &Header<'_>, routing: Routing) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let attention = builder.attention(index, RopePairs::Halves)?;
        builder.layer(index, Mixer::Attention(attention), builder.experts_after_dense(index, routing)?)
    })
}

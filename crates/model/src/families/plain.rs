//! Families that are what their tensors say, apart from the rotary pairs and the activation: Qwen 2 to 3 (biases; norms of
//! each q and k head), Phi 3 and 4 (fused projections, LongRoPE factors), GLM 4 (partial rotary embedding, norms on both
//! sides), Seed OSS, ERNIE 4.5, InternLM 2, StarCoder 2 (layer norms with biases, no gate), Arcee (squares instead of a gate).
//! Of the multi-axis rotary embedding of Qwen's models that see, text uses one position for all axes: the NeoX kind.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn halves(header: &Header<'_>) -> Result<Model, ModelError> {
    dense(Builder::new(header)?, RopePairs::Halves, Activation::Silu)
}

pub(crate) fn adjacent(header: &Header<'_>) -> Result<Model, ModelError> {
    dense(Builder::new(header)?, RopePairs::Adjacent, Activation::Silu)
}

pub(crate) fn starcoder2(header: &Header<'_>) -> Result<Model, ModelError> {
    dense(Builder::with_layer_norms(header)?, RopePairs::Halves, Activation::GeluTanh)
}

pub(crate) fn arcee(header: &Header<'_>) -> Result<Model, ModelError> {
    dense(Builder::new(header)?, RopePairs::Adjacent, Activation::Relu2)
}

fn dense(builder: Builder<'_>, pairs: RopePairs, act: Activation) -> Result<Model, ModelError> {
    builder.model(|index| builder.dense_layer(index, builder.attention(index, pairs)?, act))
}

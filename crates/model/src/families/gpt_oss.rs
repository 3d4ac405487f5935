//! gpt-oss: attention sinks, every other layer with a window, biases everywhere, the softmax over the chosen experts only.

use super::feed_forward::Routing;
use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, Gating, RopePairs};

/// The constants of the published model; files do not have them.
const ACT: Activation = Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 };

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let routing = Routing { gating: Gating::SoftmaxOfChosen, normalize: false };
    builder.model(|index| {
        let attention = builder.windowed(index, 2, builder.attention(index, RopePairs::Halves)?)?;
        let experts = builder.experts(index, routing, ACT)?;
        builder.layer(index, Mixer::Attention(attention), FeedForward::Experts(experts))
    })
}

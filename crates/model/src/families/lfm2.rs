//! LFM 2: short convolutions, and attention in the layers that have KV heads; dense or with a sigmoid router.

use super::feed_forward::SIGMOID;
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, ConvSpec, RopePairs};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let mixer = match header.layer_u64("attention.head_count_kv", index)? {
            Some(0) => Mixer::ShortConv(short_conv(&builder, index)?),
            // A window is all attention layers', where there is one.
            _ => Mixer::Attention(builder.windowed(index, 0, builder.attention(index, RopePairs::Halves)?)?),
        };
        let feed_forward = match header.u64_or("expert_count") {
            None | Some(0) => FeedForward::Dense(builder.dense(index, Activation::Silu)?),
            Some(_) => builder.experts_after_dense(index, SIGMOID)?,
        };
        builder.layer(index, mixer, feed_forward)
    })
}

fn short_conv(builder: &Builder<'_>, index: usize) -> Result<ShortConv, ModelError> {
    let width = builder.sizes.embedding_length;
    let kernel = builder.header.count("shortconv.l_cache", 64)?;
    let input = builder.linear(index, "shortconv.in_proj", 3 * width, width)?;
    Ok(ShortConv {
        b: input.part(0, width),
        c: input.part(width, width),
        x: input.part(2 * width, width),
        conv: ConvSpec { channels: width, kernel, act: None },
        conv_weight: builder.header.vector(&block(index, "shortconv.conv.weight"), &[kernel, width])?,
        output: builder.linear(index, "shortconv.out_proj", width, width)?,
    })
}

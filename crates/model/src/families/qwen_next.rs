//! Qwen3-Next and Qwen 3.5: gated DeltaNet layers, every few layers attention with a gate on its result. Of the
//! interleaved multi-axis rotary embedding text uses one position for all axes, which is the NeoX kind.

use super::feed_forward::SOFTMAX;
use super::standard::{Builder, block};
use crate::describe::Header;
use crate::*;
use backend::{Activation, ConvSpec, DeltaNetSpec, RopePairs};

const MAX_SIZE: u64 = 1 << 16;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let mixer = if recurrent(header, index)? {
            Mixer::DeltaNet(delta_net(&builder, index)?)
        } else {
            Mixer::Attention(builder.attention_of(index, builder.heads(index)?, RopePairs::Halves, true)?)
        };
        let feed_forward = match header.u64_or("expert_count") {
            None | Some(0) => FeedForward::Dense(builder.dense(index, Activation::Silu)?),
            Some(_) => FeedForward::Experts(builder.experts(index, SOFTMAX, Activation::Silu)?),
        };
        builder.layer(index, mixer, feed_forward)
    })
}

fn recurrent(header: &Header<'_>, index: usize) -> Result<bool, ModelError> {
    if let Some(flag) = header.layer_flag("attention.recurrent_layers", index)? {
        return Ok(flag);
    }
    let interval = match header.u64_or("full_attention_interval") {
        Some(_) => header.count("full_attention_interval", MAX_SIZE)?,
        None => 4,
    };
    Ok((index + 1) % interval != 0)
}

fn delta_net(builder: &Builder<'_>, index: usize) -> Result<DeltaNet, ModelError> {
    let (header, width) = (builder.header, builder.sizes.embedding_length);
    let kernel = header.count("ssm.conv_kernel", 64)?;
    let head_dim = header.count("ssm.state_size", MAX_SIZE)?;
    let (heads_k, heads_v) =
        (header.count("ssm.group_count", MAX_SIZE)?, header.count("ssm.time_step_rank", MAX_SIZE)?);
    if heads_v % heads_k != 0 {
        return Err(header.bad_value("ssm.group_count", heads_k, "the divisors of ssm.time_step_rank"));
    }
    let values = heads_v * head_dim;
    let channels = 2 * heads_k * head_dim + values;
    let vector = |part: &str| header.vector(&block(index, part), &[heads_v]);
    // The first generation keeps the projections of a key head's value heads together; later files have them apart and
    // value heads in the order in which they take turns with the key heads.
    let by_key_head = header.linear_or(&block(index, "ssm_ba"), 2 * heads_v, width)?;
    Ok(DeltaNet {
        spec: DeltaNetSpec { heads_k, heads_v, head_dim, tiled: by_key_head.is_none(), eps: builder.sizes.eps },
        input: match header.linear_or(&block(index, "ssm_in"), channels + values, width)? {
            Some(all) => DeltaInput::ByKeyHead(all),
            None => DeltaInput::Apart {
                qkv: builder.linear(index, "attn_qkv", channels, width)?,
                z: builder.linear(index, "attn_gate", values, width)?,
            },
        },
        beta_alpha: match by_key_head {
            Some(both) => BetaAlpha::ByKeyHead(both),
            None => BetaAlpha::Apart {
                beta: builder.linear(index, "ssm_beta", heads_v, width)?,
                alpha: builder.linear(index, "ssm_alpha", heads_v, width)?,
            },
        },
        conv: ConvSpec { channels, kernel, act: Some(Activation::Silu) },
        conv_weight: header.vector(&block(index, "ssm_conv1d.weight"), &[kernel, channels])?,
        dt_bias: vector("ssm_dt.bias")?,
        a: vector("ssm_a")?,
        norm: builder.norm(&block(index, "ssm_norm"), head_dim)?,
        output: builder.linear(index, "ssm_out", width, values)?,
    })
}

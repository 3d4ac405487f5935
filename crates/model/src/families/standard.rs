//! The pre-norm transformer that most families vary: attention, then a gated feed-forward, each added to the stream.

use crate::describe::{Header, Sizes};
use crate::{Attention, Dense, Experts, FeedForward, Layer, Linear, Model, ModelError, Norm, Output, Rope};
use backend::{Activation, Gating, RopePairs, Router};

/// What varies between the families that are otherwise alike.
pub(crate) struct Standard {
    pub rope: RopePairs,
    /// RMS norm of every q and k head before the rotary embedding.
    pub qk_norm: bool,
    /// The feed-forward is a mixture of experts.
    pub experts: bool,
}

const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_DIM: u64 = 1 << 12;
const MAX_FEED_FORWARD: u64 = 1 << 24;
const MAX_EXPERTS: u64 = 1 << 12;

pub(crate) fn describe(header: &Header<'_>, family: &Standard) -> Result<Model, ModelError> {
    let sizes = header.sizes()?;
    let token_embedding = header.tensor("token_embd.weight", &[sizes.embedding_length, sizes.vocab_size])?;
    let layers =
        (0..sizes.block_count).map(|index| layer(header, family, &sizes, index)).collect::<Result<Vec<_>, _>>()?;
    let output = Output {
        norm: header.rms_norm("output_norm", sizes.embedding_length, sizes.rms_eps)?,
        weight: match header.linear_or("output", sizes.vocab_size, sizes.embedding_length)? {
            Some(linear) => linear,
            None => Linear { weight: token_embedding, bias: None, scale: None },
        },
    };
    let (parameters, tensor_bytes) = header.totals()?;
    Ok(Model {
        architecture: header.architecture.into(),
        name: header.gguf.metadata.str("general.name").map(|name| name.chars().take(200).collect()),
        parameters,
        tensor_bytes,
        context_length: sizes.context_length,
        embedding_length: sizes.embedding_length,
        vocab_size: sizes.vocab_size,
        token_embedding,
        layers,
        output,
        unused_tensors: Vec::new(),
    })
}

fn layer(header: &Header<'_>, family: &Standard, sizes: &Sizes, index: usize) -> Result<Layer, ModelError> {
    let norm = |name: &str| -> Result<Norm, ModelError> {
        header.rms_norm(&format!("blk.{index}.{name}"), sizes.embedding_length, sizes.rms_eps)
    };
    let feed_forward = if family.experts {
        FeedForward::Experts(experts(header, sizes, index)?)
    } else {
        FeedForward::Dense(dense(header, sizes, index)?)
    };
    Ok(Layer {
        attention_norm: norm("attn_norm")?,
        attention: attention(header, family, sizes, index)?,
        feed_forward_norm: norm("ffn_norm")?,
        feed_forward,
    })
}

fn attention(header: &Header<'_>, family: &Standard, sizes: &Sizes, index: usize) -> Result<Attention, ModelError> {
    let width = sizes.embedding_length;
    let head_count = header
        .layer_count("attention.head_count", index, MAX_HEADS)?
        .ok_or_else(|| ModelError::MissingKey("attention.head_count".into()))?;
    let head_count_kv = header.layer_count("attention.head_count_kv", index, MAX_HEADS)?.unwrap_or(head_count);
    if head_count % head_count_kv != 0 {
        return Err(ModelError::BadValue {
            key: "attention.head_count_kv".into(),
            value: head_count_kv.to_string(),
            allowed: "the divisors of attention.head_count",
        });
    }
    let head_dim = |name: &str| match header.u64_or(name) {
        Some(_) => header.count(name, MAX_HEAD_DIM),
        None => Ok((width / head_count).max(1)),
    };
    let (head_dim_k, head_dim_v) = (head_dim("attention.key_length")?, head_dim("attention.value_length")?);
    let linear = |name: &str, rows, cols| header.linear(&format!("blk.{index}.{name}"), rows, cols);
    let head_norm = |name: &str| match family.qk_norm {
        true => header.rms_norm(&format!("blk.{index}.{name}"), head_dim_k, sizes.rms_eps).map(Some),
        false => Ok(None),
    };
    let spec = header.rope_spec(family.rope, head_dim_k, sizes.context_length)?;
    Ok(Attention {
        head_count,
        head_count_kv,
        head_dim_k,
        head_dim_v,
        q: linear("attn_q", head_count * head_dim_k, width)?,
        k: linear("attn_k", head_count_kv * head_dim_k, width)?,
        v: linear("attn_v", head_count_kv * head_dim_v, width)?,
        output: linear("attn_output", width, head_count * head_dim_v)?,
        q_norm: head_norm("attn_q_norm")?,
        k_norm: head_norm("attn_k_norm")?,
        rope: Some(Rope { spec, factors: header.vector_or("rope_freqs.weight", &[spec.dims / 2])? }),
        scale: header.f32_at_least("attention.scale", 1.0 / (head_dim_k as f32).sqrt(), 0.0)?,
    })
}

fn dense(header: &Header<'_>, sizes: &Sizes, index: usize) -> Result<Dense, ModelError> {
    let ff = header
        .layer_count("feed_forward_length", index, MAX_FEED_FORWARD)?
        .ok_or_else(|| ModelError::MissingKey("feed_forward_length".into()))?;
    let linear = |name: &str, rows, cols| header.linear(&format!("blk.{index}.{name}"), rows, cols);
    Ok(Dense {
        gate: linear("ffn_gate", ff, sizes.embedding_length)?,
        up: linear("ffn_up", ff, sizes.embedding_length)?,
        down: linear("ffn_down", sizes.embedding_length, ff)?,
        act: Activation::Silu,
    })
}

fn experts(header: &Header<'_>, sizes: &Sizes, index: usize) -> Result<Experts, ModelError> {
    let (count, used) = (header.count("expert_count", MAX_EXPERTS)?, header.count("expert_used_count", MAX_EXPERTS)?);
    if used > count {
        return Err(ModelError::BadValue {
            key: "expert_used_count".into(),
            value: used.to_string(),
            allowed: "1 to expert_count",
        });
    }
    let ff = match header.u64_or("expert_feed_forward_length") {
        Some(_) => header.count("expert_feed_forward_length", MAX_FEED_FORWARD)?,
        None => header.count("feed_forward_length", MAX_FEED_FORWARD)?,
    };
    let width = sizes.embedding_length;
    let linear = |name: &str, rows, cols| header.expert_linear(&format!("blk.{index}.{name}"), count, rows, cols);
    Ok(Experts {
        logits: header.linear(&format!("blk.{index}.ffn_gate_inp"), count, width)?,
        router: Router { experts: count, used, gating: Gating::Softmax, normalize: true, scale: 1.0 },
        gate: linear("ffn_gate_exps", ff, width)?,
        up: linear("ffn_up_exps", ff, width)?,
        down: linear("ffn_down_exps", width, ff)?,
        act: Activation::Silu,
    })
}

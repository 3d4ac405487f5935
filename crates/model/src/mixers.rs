//! What mixes a layer's tokens over time: attention, or a recurrence with a state of fixed size.

use crate::{Linear, Norm, Rope, Tensor};
use backend::{ConvSpec, DeltaNetSpec, StateSpaceSpec};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    Attention(Attention),
    Latent(LatentAttention),
    ShortConv(ShortConv),
    DeltaNet(DeltaNet),
    Mamba(Mamba),
}

/// Grouped-query attention with everything that families add to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    pub head_count: usize,
    pub head_count_kv: usize,
    pub head_dim_k: usize,
    pub head_dim_v: usize,
    /// [head_count * head_dim_k, embedding_length]; with `gated` twice the rows: each head's query, then its gate.
    pub q: Linear,
    pub gated: bool,
    pub kv: KeysValues,
    /// [embedding_length, head_count * head_dim_v]
    pub output: Linear,
    /// Per head or over the whole row.
    pub q_norm: Option<Norm>,
    pub rope: Option<Rope>,
    /// The rotary embedding comes before the norms of queries and keys instead of after them.
    pub rope_first: bool,
    /// Factor on q.k
    pub scale: f32,
    /// 0: none. Otherwise scores become `cap * tanh(score / cap)`.
    pub softcap: f32,
    /// Positions that a token sees, itself included; 0: all before it.
    pub window: usize,
    /// f32 [head_count]: a logit per head that takes part in the softmax and has no value
    pub sinks: Option<Tensor>,
    pub temperature: Option<Temperature>,
}

/// Where keys and values come from.
#[expect(clippy::large_enum_variant)] // few and short-lived: copies are simpler than boxes
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeysValues {
    Own {
        /// [head_count_kv * head_dim_k, embedding_length]
        k: Linear,
        /// [head_count_kv * head_dim_v, embedding_length]; `None`: values are the keys before norm and rotation.
        v: Option<Linear>,
        k_norm: Option<Norm>,
        v_norm: Option<Norm>,
    },
    /// The cache of this earlier layer, which has the same shape.
    Shared { layer: usize },
}

/// Queries at position `p` are multiplied by `1 + scale * ln(1 + floor(p / floor))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    pub scale: f32,
    pub floor: u32,
}

impl Temperature {
    pub fn at(&self, position: usize) -> f32 {
        1.0 + self.scale * (1.0 + (position as f32 / self.floor.max(1) as f32).floor()).ln()
    }
}

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values come from a latent vector of `rank`
/// values and a key part of `rope_dim` values that turns and is the same for all heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentAttention {
    pub head_count: usize,
    /// Values of a head's query that do not turn, and those that do.
    pub nope_dim: usize,
    pub rope_dim: usize,
    pub head_dim_v: usize,
    pub rank: usize,
    /// [q_lora_rank, embedding_length] and its norm, where queries are compressed.
    pub q_a: Option<(Linear, Norm)>,
    /// [head_count * (nope_dim + rope_dim), q_lora_rank or embedding_length]
    pub q: Linear,
    /// [rank + rope_dim, embedding_length]
    pub kv_a: Linear,
    pub kv_a_norm: Norm,
    pub expansion: Expansion,
    /// [embedding_length, head_count * head_dim_v]
    pub output: Linear,
    pub rope: Rope,
    pub scale: f32,
    pub temperature: Option<Temperature>,
}

/// How heads get from the latent vector to keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expansion {
    /// Not at all: queries go into the latent space instead, and all heads attend to one key of `rank + rope_dim` values,
    /// whose first `rank` are the value as well.
    Absorbed {
        /// [head_count (as experts), rank, nope_dim]
        k_b: Linear,
        /// [head_count (as experts), head_dim_v, rank]
        v_b: Linear,
    },
    /// Each head has its own key and value in the cache (files from before the matrix was split).
    Full {
        /// [head_count * (nope_dim + head_dim_v), rank]
        kv_b: Linear,
    },
}

/// LFM2's gated short convolution: `out(c * conv(b * x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShortConv {
    /// Each [embedding_length, embedding_length]
    pub b: Linear,
    pub c: Linear,
    pub x: Linear,
    pub conv: ConvSpec,
    /// f32 [channels, kernel]
    pub conv_weight: Tensor,
    pub output: Linear,
}

/// Gated DeltaNet (arXiv 2412.06464) as Qwen3-Next has it: convolution, delta rule, gated norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaNet {
    pub spec: DeltaNetSpec,
    pub input: DeltaInput,
    pub beta_alpha: BetaAlpha,
    pub conv: ConvSpec,
    pub conv_weight: Tensor,
    /// f32 [heads_v]
    pub dt_bias: Tensor,
    pub a: Tensor,
    /// Of each head of the result.
    pub norm: Norm,
    pub output: Linear,
}

/// Where queries, keys and values come from, and the gate on the result (`z`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeltaInput {
    Apart {
        /// [conv.channels, embedding_length]: queries, keys, values
        qkv: Linear,
        /// [heads_v * head_dim, embedding_length]
        z: Linear,
    },
    /// One matrix: for every key head its query, its key, the values and then the gates of its value heads.
    ByKeyHead(Linear),
}

/// Where the delta rule's strength and decay come from, each [heads_v, embedding_length].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BetaAlpha {
    Apart {
        beta: Linear,
        alpha: Linear,
    },
    /// One matrix: for every key head the betas of its value heads, then their alphas.
    ByKeyHead(Linear),
}

/// Mamba-2 (arXiv 2405.21060) as the hybrids have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mamba {
    pub spec: StateSpaceSpec,
    /// Rows of one matrix: [heads * head_dim], [conv.channels], [heads]
    pub z: Linear,
    pub xbc: Linear,
    pub dt: Linear,
    pub conv: ConvSpec,
    pub conv_weight: Tensor,
    pub conv_bias: Option<Tensor>,
    /// f32 [heads]
    pub dt_bias: Tensor,
    pub a: Tensor,
    pub skip: Tensor,
    /// Over each group's part of the gated result; the weight is f32 [heads * head_dim].
    pub norm: Option<GroupNorm>,
    pub output: Linear,
}

/// An RMS norm over each of `groups` parts of a row, every part with its own weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    pub groups: usize,
    /// f32 [groups * dim]
    pub weight: Tensor,
    pub eps: f32,
}

/// Shape of a layer's KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    pub head_count_kv: usize,
    pub head_dim_k: usize,
    pub head_dim_v: usize,
    /// V is the first `head_dim_v` values of K and takes no memory.
    pub v_in_k: bool,
    /// Positions that a token sees, 0: all.
    pub window: usize,
}

impl Mixer {
    /// The KV cache that the layer keeps, if it keeps one.
    pub fn cache(&self) -> Option<CacheShape> {
        match self {
            Mixer::Attention(a) => matches!(a.kv, KeysValues::Own { .. }).then(|| a.cache_shape()),
            Mixer::Latent(a) => Some(a.cache_shape()),
            Mixer::ShortConv(_) | Mixer::DeltaNet(_) | Mixer::Mamba(_) => None,
        }
    }

    /// The shape of the cache that attention reads, and how many heads read it.
    pub fn attended(&self) -> Option<(CacheShape, usize)> {
        match self {
            Mixer::Attention(a) => Some((a.cache_shape(), a.head_count)),
            Mixer::Latent(a) => Some((a.cache_shape(), a.head_count)),
            Mixer::ShortConv(_) | Mixer::DeltaNet(_) | Mixer::Mamba(_) => None,
        }
    }

    /// The earlier layer whose cache it reads, if it does.
    pub fn cache_source(&self) -> Option<usize> {
        match self {
            Mixer::Attention(Attention { kv: KeysValues::Shared { layer }, .. }) => Some(*layer),
            _ => None,
        }
    }

    /// f32 values of the state: first those of the convolution, then those of the recurrence.
    pub fn state_lens(&self) -> (usize, usize) {
        let conv = |spec: &ConvSpec| (spec.kernel - 1) * spec.channels;
        match self {
            Mixer::Attention(_) | Mixer::Latent(_) => (0, 0),
            Mixer::ShortConv(m) => (conv(&m.conv), 0),
            Mixer::DeltaNet(m) => (conv(&m.conv), m.spec.heads_v * m.spec.head_dim * m.spec.head_dim),
            Mixer::Mamba(m) => (conv(&m.conv), m.spec.heads * m.spec.head_dim * m.spec.state_size),
        }
    }
}

impl Attention {
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            head_count_kv: self.head_count_kv,
            head_dim_k: self.head_dim_k,
            head_dim_v: self.head_dim_v,
            v_in_k: false,
            window: self.window,
        }
    }
}

impl LatentAttention {
    pub fn cache_shape(&self) -> CacheShape {
        let absorbed = matches!(self.expansion, Expansion::Absorbed { .. });
        let wide = if absorbed { self.rank } else { self.nope_dim };
        CacheShape {
            head_count_kv: if absorbed { 1 } else { self.head_count },
            head_dim_k: wide + self.rope_dim,
            head_dim_v: if absorbed { self.rank } else { self.head_dim_v },
            v_in_k: absorbed,
            window: 0,
        }
    }
}

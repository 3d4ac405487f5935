use crate::BufferId;
use quant::GgmlType;

/// f32 (or, where said, u32) values in a buffer, starting at byte `offset`, contiguous, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub buffer: BufferId,
    /// Bytes from the start of the buffer; a multiple of 4.
    pub offset: u64,
}

impl View {
    pub fn new(buffer: BufferId) -> View {
        View { buffer, offset: 0 }
    }

    /// The view that starts `elements` 4-byte values further on.
    pub fn at(self, elements: usize) -> View {
        View { buffer: self.buffer, offset: self.offset + 4 * elements as u64 }
    }
}

/// A weight matrix of `rows` x `cols` ggml-typed values, row after row (a row is one output's weights).
/// With experts it is `experts` such matrices, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    pub buffer: BufferId,
    /// Bytes from the start of the buffer.
    pub offset: u64,
    pub ty: GgmlType,
    pub rows: usize,
    pub cols: usize,
}

/// One product of a [`Op::MatMul`]: `out[n, rows] = input[n, cols] * weight^T * scale + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub weight: Weight,
    /// f32 [rows]
    pub bias: Option<View>,
    /// Factor on the product before the bias (a tensor's `.scale`); 1.0 otherwise.
    pub scale: f32,
    /// f32 [n, rows]
    pub out: View,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps)
    Rms,
    /// (x - mean) / sqrt(var + eps)
    Layer,
}

/// Which pairs of values a rotary embedding turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (0,1), (2,3), ...: llama
    Adjacent,
    /// (0, d/2), (1, d/2+1), ...: NeoX, qwen
    Halves,
}

/// A rotary position embedding with YaRN (Peng et al. 2023, arXiv 2309.00071).
///
/// With `theta_extrap(i) = position * step^i / factors[i]`, `step = freq_base^(-2/dims)`, and `theta_interp = freq_scale * theta_extrap`:
/// where `ext_factor` is 0, theta is `theta_interp` and the magnitude `attn_factor`; else theta mixes both by the ramp
/// between the correction dimensions of `beta_fast` and `beta_slow`, and the magnitude is
/// `attn_factor * (1 + 0.1 ln(1 / freq_scale))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeSpec {
    pub pairs: RopePairs,
    /// How many of a head's values turn, from its first on; even.
    pub dims: usize,
    pub freq_base: f32,
    pub freq_scale: f32,
    pub ext_factor: f32,
    pub attn_factor: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
    /// The context length the model was trained with before extension (for YaRN's correction dimensions).
    pub original_context: u32,
}

/// The K and V of one layer in device memory. Position `p` is in cell `p % capacity` (a layer with a window has fewer
/// cells than the sequence positions); head `h` of cell `c` starts at row `h * capacity + c`, rows being `head_dim` values
/// of the cache's type: heads are contiguous streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCache {
    pub k: BufferId,
    /// `None`: V is the first `head_dim_v` values of K (multi-head latent attention).
    pub v: Option<BufferId>,
    pub k_type: GgmlType,
    pub v_type: GgmlType,
    /// Cells.
    pub capacity: usize,
    pub head_count_kv: usize,
    pub head_dim_k: usize,
    pub head_dim_v: usize,
}

/// Softmax attention of `n` new rows over a cache: scores are `scale * q.k`, then soft-capped, masked, and normalised
/// together with the sinks. Row `r` has position `start + r` and sees positions up to its own, at most `window` of them.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpec {
    pub head_count: usize,
    pub scale: f32,
    /// 0: none. Otherwise scores become `cap * tanh(score / cap)`.
    pub softcap: f32,
    /// 0: none.
    pub window: usize,
    /// f32 [head_count]: a logit per head that takes part in the softmax and has no value.
    pub sinks: Option<View>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    GeluTanh,
    /// max(x, 0)^2
    Relu2,
    Sigmoid,
    /// gpt-oss: gate clamped to `limit` above, up to +-`limit`; gate * sigmoid(alpha gate) * (up + 1)
    ClampedSwiglu {
        alpha: f32,
        limit: f32,
    },
}

/// How router logits become expert weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    pub experts: usize,
    pub used: usize,
    pub gating: Gating,
    /// Divide the chosen weights by their sum.
    pub normalize: bool,
    /// Factor on the chosen weights.
    pub scale: f32,
    /// Experts compete in this many groups of equal size (1: all with all). A group counts as its two best experts
    /// (DeepSeek-V3, arXiv 2412.19437), and only the experts of the best `groups_used` groups can be chosen.
    pub groups: usize,
    pub groups_used: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts, then the top ones.
    Softmax,
    /// The top experts, then softmax over those.
    SoftmaxOfChosen,
    /// Sigmoid of each logit (the choice may add `bias`).
    Sigmoid,
}

/// What a recurrent operation knows of the tokens before its first row, and what the next one will need. Reading and
/// writing apart makes a step repeatable: a step that failed left what it started from untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `None`: nothing came before, all values are 0.
    pub input: Option<View>,
    pub output: View,
}

/// Shape of an [`Op::Conv`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSpec {
    pub channels: usize,
    /// Rows that make one row of the result; the state is f32 [kernel - 1, channels], the oldest row first.
    pub kernel: usize,
    pub act: Option<Activation>,
}

/// Shape of an [`Op::DeltaNet`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaNetSpec {
    pub heads_k: usize,
    /// A multiple of `heads_k`.
    pub heads_v: usize,
    pub head_dim: usize,
    /// Value head `h` has key head `h % heads_k`, otherwise `h / (heads_v / heads_k)`.
    pub tiled: bool,
    /// The least length that q and k are divided by.
    pub eps: f32,
}

/// Shape of an [`Op::StateSpace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpaceSpec {
    pub heads: usize,
    pub head_dim: usize,
    pub state_size: usize,
    /// Heads share B and C in this many groups of neighbours.
    pub groups: usize,
}

/// What a [`Op::Mix`] adds up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    pub inputs: usize,
    pub outputs: usize,
    pub dim: usize,
    pub out_stride: usize,
    pub offset: f32,
}

/// One operation. Shapes are in the comments: `n` rows of tokens, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Several products of the same input f32 [n, cols]. All weights have the same `cols`.
    MatMul { input: View, n: usize, products: &'a [Linear] },

    /// `out[t, s] = input[t, s or 0] * weight[ids[t, s]]^T + bias[ids[t, s]]` for each of `used` slots of each token.
    /// `ids` is u32 [n, used]; `input` is f32 [n, used, cols] if `input_per_slot`, else [n, cols]; `out` f32 [n, used, rows].
    ExpertMatMul {
        input: View,
        input_per_slot: bool,
        n: usize,
        ids: View,
        used: usize,
        experts: usize,
        weight: Weight,
        /// f32 [experts, rows]
        bias: Option<View>,
        /// f32 [experts]: factor on each expert's product (a tensor's `.scale`)
        scales: Option<View>,
        out: View,
    },

    /// Chooses experts: `logits` f32 [n, experts] to `ids` u32 [n, used] and `weights` f32 [n, used].
    /// `bias` f32 [experts] is added for the choice only. Equal scores: the lower expert first.
    Route { router: Router, logits: View, n: usize, bias: Option<View>, ids: View, weights: View },

    /// `out[t] = sum over slots of weights[t, s] * input[t, s]`; input f32 [n, used, dim], out f32 [n, dim].
    Combine { input: View, weights: View, n: usize, used: usize, dim: usize, out: View },

    /// Normalises `rows` rows of `dim` values; `weight` and `bias` are f32 [dim]. `out` may be `input`.
    Norm {
        kind: NormKind,
        input: View,
        rows: usize,
        dim: usize,
        eps: f32,
        weight: Option<View>,
        bias: Option<View>,
        out: View,
    },

    /// Turns `x` f32 [n, heads, head_dim] in place. `positions` is u32 [n]; `factors` f32 [dims / 2].
    Rope { x: View, n: usize, heads: usize, head_dim: usize, spec: RopeSpec, positions: View, factors: Option<View> },

    /// Multiplies every `block` neighbouring values of `x` f32 [len] by the orthonormal Walsh-Hadamard matrix of that size,
    /// which is its own inverse: `x[i] = sum over j of (-1)^popcount(i & j) x[j] / sqrt(block)`. `block` is a power of two.
    Hadamard { x: View, len: usize, block: usize },

    /// Writes `k` f32 [n, head_count_kv, head_dim_k] and `v` f32 [n, head_count_kv, head_dim_v] into the cells of
    /// positions `start..start + n`, converting to the cache's types.
    StoreKv { cache: KvCache, k: View, v: View, n: usize, start: usize },

    /// `q` f32 [n, head_count, head_dim_k] to `out` f32 [n, head_count, head_dim_v], over cells `0..start + n`.
    Attention { cache: KvCache, spec: AttentionSpec, q: View, n: usize, start: usize, out: View },

    /// `out[r, i] = act(gate[r, i]) * up[r, i]` over `rows` rows of `dim`; a row of gate and up starts every `stride`
    /// values (`dim` if they are separate, `2 dim` if fused). `out` is [rows, dim] and may be `gate` if the stride is `dim`.
    Glu { act: Activation, gate: View, up: View, rows: usize, dim: usize, stride: usize, out: View },

    /// `x = act(x)`, elementwise over `len` values.
    Activate { act: Activation, x: View, len: usize },

    /// `out = a + scale * b`, elementwise over `len` values. `out` may be `a` or `b`.
    Add { a: View, b: View, scale: f32, len: usize, out: View },

    /// `out = a * b`, elementwise over `len` values. `out` may be `a` or `b`.
    Mul { a: View, b: View, len: usize, out: View },

    /// `x = x * factor`, elementwise over `len` values.
    Scale { x: View, factor: f32, len: usize },

    /// `x[r] = x[r] * factors[r]` for `rows` rows of `dim` values; `factors` f32 [rows].
    ScaleRows { x: View, factors: View, rows: usize, dim: usize },

    /// `x = cap * tanh(x / cap)`, elementwise over `len` values.
    Softcap { x: View, cap: f32, len: usize },

    /// `x[r, i] = x[r, i] * factors[i]` for `rows` rows of `dim` values; `factors` f32 [dim].
    ScaleColumns { x: View, factors: View, rows: usize, dim: usize },

    /// `x[r] = x[r] |like[r]| / |x[r]|` for `rows` rows of `dim` values; a row of `like` starts every `like_stride` values.
    /// Rows of zeros stay.
    MatchLength { x: View, rows: usize, dim: usize, like: View, like_stride: usize },

    /// `x[r] = max(0, x[r] - c)` for `rows` rows of `dim` values, `c` being the row's mean and `deviations` times its
    /// sample deviation.
    Sparsify { x: View, rows: usize, dim: usize, deviations: f32 },

    /// `out[t, j] += sum over k of (offset + weights[t, j, k]) input[t, k]`: `input` f32 [n, inputs, dim], `weights` f32
    /// [n, outputs, inputs] (0 if there are none), `out` f32 [outputs, dim] every `out_stride` values.
    Mix { mix: Mix, input: View, weights: Option<View>, n: usize, out: View },

    /// Copies whole rows: `out[i] = input[rows[i]]`, rows of `dim` values.
    Gather { input: View, rows: &'a [u32], dim: usize, out: View },

    /// Copies `rows` pieces of `dim` values; a piece starts every `input_stride` values and goes to every `out_stride`.
    CopyRows { input: View, input_stride: usize, rows: usize, dim: usize, out: View, out_stride: usize },

    /// A causal convolution of each channel over time: `out[t, c] = act(sum over j of weight[c, j] x[t - kernel + 1 + j, c]
    /// + bias[c])`, where the values before the first row are those of the state.
    Conv { spec: ConvSpec, input: View, n: usize, weight: View, bias: Option<View>, state: State, out: View },

    /// The gated delta rule (Yang et al. 2024, arXiv 2412.06464) for `n` tokens, head by head, with
    /// `g = exp(a softplus(alpha + dt_bias))` and `b = sigmoid(beta)`:
    /// `S = g S; S = S + k (b (v - S^T k))^T; out = S^T q / sqrt(head_dim)`. `q` and `k` are normalised to length 1.
    ///
    /// `qkv` is f32 [n, 2 heads_k head_dim + heads_v head_dim] (q, k, v), `alpha` and `beta` f32 [n, heads_v],
    /// `dt_bias` and `a` f32 [heads_v], the state f32 [heads_v, head_dim (of k), head_dim (of v)],
    /// `out` f32 [n, heads_v, head_dim].
    DeltaNet {
        spec: DeltaNetSpec,
        qkv: View,
        alpha: View,
        beta: View,
        dt_bias: View,
        a: View,
        n: usize,
        state: State,
        out: View,
    },

    /// The state space of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) for `n` tokens, head by head, with
    /// `d = softplus(dt + dt_bias)`: `S = exp(a d) S + d x B^T; out = S C + skip x`.
    ///
    /// `xbc` is f32 [n, heads head_dim + 2 groups state_size] (x, B, C), `dt` f32 [n, heads], `dt_bias`, `a` and `skip`
    /// f32 [heads], the state f32 [heads, head_dim, state_size], `out` f32 [n, heads, head_dim].
    StateSpace {
        spec: StateSpaceSpec,
        xbc: View,
        dt: View,
        dt_bias: View,
        a: View,
        skip: View,
        n: usize,
        state: State,
        out: View,
    },
}

impl Op<'_> {
    /// The operation's name, for errors and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Op::MatMul { .. } => "MatMul",
            Op::ExpertMatMul { .. } => "ExpertMatMul",
            Op::Route { .. } => "Route",
            Op::Combine { .. } => "Combine",
            Op::Norm { .. } => "Norm",
            Op::Rope { .. } => "Rope",
            Op::Hadamard { .. } => "Hadamard",
            Op::StoreKv { .. } => "StoreKv",
            Op::Attention { .. } => "Attention",
            Op::Glu { .. } => "Glu",
            Op::Activate { .. } => "Activate",
            Op::Add { .. } => "Add",
            Op::Mul { .. } => "Mul",
            Op::Scale { .. } => "Scale",
            Op::ScaleRows { .. } => "ScaleRows",
            Op::Softcap { .. } => "Softcap",
            Op::ScaleColumns { .. } => "ScaleColumns",
            Op::MatchLength { .. } => "MatchLength",
            Op::Sparsify { .. } => "Sparsify",
            Op::Mix { .. } => "Mix",
            Op::Gather { .. } => "Gather",
            Op::CopyRows { .. } => "CopyRows",
            Op::Conv { .. } => "Conv",
            Op::DeltaNet { .. } => "DeltaNet",
            Op::StateSpace { .. } => "StateSpace",
        }
    }
}

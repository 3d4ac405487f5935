//! The vocabulary of descriptions: what a family file puts together.

use backend::{Activation, NormKind, RopeSpec, Router};
use quant::GgmlType;

/// A tensor of the file: `experts` matrices of `rows` x `cols` (a vector has one row).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Index in `Gguf::tensors`.
    pub index: usize,
    pub ty: GgmlType,
    pub rows: usize,
    /// Values in a row (ne[0]).
    pub cols: usize,
    pub experts: usize,
    /// Bytes in the file.
    pub bytes: u64,
    /// Devices read it as f32 whatever its type is in the file (norm weights, biases).
    pub as_f32: bool,
}

impl Tensor {
    /// Bytes that a copy in a device's memory takes.
    pub fn device_bytes(&self) -> u64 {
        if self.as_f32 { 4 * (self.experts * self.rows * self.cols) as u64 } else { self.bytes }
    }
}

/// `y = x * weight^T * scale + bias`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// [rows, cols] or [experts, rows, cols]
    pub weight: Tensor,
    /// f32 [rows] or [experts, rows]
    pub bias: Option<Tensor>,
    /// f32 [1] or [experts]: factor on the product (NVFP4 files)
    pub scale: Option<Tensor>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    /// f32 [dim]
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub eps: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    pub spec: RopeSpec,
    /// f32 [dims / 2]: divisors of the frequencies
    pub factors: Option<Tensor>,
}

/// Grouped-query attention with everything that families add to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    pub head_count: usize,
    pub head_count_kv: usize,
    pub head_dim_k: usize,
    pub head_dim_v: usize,
    /// [head_count * head_dim_k, embedding_length]
    pub q: Linear,
    /// [head_count_kv * head_dim_k, embedding_length]
    pub k: Linear,
    /// [head_count_kv * head_dim_v, embedding_length]
    pub v: Linear,
    /// [embedding_length, head_count * head_dim_v]
    pub output: Linear,
    /// Per head, before the rotary embedding.
    pub q_norm: Option<Norm>,
    pub k_norm: Option<Norm>,
    pub rope: Option<Rope>,
    /// Factor on q.k
    pub scale: f32,
}

/// `down(act(gate(x)) * up(x))`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub act: Activation,
}

/// A mixture of experts: the router chooses `router.used` of `router.experts` gated feed-forwards for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// [experts, embedding_length]
    pub logits: Linear,
    pub router: Router,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub act: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FeedForward {
    Dense(Dense),
    Experts(Experts),
}

/// `x += attention(norm(x)); x += feed_forward(norm(x))`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    pub attention_norm: Norm,
    pub attention: Attention,
    pub feed_forward_norm: Norm,
    pub feed_forward: FeedForward,
}

/// The layer after the last: hidden state to logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output {
    pub norm: Norm,
    /// [vocab_size, embedding_length]; the token embedding itself where the file has no output tensor.
    pub weight: Linear,
}

/// A model, described by its header.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub architecture: String,
    pub name: Option<String>,
    /// Weights in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors in the file.
    pub tensor_bytes: u64,
    /// Tokens the model was trained for.
    pub context_length: u32,
    pub embedding_length: usize,
    pub vocab_size: usize,
    /// [vocab_size, embedding_length]
    pub token_embedding: Tensor,
    pub layers: Vec<Layer>,
    pub output: Output,
    /// Tensors of the file that no part uses.
    pub unused_tensors: Vec<String>,
}

impl Linear {
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> + use<> {
        [Some(self.weight), self.bias, self.scale].into_iter().flatten()
    }
}

impl Norm {
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> + use<> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}

impl Layer {
    /// Every tensor that must be on the layer's device.
    pub fn tensors(&self) -> Vec<Tensor> {
        let a = &self.attention;
        let mut tensors: Vec<Tensor> = self.attention_norm.tensors().chain(self.feed_forward_norm.tensors()).collect();
        for norm in [a.q_norm, a.k_norm].into_iter().flatten() {
            tensors.extend(norm.tensors());
        }
        tensors.extend(a.rope.and_then(|rope| rope.factors));
        for linear in [a.q, a.k, a.v, a.output] {
            tensors.extend(linear.tensors());
        }
        let linears: &[Linear] = match &self.feed_forward {
            FeedForward::Dense(f) => &[f.gate, f.up, f.down],
            FeedForward::Experts(f) => &[f.logits, f.gate, f.up, f.down],
        };
        tensors.extend(linears.iter().flat_map(Linear::tensors));
        tensors
    }
}

impl Tensor {
    /// The share of the weights that one token uses: all, or those of the experts chosen.
    fn used_bytes(&self, used_experts: usize) -> u64 {
        if self.experts > 1 { self.bytes / self.experts as u64 * used_experts as u64 } else { self.bytes }
    }
}

impl Layer {
    /// Bytes of weights that computing one token reads.
    pub fn bytes_per_token(&self) -> u64 {
        let used = match &self.feed_forward {
            FeedForward::Dense(_) => 1,
            FeedForward::Experts(experts) => experts.router.used,
        };
        self.tensors().iter().map(|tensor| tensor.used_bytes(used)).sum()
    }

    /// Multiply-adds that computing one token takes in the matrices.
    pub fn multiply_adds_per_token(&self) -> u64 {
        let size = |linear: &Linear| (linear.weight.rows * linear.weight.cols) as u64;
        let a = &self.attention;
        let attention: u64 = [a.q, a.k, a.v, a.output].iter().map(size).sum();
        attention
            + match &self.feed_forward {
                FeedForward::Dense(f) => size(&f.gate) + size(&f.up) + size(&f.down),
                FeedForward::Experts(f) => {
                    size(&f.logits) + (size(&f.gate) + size(&f.up) + size(&f.down)) * f.router.used as u64
                }
            }
    }
}

impl Output {
    pub fn tensors(&self) -> Vec<Tensor> {
        self.norm.tensors().chain(self.weight.tensors()).collect()
    }
}

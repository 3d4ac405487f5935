//! The vocabulary of descriptions: what a family file puts together.

use crate::{AltUp, AltUpLayer, Attention, Laurel, Merge, Mixer};
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

/// `y = x * weight^T * scale + bias` with some rows of a matrix: several products may share one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// [rows, cols] or [experts, rows, cols]
    pub weight: Tensor,
    /// The first of the weight's rows that count (0 with experts).
    pub first_row: usize,
    /// How many do: values in the result.
    pub rows: usize,
    /// f32 [rows of the weight] or [experts, rows]
    pub bias: Option<Tensor>,
    /// f32 [1] or [experts]: factor on the product (NVFP4 files)
    pub scale: Option<Tensor>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    /// Values that are normalised together.
    pub dim: usize,
    /// f32 [dim]
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
    pub eps: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    pub spec: RopeSpec,
    /// f32 [dims / 2]: divisors of the frequencies
    pub factors: Option<Tensor>,
    /// The divisors where the context is longer than `spec.original_context` (LongRoPE, arXiv 2402.13753).
    pub long_factors: Option<Tensor>,
}

impl Rope {
    /// The divisors that a sequence of at most `context` tokens has.
    pub fn factors_for(&self, context: u32) -> Option<Tensor> {
        self.long_factors.filter(|_| context > self.spec.original_context).or(self.factors)
    }
}

/// `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub act: Activation,
    /// Gates count by what they exceed their row's mean and this many deviations by, and the others are 0.
    pub sparsity: Option<f32>,
}

/// How experts get from the input to what their `down` reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExpertInput {
    Gated {
        gate: Linear,
        up: Linear,
    },
    /// One tensor: an expert's gate rows, then its up rows.
    Fused(Linear),
    /// No gate.
    Up(Linear),
}

/// A mixture of experts: the router chooses `router.used` of `router.experts` feed-forwards for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// On the router's input, where that is not the experts'.
    pub logits_norm: Option<Norm>,
    /// [experts, embedding_length]
    pub logits: Linear,
    /// Factor on the logits.
    pub logits_scale: f32,
    pub router: Router,
    /// f32 [experts]: added for the choice only
    pub router_bias: Option<Tensor>,
    /// Where the chosen experts compute on fewer values than the stream has.
    pub latent: Option<LatentExperts>,
    /// On the chosen experts' input and on their sum, where the family has them.
    pub norm: Option<Norm>,
    pub post_norm: Option<Norm>,
    pub input: ExpertInput,
    pub down: Linear,
    pub act: Activation,
    pub shared: Option<SharedExpert>,
}

/// `up(sum(experts(down(x))))`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentExperts {
    /// [width, embedding_length]
    pub down: Linear,
    /// [embedding_length, width]
    pub up: Linear,
}

/// A feed-forward that every token takes, beside the chosen ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedExpert {
    pub norm: Option<Norm>,
    pub dense: Dense,
    pub post_norm: Option<Norm>,
    /// [1, embedding_length]: its sigmoid is the factor on this expert.
    pub gate: Option<Linear>,
}

// Descriptions are few and short-lived: copies are simpler than boxes.
#[expect(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FeedForward {
    Dense(Dense),
    Experts(Experts),
}

/// `x += residual_scale * post_norm(part(norm(x)))`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual<P> {
    pub norm: Option<Norm>,
    pub part: P,
    pub post_norm: Option<Norm>,
}

/// A second way for the token into each layer: `x += norm(projection(gelu(gate(x)) * input))`, where the input is this
/// layer's part of the token's own embedding (gemma 3n, gemma 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayer {
    /// [dim, embedding_length]
    pub gate: Linear,
    /// [embedding_length, dim]
    pub projection: Linear,
    pub norm: Norm,
}

/// A mixer over time, then a feed-forward, each with its residual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    pub mixer: Option<Residual<Mixer>>,
    pub feed_forward: Option<Residual<FeedForward>>,
    /// The feed-forward reads what the mixer read, and both are added together.
    pub parallel: bool,
    pub residual_scale: f32,
    pub per_layer: Option<PerLayer>,
    /// f32 [1]: factor on the stream after the layer
    pub output_scale: Option<Tensor>,
    pub alt_up: Option<AltUpLayer>,
    pub laurel: Option<Laurel>,
}

/// What feeds [`PerLayer`]: `(norm(projection(e) / sqrt(embedding_length)) + sqrt(dim) embedding[token]) / sqrt(2)`,
/// `e` being the token's embedding and every layer's part normalised by itself. Computed on the host, read lazily.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayerInput {
    /// Values for each layer.
    pub dim: usize,
    /// [vocab_size, layers * dim]
    pub embedding: Tensor,
    /// [layers * dim, embedding_length]
    pub projection: Linear,
    pub norm: Norm,
}

/// The layer after the last: hidden state to logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output {
    pub norm: Norm,
    /// [vocab_size, embedding_length]; the token embedding itself where the file has no output tensor.
    pub weight: Linear,
    /// Factor on the logits.
    pub scale: f32,
    /// 0: none. Otherwise logits become `cap * tanh(logit / cap)`.
    pub softcap: f32,
    /// What makes one stream of several parts, before the norm.
    pub merge: Option<Merge>,
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
    /// Factor on the embedding.
    pub embedding_scale: f32,
    pub per_layer_input: Option<PerLayerInput>,
    /// The stream's parts, where it has several.
    pub alt_up: Option<AltUp>,
    pub layers: Vec<Layer>,
    pub output: Output,
    /// Tensors of the file that no part uses.
    pub unused_tensors: Vec<String>,
}

impl Model {
    /// Values of a token's stream.
    pub fn stream_length(&self) -> usize {
        self.embedding_length * self.alt_up.map_or(1, |alt_up| alt_up.streams.count)
    }
}

impl Tensor {
    /// Bytes that a copy in a device's memory takes.
    pub fn device_bytes(&self) -> u64 {
        if self.as_f32 { 4 * (self.experts * self.rows * self.cols) as u64 } else { self.bytes }
    }
}

impl Linear {
    /// All rows of a tensor, or of each of its experts.
    pub fn whole(weight: Tensor) -> Linear {
        Linear { weight, first_row: 0, rows: weight.rows, bias: None, scale: None }
    }

    /// `rows` of the same tensor, from `first_row` on.
    pub fn part(self, first_row: usize, rows: usize) -> Linear {
        Linear { first_row, rows, ..self }
    }

    /// Multiply-adds for one token.
    pub(crate) fn size(&self) -> u64 {
        (self.rows * self.weight.cols) as u64
    }
}

impl Mixer {
    /// The attention, if it is the usual kind.
    pub fn attention(&self) -> Option<&Attention> {
        if let Mixer::Attention(attention) = self { Some(attention) } else { None }
    }
}

impl Layer {
    /// The layer's attention, if its mixer is the usual kind.
    pub fn attention(&self) -> Option<&Attention> {
        self.mixer.as_ref().and_then(|mixer| mixer.part.attention())
    }

    pub fn experts(&self) -> Option<&Experts> {
        match self.feed_forward.as_ref().map(|residual| &residual.part) {
            Some(FeedForward::Experts(experts)) => Some(experts),
            _ => None,
        }
    }
}

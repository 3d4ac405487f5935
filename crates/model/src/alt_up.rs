//! A residual stream of several parts, of which every layer computes on one (AltUp, Baykal et al. 2023, arXiv 2301.13310),
//! and the low-rank branch beside a layer's mixer (LAuReL, Menghani et al. 2024, arXiv 2411.07501), as Gemma 3n has them.

use crate::{Linear, Norm, Tensor};

/// How many parts of `embedding_length` values a token's stream has, one after the other, and which one layers compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    pub count: usize,
    pub active: usize,
}

/// The stream before the first layer: the embedding, and its projections, which are given its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AltUp {
    pub streams: Streams,
    /// [(count - 1) * embedding_length, embedding_length]; computed on the host
    pub expansion: Linear,
}

/// The stream after the last layer: the mean of its first part and of projections of the others, which are given the
/// active part's length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    pub streams: Streams,
    /// [(count - 1) * embedding_length, embedding_length]
    pub projection: Linear,
}

/// With `m(x) = tanh(router(router_norm(x)) / embedding_length)`, stream parts `s` and the active part `a`:
/// `p[j] = s[j] + sum over k of predict(m(s[a]))[j, k] s[k]`; the layer makes `y` of `p[a]`;
/// `s[j] = p[j] + (1 + correct(m(y))[j]) (y - p[a])`. Per-layer inputs meet `correct_scale * s[a]`, and what comes of
/// them is added to all parts but the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AltUpLayer {
    pub streams: Streams,
    pub router_norm: Norm,
    /// [count, embedding_length]
    pub router: Linear,
    /// [count * count, count]
    pub predict: Linear,
    /// [count, count]
    pub correct: Linear,
    /// f32 [embedding_length]
    pub correct_scale: Tensor,
}

/// The stream after the mixer, `x + mixer(i)`, becomes `(x + mixer(i) + i + norm(right(left(i)))) / sqrt(2)`, where `i` is
/// the mixer's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Laurel {
    /// [rank, embedding_length]
    pub left: Linear,
    /// [embedding_length, rank]
    pub right: Linear,
    pub norm: Norm,
}

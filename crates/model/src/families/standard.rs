//! What families share: parts by the names that converters give their tensors. A family changes what differs.

use crate::describe::{Header, Sizes};
use crate::*;
use backend::{Activation, NormKind, RopePairs};

const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_DIM: u64 = 1 << 12;
const MAX_WINDOW: u64 = 1 << 31;

/// A header on its way to a [`Model`].
pub(crate) struct Builder<'a> {
    pub header: &'a Header<'a>,
    pub sizes: Sizes,
}

/// Heads of one layer.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub count: usize,
    pub kv: usize,
    pub dim_k: usize,
    pub dim_v: usize,
}

/// The tensor `part` of layer `layer`, without its suffix.
pub(crate) fn block(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

impl<'a> Builder<'a> {
    pub fn new(header: &'a Header<'a>) -> Result<Builder<'a>, ModelError> {
        Ok(Builder { header, sizes: header.sizes(NormKind::Rms)? })
    }

    /// For families whose norms subtract the mean.
    pub fn with_layer_norms(header: &'a Header<'a>) -> Result<Builder<'a>, ModelError> {
        Ok(Builder { header, sizes: header.sizes(NormKind::Layer)? })
    }

    /// The model with these layers. The output norm is called `output_norm`, or `token_embd_norm` where that is missing.
    pub fn model(&self, layer: impl Fn(usize) -> Result<Layer, ModelError>) -> Result<Model, ModelError> {
        let (header, sizes) = (self.header, &self.sizes);
        let width = sizes.embedding_length;
        let token_embedding = header.tensor("token_embd.weight", &[width, sizes.vocab_size])?;
        let norm = if header.has("output_norm.weight") { "output_norm" } else { "token_embd_norm" };
        let output = Output {
            norm: self.norm(norm, width)?,
            weight: match header.linear_or("output", sizes.vocab_size, width)? {
                Some(linear) => linear,
                None => Linear::whole(token_embedding),
            },
            scale: 1.0,
            softcap: header.f32_at_least("final_logit_softcapping", 0.0, 0.0)?,
            merge: None,
        };
        let layers = (0..sizes.block_count).map(layer).collect::<Result<Vec<_>, _>>()?;
        let (parameters, tensor_bytes) = header.totals()?;
        Ok(Model {
            architecture: header.architecture.into(),
            name: header.gguf.metadata.str("general.name").map(|name| name.chars().take(200).collect()),
            parameters,
            tensor_bytes,
            context_length: sizes.context_length,
            embedding_length: width,
            vocab_size: sizes.vocab_size,
            token_embedding,
            embedding_scale: 1.0,
            per_layer_input: None,
            alt_up: None,
            layers,
            output,
            unused_tensors: Vec::new(),
        })
    }

    /// A layer whose norms have the usual names. Where there is no `ffn_norm`, `post_attention_norm` is the norm before
    /// the feed-forward; where there are only norms named `post_`, they come after.
    pub fn layer(&self, index: usize, mixer: Mixer, feed_forward: FeedForward) -> Result<Layer, ModelError> {
        let norm = |name: &str| self.norm_or(&block(index, name), self.sizes.embedding_length);
        let (before, mut after) = (norm("attn_norm")?, norm("post_attention_norm")?);
        let mut second = norm("ffn_norm")?;
        if second.is_none() && before.is_some() {
            second = after.take();
        }
        let post_norm = norm("post_ffw_norm")?;
        for (norms, name) in [((before, after), "attn_norm"), ((second, post_norm), "ffn_norm")] {
            if norms == (None, None) {
                return Err(ModelError::MissingTensor(block(index, name) + ".weight"));
            }
        }
        Ok(Layer {
            mixer: Some(Residual { norm: before, part: mixer, post_norm: after }),
            feed_forward: Some(Residual { norm: second, part: feed_forward, post_norm }),
            parallel: false,
            residual_scale: 1.0,
            per_layer: None,
            output_scale: None,
            alt_up: None,
            laurel: None,
        })
    }

    /// A layer of attention and a dense feed-forward.
    pub fn dense_layer(&self, index: usize, attention: Attention, act: Activation) -> Result<Layer, ModelError> {
        self.layer(index, Mixer::Attention(attention), FeedForward::Dense(self.dense(index, act)?))
    }

    /// A layer that computes attention and feed-forward of one norm side by side.
    pub fn parallel_layer(&self, index: usize, mixer: Mixer, feed_forward: FeedForward) -> Result<Layer, ModelError> {
        let norm = self.norm(&block(index, "attn_norm"), self.sizes.embedding_length)?;
        Ok(Layer {
            mixer: Some(Residual { norm: Some(norm), part: mixer, post_norm: None }),
            feed_forward: Some(Residual { norm: None, part: feed_forward, post_norm: None }),
            parallel: true,
            residual_scale: 1.0,
            per_layer: None,
            output_scale: None,
            alt_up: None,
            laurel: None,
        })
    }

    /// The model's kind of norm, if the file has its weight.
    pub fn norm_or(&self, name: &str, dim: usize) -> Result<Option<Norm>, ModelError> {
        let Some(weight) = self.header.vector_or(&format!("{name}.weight"), &[dim])? else { return Ok(None) };
        let bias = self.header.vector_or(&format!("{name}.bias"), &[dim])?;
        Ok(Some(Norm { kind: self.sizes.norm, dim, weight: Some(weight), bias, eps: self.sizes.eps }))
    }

    pub fn norm(&self, name: &str, dim: usize) -> Result<Norm, ModelError> {
        self.norm_or(name, dim)?.ok_or_else(|| ModelError::MissingTensor(format!("{name}.weight")))
    }

    /// An RMS norm without weights.
    pub fn plain_norm(&self, dim: usize) -> Norm {
        Norm { kind: NormKind::Rms, dim, weight: None, bias: None, eps: self.sizes.eps }
    }

    pub fn linear(&self, index: usize, part: &str, rows: usize, cols: usize) -> Result<Linear, ModelError> {
        self.header.linear(&block(index, part), rows, cols)
    }

    pub fn heads(&self, index: usize) -> Result<Heads, ModelError> {
        self.heads_of(index, ["attention.key_length", "attention.value_length"])
    }

    /// Heads whose sizes have these keys.
    pub fn heads_of(&self, index: usize, lengths: [&str; 2]) -> Result<Heads, ModelError> {
        let header = self.header;
        let count = header
            .layer_count("attention.head_count", index, MAX_HEADS)?
            .ok_or_else(|| ModelError::MissingKey("attention.head_count".into()))?;
        let kv = header.layer_count("attention.head_count_kv", index, MAX_HEADS)?.unwrap_or(count);
        if count % kv != 0 {
            return Err(header.bad_value("attention.head_count_kv", kv, "the divisors of attention.head_count"));
        }
        let [dim_k, dim_v] = lengths.map(|name| match header.u64_or(name) {
            Some(_) => header.count(name, MAX_HEAD_DIM),
            None => Ok((self.sizes.embedding_length / count).max(1)),
        });
        Ok(Heads { count, kv, dim_k: dim_k?, dim_v: dim_v? })
    }

    /// Attention with what the file has: biases, norms of q and k (per head or of the whole row), sinks, fused q, k, v.
    pub fn attention(&self, index: usize, pairs: RopePairs) -> Result<Attention, ModelError> {
        self.attention_of(index, self.heads(index)?, pairs, false)
    }

    pub fn attention_of(
        &self,
        index: usize,
        heads: Heads,
        pairs: RopePairs,
        gated: bool,
    ) -> Result<Attention, ModelError> {
        let (header, width) = (self.header, self.sizes.embedding_length);
        let q_rows = heads.count * heads.dim_k * if gated { 2 } else { 1 };
        let (k_rows, v_rows) = (heads.kv * heads.dim_k, heads.kv * heads.dim_v);
        let [q, k, v] = match header.linear_or(&block(index, "attn_qkv"), q_rows + k_rows + v_rows, width)? {
            Some(all) => [all.part(0, q_rows), all.part(q_rows, k_rows), all.part(q_rows + k_rows, v_rows)],
            None => [
                self.linear(index, "attn_q", q_rows, width)?,
                self.linear(index, "attn_k", k_rows, width)?,
                self.linear(index, "attn_v", v_rows, width)?,
            ],
        };
        let kv = KeysValues::Own {
            k,
            v: Some(v),
            k_norm: self.head_norm(index, "attn_k_norm", heads.dim_k, heads.kv)?,
            v_norm: None,
        };
        self.attention_with(index, heads, q, kv, self.rope(pairs, heads.dim_k)?)
    }

    /// Attention with these projections.
    pub fn attention_with(
        &self,
        index: usize,
        heads: Heads,
        q: Linear,
        kv: KeysValues,
        rope: Rope,
    ) -> Result<Attention, ModelError> {
        let header = self.header;
        Ok(Attention {
            head_count: heads.count,
            head_count_kv: heads.kv,
            head_dim_k: heads.dim_k,
            head_dim_v: heads.dim_v,
            q,
            gated: q.rows > heads.count * heads.dim_k,
            kv,
            output: self.linear(index, "attn_output", self.sizes.embedding_length, heads.count * heads.dim_v)?,
            q_norm: self.head_norm(index, "attn_q_norm", heads.dim_k, heads.count)?,
            rope: Some(rope),
            rope_first: false,
            scale: header.f32_at_least("attention.scale", 1.0 / (heads.dim_k as f32).sqrt(), 0.0)?,
            softcap: header.f32_at_least("attn_logit_softcapping", 0.0, 0.0)?,
            window: 0,
            sinks: header.vector_or(&block(index, "attn_sinks.weight"), &[heads.count])?,
            temperature: None,
        })
    }

    /// A norm of every head, or of all heads' values together, as the size of its weight says.
    pub fn head_norm(&self, index: usize, part: &str, dim: usize, heads: usize) -> Result<Option<Norm>, ModelError> {
        let name = block(index, part);
        let whole = self.header.shape(&format!("{name}.weight")).is_some_and(|shape| shape == [(dim * heads) as u64]);
        self.norm_or(&name, if whole { dim * heads } else { dim })
    }

    pub fn rope(&self, pairs: RopePairs, head_dim: usize) -> Result<Rope, ModelError> {
        self.rope_of(pairs, head_dim, "rope.dimension_count", true)
    }

    /// A rotary embedding whose size has this key, with the file's factors if it has such.
    pub fn rope_of(
        &self,
        pairs: RopePairs,
        head_dim: usize,
        dims: &str,
        with_factors: bool,
    ) -> Result<Rope, ModelError> {
        let spec = self.header.rope_spec(pairs, dims, head_dim, self.sizes.context_length)?;
        if !with_factors {
            return Ok(Rope { spec, factors: None, long_factors: None });
        }
        let factors = |name: &str| self.header.vector_or(name, &[spec.dims / 2]);
        let long_factors = factors("rope_factors_long.weight")?;
        let factors = match factors("rope_freqs.weight")? {
            None => factors("rope_factors_short.weight")?,
            some => some,
        };
        Ok(Rope { spec, factors, long_factors })
    }

    /// How many positions a token of this layer sees (0: all), where all but every `pattern`-th layer have a window.
    /// The file's own pattern goes first.
    pub fn window(&self, index: usize, pattern: u64) -> Result<usize, ModelError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let window = match self.header.u64_or("attention.sliding_window") {
            None | Some(0) => return Ok(0),
            Some(_) => self.header.count("attention.sliding_window", MAX_WINDOW)?,
        };
        let pattern = self.header.u64_or(PATTERN).unwrap_or(pattern);
        let windowed = match self.header.layer_flag(PATTERN, index)? {
            Some(flag) => flag,
            None => pattern == 0 || index as u64 % pattern < pattern - 1,
        };
        Ok(if windowed { window } else { 0 })
    }

    /// Attention with that window. Layers that have one may have a rotary base of their own.
    pub fn windowed(&self, index: usize, pattern: u64, attention: Attention) -> Result<Attention, ModelError> {
        let (window, mut rope) = (self.window(index, pattern)?, attention.rope);
        if let Some(rope) = rope.as_mut().filter(|_| window > 0) {
            rope.spec.freq_base =
                self.header.f32_at_least("rope.freq_base_swa", rope.spec.freq_base, f32::MIN_POSITIVE)?;
        }
        Ok(Attention { window, rope, ..attention })
    }
}

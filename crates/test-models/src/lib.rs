//! Tiny GGUF models made in memory, with seeded weights and a real (small) vocabulary; for tests.
//!
//! ```
//! use test_models::ModelSpec;
//! let file: Vec<u8> = ModelSpec::qwen3().build();
//! let gguf = gguf::Gguf::parse(&file, file.len() as u64).unwrap();
//! assert_eq!(gguf.architecture(), Some("qwen3"));
//! ```
//!
//! The same spec gives the same bytes on every machine. The weights of a tensor depend on the seed and its name alone,
//! so that two specs that differ in the tensor type hold the same model in two precisions.
//!
//! What cannot be built (a vocabulary too small, a type without a quantizer) panics: a test should not go on.

mod families;
mod file;
mod random;
mod synthetic;
mod tensors;
mod vocabulary;

pub use quant::GgmlType;
pub use vocabulary::{CHAT_TEMPLATE, MIN_VOCABULARY};

/// The kind of vocabulary a model is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Byte-level BPE (`tokenizer.ggml.model` "gpt2") with this pre-tokenizer.
    Bpe { pre: &'static str },
    /// SentencePiece with byte fallback (`tokenizer.ggml.model` "llama").
    Spm,
}

/// A mixture of experts in every layer, instead of the dense feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    pub count: u32,
    /// Chosen per token.
    pub used: u32,
    /// Inner width of one expert.
    pub n_ff: u32,
}

/// How the rotary position embedding is stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    Linear { factor: f32 },
    Yarn { factor: f32, original_context: u32 },
}

/// What a model has that the fields of [`ModelSpec`] do not say: tensors and keys of its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The transformer that the other fields describe.
    Standard,
    /// Windows, norms on both sides, soft-caps.
    Gemma2,
    /// A stream of several parts, a low-rank branch, sparse gates, shared caches, per-layer inputs.
    Gemma3n,
    /// Two kinds of heads, shared caches, per-layer inputs.
    Gemma4,
    /// The same with experts beside the feed-forward, values from keys.
    Gemma4Experts,
    /// Sinks, windows, biases of experts.
    GptOss,
    /// Latent attention, groups of experts, a shared one.
    DeepSeek2,
    /// Attention and feed-forward side by side.
    CommandR,
    /// Short convolutions.
    Lfm2,
    /// Gated DeltaNet and gated attention.
    Qwen35,
    /// Mamba-2 and attention without positions.
    GraniteHybrid,
    /// Layers of one part each: Mamba-2, experts without gates, attention.
    NemotronH,
}

/// A model to build. The fields are public: start from a family's constructor and change what the test is about.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// `general.architecture`, and the prefix of the model's keys.
    pub arch: String,
    pub n_embd: u32,
    pub n_layer: u32,
    pub n_head: u32,
    pub n_head_kv: u32,
    /// Elements per head; need not be `n_embd / n_head`.
    pub head_dim: u32,
    pub n_ff: u32,
    /// Tokens, at least [`MIN_VOCABULARY`].
    pub n_vocab: u32,
    pub n_ctx: u32,
    pub vocabulary: Vocabulary,
    pub experts: Option<Experts>,
    pub family: Family,
    /// No `output.weight`: the token embedding serves twice.
    pub tied: bool,
    /// Biases of Q, K and V.
    pub qkv_bias: bool,
    /// Bias of the attention output.
    pub output_bias: bool,
    /// RMS norm weights for the heads of Q and K.
    pub qk_norm: bool,
    /// A tensor `rope_freqs.weight`, as Llama 3.1 has.
    pub rope_freqs: bool,
    pub rope_freq_base: f32,
    pub rope_scaling: Option<RopeScaling>,
    pub norm_eps: f32,
    /// Type of the matrices whose rows are whole blocks of it. Other matrices, vectors and routers are F32.
    pub ty: GgmlType,
    pub seed: u64,
}

impl ModelSpec {
    /// A dense llama with an SPM vocabulary: 64 wide, 2 layers, 4 heads on 2 KV heads, 384 tokens, F32.
    pub fn llama() -> ModelSpec {
        ModelSpec {
            arch: "llama".into(),
            n_embd: 64,
            n_layer: 2,
            n_head: 4,
            n_head_kv: 2,
            head_dim: 16,
            n_ff: 96,
            n_vocab: 384,
            n_ctx: 2048,
            vocabulary: Vocabulary::Spm,
            experts: None,
            family: Family::Standard,
            tied: false,
            qkv_bias: false,
            output_bias: false,
            qk_norm: false,
            rope_freqs: false,
            rope_freq_base: 10_000.0,
            rope_scaling: None,
            norm_eps: 1e-5,
            ty: GgmlType::F32,
            seed: 1,
        }
    }

    /// Llama 3.1: BPE, RoPE frequency factors, tied output.
    pub fn llama3() -> ModelSpec {
        ModelSpec {
            vocabulary: Vocabulary::Bpe { pre: "llama-bpe" },
            tied: true,
            rope_freqs: true,
            rope_freq_base: 500_000.0,
            ..ModelSpec::llama()
        }
    }

    /// Mixtral: a llama with 4 experts, 2 of them used.
    pub fn mixtral() -> ModelSpec {
        ModelSpec { n_ff: 64, experts: Some(Experts { count: 4, used: 2, n_ff: 64 }), ..ModelSpec::llama() }
    }

    pub fn qwen2() -> ModelSpec {
        ModelSpec {
            arch: "qwen2".into(),
            vocabulary: Vocabulary::Bpe { pre: "qwen2" },
            qkv_bias: true,
            rope_freq_base: 1_000_000.0,
            norm_eps: 1e-6,
            ..ModelSpec::llama()
        }
    }

    /// Qwen3: norms of Q and K, heads wider than `n_embd / n_head`, tied output.
    pub fn qwen3() -> ModelSpec {
        ModelSpec {
            arch: "qwen3".into(),
            head_dim: 32,
            qkv_bias: false,
            qk_norm: true,
            tied: true,
            ..ModelSpec::qwen2()
        }
    }

    /// Qwen3 with 8 experts, 2 of them used.
    pub fn qwen3moe() -> ModelSpec {
        ModelSpec {
            arch: "qwen3moe".into(),
            tied: false,
            experts: Some(Experts { count: 8, used: 2, n_ff: 32 }),
            ..ModelSpec::qwen3()
        }
    }

    /// A llama whose every row is whole 256-blocks, so that each quantization type applies to all its matrices.
    pub fn quantized(ty: GgmlType) -> ModelSpec {
        ModelSpec { n_embd: 256, n_head: 4, head_dim: 64, n_ff: 256, ty, ..ModelSpec::llama() }
    }

    /// The shape of Llama 3.1 8B, for its [`ModelSpec::header`] and [`ModelSpec::write_synthetic`]. Do not build it: it takes
    /// gigabytes.
    pub fn llama3_8b(ty: GgmlType) -> ModelSpec {
        ModelSpec {
            n_embd: 4096,
            n_layer: 32,
            n_head: 32,
            n_head_kv: 8,
            head_dim: 128,
            n_ff: 14_336,
            n_vocab: 128_256,
            n_ctx: 131_072,
            tied: false,
            ty,
            ..ModelSpec::llama3()
        }
    }

    /// The shape of Qwen3 30B A3B, as [`ModelSpec::llama3_8b`].
    pub fn qwen3_30b_a3b(ty: GgmlType) -> ModelSpec {
        ModelSpec {
            n_embd: 2048,
            n_layer: 48,
            n_head: 32,
            n_head_kv: 4,
            head_dim: 128,
            n_ff: 6144,
            n_vocab: 151_936,
            n_ctx: 40_960,
            experts: Some(Experts { count: 128, used: 8, n_ff: 768 }),
            ty,
            ..ModelSpec::qwen3moe()
        }
    }
}

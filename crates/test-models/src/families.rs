//! Models of the other architectures: their keys and tensors, named as llama.cpp's converter names them.

use crate::file::Keys;
use crate::tensors::{Content, List};
use crate::{Experts, Family, ModelSpec, Vocabulary};
use gguf::Value;

const WINDOW: u32 = 24;
/// Values of a token's own embedding for each layer (Gemma 4).
const PER_LAYER: u32 = 16;
/// Parts of a stream, and the rank of the branch beside attention (Gemma 3n).
const PARTS: u32 = 3;
const LOW_RANK: u32 = 32;
/// Layers that read the caches of earlier ones (Gemma 4).
const SHARED: u32 = 2;
const KERNEL: u32 = 4;
/// Values in a latent key that turn, and those that do not (DeepSeek 2).
const ROPE: u32 = 32;
const RANK: u32 = 64;
const Q_RANK: u32 = 48;
/// Heads of recurrent mixers, and their size.
const HEADS_K: u32 = 2;
const HEADS_V: u32 = 4;
const STATE: u32 = 32;

/// What experts compute on (Nemotron-H).
const LATENT: u32 = 32;

const EXPERTS: Option<Experts> = Some(Experts { count: 4, used: 2, n_ff: 32 });

impl ModelSpec {
    fn family_of(arch: &str, family: Family) -> ModelSpec {
        let vocabulary = Vocabulary::Bpe { pre: "llama-bpe" };
        ModelSpec { arch: arch.into(), family, n_layer: 4, head_dim: 32, vocabulary, ..ModelSpec::llama() }
    }

    /// One of each kind of part, four layers each: windows, shared caches and per-layer inputs, experts beside a
    /// feed-forward, sinks, latent attention, parallel parts, convolutions, delta rule, state space.
    pub fn every_kind() -> Vec<ModelSpec> {
        vec![
            ModelSpec::gemma2(),
            ModelSpec::gemma3n(),
            ModelSpec::gemma4(),
            ModelSpec::gemma4_experts(),
            ModelSpec::gpt_oss(),
            ModelSpec::deepseek2(),
            ModelSpec::command_r(),
            ModelSpec::lfm2(),
            ModelSpec::qwen35(),
            ModelSpec::qwen3next(),
            ModelSpec::granite_hybrid(),
            ModelSpec::nemotron_h(),
        ]
    }

    /// Gemma 2 with windows of 24 tokens on every other layer.
    pub fn gemma2() -> ModelSpec {
        ModelSpec { tied: true, ..ModelSpec::family_of("gemma2", Family::Gemma2) }
    }

    /// Gemma 3n: three parts of the stream, sparse gates in the first two layers, and the last two of four layers read the
    /// caches of the first two.
    pub fn gemma3n() -> ModelSpec {
        ModelSpec { tied: true, ..ModelSpec::family_of("gemma3n", Family::Gemma3n) }
    }

    /// A small Gemma 4: the last two of four layers read the caches of the first two.
    pub fn gemma4() -> ModelSpec {
        ModelSpec { tied: true, rope_freqs: true, ..ModelSpec::family_of("gemma4", Family::Gemma4) }
    }

    pub fn gemma4_experts() -> ModelSpec {
        let base = ModelSpec::family_of("gemma4", Family::Gemma4Experts);
        ModelSpec { tied: true, rope_freqs: true, experts: EXPERTS, ..base }
    }

    pub fn gpt_oss() -> ModelSpec {
        ModelSpec { experts: EXPERTS, ..ModelSpec::family_of("gpt-oss", Family::GptOss) }
    }

    /// DeepSeek 2: a dense layer, then 8 experts in 4 groups.
    pub fn deepseek2() -> ModelSpec {
        let experts = Some(Experts { count: 8, used: 2, n_ff: 32 });
        ModelSpec { n_head_kv: 1, experts, ..ModelSpec::family_of("deepseek2", Family::DeepSeek2) }
    }

    pub fn command_r() -> ModelSpec {
        ModelSpec { tied: true, ..ModelSpec::family_of("command-r", Family::CommandR) }
    }

    /// LFM 2: two short convolutions, attention, a short convolution.
    pub fn lfm2() -> ModelSpec {
        ModelSpec { tied: true, ..ModelSpec::family_of("lfm2", Family::Lfm2) }
    }

    /// Qwen 3.5: three gated DeltaNet layers, then gated attention.
    pub fn qwen35() -> ModelSpec {
        ModelSpec::family_of("qwen35", Family::Qwen35)
    }

    /// Qwen3-Next without its experts.
    pub fn qwen3next() -> ModelSpec {
        ModelSpec { arch: "qwen3next".into(), ..ModelSpec::qwen35() }
    }

    pub fn granite_hybrid() -> ModelSpec {
        ModelSpec { tied: true, ..ModelSpec::family_of("granitehybrid", Family::GraniteHybrid) }
    }

    /// Nemotron-H: Mamba-2 with two groups, experts, attention, Mamba-2.
    pub fn nemotron_h() -> ModelSpec {
        ModelSpec { experts: EXPERTS, ..ModelSpec::family_of("nemotron_h_moe", Family::NemotronH) }
    }

    /// Groups of heads that share what a state space reads and writes.
    fn groups(&self) -> u32 {
        if self.family == Family::NemotronH { 2 } else { 1 }
    }

    /// Whether layer `layer` has attention (the hybrids) or sees everything (the windowed ones).
    fn is_full(&self, layer: u32) -> bool {
        match self.family {
            Family::Lfm2 | Family::GraniteHybrid | Family::NemotronH => layer == 2,
            Family::Qwen35 => layer % 4 == 3,
            _ => layer % 2 == 1,
        }
    }

    fn own_cache(&self, layer: u32) -> bool {
        !matches!(self.family, Family::Gemma3n | Family::Gemma4) || layer + SHARED < self.n_layer
    }

    pub(crate) fn family_keys(&self, keys: &mut Keys<'_>) {
        match self.family {
            Family::Standard => {}
            Family::Gemma2 => {
                keys.own("attention.sliding_window", WINDOW);
                keys.own("attn_logit_softcapping", 50.0f32);
                keys.own("final_logit_softcapping", 30.0f32);
            }
            Family::Gemma3n => {
                self.windows_by_layer(keys);
                keys.own("rope.freq_base_swa", 1000.0f32);
                keys.own("final_logit_softcapping", 30.0f32);
                keys.own("embedding_length_per_layer_input", PER_LAYER);
                keys.own("attention.shared_kv_layers", SHARED as f32);
                keys.own("altup.num_inputs", PARTS);
                keys.own("altup.active_idx", 0u32);
                let sparse = |layer| if layer < 2 { 0.5 } else { f32::NEG_INFINITY };
                let scales: Vec<f32> = (0..self.n_layer).map(sparse).collect();
                keys.own("activation_sparsity_scale", Value::from(scales.as_slice()));
            }
            Family::Gemma4 | Family::Gemma4Experts => {
                self.windows_by_layer(keys);
                for key in ["attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"] {
                    keys.own(key, self.head_dim / 2);
                }
                keys.own("rope.freq_base_swa", 1000.0f32);
                keys.own("final_logit_softcapping", 30.0f32);
                let small = self.family == Family::Gemma4;
                keys.own("embedding_length_per_layer_input", if small { PER_LAYER } else { 0 });
                keys.own("attention.shared_kv_layers", if small { SHARED } else { 0 });
            }
            Family::GptOss => keys.own("attention.sliding_window", WINDOW),
            Family::DeepSeek2 => {
                for (key, value) in [
                    ("leading_dense_block_count", 1),
                    ("attention.q_lora_rank", Q_RANK),
                    ("attention.kv_lora_rank", RANK),
                    ("attention.key_length_mla", self.head_dim + ROPE),
                    ("attention.value_length_mla", self.head_dim),
                    ("rope.dimension_count", ROPE),
                    ("expert_gating_func", 2),
                    ("expert_group_count", 4),
                    ("expert_group_used_count", 2),
                ] {
                    keys.own(key, value);
                }
                keys.own("expert_weights_scale", 2.5f32);
                keys.own("expert_weights_norm", true);
            }
            Family::CommandR => {
                keys.own("attention.layer_norm_epsilon", self.norm_eps);
                keys.own("logit_scale", 0.9f32);
            }
            Family::Lfm2 => {
                self.heads_by_layer(keys);
                keys.own("shortconv.l_cache", KERNEL);
            }
            Family::Qwen35 => {
                keys.own("full_attention_interval", 4u32);
                self.recurrent_keys(keys, HEADS_V * STATE, HEADS_K);
            }
            Family::NemotronH => {
                self.heads_by_layer(keys);
                self.recurrent_keys(keys, HEADS_V * STATE, self.groups());
                // Converters write this one too, for layers that predict further tokens.
                keys.own("attention.layer_norm_epsilon", self.norm_eps);
                let sizes: Vec<u32> = (0..self.n_layer).map(|layer| if layer == 1 { self.n_ff } else { 0 }).collect();
                keys.own("feed_forward_length", Value::from(sizes.as_slice()));
                keys.own("moe_latent_size", LATENT);
                keys.own("expert_weights_scale", 1.5f32);
                keys.own("expert_weights_norm", true);
            }
            Family::GraniteHybrid => {
                self.heads_by_layer(keys);
                self.recurrent_keys(keys, HEADS_V * STATE, self.groups());
                keys.own("embedding_scale", 6.0f32);
                keys.own("residual_scale", 0.6f32);
                keys.own("attention.scale", 0.3f32);
                keys.own("logit_scale", 0.15f32);
                keys.own("rope.scaling.finetuned", false);
            }
        }
    }

    fn windows_by_layer(&self, keys: &mut Keys<'_>) {
        let windowed: Vec<bool> = (0..self.n_layer).map(|layer| !self.is_full(layer)).collect();
        keys.own("attention.sliding_window_pattern", Value::from(windowed.as_slice()));
        keys.own("attention.sliding_window", WINDOW);
    }

    fn heads_by_layer(&self, keys: &mut Keys<'_>) {
        let heads: Vec<u32> = (0..self.n_layer).map(|l| if self.is_full(l) { self.n_head_kv } else { 0 }).collect();
        keys.own("attention.head_count_kv", Value::from(heads.as_slice()));
    }

    fn recurrent_keys(&self, keys: &mut Keys<'_>, inner: u32, groups: u32) {
        for (key, value) in [
            ("conv_kernel", KERNEL),
            ("inner_size", inner),
            ("state_size", STATE),
            ("time_step_rank", HEADS_V),
            ("group_count", groups),
        ] {
            keys.own(&format!("ssm.{key}"), value);
        }
    }
}

impl List<'_> {
    /// Tensors outside of the layers.
    pub(crate) fn family(&mut self) {
        let (n_embd, n_vocab, n_layer) = (self.spec.n_embd, self.spec.n_vocab, self.spec.n_layer);
        if self.spec.family == Family::Gemma3n {
            for name in ["altup_proj", "altup_unembd_proj"] {
                self.add(&format!("{name}.weight"), &[n_embd, n_embd, PARTS - 1], Content::Normal(0.12));
            }
        }
        if matches!(self.spec.family, Family::Gemma3n | Family::Gemma4) {
            let all = PER_LAYER * n_layer;
            self.add("per_layer_token_embd.weight", &[all, n_vocab], Content::Normal(0.3));
            self.matrix("per_layer_model_proj.weight", n_embd, all);
            self.add("per_layer_proj_norm.weight", &[PER_LAYER], Content::Norm);
        }
    }

    pub(crate) fn family_layer(&mut self, layer: u32) {
        let blk = format!("blk.{layer}");
        let full = self.spec.is_full(layer);
        self.norms(&blk);
        if self.spec.family == Family::NemotronH {
            return match layer {
                1 => self.ungated_experts(&blk),
                2 => self.attention(&blk, layer),
                _ => self.mamba(&blk),
            };
        }
        match self.spec.family {
            Family::DeepSeek2 => self.latent(&blk),
            Family::Lfm2 if !full => self.short_conv(&blk),
            Family::Qwen35 if !full => self.delta_net(&blk),
            Family::GraniteHybrid if !full => self.mamba(&blk),
            _ => self.attention(&blk, layer),
        }
        match self.spec.family {
            Family::DeepSeek2 if layer == 0 => self.dense(&blk, self.spec.n_ff),
            Family::Gemma4Experts => self.gemma_experts(&blk),
            Family::Gemma4 => {
                self.dense(&blk, self.spec.n_ff);
                self.gemma_per_layer(&blk);
                self.add(&format!("{blk}.layer_output_scale.weight"), &[1], Content::Norm);
            }
            Family::Gemma3n => {
                self.dense(&blk, self.spec.n_ff);
                self.gemma_per_layer(&blk);
                self.gemma_streams(&blk);
            }
            _ => self.feed_forward(&blk),
        }
        if let (Family::GptOss | Family::DeepSeek2, Some(experts)) = (self.spec.family, self.spec.experts) {
            self.expert_extras(&blk, layer, experts);
        }
    }

    fn norms(&mut self, blk: &str) {
        let names: &[&str] = match self.spec.family {
            Family::Gemma2 | Family::Gemma3n | Family::Gemma4 | Family::Gemma4Experts => {
                &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
            }
            Family::GptOss | Family::Qwen35 => &["attn_norm", "post_attention_norm"],
            Family::CommandR | Family::NemotronH => &["attn_norm"],
            _ => &["attn_norm", "ffn_norm"],
        };
        for name in names {
            self.add(&format!("{blk}.{name}.weight"), &[self.spec.n_embd], Content::Norm);
        }
    }

    fn attention(&mut self, blk: &str, layer: u32) {
        let spec = self.spec;
        let (family, n_embd, full) = (spec.family, spec.n_embd, spec.is_full(layer));
        let gemma4 = matches!(family, Family::Gemma4 | Family::Gemma4Experts);
        let dim = if gemma4 && !full { spec.head_dim / 2 } else { spec.head_dim };
        let gates = if family == Family::Qwen35 { 2 } else { 1 };
        let mut parts = vec![("attn_q", spec.n_head * dim * gates)];
        if spec.own_cache(layer) {
            parts.push(("attn_k", spec.n_head_kv * dim));
            // Layers that see everything take their values from the keys in the larger model.
            if !(family == Family::Gemma4Experts && full) {
                parts.push(("attn_v", spec.n_head_kv * dim));
            }
        }
        for (part, width) in parts {
            self.matrix(&format!("{blk}.{part}.weight"), n_embd, width);
            if family == Family::GptOss {
                self.add(&format!("{blk}.{part}.bias"), &[width], Content::Normal(0.2));
            }
        }
        self.matrix(&format!("{blk}.attn_output.weight"), spec.n_head * dim, n_embd);
        if gemma4 || matches!(family, Family::Gemma3n | Family::Qwen35 | Family::Lfm2) {
            self.add(&format!("{blk}.attn_q_norm.weight"), &[dim], Content::Norm);
            if spec.own_cache(layer) {
                self.add(&format!("{blk}.attn_k_norm.weight"), &[dim], Content::Norm);
            }
        }
        if family == Family::GptOss {
            self.add(&format!("{blk}.attn_sinks.weight"), &[spec.n_head], Content::Normal(1.0));
        }
    }

    fn latent(&mut self, blk: &str) {
        let (n_embd, heads, dim) = (self.spec.n_embd, self.spec.n_head, self.spec.head_dim);
        self.matrix(&format!("{blk}.attn_q_a.weight"), n_embd, Q_RANK);
        self.add(&format!("{blk}.attn_q_a_norm.weight"), &[Q_RANK], Content::Norm);
        self.matrix(&format!("{blk}.attn_q_b.weight"), Q_RANK, heads * (dim + ROPE));
        self.matrix(&format!("{blk}.attn_kv_a_mqa.weight"), n_embd, RANK + ROPE);
        self.add(&format!("{blk}.attn_kv_a_norm.weight"), &[RANK], Content::Norm);
        self.add(&format!("{blk}.attn_k_b.weight"), &[dim, RANK, heads], Content::Normal(0.18));
        self.add(&format!("{blk}.attn_v_b.weight"), &[RANK, dim, heads], Content::Normal(0.18));
        self.matrix(&format!("{blk}.attn_output.weight"), heads * dim, n_embd);
    }

    fn short_conv(&mut self, blk: &str) {
        let n_embd = self.spec.n_embd;
        self.add(&format!("{blk}.shortconv.conv.weight"), &[KERNEL, n_embd], Content::Normal(0.5));
        self.matrix(&format!("{blk}.shortconv.in_proj.weight"), n_embd, 3 * n_embd);
        self.matrix(&format!("{blk}.shortconv.out_proj.weight"), n_embd, n_embd);
    }

    fn delta_net(&mut self, blk: &str) {
        let (n_embd, values) = (self.spec.n_embd, HEADS_V * STATE);
        let channels = 2 * HEADS_K * STATE + values;
        self.matrix(&format!("{blk}.attn_qkv.weight"), n_embd, channels);
        self.matrix(&format!("{blk}.attn_gate.weight"), n_embd, values);
        if self.spec.arch == "qwen3next" {
            self.matrix(&format!("{blk}.ssm_ba.weight"), n_embd, 2 * HEADS_V);
        } else {
            self.matrix(&format!("{blk}.ssm_beta.weight"), n_embd, HEADS_V);
            self.matrix(&format!("{blk}.ssm_alpha.weight"), n_embd, HEADS_V);
        }
        self.add(&format!("{blk}.ssm_norm.weight"), &[STATE], Content::Norm);
        self.recurrent(blk, channels, values);
    }

    fn mamba(&mut self, blk: &str) {
        let (n_embd, values, groups) = (self.spec.n_embd, HEADS_V * STATE, self.spec.groups());
        let channels = values + 2 * groups * STATE;
        self.matrix(&format!("{blk}.ssm_in.weight"), n_embd, values + channels + HEADS_V);
        self.add(&format!("{blk}.ssm_conv1d.bias"), &[channels], Content::Normal(0.2));
        self.add(&format!("{blk}.ssm_d"), &[1, HEADS_V], Content::Norm);
        self.add(&format!("{blk}.ssm_norm.weight"), &[values / groups, groups], Content::Norm);
        self.recurrent(blk, channels, values);
    }

    fn recurrent(&mut self, blk: &str, channels: u32, values: u32) {
        let by_head: &[u32] = if self.spec.family == Family::Qwen35 { &[HEADS_V] } else { &[1, HEADS_V] };
        self.add(&format!("{blk}.ssm_conv1d.weight"), &[KERNEL, channels], Content::Normal(0.5));
        self.add(&format!("{blk}.ssm_dt.bias"), &[HEADS_V], Content::Normal(1.0));
        self.add(&format!("{blk}.ssm_a"), by_head, Content::Decay);
        self.matrix(&format!("{blk}.ssm_out.weight"), values, self.spec.n_embd);
    }

    fn ungated_experts(&mut self, blk: &str) {
        let Some(experts) = self.spec.experts else { return };
        let (n_embd, n_ff, count) = (self.spec.n_embd, experts.n_ff, experts.count);
        self.matrix(&format!("{blk}.ffn_gate_inp.weight"), n_embd, count);
        self.add(&format!("{blk}.exp_probs_b.bias"), &[count], Content::Normal(0.2));
        self.matrix(&format!("{blk}.ffn_latent_down.weight"), n_embd, LATENT);
        self.matrix(&format!("{blk}.ffn_latent_up.weight"), LATENT, n_embd);
        self.add(&format!("{blk}.ffn_up_exps.weight"), &[LATENT, n_ff, count], Content::Normal(0.15));
        self.add(&format!("{blk}.ffn_down_exps.weight"), &[n_ff, LATENT, count], Content::Normal(0.18));
        self.matrix(&format!("{blk}.ffn_up_shexp.weight"), n_embd, n_ff);
        self.matrix(&format!("{blk}.ffn_down_shexp.weight"), n_ff, n_embd);
    }

    fn dense(&mut self, blk: &str, n_ff: u32) {
        for (part, input, output) in
            [("gate", self.spec.n_embd, n_ff), ("up", self.spec.n_embd, n_ff), ("down", n_ff, self.spec.n_embd)]
        {
            self.matrix(&format!("{blk}.ffn_{part}.weight"), input, output);
        }
    }

    fn gemma_per_layer(&mut self, blk: &str) {
        let n_embd = self.spec.n_embd;
        self.matrix(&format!("{blk}.inp_gate.weight"), n_embd, PER_LAYER);
        self.matrix(&format!("{blk}.proj.weight"), PER_LAYER, n_embd);
        self.add(&format!("{blk}.post_norm.weight"), &[n_embd], Content::Norm);
    }

    fn gemma_streams(&mut self, blk: &str) {
        let n_embd = self.spec.n_embd;
        // The router sees its input divided by its length: tanh needs something to do.
        self.add(&format!("{blk}.altup_router.weight"), &[n_embd, PARTS], Content::Normal(8.0));
        self.add(&format!("{blk}.altup_predict_coef.weight"), &[PARTS, PARTS * PARTS], Content::Normal(0.3));
        self.add(&format!("{blk}.altup_correct_coef.weight"), &[PARTS, PARTS], Content::Normal(0.3));
        for norm in ["altup_router_norm", "altup_correct_scale", "laurel_post_norm"] {
            self.add(&format!("{blk}.{norm}.weight"), &[n_embd], Content::Norm);
        }
        self.matrix(&format!("{blk}.laurel_l.weight"), n_embd, LOW_RANK);
        self.matrix(&format!("{blk}.laurel_r.weight"), LOW_RANK, n_embd);
    }

    fn gemma_experts(&mut self, blk: &str) {
        let Some(experts) = self.spec.experts else { return };
        let n_embd = self.spec.n_embd;
        self.dense(blk, self.spec.n_ff);
        self.matrix(&format!("{blk}.ffn_gate_inp.weight"), n_embd, experts.count);
        self.add(&format!("{blk}.ffn_gate_inp.scale"), &[n_embd], Content::Norm);
        for norm in ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"] {
            self.add(&format!("{blk}.{norm}.weight"), &[n_embd], Content::Norm);
        }
        let shape = [n_embd, 2 * experts.n_ff, experts.count];
        self.add(&format!("{blk}.ffn_gate_up_exps.weight"), &shape, Content::Normal(0.12));
        self.add(&format!("{blk}.ffn_down_exps.weight"), &[experts.n_ff, n_embd, experts.count], Content::Normal(0.18));
        self.add(&format!("{blk}.ffn_down_exps.scale"), &[experts.count], Content::Norm);
    }

    fn expert_extras(&mut self, blk: &str, layer: u32, experts: Experts) {
        let n_embd = self.spec.n_embd;
        if self.spec.family == Family::GptOss {
            self.add(&format!("{blk}.ffn_gate_inp.bias"), &[experts.count], Content::Normal(0.2));
            for (part, width) in [("gate", experts.n_ff), ("up", experts.n_ff), ("down", n_embd)] {
                self.add(&format!("{blk}.ffn_{part}_exps.bias"), &[width, experts.count], Content::Normal(0.2));
            }
        } else if layer > 0 {
            self.add(&format!("{blk}.exp_probs_b.bias"), &[experts.count], Content::Normal(0.2));
            for (part, input, output) in
                [("gate", n_embd, experts.n_ff), ("up", n_embd, experts.n_ff), ("down", experts.n_ff, n_embd)]
            {
                self.matrix(&format!("{blk}.ffn_{part}_shexp.weight"), input, output);
            }
        }
    }
}

//! Which type a tensor gets. The choices are llama.cpp's, found there by measuring perplexities.

use crate::Mix;
use crate::shape::{fitting, may_change};
use gguf::{Gguf, TensorInfo};
use quant::GgmlType::{self, *};

/// What the rules ask of a model and of the call.
pub(crate) struct Rules {
    mix: Mix,
    importance: bool,
    layers: u64,
    experts: u64,
    /// Query heads that share one key and value head.
    sharing: u64,
    has_output: bool,
    /// The layers that have a matrix for values, in order.
    value_layers: Vec<u64>,
    /// How many layers have values, in whatever matrix.
    values: u64,
}

/// What a tensor is for, with what its rule depends on.
enum Role {
    Output,
    Embedding,
    /// The how-manieth of the matrices for values.
    Value(u64),
    Key,
    Query,
    QueryKeyValue,
    AttentionOutput,
    /// Its layer.
    Down(u64),
    /// Gate or up; its layer.
    Up(u64),
    Other,
}

impl Rules {
    pub fn new(gguf: &Gguf, mix: Mix, importance: bool) -> Rules {
        let architecture = gguf.architecture().unwrap_or_default();
        let number = |name: &str| {
            let key = format!("{architecture}.{name}");
            let first = || gguf.metadata.array(&key)?.get(0)?.as_u64();
            // No model has more; products of hostile numbers must not overflow.
            gguf.metadata.u64(&key).or_else(first).unwrap_or(0).min(u32::MAX.into())
        };
        let heads = number("attention.head_count");
        let names = || gguf.tensors.iter().map(|tensor| tensor.name.as_str());
        let has = |kinds: &[&str], name: &str| kinds.iter().any(|kind| name.contains(kind));
        let mut value_layers: Vec<u64> = names().filter(|name| has(&["attn_v.weight"], name)).map(layer).collect();
        value_layers.sort_unstable();
        let kinds = ["attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"];
        Rules {
            mix,
            importance,
            layers: number("block_count"),
            experts: number("expert_count"),
            sharing: heads.checked_div(number("attention.head_count_kv")).unwrap_or(0),
            has_output: names().any(|name| name == "output.weight"),
            value_layers,
            values: names().filter(|name| has(&kinds, name)).count() as u64,
        }
    }

    /// The type that the tensor gets; its own, if it stays as it is.
    pub fn target(&self, tensor: &TensorInfo) -> GgmlType {
        if !may_change(tensor) {
            return tensor.ty;
        }
        let base = self.mix.base();
        let role = self.role(&tensor.name);
        let wanted = match self.mix {
            _ if base.block_size() == 1 => base,
            Mix::MXFP4 => match role {
                Role::Output => Q8_0,
                _ if tensor.shape.get(2).is_some_and(|&matrices| matrices > 1) => MXFP4,
                _ => Q8_0,
            },
            _ => match role {
                Role::Output => self.output(tensor.shape[0]),
                Role::Embedding => self.embedding(),
                role if self.two_bits() => self.two_bit(role),
                Role::Value(rank) => self.value(rank),
                Role::Key | Role::Query => self.key_or_query(matches!(role, Role::Key)),
                Role::Down(layer) => self.down(layer),
                Role::AttentionOutput => self.attention_output(),
                Role::QueryKeyValue => self.query_key_value(),
                Role::Up(layer) if self.mix == Mix::IQ3_XS && !self.first(layer) && !self.last(layer) => IQ3_XXS,
                Role::Up(_) | Role::Other => base,
            },
        };
        fitting(wanted, tensor.shape[0])
    }

    fn role(&self, name: &str) -> Role {
        let has = |part: &str| name.contains(part);
        match name {
            "output.weight" => Role::Output,
            // Then it is the output matrix too.
            "token_embd.weight" if !self.has_output => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if has("attn_v.weight") => {
                Role::Value(self.value_layers.partition_point(|&other| other < layer(name)) as u64)
            }
            _ if has("attn_k.weight") => Role::Key,
            _ if has("attn_q.weight") => Role::Query,
            _ if has("attn_qkv.weight") => Role::QueryKeyValue,
            _ if has("attn_output.weight") => Role::AttentionOutput,
            _ if has("ffn_down") => Role::Down(layer(name)),
            _ if has("ffn_gate") || has("ffn_up") => Role::Up(layer(name)),
            _ => Role::Other,
        }
    }

    /// At most two bits, about.
    fn two_bits(&self) -> bool {
        self.one_bit() || matches!(self.mix, Mix::IQ2_XXS | Mix::IQ2_XS | Mix::IQ2_S | Mix::IQ2_M)
    }

    fn one_bit(&self) -> bool {
        matches!(self.mix, Mix::IQ1_S | Mix::IQ1_M)
    }

    /// The larger two of the 2-bit mixes.
    fn two_bits_large(&self) -> bool {
        matches!(self.mix, Mix::IQ2_S | Mix::IQ2_M)
    }

    /// In the first eighth of the layers.
    fn first(&self, layer: u64) -> bool {
        layer < self.layers / 8
    }

    /// In the last eighth of the layers.
    fn last(&self, layer: u64) -> bool {
        layer >= 7 * self.layers / 8
    }

    /// Eight large experts share the attention, which is then a small part of the file.
    fn eight_experts(&self) -> bool {
        self.experts == 8
    }

    fn output(&self, row: u64) -> GgmlType {
        let base = self.mix.base();
        match self.mix {
            _ if row % base.block_size() as u64 != 0 => Q8_0,
            _ if self.two_bits() || self.mix == Mix::IQ3_XXS => Q5_K,
            Mix::Q8_0 => Q8_0,
            _ => Q6_K,
        }
    }

    fn embedding(&self) -> GgmlType {
        match self.mix {
            Mix::IQ1_S | Mix::IQ1_M | Mix::IQ2_XXS | Mix::IQ2_XS => Q2_K,
            Mix::IQ2_S | Mix::IQ2_M | Mix::IQ3_XXS => IQ3_S,
            Mix::TQ1_0 | Mix::TQ2_0 => Q4_K,
            _ => self.mix.base(),
        }
    }

    fn two_bit(&self, role: Role) -> GgmlType {
        let better = if self.two_bits_large() { IQ3_S } else { Q2_K };
        match role {
            Role::Value(_) if self.sharing >= 4 || self.experts >= 4 => Q4_K,
            Role::Value(_) => better,
            Role::Key if self.eight_experts() => Q4_K,
            Role::Down(layer) if self.first(layer) => better,
            Role::AttentionOutput if self.eight_experts() => Q5_K,
            Role::AttentionOutput if self.two_bits_large() => IQ3_S,
            Role::AttentionOutput if self.one_bit() => IQ2_XXS,
            _ => self.mix.base(),
        }
    }

    fn value(&self, rank: u64) -> GgmlType {
        if self.eight_experts() {
            return Q8_0;
        }
        let shared = self.sharing >= 4;
        let ty = match self.mix {
            Mix::Q2_K if shared => Q4_K,
            Mix::Q2_K => Q3_K,
            Mix::Q2_K_S | Mix::IQ3_XXS | Mix::IQ3_XS | Mix::IQ3_S if shared => Q4_K,
            Mix::IQ3_XXS if !self.importance => IQ3_S,
            Mix::IQ3_M => Q4_K,
            Mix::Q3_K_M => {
                if rank < 2 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            Mix::Q3_K_L => Q5_K,
            Mix::IQ4_NL | Mix::IQ4_XS if shared => Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more_bits(rank, self.values) => Q6_K,
            Mix::Q4_K_S if rank < 4 => Q5_K,
            _ => self.mix.base(),
        };
        // 80 layers with shared values are models of 70 billion: eight heads share a small matrix, so bits are cheap.
        match ty {
            Q3_K | Q4_K if self.layers == 80 && self.sharing > 1 => Q5_K,
            ty => ty,
        }
    }

    fn key_or_query(&self, key: bool) -> GgmlType {
        match self.mix {
            _ if key && self.eight_experts() => Q8_0,
            Mix::IQ3_XS => IQ3_XXS,
            Mix::IQ3_XXS => IQ2_S,
            _ => self.mix.base(),
        }
    }

    fn down(&self, layer: u64) -> GgmlType {
        let first = self.first(layer);
        let more = more_bits(layer, self.layers);
        match self.mix {
            Mix::Q2_K => Q3_K,
            Mix::Q2_K_S if first => Q4_K,
            Mix::IQ3_XXS if !self.importance => {
                if first {
                    Q4_K
                } else {
                    Q3_K
                }
            }
            Mix::Q3_K_M => {
                if layer < self.layers / 16 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            Mix::IQ3_M if first || (self.eight_experts() && more) => Q4_K,
            Mix::Q3_K_L => Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more => Q6_K,
            Mix::IQ4_NL | Mix::IQ4_XS if first && !self.importance => Q5_K,
            Mix::Q4_K_S if first => Q5_K,
            // Importance can mislead these two in the first layers.
            Mix::Q4_0 if first && self.importance => Q4_1,
            Mix::Q5_0 if first && self.importance => Q5_1,
            _ => self.mix.base(),
        }
    }

    fn attention_output(&self) -> GgmlType {
        use Mix as M;
        if self.eight_experts() {
            return match self.mix {
                M::Q3_K_L | M::Q2_K_S => self.mix.base(),
                _ if matches!(self.mix.base(), Q2_K | Q3_K | Q4_K | IQ3_XXS | IQ3_S | IQ4_NL | IQ4_XS) => Q5_K,
                _ => self.mix.base(),
            };
        }
        match self.mix {
            M::Q2_K => Q3_K,
            M::IQ3_XXS => IQ3_S,
            M::Q3_K_M | M::IQ3_M => Q4_K,
            M::Q3_K_L => Q5_K,
            _ => self.mix.base(),
        }
    }

    fn query_key_value(&self) -> GgmlType {
        match self.mix {
            Mix::Q3_K_M | Mix::Q3_K_L | Mix::IQ3_M => Q4_K,
            Mix::Q4_K_M => Q5_K,
            Mix::Q5_K_M => Q6_K,
            _ => self.mix.base(),
        }
    }
}

/// The first and the last eighth, and every third between.
fn more_bits(index: u64, count: u64) -> bool {
    let eighth = count / 8;
    index < eighth || index >= 7 * count / 8 || (index - eighth) % 3 == 2
}

/// `blk.LAYER.`; 0 where there is none.
fn layer(name: &str) -> u64 {
    name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()).and_then(|no| no.parse().ok()).unwrap_or(0)
}

//! Which tensors a model has, and what is in them. Names and shapes as llama.cpp's converter gives them.

use quant::GgmlType;

use crate::random::Random;
use crate::{Family, ModelSpec};

/// How a tensor's elements are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content {
    /// Mean 0 with this deviation.
    Normal(f32),
    /// Mean 1, deviation 0.1: weights of a norm.
    Norm,
    /// From -1.5 to -0.5, about: decays.
    Decay,
    /// From 1 to 8 over the row: frequency factors.
    Factors,
}

/// A tensor to be written: shape with the row length first.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) ty: GgmlType,
    pub(crate) shape: Vec<u64>,
    pub(crate) content: Content,
}

impl Tensor {
    /// The packed rows.
    pub(crate) fn data(&self, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed, &self.name);
        let row_len = self.shape[0] as usize;
        let rows: u64 = self.shape[1..].iter().product();
        let row_bytes = self.ty.row_bytes(row_len).expect("`List::add` gives whole blocks");
        let mut data = vec![0; row_bytes * rows as usize];
        let mut row = vec![0f32; row_len];
        for packed in data.chunks_exact_mut(row_bytes) {
            for (i, x) in row.iter_mut().enumerate() {
                *x = match self.content {
                    Content::Normal(deviation) => deviation * random.normal(),
                    Content::Norm => 1.0 + 0.1 * random.normal(),
                    Content::Decay => -1.0 - 0.2 * random.normal(),
                    Content::Factors => 1.0 + 7.0 * i as f32 / (row_len - 1).max(1) as f32,
                };
            }
            quant::quantize_row(self.ty, &row, None, packed).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
        data
    }
}

/// The tensors of a model, in file order.
pub(crate) fn tensors(spec: &ModelSpec) -> Vec<Tensor> {
    let mut list = List { spec, tensors: Vec::new() };
    let (n_embd, n_vocab) = (spec.n_embd, spec.n_vocab);
    list.add("token_embd.weight", &[n_embd, n_vocab], Content::Normal(if spec.tied { 0.3 } else { 1.0 }));
    list.add("output_norm.weight", &[n_embd], Content::Norm);
    if !spec.tied {
        list.add("output.weight", &[n_embd, n_vocab], Content::Normal(2.5 / (n_embd as f32).sqrt()));
    }
    if spec.rope_freqs {
        list.add("rope_freqs.weight", &[spec.head_dim / 2], Content::Factors);
    }
    list.family();
    for layer in 0..spec.n_layer {
        match spec.family {
            Family::Standard => list.layer(&format!("blk.{layer}")),
            _ => list.family_layer(layer),
        }
    }
    list.tensors
}

pub(crate) struct List<'a> {
    pub(crate) spec: &'a ModelSpec,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    pub(crate) fn add(&mut self, name: &str, shape: &[u32], content: Content) {
        let whole_blocks = u64::from(shape[0]).is_multiple_of(self.spec.ty.block_size() as u64);
        // Vectors and routers stay F32, as in the files of the field.
        let matrix = shape.len() > 1 && !name.ends_with("ffn_gate_inp.weight");
        let ty = if matrix && whole_blocks { self.spec.ty } else { GgmlType::F32 };
        let shape = shape.iter().map(|&n| n.into()).collect();
        self.tensors.push(Tensor { name: name.into(), ty, shape, content });
    }

    /// A weight matrix from `input` to `output` elements, scaled so that it keeps the size of its input.
    pub(crate) fn matrix(&mut self, name: &str, input: u32, output: u32) {
        self.add(name, &[input, output], Content::Normal(1.0 / (input as f32).sqrt()));
    }

    fn layer(&mut self, blk: &str) {
        let spec = self.spec;
        let (n_embd, q, kv) = (spec.n_embd, spec.n_head * spec.head_dim, spec.n_head_kv * spec.head_dim);
        self.add(&format!("{blk}.attn_norm.weight"), &[n_embd], Content::Norm);
        self.add(&format!("{blk}.ffn_norm.weight"), &[n_embd], Content::Norm);
        for (part, width) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
            self.matrix(&format!("{blk}.{part}.weight"), n_embd, width);
            if spec.qkv_bias {
                self.add(&format!("{blk}.{part}.bias"), &[width], Content::Normal(0.2));
            }
        }
        self.matrix(&format!("{blk}.attn_output.weight"), q, n_embd);
        if spec.output_bias {
            self.add(&format!("{blk}.attn_output.bias"), &[n_embd], Content::Normal(0.2));
        }
        if spec.qk_norm {
            self.add(&format!("{blk}.attn_q_norm.weight"), &[spec.head_dim], Content::Norm);
            self.add(&format!("{blk}.attn_k_norm.weight"), &[spec.head_dim], Content::Norm);
        }
        self.feed_forward(blk);
    }

    pub(crate) fn feed_forward(&mut self, blk: &str) {
        let n_embd = self.spec.n_embd;
        let Some(experts) = self.spec.experts else {
            let n_ff = self.spec.n_ff;
            self.matrix(&format!("{blk}.ffn_gate.weight"), n_embd, n_ff);
            self.matrix(&format!("{blk}.ffn_up.weight"), n_embd, n_ff);
            self.matrix(&format!("{blk}.ffn_down.weight"), n_ff, n_embd);
            return;
        };
        self.matrix(&format!("{blk}.ffn_gate_inp.weight"), n_embd, experts.count);
        for (part, input, output) in
            [("gate", n_embd, experts.n_ff), ("down", experts.n_ff, n_embd), ("up", n_embd, experts.n_ff)]
        {
            let name = format!("{blk}.ffn_{part}_exps.weight");
            self.add(&name, &[input, output, experts.count], Content::Normal(1.0 / (input as f32).sqrt()));
        }
    }
}

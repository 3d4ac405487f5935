//! A spec as GGUF: metadata, header, files, splits.

use gguf::{GgufWriter, Value};
use quant::GgmlType;

use crate::tensors::{Tensor, tensors};
use crate::{ModelSpec, RopeScaling, vocabulary};

const WRITES: &str = "the spec describes a valid file, and writing to memory does not fail";

impl ModelSpec {
    /// The model in one file.
    pub fn build(&self) -> Vec<u8> {
        let tensors = tensors(self);
        fill(&self.writer(&self.metadata(), &tensors), &tensors, self.seed)
    }

    /// The first bytes of the file, up to the tensor data, and the length that the whole file would have.
    pub fn header(&self) -> (Vec<u8>, u64) {
        let writer = self.writer(&self.metadata(), &tensors(self));
        (writer.header().expect(WRITES), writer.file_len().expect(WRITES))
    }

    /// The model in `parts` files (at most one per tensor), as `gguf-split` divides it: the first has all metadata.
    /// [`gguf::split_file_names`] has the names.
    pub fn build_split(&self, parts: usize) -> Vec<Vec<u8>> {
        let tensors = tensors(self);
        assert!((1..=tensors.len()).contains(&parts), "{} tensors cannot fill {parts} files", tensors.len());
        let mut files = Vec::new();
        let mut rest = tensors.as_slice();
        for no in 0..parts {
            let (mine, others) = rest.split_at(rest.len() / (parts - no));
            rest = others;
            let mut metadata = if no == 0 { self.metadata() } else { Vec::new() };
            metadata.push(("split.no".into(), (no as u16).into()));
            metadata.push(("split.count".into(), (parts as u16).into()));
            metadata.push(("split.tensors.count".into(), (tensors.len() as i32).into()));
            files.push(fill(&self.writer(&metadata, mine), mine, self.seed));
        }
        files
    }

    pub(crate) fn writer(&self, metadata: &[(String, Value)], tensors: &[Tensor]) -> GgufWriter {
        let mut writer = GgufWriter::new();
        for (key, value) in metadata {
            writer.set(key, value.clone()).expect(WRITES);
        }
        for tensor in tensors {
            writer.tensor(&tensor.name, tensor.ty, &tensor.shape).expect(WRITES);
        }
        writer
    }

    pub(crate) fn metadata(&self) -> Vec<(String, Value)> {
        let mut keys = Keys { arch: &self.arch, entries: Vec::new() };
        keys.add("general.architecture", self.arch.as_str());
        keys.add("general.name", format!("tiny {} (seed {})", self.arch, self.seed));
        if let Some(file_type) = file_type(self.ty) {
            keys.add("general.file_type", file_type);
        }
        keys.add("general.quantization_version", 2u32);
        keys.own("context_length", self.n_ctx);
        keys.own("embedding_length", self.n_embd);
        keys.own("block_count", self.n_layer);
        keys.own("feed_forward_length", self.n_ff);
        keys.own("attention.head_count", self.n_head);
        keys.own("attention.head_count_kv", self.n_head_kv);
        keys.own("attention.layer_norm_rms_epsilon", self.norm_eps);
        if self.head_dim * self.n_head != self.n_embd {
            keys.own("attention.key_length", self.head_dim);
            keys.own("attention.value_length", self.head_dim);
        }
        keys.own("rope.freq_base", self.rope_freq_base);
        keys.own("rope.dimension_count", self.head_dim);
        keys.own("vocab_size", self.n_vocab);
        match self.rope_scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => {
                keys.own("rope.scaling.type", "linear");
                keys.own("rope.scaling.factor", factor);
            }
            Some(RopeScaling::Yarn { factor, original_context }) => {
                keys.own("rope.scaling.type", "yarn");
                keys.own("rope.scaling.factor", factor);
                keys.own("rope.scaling.original_context_length", original_context);
            }
        }
        if let Some(experts) = self.experts {
            keys.own("expert_count", experts.count);
            keys.own("expert_used_count", experts.used);
            if experts.n_ff != self.n_ff {
                keys.own("expert_feed_forward_length", experts.n_ff);
            }
        }
        self.family_keys(&mut keys);
        let mut entries = keys.entries;
        entries.extend(vocabulary::metadata(self.vocabulary, self.n_vocab));
        entries
    }
}

pub(crate) struct Keys<'a> {
    arch: &'a str,
    entries: Vec<(String, Value)>,
}

impl Keys<'_> {
    fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.push((key.into(), value.into()));
    }

    /// A key of the architecture; a later value replaces an earlier one.
    pub(crate) fn own(&mut self, key: &str, value: impl Into<Value>) {
        let key = format!("{}.{key}", self.arch);
        self.entries.retain(|(known, _)| *known != key);
        self.entries.push((key, value.into()));
    }
}

fn fill(writer: &GgufWriter, tensors: &[Tensor], seed: u64) -> Vec<u8> {
    let mut out = writer.start(Vec::new()).expect(WRITES);
    for tensor in tensors {
        out.write(&tensor.data(seed)).expect(WRITES);
    }
    out.finish().expect(WRITES)
}

/// `general.file_type`, llama.cpp's `llama_ftype`, where a type has one of its own name.
fn file_type(ty: GgmlType) -> Option<u32> {
    Some(match ty {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q5_1 => 9,
        GgmlType::Q2_K => 10,
        GgmlType::Q3_K => 12,
        GgmlType::Q4_K => 15,
        GgmlType::Q5_K => 17,
        GgmlType::Q6_K => 18,
        GgmlType::BF16 => 32,
        _ => return None,
    })
}

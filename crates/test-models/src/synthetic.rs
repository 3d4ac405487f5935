//! Files with the shapes of real models, for measuring.

use crate::ModelSpec;
use crate::tensors::{Content, Tensor, tensors};
use gguf::GgufError;
use quant::GgmlType;
use std::io::Write;

/// Weights that are drawn of a matrix; after them it repeats.
const DRAWN: u64 = 1 << 18;

/// Rows that were drawn for matrices of a type, a row length and a content.
#[derive(Default)]
struct Drawn(Vec<(GgmlType, u64, Content, Vec<u8>)>);

impl ModelSpec {
    /// Writes a file as a Q4_K_M quantization of this shape would be (with `ty` Q4_K), as fast as `out` takes it: speed and
    /// memory depend on shapes and types, not on values, so large matrices repeat their first rows.
    ///
    /// # Errors
    /// [`GgufError::Io`].
    pub fn write_synthetic<W: Write>(&self, out: W) -> Result<W, GgufError> {
        let tensors = self.mixed();
        let mut out = self.writer(&self.metadata(), &tensors).start(out)?;
        let mut drawn = Drawn::default();
        for tensor in &tensors {
            let rows: u64 = tensor.shape[1..].iter().product();
            if tensor.shape[0] * rows <= DRAWN {
                out.write(&tensor.data(self.seed))?;
                continue;
            }
            let pattern = drawn.rows(tensor, rows, self.seed);
            // The pattern is whole rows, and so is what is left at the end.
            let row_bytes = tensor.ty.row_bytes(tensor.shape[0] as usize).unwrap_or_default() as u64;
            let mut left = rows * row_bytes;
            while left > 0 {
                let part = left.min(pattern.len() as u64);
                out.write(&pattern[..part as usize])?;
                left -= part;
            }
        }
        out.finish()
    }

    /// The length of that file in bytes.
    ///
    /// # Errors
    /// The shapes are too large for any file.
    pub fn synthetic_len(&self) -> Result<u64, GgufError> {
        self.writer(&self.metadata(), &self.mixed()).file_len()
    }

    /// The tensors with llama.cpp's mix of types for Q4_K_M: Q6_K for the output and for V and the second matrix of the
    /// feed-forward in the first and the last eighth of the layers and in every third one between.
    fn mixed(&self) -> Vec<Tensor> {
        let mut tensors = tensors(self);
        for tensor in tensors.iter_mut().filter(|tensor| tensor.ty == GgmlType::Q4_K) {
            let layer = tensor.name.split('.').nth(1).and_then(|number| number.parse::<u32>().ok());
            let eighth = self.n_layer / 8;
            let better =
                layer.is_some_and(|layer| layer < eighth || layer >= 7 * self.n_layer / 8 || (layer - eighth) % 3 == 2);
            let part = tensor.name.contains("attn_v.") || tensor.name.contains("ffn_down");
            if (part && better) || tensor.name == "output.weight" {
                tensor.ty = GgmlType::Q6_K;
            }
        }
        tensors
    }
}

impl Drawn {
    fn rows(&mut self, tensor: &Tensor, rows: u64, seed: u64) -> &[u8] {
        let key = (tensor.ty, tensor.shape[0], tensor.content);
        if let Some(known) = self.0.iter().position(|(ty, len, content, _)| (*ty, *len, *content) == key) {
            return &self.0[known].3;
        }
        let some = Tensor {
            name: tensor.name.clone(),
            ty: tensor.ty,
            shape: vec![tensor.shape[0], (DRAWN / tensor.shape[0]).clamp(1, rows)],
            content: tensor.content,
        };
        self.0.push((key.0, key.1, key.2, some.data(seed)));
        &self.0[self.0.len() - 1].3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Experts;

    #[test]
    fn large_shapes_have_the_types_of_a_real_file_and_repeat() {
        let shape = ModelSpec::llama3_8b(GgmlType::Q4_K);
        // Meta-Llama-3.1-8B Q4_K_M has 4.92 GB.
        let len = shape.synthetic_len().unwrap();
        assert!((4_900_000_000..4_940_000_000).contains(&len), "{len}");
        let experts = Some(Experts { count: 8, used: 2, n_ff: 256 });
        let spec =
            ModelSpec { n_embd: 512, n_layer: 8, n_vocab: 1000, experts, ty: GgmlType::Q4_K, ..ModelSpec::qwen3moe() };
        let file = spec.write_synthetic(Vec::new()).unwrap();
        assert_eq!(file.len() as u64, spec.synthetic_len().unwrap());
        let gguf = gguf::Gguf::parse(&file, file.len() as u64).unwrap();
        let ty = |name: &str| gguf.tensor(name).unwrap().ty;
        assert_eq!((ty("output.weight"), ty("token_embd.weight")), (GgmlType::Q6_K, GgmlType::Q4_K));
        let better: Vec<bool> =
            (0..8).map(|layer| ty(&format!("blk.{layer}.ffn_down_exps.weight")) == GgmlType::Q6_K).collect();
        assert_eq!(better, [true, false, false, true, false, false, true, true]);
        // 8 matrices of 512 x 256, of which two are drawn.
        let experts = gguf.tensor("blk.1.ffn_up_exps.weight").unwrap();
        let data = &file[experts.offset as usize..][..8 * 256 * 288];
        assert_eq!(data[..2 * 256 * 288], data[2 * 256 * 288..4 * 256 * 288]);
        let mut row = vec![0f32; 512];
        quant::dequantize_row(GgmlType::Q4_K, &data[..288], &mut row).unwrap();
        let squares: f32 = row.iter().map(|x| x * x).sum();
        assert!((0.7..1.4).contains(&squares), "a row keeps the size of its input: {squares}");
    }
}

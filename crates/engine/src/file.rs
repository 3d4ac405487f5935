//! The model file as the decoder needs it: tensors as bytes that devices can adopt, embeddings, scalars.

use crate::site::owned;
use backend::{BackendError, HostBytes};
use model::Tensor;
use quant::GgmlType;
use std::sync::Arc;
use weights::ModelFile;

#[derive(Clone)]
pub(crate) struct Weights {
    file: ModelFile,
}

impl Weights {
    pub fn new(file: ModelFile) -> Weights {
        Weights { file }
    }

    pub fn gguf(&self) -> &gguf::Gguf {
        self.file.gguf()
    }

    /// Whether the file is still what was opened.
    pub fn check(&self) -> Result<(), weights::WeightsError> {
        self.file.check()
    }

    /// There is room for all of it.
    pub fn stays(&self) {
        self.file.advise(weights::Pattern::Resident);
    }

    /// The tensor whose bytes in the file begin at this address.
    pub fn tensor_at(&self, address: usize) -> Option<&str> {
        let begins = |index| self.file.tensor_bytes(index).is_ok_and(|bytes| bytes.as_ptr() as usize == address);
        let tensors = &self.file.gguf().tensors;
        (0..tensors.len()).find(|index| begins(*index)).map(|index| tensors[index].name.as_str())
    }

    /// The tensor's bytes as they lie in the file.
    pub fn raw(&self, tensor: &Tensor) -> Result<weights::WeightBytes, BackendError> {
        self.file.tensor_bytes(tensor.index).map_err(|error| invalid(error.to_string()))
    }

    /// The tensor's bytes for a device: the mapping itself, or an f32 copy where devices read f32 and the file has
    /// something else (or f32 at an address that f32 cannot be read from).
    pub fn bytes(&self, tensor: &Tensor) -> Result<HostBytes, BackendError> {
        let raw = self.raw(tensor)?;
        let aligned = raw.as_ptr() as usize % 4 == 0;
        if tensor.as_f32 && tensor.ty != GgmlType::F32 {
            let mut values = vec![0f32; tensor.experts * tensor.rows * tensor.cols];
            quant::dequantize_row(tensor.ty, &raw, &mut values).map_err(|error| invalid(error.to_string()))?;
            return Ok(owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()));
        }
        // Only a file with its own tiny alignment gets here misaligned.
        if aligned { Ok(Arc::new(raw)) } else { Ok(owned(raw.to_vec())) }
    }

    /// Row `token` of the embedding, as f32.
    pub fn embedding(&self, tensor: &Tensor, token: u32, out: &mut [f32]) -> Result<(), BackendError> {
        let raw = self.raw(tensor)?;
        let row = tensor.ty.row_bytes(tensor.cols).ok_or_else(|| invalid("the embedding has no whole rows".into()))?;
        let start = token as usize * row;
        let bytes = raw
            .get(start..start + row)
            .ok_or_else(|| invalid(format!("token {token} is not in the vocabulary of {}", tensor.rows)))?;
        quant::dequantize_row(tensor.ty, bytes, out).map_err(|error| invalid(error.to_string()))
    }

    /// The one value of a scalar tensor.
    pub fn scalar(&self, tensor: &Tensor) -> Result<f32, BackendError> {
        let raw = self.raw(tensor)?;
        let mut value = [0f32];
        quant::dequantize_row(tensor.ty, &raw, &mut value).map_err(|error| invalid(error.to_string()))?;
        Ok(value[0])
    }
}

fn invalid(detail: String) -> BackendError {
    BackendError::Invalid { op: "weights", detail }
}

//! Importance matrices: how strongly each column of a matrix is used, measured by running the model over a text.
//!
//! A file is GGUF with `general.type` "imatrix". Matrix NAME has `NAME.in_sum2`, sums of squared inputs (columns x
//! matrices), and `NAME.counts`, how many inputs were summed for each of the matrices (several for experts).

use crate::QuantizeError;
use gguf::TensorInfo;
use quant::GgmlType;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use weights::{Access, ModelFile};

/// `general.type`
pub(crate) const KIND: &str = "imatrix";
pub(crate) const SUMS: &str = ".in_sum2";
pub(crate) const COUNTS: &str = ".counts";

/// Mean squared inputs of each matrix.
#[derive(Clone, Debug)]
pub struct Imatrix {
    /// The file's name, without its folder.
    pub(crate) file: String,
    /// Pieces of text that were measured.
    pub(crate) chunks: u32,
    /// Matrix after matrix, a value for each column.
    means: HashMap<String, Vec<f32>>,
}

impl Imatrix {
    /// # Errors
    /// The file cannot be read, is of another kind, or holds what no measurement gives.
    pub fn open(path: &Path) -> Result<Imatrix, QuantizeError> {
        let file = ModelFile::open(path, Access::Map)?;
        let gguf = file.gguf();
        let bad = |reason: String| QuantizeError::BadImportance { path: PathBuf::from(path), reason };
        if gguf.metadata.str("general.type") != Some(KIND) {
            return Err(bad("its general.type is another".into()));
        }
        let values = |name: &str| -> Result<Vec<f32>, QuantizeError> {
            let view = file.view(name).filter(|view| view.ty == GgmlType::F32);
            let view = view.ok_or_else(|| bad(format!("{name} is missing or not F32")))?;
            let values: Vec<f32> = view.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            // Sums and counts are both none of these.
            match values.iter().any(|value| !value.is_finite() || *value < 0.0) {
                true => Err(bad(format!("{name} has values that are no sums of squares"))),
                false => Ok(values),
            }
        };
        let mut means = HashMap::new();
        for tensor in &gguf.tensors {
            let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
            let (mut sums, counts) = (values(&tensor.name)?, values(&format!("{name}{COUNTS}"))?);
            // A tensor has at least one value, so neither is empty.
            if sums.len() % counts.len() != 0 {
                return Err(bad(format!("{name} has {} sums for {} counts", sums.len(), counts.len())));
            }
            let columns = sums.len() / counts.len();
            sums.chunks_exact_mut(columns).zip(&counts).for_each(|(sums, count)| average(sums, *count));
            means.insert(name.to_owned(), sums);
        }
        file.check()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let chunks = gguf.metadata.u64("imatrix.chunk_count").and_then(|count| count.try_into().ok()).unwrap_or(0);
        Ok(Imatrix { file: name, chunks, means })
    }

    /// How many matrices were measured.
    pub fn len(&self) -> usize {
        self.means.len()
    }

    pub fn is_empty(&self) -> bool {
        self.means.is_empty()
    }

    /// A value for each column of each of the tensor's matrices; `None` if it was not measured.
    pub(crate) fn of(&self, tensor: &TensorInfo) -> Result<Option<&[f32]>, QuantizeError> {
        let Some(means) = self.means.get(&tensor.name) else { return Ok(None) };
        let (expected, found) = (tensor.shape[0].saturating_mul(matrices(tensor)), means.len() as u64);
        if found != expected {
            return Err(QuantizeError::ImportanceLength { tensor: tensor.name.clone(), expected, found });
        }
        Ok(Some(means))
    }
}

/// How many matrices of `shape[0] x shape[1]` a tensor stacks.
pub(crate) fn matrices(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().skip(2).product()
}

/// A matrix that met no input (an expert that was never chosen) has columns of equal importance.
fn average(sums: &mut [f32], count: f32) {
    match count > 0.0 {
        true => sums.iter_mut().for_each(|sum| *sum /= count),
        false => sums.fill(1.0),
    }
}

//! From a header to the header of the quantized model.

use crate::rules::Rules;
use crate::{Imatrix, Mix, QuantizeError};
use gguf::{Gguf, GgufWriter};
use quant::GgmlType;

/// The version of the block formats, which has not changed since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// The longest row that is quantized: a thread holds one as f32. The longest of real models have about 50,000 values.
const MAX_ROW: u64 = 1 << 20;

/// What happens to one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its type in the input, and in the output.
    pub from: GgmlType,
    pub to: GgmlType,
}

impl Step {
    pub fn changes(self) -> bool {
        self.from != self.to
    }

    /// Rounded a second time.
    pub fn requantizes(self) -> bool {
        self.changes() && self.from.block_size() > 1
    }
}

/// The types of a model's tensors, decided before anything is written.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One for each tensor, in their order.
    pub steps: Vec<Step>,
    pub(crate) writer: GgufWriter,
    /// Bytes of the output file.
    pub bytes: u64,
}

impl Plan {
    /// # Errors
    /// The header is not a model's; a type needs importance that is not there; importance of another shape.
    pub fn new(gguf: &Gguf, mix: Mix, imatrix: Option<&Imatrix>) -> Result<Plan, QuantizeError> {
        if gguf.architecture().is_none() {
            return Err(QuantizeError::NotAModel);
        }
        let rules = Rules::new(gguf, mix, imatrix.is_some());
        let mut writer = head(gguf, mix, imatrix).map_err(QuantizeError::Header)?;
        let mut steps = Vec::with_capacity(gguf.tensors.len());
        for tensor in &gguf.tensors {
            let step = Step { from: tensor.ty, to: rules.target(tensor) };
            if step.changes() && tensor.shape[0] > MAX_ROW {
                let (tensor, elements) = (tensor.name.clone(), tensor.shape[0]);
                return Err(QuantizeError::RowTooLong { tensor, elements, limit: MAX_ROW });
            }
            let importance = imatrix.map_or(Ok(None), |imatrix| imatrix.of(tensor))?;
            if step.changes() && importance.is_none() && quant::needs_importance(step.to) {
                return Err(QuantizeError::ImportanceNeeded { tensor: tensor.name.clone(), ty: step.to });
            }
            writer.tensor(&tensor.name, step.to, &tensor.shape).map_err(QuantizeError::Header)?;
            steps.push(step);
        }
        let bytes = writer.file_len().map_err(QuantizeError::Header)?;
        Ok(Plan { steps, writer, bytes })
    }
}

/// The metadata of the input, but for what is no longer true.
fn head(gguf: &Gguf, mix: Mix, imatrix: Option<&Imatrix>) -> Result<GgufWriter, gguf::GgufError> {
    const OURS: &[&str] = &["general.file_type", "general.quantization_version"];
    const DROPPED: &[&str] = &["split.", "quantize.imatrix."];
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata.iter() {
        if !OURS.contains(&key) && !DROPPED.iter().any(|prefix| key.starts_with(prefix)) {
            writer.set(key, value.clone())?;
        }
    }
    writer.set("general.quantization_version", QUANTIZATION_VERSION)?;
    writer.set("general.file_type", mix.file_type())?;
    if let Some(imatrix) = imatrix {
        writer.set("quantize.imatrix.file", imatrix.file.as_str())?;
        writer.set("quantize.imatrix.entries_count", imatrix.len() as u32)?;
        writer.set("quantize.imatrix.chunks_count", imatrix.chunks)?;
    }
    Ok(writer)
}

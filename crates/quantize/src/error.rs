//! Why a model could not be quantized.

use gguf::GgufError;
use quant::{GgmlType, QuantError};
use std::io;
use std::path::{Path, PathBuf};
use weights::WeightsError;

/// Sizes are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    #[error(transparent)]
    Input(#[from] WeightsError),
    #[error("the file has no general.architecture: it is not a model")]
    NotAModel,
    #[error("tensor {tensor:?} has rows of {elements} values; at most {limit} are quantized")]
    RowTooLong { tensor: String, elements: u64, limit: u64 },
    #[error("tensor {tensor:?} holds {value}, which {ty} cannot hold; the input is damaged, or BF16 is needed")]
    OutOfRange { tensor: String, value: f32, ty: GgmlType },
    #[error("tensor {tensor:?} cannot be converted: {source}")]
    Convert { tensor: String, source: QuantError },

    #[error("{ty} for tensor {tensor:?} needs an importance matrix that has it; give one, or choose a larger type")]
    ImportanceNeeded { tensor: String, ty: GgmlType },
    #[error(
        "the importance matrix has {found} values for tensor {tensor:?}, but {expected} are needed: it was made for another model"
    )]
    ImportanceLength { tensor: String, expected: u64, found: u64 },
    #[error("{path} is not an importance matrix: {reason}")]
    BadImportance { path: PathBuf, reason: String },

    #[error("{path} is the input; write the output to another file")]
    SameFile { path: PathBuf },
    #[error("{path} is being written by another program")]
    Busy { path: PathBuf },
    #[error("the output takes {needed} bytes, but {folder} has only {free} free")]
    DiskFull { folder: PathBuf, needed: u64, free: u64 },
    #[error("{path}: {source}")]
    Output { path: PathBuf, source: io::Error },
    #[error("the output cannot be described: {0}")]
    Header(GgufError),
    #[error("stopped; nothing was written")]
    Cancelled,
}

impl QuantizeError {
    pub(crate) fn output(path: &Path, source: io::Error) -> QuantizeError {
        QuantizeError::Output { path: path.into(), source }
    }

    /// What the GGUF writer says while it writes `path`.
    pub(crate) fn writer(path: &Path, error: GgufError) -> QuantizeError {
        match error {
            GgufError::Io { kind, message } => QuantizeError::output(path, io::Error::new(kind, message)),
            other => QuantizeError::Header(other),
        }
    }
}

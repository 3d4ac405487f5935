//! What a measurement can fail with.

use std::path::PathBuf;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// The caller set the cancel flag.
    #[error("the measurement was cancelled")]
    Cancelled,
    /// A file on the disk to measure could not be used.
    #[error("the disk of {path} could not be measured: {source}; choose another folder for models")]
    Disk { path: PathBuf, source: std::io::Error },
    /// The disk's file system reads through the page cache only, so that its own speed stays hidden.
    #[error("the file system of {path} cannot be read past the page cache, so its disk's speed cannot be measured")]
    Cached { path: PathBuf },
    /// There is too little memory for the buffers.
    #[error("{needed} bytes of memory are needed for the measurement; close other programs and try again")]
    NoMemory { needed: usize },
    /// A worker thread could not be started.
    #[error("no thread could be started for the measurement: {0}; close other programs and try again")]
    Thread(std::io::Error),
}

impl HardwareError {
    /// A stable code for callers that act on the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled => "measure_cancelled",
            Self::Disk { .. } => "measure_disk",
            Self::Cached { .. } => "measure_cached",
            Self::NoMemory { .. } => "measure_no_memory",
            Self::Thread(_) => "measure_no_thread",
        }
    }
}

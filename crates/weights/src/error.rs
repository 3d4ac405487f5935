//! Why a model file cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use gguf::GgufError;

/// Sizes are in bytes; parts are counted from 1, as in the file names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    #[error("{path} does not exist")]
    NotFound { path: PathBuf },
    #[error("no permission to read {path}")]
    PermissionDenied { path: PathBuf },
    #[error("{path} is not a file")]
    NotAFile { path: PathBuf },
    #[error("{path} is in use by another program that does not share it; close that program and try again")]
    InUse { path: PathBuf },
    #[error("{path}: {source}")]
    NotGguf { path: PathBuf, source: GgufError },
    #[error(
        "{path} is cut short: it has {file_len} bytes, but at least {needed} are needed; download it again or resume the download"
    )]
    Truncated { path: PathBuf, file_len: u64, needed: u64 },
    #[error("{path} is damaged or not supported: {source}")]
    Invalid { path: PathBuf, source: GgufError },

    #[error(
        "{path} says it is one of {count} parts, but its name does not end in -00001-of-{count:05}.gguf; rename the parts"
    )]
    PartName { path: PathBuf, count: u64 },
    #[error("part {part} of {count} is missing: {path} does not exist; download all parts into one folder")]
    MissingPart { path: PathBuf, part: u64, count: u64 },
    #[error("{path} should be part {expected} of the model, but says it is part {found}")]
    WrongPart { path: PathBuf, expected: u64, found: u64 },
    #[error("{path} belongs to a model of {count} parts; at most {limit} are supported")]
    TooManyParts { path: PathBuf, count: u64, limit: u64 },

    #[error("tensor {index} does not exist; the model has {count}")]
    NoSuchTensor { index: usize, count: usize },
    #[error("not enough address space or memory for {bytes} bytes of weights: {source}")]
    OutOfMemory { bytes: u64, source: io::Error },
    #[error(
        "{path} cannot be mapped into memory ({source}); load it without mapping (--no-mmap), or copy it to a local disk"
    )]
    MapFailed { path: PathBuf, source: io::Error },
    #[error("{}", lock_message(*bytes, *limit, source))]
    Lock { bytes: u64, limit: Option<u64>, source: io::Error },

    #[error("{path} was changed while in use: it had {expected} bytes and has {found}; load the model again")]
    Changed { path: PathBuf, expected: u64, found: u64 },
    #[error("part of {path} could not be read while in use (file cut short, or its disk failed); load the model again")]
    Unreadable { path: PathBuf },
    #[error("reading {path} failed: {source}")]
    Io { path: PathBuf, source: io::Error },
}

fn lock_message(bytes: u64, limit: Option<u64>, source: &io::Error) -> String {
    match limit {
        Some(limit) if limit < bytes => format!(
            "{bytes} bytes cannot be locked in memory, because the system allows {limit} (RLIMIT_MEMLOCK); raise it with \
             `ulimit -l {}` or in /etc/security/limits.conf, or load without locking",
            bytes.div_ceil(1024)
        ),
        _ => format!("locking {bytes} bytes in memory failed: {source}; free memory or load without locking"),
    }
}

impl WeightsError {
    pub(crate) fn io(path: &Path, source: io::Error) -> WeightsError {
        let path = path.to_path_buf();
        // ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION have no `ErrorKind` of their own.
        let in_use = cfg!(windows) && matches!(source.raw_os_error(), Some(32 | 33));
        match source.kind() {
            _ if in_use => WeightsError::InUse { path },
            io::ErrorKind::NotFound => WeightsError::NotFound { path },
            io::ErrorKind::PermissionDenied => WeightsError::PermissionDenied { path },
            io::ErrorKind::OutOfMemory => WeightsError::OutOfMemory { bytes: 0, source },
            _ => WeightsError::Io { path, source },
        }
    }

    pub(crate) fn gguf(path: &Path, source: GgufError) -> WeightsError {
        let path = path.to_path_buf();
        match source {
            GgufError::NotGguf { .. } => WeightsError::NotGguf { path, source },
            GgufError::Truncated { at, needs, file_len, .. } => {
                WeightsError::Truncated { path, file_len, needed: at.saturating_add(needs) }
            }
            GgufError::TensorBeyondFile { end, file_len, .. } => {
                WeightsError::Truncated { path, file_len, needed: end }
            }
            GgufError::TooManySplits { count, limit } => WeightsError::TooManyParts { path, count, limit },
            source => WeightsError::Invalid { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_message_says_what_to_set() {
        let message = lock_message(5_000_000_000, Some(8_388_608), &io::ErrorKind::OutOfMemory.into());
        assert!(message.contains("allows 8388608") && message.contains("ulimit -l 4882813"), "{message}");
        let message = lock_message(1000, None, &io::Error::other("no room"));
        assert!(message.contains("no room") && !message.contains("RLIMIT"), "{message}");
    }
}

//! Opening files and reading headers, with ordinary reads: a header is checked before anything is mapped.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use gguf::{Gguf, GgufError, split_file_names};

use crate::WeightsError;

/// Most headers are between 1 and 12 MiB.
const FIRST_READ: u64 = 1 << 20;

/// An open file with its parsed header.
struct Opened {
    path: PathBuf,
    file: File,
    header: Gguf,
}

/// An open file of a model.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Length in bytes that the header was checked against.
    pub(crate) len: u64,
}

/// What others may do with a file in the meantime. Only Windows asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Anything: a list of models is no reason for a download to fail.
    Free,
    /// Reading: writing and deleting fail for them with "in use" instead of pulling the file from under us.
    Read,
}

/// Reads and checks the header of a model without mapping it. For a split model, of all its parts, given any of them.
///
/// # Errors
/// All of [`WeightsError`] that concerns opening.
pub fn read_header(path: &Path) -> Result<Gguf, WeightsError> {
    open(path, Others::Free).map(|(header, _)| header)
}

/// The header of a model (of all parts as one) and its open files, in order.
pub(crate) fn open_model(path: &Path) -> Result<(Gguf, Vec<Part>), WeightsError> {
    open(path, Others::Read)
}

fn open(path: &Path, others: Others) -> Result<(Gguf, Vec<Part>), WeightsError> {
    let (headers, parts) = open_parts(path, others)?
        .into_iter()
        .map(|Opened { path, file, header }| {
            let len = header.file_len;
            (header, Part { path, file, len })
        })
        .unzip();
    let header = gguf::merge_splits(headers).map_err(|source| WeightsError::gguf(path, source))?;
    Ok((header, parts))
}

/// Opens all parts of the model that `path` is (a part of), in order.
fn open_parts(path: &Path, others: Others) -> Result<Vec<Opened>, WeightsError> {
    let given = open_one(path, others)?;
    let split = given.header.split().map_err(|source| WeightsError::gguf(path, source))?;
    let Some(split) = split else { return Ok(vec![given]) };
    let names = path.file_name().and_then(|name| name.to_str()).and_then(split_file_names);
    let Some(names) = names.filter(|names| names.len() as u64 == split.count) else {
        return Err(WeightsError::PartName { path: path.into(), count: split.count });
    };
    let mut parts = Vec::with_capacity(names.len());
    for (expected, name) in (1..).zip(names) {
        let part = open_one(&path.with_file_name(name), others).map_err(|error| match error {
            WeightsError::NotFound { path } => WeightsError::MissingPart { path, part: expected, count: split.count },
            other => other,
        })?;
        let own = part.header.split().map_err(|source| WeightsError::gguf(&part.path, source))?;
        let found = own.map_or(0, |own| own.no + 1);
        if found != expected {
            return Err(WeightsError::WrongPart { path: part.path, expected, found });
        }
        parts.push(part);
    }
    Ok(parts)
}

fn open_one(path: &Path, others: Others) -> Result<Opened, WeightsError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(not(windows))]
    let _ = others;
    #[cfg(windows)]
    if others == Others::Read {
        use std::os::windows::fs::OpenOptionsExt;
        options.share_mode(windows_sys::Win32::Storage::FileSystem::FILE_SHARE_READ);
    }
    // Opening a folder fails on Windows ("denied") and a pipe waits on Unix: look before opening.
    let metadata = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
    if !metadata.is_file() {
        return Err(WeightsError::NotAFile { path: path.into() });
    }
    let mut file = options.open(path).map_err(|source| WeightsError::io(path, source))?;
    let file_len = file.metadata().map_err(|source| WeightsError::io(path, source))?.len();
    let header = parse(path, &mut file, file_len)?;
    Ok(Opened { path: path.into(), file, header })
}

/// Reads as much of the file as its header needs.
fn parse(path: &Path, file: &mut File, file_len: u64) -> Result<Gguf, WeightsError> {
    let mut prefix = Vec::new();
    let mut want = FIRST_READ;
    loop {
        let missing = want.min(file_len) - prefix.len() as u64;
        let read = file.by_ref().take(missing).read_to_end(&mut prefix);
        if read.map_err(|source| WeightsError::io(path, source))? as u64 != missing {
            // It had `file_len` bytes a moment ago.
            let source = std::io::Error::from(ErrorKind::UnexpectedEof);
            return Err(WeightsError::Io { path: path.into(), source });
        }
        match Gguf::parse(&prefix, file_len) {
            // The parser never asks for more than its own limit, nor for more than the file has.
            Err(GgufError::Incomplete { needed_at_least }) => want = needed_at_least.max(2 * want),
            result => return result.map_err(|source| WeightsError::gguf(path, source)),
        }
    }
}

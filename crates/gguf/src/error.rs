//! What can be wrong with a GGUF file.

use std::io;

/// Why a file is not usable as GGUF. Offsets, lengths and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Only the first part of the file was given. Not a fault of the file: parse again with at least this many bytes.
    #[error("the header goes on: at least the first {needed_at_least} bytes of the file are needed")]
    Incomplete { needed_at_least: u64 },

    #[error("this is not a GGUF file (it begins with {magic:02x?} instead of \"GGUF\")")]
    NotGguf { magic: [u8; 4] },
    #[error("GGUF version 1 is not supported; convert the model again with a current tool")]
    Version1,
    #[error("this GGUF file is big-endian, made for another kind of machine; get the little-endian file")]
    BigEndian,
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    UnsupportedVersion(u32),

    #[error("the file ends too early: {what} at byte {at} needs {needs} bytes, but the file has {file_len}")]
    Truncated { what: &'static str, at: u64, needs: u64, file_len: u64 },
    #[error("tensor {name} ends at byte {end}, but the file has only {file_len}; it was not downloaded completely")]
    TensorBeyondFile { name: String, end: u64, file_len: u64 },
    #[error("the header claims at least {needs} bytes; more than {limit} are not read")]
    HeaderTooLarge { needs: u64, limit: u64 },
    #[error("the header claims {count} {what}; at most {limit} are read")]
    TooMany { what: &'static str, count: u64, limit: u64 },

    #[error("a {what} is {len} bytes long; at most {limit} are allowed")]
    NameTooLong { what: &'static str, len: u64, limit: u64 },
    #[error("a {what} at byte {at} is not valid UTF-8")]
    NotUtf8 { what: &'static str, at: u64 },
    #[error("metadata key {0:?} occurs twice")]
    DuplicateKey(String),
    #[error("metadata key {key:?} has the unknown value type {id}")]
    UnknownValueType { key: String, id: u32 },
    #[error("metadata key {key:?} nests arrays more than {limit} levels deep")]
    NestedTooDeep { key: String, limit: usize },
    #[error("metadata key {key:?} has a truth value that is neither 0 nor 1")]
    BadBool { key: String },
    #[error("general.alignment is {0}, but must be a power of two from 8 to 2097152")]
    BadAlignment(String),

    #[error("tensor {0:?} occurs twice")]
    DuplicateTensor(String),
    #[error("tensor {name:?} has the unknown type {id}; it may need a newer version of this program")]
    UnknownTensorType { name: String, id: u32 },
    #[error("tensor {name:?} has the impossible shape {shape:?}: {reason}")]
    BadShape { name: String, shape: Vec<u64>, reason: &'static str },
    #[error("tensor {name:?} begins at {offset} of the data, which is not a multiple of {alignment}")]
    MisalignedTensor { name: String, offset: u64, alignment: u64 },
    #[error("tensors {first:?} and {second:?} overlap")]
    OverlappingTensors { first: String, second: String },

    #[error("the model has {count} parts; at most {limit} are supported")]
    TooManySplits { count: u64, limit: u64 },
    #[error("part {} of {count} of the model is missing", no + 1)]
    MissingSplit { no: u64, count: u64 },
    #[error("part {} of the model was given twice", no + 1)]
    DuplicateSplit { no: u64 },
    #[error("the parts do not belong together: {key} is {found} in one and {expected} in another")]
    SplitMismatch { key: &'static str, expected: u64, found: u64 },
    #[error("split.no {no} is impossible for a model of {count} parts")]
    SplitOutOfRange { no: u64, count: u64 },
    #[error("{given} files were given, but they do not say that they are parts of one model")]
    NotSplit { given: usize },

    #[error("tensor {name:?} takes {expected} bytes, but {given} were given")]
    WrongTensorSize { name: String, expected: u64, given: u64 },
    #[error("writing failed: {message}")]
    Io { kind: io::ErrorKind, message: String },
}

impl From<io::Error> for GgufError {
    fn from(error: io::Error) -> GgufError {
        GgufError::Io { kind: error.kind(), message: error.to_string() }
    }
}

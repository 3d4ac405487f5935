//! Parse, validate and write GGUF headers from bytes; no I/O.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//!
//! A header is hostile until parsed: every length is compared with the bytes that are really there before anything is
//! allocated for it, every product is checked, and what comes out satisfies the invariants written at [`Gguf`].

mod error;
mod metadata;
mod parse;
mod reader;
mod split;
mod strings;
mod tensor;
mod value;
mod writer;

pub use error::GgufError;
pub use metadata::Metadata;
pub use parse::Gguf;
pub use split::{MAX_SPLITS, Split, merge_splits, split_file_names};
pub use strings::Strings;
pub use tensor::{MAX_DIMS, TensorInfo};
pub use value::{Array, Value, ValueType};
pub use writer::{GgufWriter, TensorWriter};

/// Alignment of tensor data where the file names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The longest header that is read. The largest vocabularies need about 20 MiB; a header that claims more than this is
/// refused, so that nobody downloads or allocates gigabytes for it. Parsing takes at most a few times its length.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;

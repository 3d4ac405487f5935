//! Block layouts, sizes and scalar reference arithmetic of every ggml type. This crate does no I/O and knows no files.

mod types;

pub use types::GgmlType;

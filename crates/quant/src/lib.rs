//! Block layouts, sizes and scalar reference arithmetic of every ggml type. This crate does no I/O and knows no files.

pub mod blocks;
mod types;

pub use types::GgmlType;

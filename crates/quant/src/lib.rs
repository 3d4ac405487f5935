//! Block layouts, sizes and scalar reference arithmetic of every ggml type. This crate does no I/O and knows no files.
//!
//! Formats are those of llama.cpp's ggml; all numbers are little-endian. The scalar code here defines what the SIMD and
//! GPU kernels must compute.

pub mod blocks;
mod dequantize;
mod dot;
mod error;
mod quantize;
pub mod reference;
mod types;
pub mod unpack;

pub use dequantize::dequantize_row;
pub use dot::{activation_type, dot_row, dot_row_f32};
pub use error::QuantError;
pub use quantize::{has_quantizer, needs_importance, quantize_cache_row, quantize_row};
pub use types::GgmlType;

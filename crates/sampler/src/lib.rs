//! Chooses the next token from logits: seeded, pure, without I/O.
//!
//! The order is llama.cpp's default chain: logit bias, mask, penalties, top-k, top-p, min-p, temperature, draw. The same
//! logits, parameters and seed give the same tokens on every platform: the random numbers and the exponential are built
//! from integer and IEEE 754 basic operations only.

mod constraint;
mod error;
mod exp;
mod history;
mod mask;
mod params;
mod random;
mod sampler;
mod select;

pub use constraint::{Constraint, ConstraintError};
pub use error::SamplerError;
pub use mask::Mask;
pub use params::Params;
pub use sampler::Sampler;
pub use select::argmax;

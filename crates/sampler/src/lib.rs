//! Logits to token: penalties, temperature, top-k, min-p, top-p, a seeded choice. Pure: the same parameters, seed and
//! logits give the same tokens on every machine.

mod params;
mod random;
mod sample;

pub use params::{Params, SamplerError};
pub use sample::Sampler;

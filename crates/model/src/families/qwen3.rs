//! Qwen 3, dense and with experts: RMS norm of each q and k head, NeoX rotary pairs, no biases.

use super::standard::{self, Standard};
use crate::describe::Header;
use crate::{Model, ModelError};
use backend::RopePairs;

pub(crate) fn dense(header: &Header<'_>) -> Result<Model, ModelError> {
    standard::describe(header, &Standard { rope: RopePairs::Halves, qk_norm: true, experts: false })
}

pub(crate) fn experts(header: &Header<'_>) -> Result<Model, ModelError> {
    standard::describe(header, &Standard { rope: RopePairs::Halves, qk_norm: true, experts: true })
}

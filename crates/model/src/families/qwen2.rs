//! Qwen 2 and 2.5: biases on q, k and v, NeoX rotary pairs.

use super::standard::{self, Standard};
use crate::describe::Header;
use crate::{Model, ModelError};
use backend::RopePairs;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    standard::describe(header, &Standard { rope: RopePairs::Halves, qk_norm: false, experts: false })
}

//! Llama 1-3, Mistral, Mixtral and their many fine-tunes: adjacent rotary pairs, optional biases, optional experts.

use super::standard::{self, Standard};
use crate::describe::Header;
use crate::{Model, ModelError};
use backend::RopePairs;

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let experts = header.u64_or("expert_count").unwrap_or(0) > 0;
    standard::describe(header, &Standard { rope: RopePairs::Adjacent, qk_norm: false, experts })
}

//! One short file per family: what is different about it. What families share is in `standard`.

mod llama;
mod qwen2;
mod qwen3;
mod standard;

use crate::describe::Header;
use crate::{Model, ModelError};

pub(crate) type Family = fn(&Header<'_>) -> Result<Model, ModelError>;

const FAMILIES: &[(&str, Family)] =
    &[("llama", llama::describe), ("qwen2", qwen2::describe), ("qwen3", qwen3::dense), ("qwen3moe", qwen3::experts)];

pub(crate) fn find(architecture: &str) -> Option<Family> {
    FAMILIES.iter().find(|(name, _)| *name == architecture).map(|(_, family)| *family)
}

/// The values of `general.architecture` that can be run.
pub fn supported_architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

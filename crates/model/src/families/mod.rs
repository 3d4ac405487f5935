//! One short file per family (or families that are alike): what is different about it. What families share is in
//! `standard` and `feed_forward`.

mod cohere;
mod deepseek2;
mod exaone4;
mod feed_forward;
mod gemma;
mod gemma3n;
mod gemma4;
mod gpt_oss;
mod granite;
mod hunyuan;
mod lfm2;
mod llama;
mod mamba;
mod moe;
mod olmo2;
mod plain;
mod qwen_next;
mod standard;

use crate::describe::Header;
use crate::{Model, ModelError};

pub(crate) type Family = fn(&Header<'_>) -> Result<Model, ModelError>;

const FAMILIES: &[(&str, Family)] = &[
    ("llama", llama::llama),
    ("mistral3", llama::mistral3),
    ("smollm3", llama::smollm3),
    ("qwen2", plain::halves),
    ("qwen2vl", plain::halves),
    ("qwen2moe", moe::unnormalized),
    ("qwen3", plain::halves),
    ("qwen3vl", plain::halves),
    ("qwen3moe", moe::normalized),
    ("qwen3vlmoe", moe::normalized),
    ("qwen3next", qwen_next::describe),
    ("qwen35", qwen_next::describe),
    ("qwen35moe", qwen_next::describe),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
    ("gemma3n", gemma3n::describe),
    ("gemma4", gemma4::describe),
    ("gpt-oss", gpt_oss::describe),
    ("phi3", plain::halves),
    ("seed_oss", plain::halves),
    ("exaone4", exaone4::describe),
    ("granite", granite::describe),
    ("granitemoe", granite::describe),
    ("granitehybrid", granite::hybrid),
    ("nemotron_h", mamba::nemotron_h),
    ("nemotron_h_moe", mamba::nemotron_h),
    ("olmo2", olmo2::describe),
    ("glm4", plain::adjacent),
    ("glm4moe", moe::sigmoid),
    ("dots1", moe::sigmoid),
    ("bailingmoe2", moe::sigmoid),
    ("minimax-m2", moe::sigmoid),
    ("olmoe", moe::unnormalized),
    ("ernie4_5", plain::adjacent),
    ("ernie4_5-moe", moe::ernie),
    ("arcee", plain::arcee),
    ("hunyuan-dense", hunyuan::dense),
    ("hunyuan-moe", hunyuan::moe),
    ("starcoder2", plain::starcoder2),
    ("command-r", cohere::command_r),
    ("cohere2", cohere::cohere2),
    ("deepseek2", deepseek2::describe),
    ("mistral4", deepseek2::describe),
    ("internlm2", plain::adjacent),
    ("lfm2", lfm2::describe),
    ("lfm2moe", lfm2::describe),
];

pub(crate) fn find(architecture: &str) -> Option<Family> {
    FAMILIES.iter().find(|(name, _)| *name == architecture).map(|(_, family)| *family)
}

/// The values of `general.architecture` that can be run.
pub fn supported_architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

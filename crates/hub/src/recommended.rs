//! What the first screen suggests. Names only: sizes, files and hashes are asked for live.

/// A repository worth suggesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommended {
    /// `owner/name` on the Hub.
    pub repo: &'static str,
    /// `general.architecture` of its files.
    pub family: &'static str,
    /// Key of the sentence that the window shows with it.
    pub note_key: &'static str,
}

const fn model(repo: &'static str, family: &'static str, note_key: &'static str) -> Recommended {
    Recommended { repo, family, note_key }
}

/// Smallest first, about 0.5 GB to 60 GB in the usual 4-bit quantization.
pub const RECOMMENDED: &[Recommended] = &[
    model("unsloth/Qwen3-0.6B-GGUF", "qwen3", "tiny"),
    model("unsloth/Qwen3.5-2B-GGUF", "qwen35", "tiny"),
    model("bartowski/Llama-3.2-3B-Instruct-GGUF", "llama", "small"),
    model("ggml-org/SmolLM3-3B-GGUF", "smollm3", "small"),
    model("unsloth/Qwen3-4B-Instruct-2507-GGUF", "qwen3", "small_allround"),
    model("unsloth/gemma-4-E4B-it-GGUF", "gemma4", "small_allround"),
    model("unsloth/gemma-3-4b-it-GGUF", "gemma3", "small_multilingual"),
    model("LiquidAI/LFM2-8B-A1B-GGUF", "lfm2moe", "fast_without_gpu"),
    model("ibm-granite/granite-4.0-h-tiny-GGUF", "granitehybrid", "long_context"),
    model("unsloth/Qwen3-8B-GGUF", "qwen3", "allround"),
    model("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "llama", "allround"),
    model("mistralai/Ministral-3-8B-Instruct-2512-GGUF", "mistral3", "allround"),
    model("unsloth/Qwen3.5-9B-GGUF", "qwen35", "allround"),
    model("ggml-org/gpt-oss-20b-GGUF", "gpt-oss", "reasoning"),
    model("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", "qwen3moe", "large_but_fast"),
    model("unsloth/gemma-4-26B-A4B-it-GGUF", "gemma4", "large_but_fast"),
    model("unsloth/Qwen3.5-35B-A3B-GGUF", "qwen35moe", "large_but_fast"),
    model("bartowski/Llama-3.3-70B-Instruct-GGUF", "llama", "very_large"),
    model("ggml-org/gpt-oss-120b-GGUF", "gpt-oss", "very_large"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_usable_and_unique() {
        assert!((10..=20).contains(&RECOMMENDED.len()));
        for (i, r) in RECOMMENDED.iter().enumerate() {
            crate::check_repo(r.repo).unwrap();
            assert!(RECOMMENDED[..i].iter().all(|other| other.repo != r.repo), "{} twice", r.repo);
            assert!(r.note_key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}

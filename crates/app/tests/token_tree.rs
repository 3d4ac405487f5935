//! What the plan counts for the tree of a model's tokens, it takes. Alone in its process, whose memory it measures.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use grammar::Vocabulary;
use tokenizer::Tokenizer;

/// Resident memory in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn trees_of_tokens_take_what_the_plan_counts() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tokenizer/tests/fixtures");
    // What is given back would be taken again and not be seen.
    let mut kept = Vec::new();
    for name in ["ggml-vocab-llama-spm", "qwen-3.trim", "gemma-4pre.trim"] {
        let file = std::fs::read(format!("{fixtures}/{name}.gguf")).unwrap();
        let tokenizer = Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64).unwrap()).unwrap();
        // The first takes, besides, what is needed while it is made.
        let first = Vocabulary::new(&tokenizer).unwrap();
        let before = resident();
        let trees: Vec<Vocabulary> = (0..8).map(|_| Vocabulary::new(&tokenizer).unwrap()).collect();
        let each = (resident() - before) / (trees.len() * tokenizer.vocab_size()) as u64;
        assert!(
            (planner::TOKEN_BYTES / 2..=planner::TOKEN_BYTES).contains(&each),
            "{name}: {each} bytes for each token"
        );
        kept.push((first, trees, file));
    }
}

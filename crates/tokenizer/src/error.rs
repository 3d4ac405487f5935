/// Why a vocabulary cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    #[error("the file has no vocabulary ({0} is missing)")]
    Missing(&'static str),
    #[error("the tokenizer '{0}' is not supported; supported are llama (SentencePiece), gpt2 (BPE), gemma4")]
    Unsupported(String),
    #[error("the vocabulary is damaged: {0}")]
    Damaged(String),
}

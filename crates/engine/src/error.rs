use backend::BackendError;

/// Why the engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    File(#[from] weights::WeightsError),
    #[error(transparent)]
    Model(#[from] model::ModelError),
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// The prompt alone does not fit: raise the context or shorten the prompt.
    #[error("the prompt has {needed} tokens, the context holds {context}: raise the context or shorten the prompt")]
    ContextFull { needed: u32, context: u32 },
    /// A device failed in a way that moving layers does not mend.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// The draft model does not speak the model's language.
    #[error("the draft model has another vocabulary: {detail}; take a smaller model of the same family")]
    DraftVocabulary { detail: String },
    #[error("cancelled")]
    Cancelled,
    /// A saved sequence cannot be put back, or not be saved.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The logits are no numbers: the weights are damaged.
    #[error("the model computes no usable numbers: {0}; its file is damaged, get it again")]
    Numbers(sampler::SamplerError),
    /// The answer cannot go on in the form that is prescribed for it.
    #[error(transparent)]
    Constraint(#[from] sampler::ConstraintError),
    #[error("invalid argument: {0}")]
    Invalid(String),
    /// The engine's thread is gone: a bug; load the model again.
    #[error("the engine stopped unexpectedly: {0}")]
    Stopped(String),
}

/// Why a saved sequence cannot be used. The prompt can always be read again instead.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("this is not what a model remembers of a conversation")]
    NotSaved,
    /// Of another file, with other types of KV cache, or made by another version of this program.
    #[error("this belongs to another model, another KV type or another version of the program")]
    Foreign,
    #[error("what was saved is damaged: {0}")]
    Damaged(&'static str),
    #[error("{tokens} tokens were saved, the context holds {context}")]
    TooLong { tokens: u32, context: u32 },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

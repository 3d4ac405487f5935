//! Text to tokens and back from GGUF vocabularies.

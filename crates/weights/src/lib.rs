//! Map GGUF files and lend typed tensor views.

//! Parse, validate and write GGUF headers from bytes; no I/O.

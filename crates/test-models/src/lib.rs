//! Tiny GGUF models made in memory; for tests.

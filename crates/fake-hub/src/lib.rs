//! A local HTTP server that behaves like the Hugging Face Hub; for tests.

//! Hugging Face: search, files, remote headers, resumable verified downloads.

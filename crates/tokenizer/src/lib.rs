//! Text to tokens and back, from the vocabulary in a GGUF header: SentencePiece by scores, byte-level BPE by merges.
//!
//! Bytes that are not UTF-8 never fail. Special tokens are found in a text only where the caller says so: what a user
//! types is not taken for markup.

mod bpe;
mod decode;
mod error;
mod kinds;
mod markup;
mod merge;
mod patterns;
mod pretokenize;
mod special;
mod spm;
mod tokenizer;
mod utf8;
mod vocab;

pub use decode::Detokenizer;
pub use error::TokenizerError;
pub use tokenizer::{Encode, Tokenizer};
pub use vocab::TokenKind;

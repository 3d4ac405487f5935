//! What an answer must look like: a JSON schema or a grammar becomes the set of tokens that may come next.
//!
//! [`Vocabulary`] is made once per model, from the bytes of its tokens; [`Vocabulary::compile`] makes a [`Grammar`] for
//! one answer, which the engine asks before every token ([`sampler::Constraint`]). Parsing is done by the crate
//! `llguidance`; here is what it must be told, and how far a schema that comes from anywhere may go ([`limits`]).

mod error;
mod form;
mod gbnf;
mod grammar;
mod lark;
pub mod limits;
mod schema;
mod vocabulary;

pub use error::GrammarError;
pub use form::Form;
pub use grammar::Grammar;
pub use vocabulary::{Vocabulary, Words};

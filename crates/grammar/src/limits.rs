//! How far a schema or grammar may go. It comes from a user, a file or another program: what it takes to compile it, and
//! to follow it, is bounded.

use llguidance::api::ParserLimits;

/// Bytes of a schema or grammar.
pub const MAX_TEXT: usize = 256 << 10;
/// Brackets within brackets.
pub const MAX_DEPTH: usize = 100;
/// Schemas within schemas, references followed.
pub const MAX_STEPS: usize = 2000;
/// Alternatives that conditions on the same value may multiply to.
pub const MAX_PRODUCT: usize = 500;
/// Properties that one object may have; the compiler's time grows with their square.
pub const MAX_PROPERTIES: usize = 1000;
/// White space between two parts of JSON, in bytes: enough to indent, and a model that writes nothing else comes to its
/// end.
pub const MAX_SPACE: usize = 40;
/// Bytes of a token that can be part of a prescribed answer.
pub const MAX_TOKEN: usize = 512;
/// Nodes of the tree of all tokens, which the library numbers with 22 bits.
pub const MAX_NODES: usize = (1 << 22) - 1;
/// Stack for compiling, which follows the nesting. It is address space: what is not used is not taken.
pub(crate) const STACK: usize = 256 << 20;

/// What the library may spend.
pub(crate) fn parser() -> ParserLimits {
    ParserLimits {
        // States of the lexer are kept, at up to 2 kB each.
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        // Errors are for people: without the state of the parser.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

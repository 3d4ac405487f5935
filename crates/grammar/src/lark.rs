//! Grammars as the library reads them.

use crate::error::GrammarError;

/// Lark's syntax as it is.
pub(crate) fn from_grammar(text: &str) -> Result<String, GrammarError> {
    if text.trim().is_empty() {
        return Err(GrammarError::Invalid("the grammar is empty".into()));
    }
    Ok(text.to_owned())
}

use thiserror::Error;

/// Why a schema or grammar cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GrammarError {
    #[error("the schema is not JSON: {reason} (line {line}, column {column})")]
    NotJson { reason: String, line: usize, column: usize },
    #[error("it has {size} bytes, and at most {max} are taken: leave out what is not needed")]
    TooLarge { size: usize, max: usize },
    #[error("it is nested deeper than {max}: make it flatter")]
    TooDeep { max: usize },
    /// It breaks its own rules, or asks for what cannot be prescribed; the text says where.
    #[error("{0}")]
    Invalid(String),
    /// It would take more time or memory than is allowed.
    #[error("it is too complex ({0}): make it simpler, with fewer alternatives and smaller numbers of repetitions")]
    TooComplex(String),
    /// The tokens of this model cannot be used for it.
    #[error("the model's vocabulary cannot be used for prescribed answers: {0}")]
    Vocabulary(String),
    #[error("no thread to read it: {0}")]
    NoThread(String),
}

/// Words of the library's own errors that tell of its limits.
const LIMITS: &[&str] = &["fuel", "too complex", "too large", "too big", "too many", "limit", "exceed"];

/// Characters of an error that are shown.
const SHOWN: usize = 400;

impl GrammarError {
    /// What the library says, without what is for its developers.
    pub(crate) fn told(error: &str) -> GrammarError {
        if error.contains("panic: ") {
            return GrammarError::TooComplex("its compiler failed".into());
        }
        let text = first_words(error);
        let lower = text.to_lowercase();
        if LIMITS.iter().any(|word| lower.contains(word)) {
            return GrammarError::TooComplex(text);
        }
        GrammarError::Invalid(text)
    }
}

/// An error of the library as far as it is for people, on one line.
pub(crate) fn first_words(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.starts_with('<'));
    let text = lines.map(str::trim_end).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

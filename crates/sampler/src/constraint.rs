use crate::Mask;
use thiserror::Error;

/// What an answer must look like, token by token. Whoever chooses tokens asks before each and tells of each.
pub trait Constraint: Send {
    /// The tokens that may come next; `None`: any. Asked again before the next [`Constraint::accept`], it says the same.
    ///
    /// # Errors
    /// [`ConstraintError::Stuck`] and [`ConstraintError::TooComplex`]; then nothing more can be asked.
    fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError>;

    /// A token is part of the answer now.
    ///
    /// # Errors
    /// [`ConstraintError::Refused`] for a token that the mask does not allow, [`ConstraintError::TooComplex`].
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// The answer is whole: nothing can be added to it.
    fn is_complete(&self) -> bool;
}

/// Why an answer cannot go on as it is prescribed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The prescribed form wants what the vocabulary cannot write.
    #[error("no token of this model can continue the answer in the prescribed form: change the schema or grammar")]
    Stuck,
    #[error("token {token} does not fit the prescribed form of the answer")]
    Refused { token: u32 },
    /// Deciding what may come next takes more time or memory than is allowed.
    #[error("the prescribed form of the answer is too complex ({0}): make the schema or grammar simpler")]
    TooComplex(String),
}

use thiserror::Error;

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A parameter outside its range, or not a number.
    #[error("{name} is {value}: it must be between {min} and {max}")]
    OutOfRange { name: &'static str, value: f64, min: f64, max: f64 },
    /// No token has a logit above minus infinity: the logits are empty or all NaN, or the mask allows none of them.
    #[error("none of {vocabulary} tokens can be chosen ({not_a_number} logits are not numbers)")]
    NoCandidate { vocabulary: usize, not_a_number: usize },
}

//! What can go wrong between a template and a prompt.

use crate::limits::Limits;

/// Why a chat template could not be used. Each message says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is larger than [`Limits::source_bytes`].
    #[error("the chat template has {bytes} bytes, the limit is {limit}; take another file of this model")]
    SourceTooLarge { bytes: usize, limit: usize },
    /// The template is not valid Jinja.
    #[error("the chat template cannot be read (line {line}): {message}; take another file of this model")]
    Syntax { line: usize, message: String },
    /// The template refused the conversation with `raise_exception`.
    #[error("the model's chat template refuses this conversation: {message}")]
    Refused { message: String },
    /// An operation in the template failed.
    #[error(
        "the chat template failed (line {line}): {message}; \
         change the conversation or take another file of this model"
    )]
    Failed { line: usize, message: String },
    /// The template needed more than [`Limits::fuel`] steps.
    #[error(
        "the chat template did not end within {fuel} steps; shorten the conversation or take another file of this model"
    )]
    TooManySteps { fuel: u64 },
    /// The template took longer than [`Limits::time`], or one that did is still at it.
    #[error(
        "the chat template did not end within {seconds} seconds; shorten the conversation or take another file of this model"
    )]
    TooSlow { seconds: u64 },
    /// The prompt grew beyond [`Limits::output_bytes`].
    #[error(
        "the prompt made by the chat template exceeds {limit} bytes; \
         shorten the conversation or take another file of this model"
    )]
    OutputTooLarge { limit: usize },
    /// The input is nested deeper than [`Limits::depth`].
    #[error("the conversation is nested deeper than {limit} levels; simplify its tool definitions or arguments")]
    InputTooDeep { limit: usize },
    /// The thread that renders could not be started.
    #[error("no thread could be started to render the prompt: {message}; close other programs and try again")]
    NoThread { message: String },
}

impl TemplateError {
    /// A stable code for callers that act on the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SourceTooLarge { .. } => "template_too_large",
            Self::Syntax { .. } => "template_syntax",
            Self::Refused { .. } => "template_refused",
            Self::Failed { .. } => "template_failed",
            Self::TooManySteps { .. } => "template_too_many_steps",
            Self::TooSlow { .. } => "template_too_slow",
            Self::OutputTooLarge { .. } => "template_output_too_large",
            Self::InputTooDeep { .. } => "template_input_too_deep",
            Self::NoThread { .. } => "template_no_thread",
        }
    }

    /// Translates an engine error, finding the cause behind wrapping errors.
    pub(crate) fn from_engine(error: &minijinja::Error, limits: &Limits, fuel: u64) -> Self {
        let line = error.line().unwrap_or(0);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(e) = cause {
            if let Some(refusal) = e.downcast_ref::<Refusal>() {
                return Self::Refused { message: refusal.0.clone() };
            }
            if e.is::<OutputLimit>() {
                return Self::OutputTooLarge { limit: limits.output_bytes };
            }
            if let Some(io) = e.downcast_ref::<std::io::Error>()
                && io.get_ref().is_some_and(|inner| inner.is::<OutputLimit>())
            {
                return Self::OutputTooLarge { limit: limits.output_bytes };
            }
            if let Some(engine) = e.downcast_ref::<minijinja::Error>()
                && engine.kind() == minijinja::ErrorKind::OutOfFuel
            {
                return Self::TooManySteps { fuel };
            }
            cause = e.source();
        }
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        match error.kind() {
            minijinja::ErrorKind::SyntaxError | minijinja::ErrorKind::BadEscape => Self::Syntax { line, message },
            _ => Self::Failed { line, message },
        }
    }
}

/// The message of `raise_exception`, carried through the engine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub String);

/// The writer's report that the output limit was reached.
#[derive(Debug, thiserror::Error)]
#[error("output limit reached")]
pub(crate) struct OutputLimit;

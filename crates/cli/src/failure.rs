//! Errors as the terminal shows them: a code for scripts, a sentence for people.

use engine::EngineError;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl std::fmt::Display) -> Failure {
        Failure { code, message: message.to_string() }
    }

    pub fn usage(message: impl std::fmt::Display) -> Failure {
        Failure::new("usage", message)
    }

    pub fn io(path: &std::path::Path, error: std::io::Error) -> Failure {
        Failure::new("io", format!("{}: {error}", path.display()))
    }

    pub fn exit_status(&self) -> u8 {
        if self.code == "usage" { 2 } else { 1 }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        let code = match &error {
            EngineError::File(_) => "file",
            EngineError::Model(_) | EngineError::Tokenizer(_) => "unsupported-model",
            EngineError::ContextFull { .. } => "context-full",
            EngineError::Device(backend) => match backend {
                backend_error if is_memory(backend_error) => "out-of-memory",
                _ => "device",
            },
            EngineError::Cancelled => "cancelled",
            EngineError::Invalid(_) => "usage",
            EngineError::Stopped(_) => "internal",
        };
        Failure::new(code, error)
    }
}

fn is_memory(error: &engine::BackendError) -> bool {
    matches!(error, engine::BackendError::OutOfMemory { .. })
}

impl From<weights::WeightsError> for Failure {
    fn from(error: weights::WeightsError) -> Failure {
        Failure::new("file", error)
    }
}

impl From<model::ModelError> for Failure {
    fn from(error: model::ModelError) -> Failure {
        Failure::new("unsupported-model", error)
    }
}

impl From<tokenizer::TokenizerError> for Failure {
    fn from(error: tokenizer::TokenizerError) -> Failure {
        Failure::new("unsupported-model", error)
    }
}

impl From<chat_template::TemplateError> for Failure {
    fn from(error: chat_template::TemplateError) -> Failure {
        Failure::new("template", error)
    }
}

//! Errors as the terminal shows them: a code for scripts, a sentence for people.

use app::wire::{ErrorCode, WireError};
use std::fmt::Display;
use std::io;
use std::path::Path;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

/// The code of a wrong argument.
const USAGE: &str = "usage";

impl Failure {
    pub fn new(code: &str, message: impl Display) -> Failure {
        Failure { code: code.into(), message: message.to_string() }
    }

    pub fn usage(message: impl Display) -> Failure {
        Failure::new(USAGE, message)
    }

    /// A file of the user that cannot be read or written.
    pub fn io(path: &Path, error: io::Error) -> Failure {
        WireError::file(path, &error).into()
    }

    pub fn exit_status(&self) -> u8 {
        if self.code == USAGE { 2 } else { 1 }
    }
}

impl From<WireError> for Failure {
    /// The codes of the window, spelled as words of a command line: "fileTruncated" is "file-truncated".
    fn from(error: WireError) -> Failure {
        let name = serde_json::to_value(error.code).ok().and_then(|value| value.as_str().map(str::to_owned));
        let mut code = String::new();
        for letter in name.unwrap_or_default().chars() {
            if letter.is_ascii_uppercase() {
                code.push('-');
            }
            code.push(letter.to_ascii_lowercase());
        }
        // A wrong schema is a wrong argument here.
        let code = if matches!(error.code, ErrorCode::BadArgument | ErrorCode::FormatInvalid | ErrorCode::FormatNotJson)
        {
            USAGE.into()
        } else {
            code
        };
        Failure { code, message: error.message }
    }
}

macro_rules! through_wire_error {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                WireError::from(error).into()
            }
        })*
    };
}

through_wire_error!(engine::EngineError, weights::WeightsError, model::ModelError);

impl From<tokenizer::TokenizerError> for Failure {
    fn from(error: tokenizer::TokenizerError) -> Failure {
        Failure::new("model-unsupported", error)
    }
}

impl From<chat_template::TemplateError> for Failure {
    fn from(error: chat_template::TemplateError) -> Failure {
        Failure::new("template", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn codes_are_words() {
        let failure = |code| Failure::from(WireError::new(code, "x"));
        assert_eq!(failure(ErrorCode::FileTruncated).code, "file-truncated");
        assert_eq!(failure(ErrorCode::Busy).code, "busy");
        let usage = failure(ErrorCode::BadArgument);
        assert_eq!((usage.code.as_str(), usage.exit_status()), ("usage", 2));
    }
}

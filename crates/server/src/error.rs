//! What went wrong, as OpenAI's clients read it.

use app::wire::{ErrorCode, WireError};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
        Problem { status, code, message: message.into() }
    }

    /// What was asked cannot be done, and never will.
    pub fn request(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn closing() -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the server is ending")
    }

    pub fn to_json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "code": self.code, "param": null } })
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Problem {
        let (status, code) = match error.code {
            // The word by which clients know that a conversation has to be made shorter.
            ErrorCode::ContextFull => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
            ErrorCode::BadArgument
            | ErrorCode::FormatInvalid
            | ErrorCode::FormatNotJson
            | ErrorCode::FormatTooComplex
            | ErrorCode::FormatStuck => (StatusCode::BAD_REQUEST, "invalid_request"),
            ErrorCode::NoModelLoaded => (StatusCode::SERVICE_UNAVAILABLE, "model_not_loaded"),
            ErrorCode::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "cut_off"),
            ErrorCode::TemplateFailed => (StatusCode::BAD_REQUEST, "template_failed"),
            ErrorCode::RamFull | ErrorCode::VramFull => (StatusCode::SERVICE_UNAVAILABLE, "out_of_memory"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Problem::new(status, code, error.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.to_json())).into_response()
    }
}

//! Messages to prompt through the model's Jinja template; reasoning split from answers.

mod builtin;
pub mod conformance;
mod environment;
mod error;
mod filters;
mod harmony;
mod json;
mod keep;
mod limits;
mod markup;
mod methods;
mod python;
mod reasoning;
mod source;
mod template;
mod time;
mod tokens;
mod value;

pub use builtin::{BuiltinTemplate, TemplateChoice};
pub use chrono::NaiveDateTime;
pub use error::TemplateError;
pub use limits::Limits;
pub use reasoning::{Piece, ReasoningSplitter};
pub use template::{RenderInput, Template, TemplateTokens};

//! Messages to prompt through the model's Jinja template; reasoning split from answers.
//!
//! Templates are written for Jinja2 as transformers sets it up. [`Template`] runs them on minijinja, with Python's way of
//! printing, its methods and `json.dumps` added, and within [`Limits`], because a template comes with a downloaded file.

mod builtin;
mod capabilities;
pub mod conformance;
mod environment;
mod error;
mod filters;
mod harmony;
mod json;
mod keep;
mod limits;
mod literals;
mod marks;
mod methods;
mod operators;
mod python;
mod reasoning;
mod source;
mod template;
mod time;
mod tokens;
mod value;

pub use builtin::{BuiltinTemplate, TemplateChoice};
pub use capabilities::Capabilities;
pub use chrono::NaiveDateTime;
pub use error::TemplateError;
pub use limits::Limits;
pub use reasoning::{Piece, ReasoningSplitter};
pub use template::{RenderInput, Template, TemplateTokens};

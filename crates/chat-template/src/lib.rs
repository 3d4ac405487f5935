//! Messages to prompt through the model's Jinja template; reasoning split from answers.

mod environment;
mod error;
mod filters;
mod json;
mod limits;
mod markup;
mod methods;
mod python;
mod source;
mod template;
mod time;
mod value;

pub use chrono::NaiveDateTime;
pub use error::TemplateError;
pub use limits::Limits;
pub use template::{RenderInput, Template, TemplateTokens};

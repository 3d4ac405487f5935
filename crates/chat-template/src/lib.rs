//! Messages to prompt through the model's Jinja template; answers to reasoning, text and tool calls.
//!
//! Templates are written for Jinja2 as transformers sets it up. [`Template`] runs them on minijinja, with Python's way of
//! printing, its methods and `json.dumps` added, and within [`Limits`], because a template comes with a downloaded file.

mod answer;
mod builtin;
mod calls;
mod capabilities;
mod compared;
pub mod conformance;
mod environment;
mod error;
mod filters;
mod harmony;
mod history;
mod json;
mod keep;
mod limits;
mod literals;
mod marks;
mod methods;
mod operators;
mod python;
mod source;
mod template;
mod time;
mod tokens;
mod value;
mod watch;

pub use answer::{AnswerParser, Part, Stage};
pub use builtin::{BuiltinTemplate, TemplateChoice};
pub use calls::{CallMarks, ToolCall};
pub use capabilities::{Capabilities, THINKING};
pub use chrono::NaiveDateTime;
pub use error::TemplateError;
pub use history::CallForm;
pub use limits::Limits;
pub use marks::reasoning_mark;
pub use template::{RenderInput, Template, TemplateTokens};

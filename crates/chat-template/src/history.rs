//! Answers with tool calls on their way back into a prompt.

use chrono::NaiveDateTime;
use serde_json::{Value as Json, json};

use crate::{RenderInput, Template, ToolCall};

/// How a template takes an answer's tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallForm {
    /// As `tool_calls`, with the arguments as a mapping or as JSON in a string.
    Fields {
        /// JSON in a string.
        as_text: bool,
        /// The content of an answer that is nothing but calls is `None` rather than an empty text.
        null_content: bool,
    },
    /// Not at all: calls have to be in the answer's text, as the model wrote them.
    Text,
}

impl Template {
    /// How this template takes tool calls, found by rendering probes.
    pub fn call_form(&self, now: NaiveDateTime) -> CallForm {
        let forms = [(false, false), (true, false), (false, true), (true, true)];
        let forms = forms.map(|(as_text, null_content)| CallForm::Fields { as_text, null_content });
        forms.into_iter().find(|form| self.takes(*form, now)).unwrap_or(CallForm::Text)
    }

    fn takes(&self, form: CallForm, now: NaiveDateTime) -> bool {
        const NAME: &str = "probe_tool";
        const KEY: &str = "probe_key";
        const VALUE: &str = "probe_value";
        let call = ToolCall {
            name: NAME.to_owned(),
            arguments: [(KEY.to_owned(), VALUE.into())].into_iter().collect(),
            id: None,
            source: String::new(),
        };
        let messages = vec![
            json!({"role": "user", "content": "Hi"}),
            form.message("", None, std::slice::from_ref(&call)),
            json!({"role": "tool", "name": NAME, "tool_call_id": id(&call, 0), "content": "1"}),
        ];
        let Ok(prompt) = self.render(&RenderInput { messages, ..RenderInput::default() }, now) else { return false };
        // Quoted twice, or as Python prints a mapping: the other form is meant.
        let wrong = [format!("\\\"{KEY}\\\""), format!("'{KEY}':")];
        prompt.contains(NAME)
            && prompt.contains(KEY)
            && prompt.contains(VALUE)
            && !wrong.iter().any(|w| prompt.contains(w))
    }
}

impl CallForm {
    /// An answer as a message for the template.
    pub fn message(self, text: &str, thinking: Option<&str>, calls: &[ToolCall]) -> Json {
        let mut message = json!({"role": "assistant", "content": text});
        if let Some(thinking) = thinking {
            message["reasoning_content"] = thinking.into();
        }
        match self {
            _ if calls.is_empty() => {}
            Self::Text => {
                let sources: String = calls.iter().map(|call| call.source.as_str()).collect();
                message["content"] = format!("{text}{sources}").into();
            }
            Self::Fields { as_text, null_content } => {
                if text.is_empty() && null_content {
                    message["content"] = Json::Null;
                }
                let field = |(at, call): (usize, &ToolCall)| {
                    let arguments = Json::Object(call.arguments.clone());
                    let arguments = if as_text { Json::String(crate::json::spaced(&arguments)) } else { arguments };
                    json!({"id": id(call, at), "type": "function",
                        "function": {"name": call.name, "arguments": arguments}})
                };
                message["tool_calls"] = calls.iter().enumerate().map(field).collect();
            }
        }
        message
    }
}

/// The call's own id, or one made of nine letters and digits, which is what Mistral's templates want.
fn id(call: &ToolCall, at: usize) -> String {
    call.id.clone().unwrap_or_else(|| format!("call{at:05}"))
}

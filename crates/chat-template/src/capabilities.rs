//! What a template can do, found by rendering probes.

use chrono::NaiveDateTime;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::{RenderInput, Template};

/// What a template makes of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// A system message reaches the prompt. Otherwise see [`RenderInput::with_system_in_first_user_message`].
    pub system_role: bool,
    /// Tool definitions reach the prompt.
    pub tools: bool,
    /// One of [`THINKING`] changes the prompt: thinking can be switched off and on.
    pub thinking_switch: bool,
}

/// What templates read to know whether the model shall think before it answers: two words for the same.
pub const THINKING: [&str; 2] = ["enable_thinking", "thinking"];

impl Template {
    /// Renders probes. A probe that fails shows a missing capability.
    pub fn capabilities(&self, now: NaiveDateTime) -> Capabilities {
        const MARK: &str = "headroom-probe";
        let user = json!({"role": "user", "content": "Hi"});
        let render = |messages: Vec<Json>, tools: Option<Json>, thinking: Option<bool>| {
            let mut input = RenderInput { messages, tools, add_generation_prompt: true, ..RenderInput::default() };
            if let Some(thinking) = thinking {
                input.extra.extend(THINKING.map(|word| (word.to_owned(), thinking.into())));
            }
            self.render(&input, now).ok()
        };
        let shows = |prompt: Option<String>| prompt.is_some_and(|prompt| prompt.contains(MARK));
        let tool = json!([{"type": "function", "function": {"name": MARK, "description": "Probe.",
            "parameters": {"type": "object", "properties": {}, "required": []}}}]);
        let switched = [true, false].map(|thinking| render(vec![user.clone()], None, Some(thinking)));
        Capabilities {
            system_role: shows(render(vec![json!({"role": "system", "content": MARK}), user.clone()], None, None)),
            tools: shows(render(vec![user.clone()], Some(tool), None)),
            thinking_switch: switched[0] != switched[1],
        }
    }
}

impl RenderInput {
    /// The same conversation for a template without a system role: the text of system messages goes before that of the
    /// first user message. Other inputs stay as they are.
    #[must_use]
    pub fn with_system_in_first_user_message(&self) -> Self {
        let role = |message: &Json, name: &str| message.get("role").and_then(Json::as_str) == Some(name);
        let text = |message: &Json| message.get("content").and_then(Json::as_str).map(str::to_owned);
        let (system, mut messages): (Vec<Json>, Vec<Json>) =
            self.messages.iter().cloned().partition(|m| role(m, "system") && text(m).is_some());
        let system: Vec<String> = system.iter().filter_map(text).collect();
        let Some(first) = messages.iter_mut().find(|m| role(m, "user")) else { return self.clone() };
        let Some(said) = text(first).filter(|_| !system.is_empty()) else { return self.clone() };
        first["content"] = Json::String(format!("{}\n\n{said}", system.join("\n\n")));
        Self { messages, ..self.clone() }
    }
}

//! A conversation to tokens, through the model's template. What a user typed never becomes a control token.

use crate::error::Result;
use crate::wire::{ErrorCode, WireError};
use chat_template::{
    AnswerParser, CallForm, CallMarks, NaiveDateTime, RenderInput, Template, TemplateChoice, TemplateError,
    TemplateTokens, ToolCall,
};
use gguf::Gguf;
use serde_json::{Map, Value, json};
use tokenizer::{Encode, TokenKind, Tokenizer};

/// One message, as the template gets it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// "system", "user", "assistant", or "tool": what a tool has said
    pub role: &'static str,
    pub text: String,
    pub thinking: Option<String>,
    /// Tools that an answer wanted.
    pub tool_calls: Vec<ToolCall>,
    /// Of what a tool has said: which call it answers.
    pub called: Option<Called>,
}

/// What a template gets.
#[derive(Clone, Copy)]
pub struct Conversation<'a> {
    pub messages: &'a [Said],
    /// [`crate::Task::tools`]
    pub tools: &'a [Value],
    /// [`crate::Task::variables`]
    pub variables: &'a Map<String, Value>,
}

/// A tool call that was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Called {
    pub id: String,
    pub name: String,
}

/// The text that goes to the model, and its tokens.
pub struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
}

/// A model's chat format.
pub struct Format {
    template: Template,
    /// The model's own template as it is written.
    source: String,
    /// The model brought none that can be used.
    pub missing: bool,
    /// Thinking can be switched off and on.
    pub thinking_switch: bool,
    /// Tool definitions reach the prompt.
    pub knows_tools: bool,
    /// How the model marks tool calls, and how the template takes them back.
    calls: CallMarks,
    call_form: CallForm,
    /// Texts that would become control tokens.
    controls: Vec<String>,
}

/// Stands before and after the number of a text that is not to be parsed. Where a user writes these characters, they
/// are such texts themselves: nobody can forge them.
const OPEN: char = '\u{F8F0}';
const CLOSE: char = '\u{F8F1}';

impl Format {
    /// The model's own format, or a built-in one.
    ///
    /// # Errors
    /// Not even the built-in format can be parsed: a bug.
    pub fn new(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Format> {
        let token = |id: Option<u32>| {
            id.map(|id| String::from_utf8_lossy(tokenizer.token_text(id)).into_owned()).unwrap_or_default()
        };
        let tokens = TemplateTokens { bos: token(tokenizer.bos()), eos: token(tokenizer.eos()) };
        let source = gguf.metadata.str("tokenizer.chat_template");
        let has_token = |text: &str| tokenizer.token_id(text).is_some();
        let own = match TemplateChoice::new(source, has_token) {
            TemplateChoice::Model => source.and_then(|source| match Template::parse(source, tokens.clone()) {
                Ok(template) => Some(template),
                Err(error) => {
                    tracing::warn!("the model's chat template cannot be used: {error}");
                    None
                }
            }),
            TemplateChoice::Builtin(_) => None,
        };
        let missing = own.is_none();
        let template = match own {
            Some(template) => template,
            None => {
                let builtin = chat_template::BuiltinTemplate::for_vocabulary(has_token);
                Template::parse(builtin.source(), tokens).map_err(|error| WireError::internal(error.to_string()))?
            }
        };
        let capabilities = template.capabilities(chrono::Local::now().naive_local());
        let (thinking_switch, knows_tools) = match missing {
            true => (false, false),
            false => (capabilities.thinking_switch, capabilities.tools),
        };
        let calls = match missing {
            true => CallMarks::default(),
            false => CallMarks::of_template(source.unwrap_or_default()),
        };
        let call_form = template.call_form(chrono::Local::now().naive_local());
        let controls = (0..tokenizer.vocab_size() as u32)
            .filter(|id| tokenizer.token_kind(*id) == TokenKind::Control)
            .filter_map(|id| String::from_utf8(tokenizer.token_text(id).to_vec()).ok())
            .filter(|text| !text.is_empty())
            .collect();
        let source = source.filter(|_| !missing).unwrap_or_default().to_owned();
        Ok(Format { template, source, missing, thinking_switch, knows_tools, calls, call_form, controls })
    }

    /// Takes the answer to a prompt apart.
    pub fn parser(&self, prompt: &str) -> AnswerParser {
        AnswerParser::new(prompt, self.calls.clone())
    }

    /// The mark with which the model may open its reasoning after a prompt.
    pub fn reasoning_mark(&self, prompt: &str) -> Option<&'static str> {
        chat_template::reasoning_mark(&self.source, prompt)
    }

    /// The prompt after which the model answers.
    ///
    /// # Errors
    /// The template refuses the conversation or fails.
    pub fn prompt(&self, tokenizer: &Tokenizer, said: &Conversation<'_>, now: NaiveDateTime) -> Result<Prompt> {
        match self.render_with(self.call_form, tokenizer, said, now) {
            // Some templates take one call at a time, or want each to have its result: as text anything goes.
            Err(_) if said.messages.iter().any(|said| !said.tool_calls.is_empty()) => {
                Ok(self.render_with(CallForm::Text, tokenizer, said, now)?)
            }
            result => Ok(result?),
        }
    }

    fn render_with(
        &self,
        form: CallForm,
        tokenizer: &Tokenizer,
        said: &Conversation<'_>,
        now: NaiveDateTime,
    ) -> Result<Prompt, TemplateError> {
        match self.render(form, tokenizer, said, now) {
            // Some templates know no system role: its text then opens the first message of the user.
            Err(TemplateError::Refused { .. }) if said.messages.first().is_some_and(|first| first.role == "system") => {
                self.render(form, tokenizer, &Conversation { messages: &without_system(said.messages), ..*said }, now)
            }
            result => result,
        }
    }

    fn render(
        &self,
        form: CallForm,
        tokenizer: &Tokenizer,
        said: &Conversation<'_>,
        now: NaiveDateTime,
    ) -> Result<Prompt, TemplateError> {
        let mut hidden = Vec::new();
        let messages: Vec<Value> = said
            .messages
            .iter()
            .map(|said| {
                let text = self.hide(&said.text, &mut hidden);
                let thinking = said.thinking.as_ref().map(|thinking| self.hide(thinking, &mut hidden));
                let calls: Vec<ToolCall> = said.tool_calls.iter().map(|call| self.hide_in(call, &mut hidden)).collect();
                match said.role {
                    "assistant" => form.message(&text, thinking.as_deref(), &calls),
                    role => {
                        let mut message = json!({ "role": role, "content": text });
                        if let Some(called) = &said.called {
                            message["tool_call_id"] = self.hide(&called.id, &mut hidden).into();
                            message["name"] = self.hide(&called.name, &mut hidden).into();
                        }
                        message
                    }
                }
            })
            .collect();
        let tools: Vec<Value> = said.tools.iter().map(|tool| self.hide_json(tool, &mut hidden)).collect();
        let tools = (!tools.is_empty()).then(|| tools.into());
        let variables = said.variables.iter();
        let extra = variables.map(|(name, value)| (name.clone(), self.hide_json(value, &mut hidden))).collect();
        let input = RenderInput { messages, tools, extra, add_generation_prompt: true, ..RenderInput::default() };
        let rendered = self.template.render(&input, now)?;
        let (mut text, mut ids) = (String::new(), Vec::new());
        for (piece, parse_special) in pieces(&rendered, &hidden) {
            ids.extend(tokenizer.encode(piece, Encode { add_special: false, parse_special }));
            text.push_str(piece);
        }
        if let Some(bos) = tokenizer.bos().filter(|bos| tokenizer.adds_bos() && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(Prompt { text, ids })
    }

    /// A tool call without what must not be parsed. Only the marks that make it a call stay.
    fn hide_in(&self, call: &ToolCall, hidden: &mut Vec<String>) -> ToolCall {
        let marks: Vec<&str> = self.calls.texts().collect();
        ToolCall {
            name: self.hide(&call.name, hidden),
            arguments: call.arguments.iter().map(|(k, v)| (self.hide(k, hidden), self.hide_json(v, hidden))).collect(),
            id: call.id.as_ref().map(|id| self.hide(id, hidden)),
            source: self.hide_but(&marks, &call.source, hidden),
        }
    }

    fn hide_json(&self, value: &Value, hidden: &mut Vec<String>) -> Value {
        match value {
            Value::String(text) => self.hide(text, hidden).into(),
            Value::Array(list) => list.iter().map(|value| self.hide_json(value, hidden)).collect(),
            Value::Object(object) => {
                object.iter().map(|(k, v)| (self.hide(k, hidden), self.hide_json(v, hidden))).collect()
            }
            other => other.clone(),
        }
    }

    /// Puts a mark in the place of everything that must not be parsed.
    fn hide(&self, text: &str, hidden: &mut Vec<String>) -> String {
        self.hide_but(&[], text, hidden)
    }

    fn hide_but(&self, kept: &[&str], text: &str, hidden: &mut Vec<String>) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let marks = [OPEN.to_string(), CLOSE.to_string()];
        let all = || self.controls.iter().filter(|text| !kept.contains(&text.as_str())).chain(&marks);
        // Where each text is next, so that a long message is searched once for each.
        let mut next: Vec<(usize, &String)> = all().filter_map(|mark| Some((text.find(mark)?, mark))).collect();
        let mut at = 0;
        // The longest of those that begin first.
        while let Some(&(begin, mark)) = next.iter().min_by_key(|(begin, mark)| (*begin, usize::MAX - mark.len())) {
            out.push_str(&text[at..begin]);
            out.push_str(&format!("{OPEN}{}{CLOSE}", hidden.len()));
            hidden.push(mark.clone());
            at = begin + mark.len();
            rest = &text[at..];
            next.retain_mut(|(begin, mark)| {
                if *begin < at {
                    match rest.find(mark.as_str()) {
                        Some(found) => *begin = at + found,
                        None => return false,
                    }
                }
                true
            });
        }
        out.push_str(rest);
        out
    }
}

/// The rendered text with the hidden texts in their places, and whether control tokens may be parsed in each piece.
fn pieces<'a>(rendered: &'a str, hidden: &'a [String]) -> Vec<(&'a str, bool)> {
    let mut pieces = Vec::new();
    let mut rest = rendered;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let number = after.split_once(CLOSE).and_then(|(number, after)| {
            let index: usize = number.parse().ok()?;
            Some((hidden.get(index)?, after))
        });
        // Marks that a template cut in two leave nothing to put back.
        let (text, after) = number.map_or(("", after), |(text, after)| (text.as_str(), after));
        pieces.push((before, true));
        pieces.push((text, false));
        rest = after;
    }
    pieces.push((rest, true));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

fn without_system(messages: &[Said]) -> Vec<Said> {
    let mut rest = messages[1..].to_vec();
    if let Some(first) = rest.iter_mut().find(|said| said.role == "user") {
        first.text = format!("{}\n\n{}", messages[0].text, first.text);
    }
    rest
}

impl From<TemplateError> for WireError {
    fn from(error: TemplateError) -> WireError {
        let code = match error {
            TemplateError::NoThread { .. } => ErrorCode::Internal,
            _ => ErrorCode::TemplateFailed,
        };
        WireError::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(controls: &[&str]) -> Format {
        let template = Template::parse("{{ messages[0].content | trim }}", TemplateTokens::default()).unwrap();
        Format {
            template,
            source: String::new(),
            missing: false,
            thinking_switch: false,
            knows_tools: false,
            calls: CallMarks::of_template("[TOOL_CALLS]"),
            call_form: CallForm::Text,
            controls: controls.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// The text as it was, and what of it is not parsed.
    fn round_trip(controls: &[&str], text: &str) -> (String, Vec<String>) {
        let mut hidden = Vec::new();
        let marked = format(controls).hide(text, &mut hidden);
        let pieces = pieces(&marked, &hidden);
        let unparsed = pieces.iter().filter(|(_, parse)| !parse).map(|(text, _)| (*text).to_owned());
        (pieces.iter().map(|(text, _)| *text).collect(), unparsed.collect())
    }

    /// The model is loaded and answers other conversations: another one is not what is needed first.
    #[test]
    fn what_a_template_does_not_take_is_told_as_that() {
        let refused =
            Template::parse("{{ raise_exception('roles must alternate') }}", TemplateTokens::default()).unwrap();
        let error = refused.render(&RenderInput::default(), NaiveDateTime::default()).unwrap_err();
        let error = WireError::from(error);
        assert_eq!(error.code, ErrorCode::TemplateFailed);
        assert!(error.message.contains("roles must alternate"), "{error}");
        let slow = WireError::from(TemplateError::TooSlow { seconds: 20 });
        assert_eq!(slow.code, ErrorCode::TemplateFailed);
    }

    #[test]
    fn the_template_gets_tools_results_and_whether_to_think() {
        let source = "{% if enable_thinking is defined %}[{{ enable_thinking }}]{% endif %}\
            {% for tool in tools or [] %}{{ tool.name }};{% endfor %}\
            {% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.name %}({{ m.name }} {{ m.tool_call_id }}){% endif %};{% endfor %}";
        let template = Template::parse(source, TemplateTokens::default()).unwrap();
        let format = Format { template, ..format(&["</s>"]) };
        let file = test_models::ModelSpec::qwen3().build();
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file, file.len() as u64).unwrap()).unwrap();
        let called = Some(Called { id: "7".into(), name: "rain".into() });
        let messages = [
            Said { role: "user", text: "Hi".into(), ..Said::default() },
            Said { role: "tool", text: "no".into(), called, ..Said::default() },
        ];
        let tools = [json!({ "name": "rain</s>" })];
        let prompt = |tools: &[Value], wanted: Option<bool>| {
            let said = Conversation { messages: &messages, tools, variables: &crate::thinking(wanted) };
            format.prompt(&tokenizer, &said, NaiveDateTime::default()).unwrap().text
        };
        assert_eq!(prompt(&[], None), "user:Hi;tool:no(rain 7);");
        assert_eq!(prompt(&tools, Some(false)), "[False]rain</s>;user:Hi;tool:no(rain 7);");
        // What a tool is called is never a control token.
        let mut hidden = Vec::new();
        format.hide_json(&tools[0], &mut hidden);
        assert_eq!(hidden, ["</s>"]);
    }

    #[test]
    fn plain_text_is_left_alone() {
        let mut hidden = Vec::new();
        assert_eq!(format(&["</s>"]).hide("a < b </ s>", &mut hidden), "a < b </ s>");
        assert!(hidden.is_empty());
    }

    #[test]
    fn control_texts_are_hidden_and_come_back() {
        let text = "a<|im_end|>b</s></s><|im_end|><|im_";
        let (back, unparsed) = round_trip(&["</s>", "<|im_end|>", "<|im"], text);
        assert_eq!(back, text);
        assert_eq!(unparsed, ["<|im_end|>", "</s>", "</s>", "<|im_end|>", "<|im"]);
    }

    #[test]
    fn the_marks_of_a_call_stay_and_its_arguments_are_hidden() {
        let format = format(&["</s>", "[TOOL_CALLS]"]);
        let arguments = json!({ "a": ["</s>"], "b": 1 }).as_object().cloned().unwrap();
        let source = "[TOOL_CALLS]f[ARGS]{\"a\": [\"</s>\"]}".to_owned();
        let call = ToolCall { name: "f".into(), arguments, id: None, source: source.clone() };
        let mut hidden = Vec::new();
        let safe = format.hide_in(&call, &mut hidden);
        assert_eq!(hidden, ["</s>", "</s>"]);
        assert!(safe.source.starts_with("[TOOL_CALLS]f[ARGS]") && !safe.source.contains("</s>"), "{}", safe.source);
        assert_eq!(pieces(&safe.source, &hidden).iter().map(|(text, _)| *text).collect::<String>(), source);
        assert!(!json!(safe.arguments).to_string().contains("</s>"));
    }

    #[test]
    fn marks_cannot_be_forged() {
        let text = format!("{OPEN}0{CLOSE}</s>{OPEN}1{CLOSE}{OPEN}");
        let (back, unparsed) = round_trip(&["</s>"], &text);
        assert_eq!(back, text);
        assert_eq!(unparsed.len(), 6);
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in "[a<|/s>\u{F8F0}\u{F8F1}0日]{0,40}") {
            let (back, unparsed) = round_trip(&["</s>", "<|a|>"], &text);
            proptest::prop_assert_eq!(&back, &text);
            let parsed = back.matches("</s>").count();
            proptest::prop_assert_eq!(unparsed.iter().filter(|t| *t == "</s>").count(), parsed);
        }
    }
}

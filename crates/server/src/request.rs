//! What is asked, as OpenAI's clients write it. What is not known here is ignored; what is known and cannot be done is refused.

use crate::error::Problem;
use app::{Called, Said};
use chat_template::ToolCall;
use grammar::Form;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
pub struct ChatRequest {
    messages: Vec<Message>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    /// What the template reads besides, as llama.cpp's server and vLLM take it.
    #[serde(default)]
    chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    reasoning_effort: Option<String>,
    #[serde(flatten)]
    pub common: Common,
}

#[derive(Deserialize)]
pub struct CompletionRequest {
    prompt: OneOrMany,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(flatten)]
    pub common: Common,
}

/// Texts at which an answer ends, and bytes of each: every piece of an answer is looked through for all of them.
const MOST_STOPS: usize = 64;
const LONGEST_STOP: usize = 1024;

/// What both have.
#[derive(Default, Deserialize)]
pub struct Common {
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<i64>,
    #[serde(default)]
    max_completion_tokens: Option<i64>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    logprobs: Option<Value>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    /// GBNF or Lark, as llama.cpp's server takes it.
    #[serde(default)]
    grammar: Option<String>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    repeat_penalty: Option<f32>,
    #[serde(default)]
    presence_penalty: Option<f32>,
    #[serde(default)]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    seed: Option<i64>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    json_schema: Option<JsonSchema>,
    /// As llama.cpp's server takes it, beside `json_object`.
    #[serde(default)]
    schema: Option<Value>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Value,
}

/// A conversation, as the app answers it.
pub struct Conversation {
    pub messages: Vec<Said>,
    pub tools: Vec<Value>,
    /// What else the template reads.
    pub variables: Map<String, Value>,
    /// What the answer begins with.
    pub begun: String,
    pub form: Option<Form>,
}

impl ChatRequest {
    /// `knows_tools`: whether the model's template does.
    pub fn conversation(&self, knows_tools: bool) -> Result<Conversation, Problem> {
        self.common.check()?;
        let tools = match self.tool_choice.as_ref().map(|choice| choice.as_str().unwrap_or("a function")) {
            None | Some("auto") => self.tools.clone().unwrap_or_default(),
            Some("none") => Vec::new(),
            Some(other) => return Err(Problem::request(format!("tool_choice can be auto or none, not {other}"))),
        };
        if !tools.is_empty() && !knows_tools {
            return Err(Problem::request("the model's chat template knows no tools"));
        }
        let mut messages: Vec<Said> = Vec::new();
        for message in &self.messages {
            let said = message.said(&messages)?;
            messages.push(said);
        }
        // An answer at the end is to be gone on with.
        let open = messages.pop_if(|last| last.role == "assistant" && last.tool_calls.is_empty());
        if messages.is_empty() {
            return Err(Problem::request("messages: there is nothing to answer"));
        }
        let format = self.response_format.as_ref().map_or(Ok(None), ResponseFormat::form)?;
        let form = format.or_else(|| self.common.grammar.clone().map(Form::Grammar));
        let mut variables = self.chat_template_kwargs.clone().unwrap_or_default();
        match self.reasoning_effort.as_deref() {
            None => {}
            Some("none") => variables.extend(app::thinking(Some(false))),
            Some(effort) => drop(variables.insert("reasoning_effort".into(), effort.into())),
        }
        Ok(Conversation { messages, tools, variables, begun: open.map(|said| said.text).unwrap_or_default(), form })
    }
}

impl CompletionRequest {
    /// The text to be continued, and what the continuation must look like.
    pub fn text(self, common: &Common) -> Result<(Said, Option<Form>), Problem> {
        common.check()?;
        if self.suffix.is_some_and(|suffix| !suffix.is_empty()) || self.echo == Some(true) {
            return Err(Problem::request("suffix and echo are not supported"));
        }
        let text = match self.prompt {
            OneOrMany::One(text) => text,
            OneOrMany::Many(texts) => match <[String; 1]>::try_from(texts) {
                Ok([text]) => text,
                Err(_) => return Err(Problem::request("prompt: one text at a time")),
            },
        };
        if text.is_empty() {
            return Err(Problem::request("prompt: the text is empty"));
        }
        Ok((Said { role: "user", text, ..Said::default() }, common.grammar.clone().map(Form::Grammar)))
    }
}

impl Common {
    fn check(&self) -> Result<(), Problem> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(Problem::request("n: one answer at a time"));
        }
        let wanted = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value.as_u64() != Some(0);
        if self.logprobs.as_ref().is_some_and(wanted) {
            return Err(Problem::request("logprobs are not supported"));
        }
        let stop = self.stop();
        if stop.len() > MOST_STOPS || stop.iter().any(|word| word.len() > LONGEST_STOP) {
            return Err(Problem::request(format!("stop: at most {MOST_STOPS} texts of {LONGEST_STOP} bytes")));
        }
        Ok(())
    }

    /// `base`: where the request has none. Many clients write -1 for no limit.
    pub fn max_tokens(&self, base: Option<u32>) -> Option<u32> {
        match self.max_completion_tokens.or(self.max_tokens) {
            None => base,
            Some(..0) => None,
            Some(max) => Some(u32::try_from(max).unwrap_or(u32::MAX)),
        }
    }

    pub fn stop(&self) -> Vec<String> {
        match &self.stop {
            None => Vec::new(),
            Some(OneOrMany::One(word)) => vec![word.clone()],
            Some(OneOrMany::Many(words)) => words.clone(),
        }
    }

    pub fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// `seed`: where the request has none.
    pub fn sampling(&self, base: &sampler::Params, seed: u64) -> Result<sampler::Params, Problem> {
        let params = sampler::Params {
            temperature: self.temperature.unwrap_or(base.temperature),
            // Below 0: all, as it is written elsewhere.
            top_k: self.top_k.map_or(base.top_k, |k| u32::try_from(k.max(0)).unwrap_or(u32::MAX)),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            // Negative: another one each time.
            seed: self.seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or(seed),
            ..base.clone()
        };
        params.validate().map_err(|error| Problem::request(error.to_string()))?;
        Ok(params)
    }
}

impl Message {
    /// `before`: what was said before, among which are the calls that tools answer.
    fn said(&self, before: &[Said]) -> Result<Said, Problem> {
        let role = match self.role.as_str() {
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" => "assistant",
            "tool" => "tool",
            other => return Err(Problem::request(format!("messages: there is no role '{other}'"))),
        };
        let calls = self.tool_calls.as_deref().unwrap_or_default();
        let tool_calls = calls.iter().map(Call::call).collect::<Result<_, _>>()?;
        let called = (role == "tool").then(|| {
            let id = self.tool_call_id.clone().unwrap_or_default();
            let mut asked = before.iter().rev().flat_map(|said| &said.tool_calls);
            let found = asked.find(|call| call.id.as_ref() == Some(&id)).map(|call| call.name.clone());
            Called { name: self.name.clone().or(found).unwrap_or_default(), id }
        });
        let text = self.content.as_ref().map_or(Ok(String::new()), Content::text)?;
        Ok(Said { role, text, thinking: self.reasoning_content.clone(), tool_calls, called })
    }
}

impl Content {
    fn text(&self) -> Result<String, Problem> {
        match self {
            Content::Text(text) => Ok(text.clone()),
            Content::Parts(parts) => parts
                .iter()
                .map(|part| match (part.kind.as_str(), &part.text) {
                    ("text", Some(text)) => Ok(text.as_str()),
                    (kind, _) => Err(Problem::request(format!("messages: parts are of text only, not '{kind}'"))),
                })
                .collect(),
        }
    }
}

impl Call {
    fn call(&self) -> Result<ToolCall, Problem> {
        let arguments = match &self.function.arguments {
            Value::String(text) if text.trim().is_empty() => Value::Null,
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Bool(false)),
            value => value.clone(),
        };
        let arguments = match arguments {
            Value::Object(object) => object,
            Value::Null => Map::new(),
            _ => return Err(Problem::request("messages: the arguments of a tool call are a JSON object")),
        };
        let name = self.function.name.clone();
        // How the model has written it, nobody has kept: for templates that take calls as text only.
        let source = json!({ "name": name, "arguments": arguments }).to_string();
        Ok(ToolCall { name, arguments, id: self.id.clone(), source })
    }
}

impl ResponseFormat {
    fn form(&self) -> Result<Option<Form>, Problem> {
        match (self.kind.as_str(), &self.json_schema, &self.schema) {
            ("text", ..) => Ok(None),
            ("json_object", _, None) => Ok(Some(Form::Json)),
            ("json_object", _, Some(schema)) => Ok(Some(Form::JsonSchema(schema.to_string()))),
            ("json_schema", Some(JsonSchema { schema }), _) => Ok(Some(Form::JsonSchema(schema.to_string()))),
            ("json_schema", None, _) => Err(Problem::request("response_format: json_schema.schema is missing")),
            (other, ..) => Err(Problem::request(format!("response_format: there is no type '{other}'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(value: Value) -> Result<Conversation, Problem> {
        serde_json::from_value::<ChatRequest>(value).unwrap().conversation(true)
    }

    #[test]
    fn a_conversation_with_tools_becomes_ours() {
        let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": {} } }]);
        let read = chat(json!({
            "model": "any", "tools": tools, "temperature": 0.5, "unknown": [1],
            "chat_template_kwargs": { "enable_thinking": true }, "reasoning_effort": "low",
            "messages": [
                { "role": "developer", "content": "Be brief." },
                { "role": "user", "content": [{ "type": "text", "text": "Rain " }, { "type": "text", "text": "in 東京?" }] },
                { "role": "assistant", "content": null, "reasoning_content": "Hm", "tool_calls": [
                    { "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"東京\"}" } }] },
                { "role": "tool", "tool_call_id": "call_1", "content": "sunny" },
                { "role": "assistant", "content": "No, it" },
            ],
        }))
        .unwrap();
        assert_eq!(read.tools, *tools.as_array().unwrap());
        assert_eq!(Value::Object(read.variables), json!({ "enable_thinking": true, "reasoning_effort": "low" }));
        assert_eq!(read.begun, "No, it");
        let roles: Vec<&str> = read.messages.iter().map(|said| said.role).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool"]);
        assert_eq!(read.messages[1].text, "Rain in 東京?");
        let [call] = &read.messages[2].tool_calls[..] else { panic!("{:?}", read.messages[2]) };
        assert_eq!((call.name.as_str(), &call.arguments["city"]), ("weather", &json!("東京")));
        assert_eq!(read.messages[2].thinking.as_deref(), Some("Hm"));
        assert_eq!(read.messages[3].called, Some(Called { id: "call_1".into(), name: "weather".into() }));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let hi = json!([{ "role": "user", "content": "Hi" }]);
        let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:" } }] }]);
        let wrong = [
            json!({ "messages": [] }),
            json!({ "messages": [{ "role": "assistant", "content": "Hi" }] }),
            json!({ "messages": [{ "role": "wizard", "content": "Hi" }] }),
            json!({ "messages": image }),
            json!({ "messages": hi, "n": 2 }),
            json!({ "messages": hi, "logprobs": true }),
            json!({ "messages": hi, "stop": vec!["a"; 65] }),
            json!({ "messages": hi, "stop": "a".repeat(1025) }),
            json!({ "messages": hi, "tool_choice": "required" }),
            json!({ "messages": hi, "response_format": { "type": "json_schema" } }),
            json!({ "messages": hi, "response_format": { "type": "xml" } }),
        ];
        for value in wrong {
            assert!(chat(value.clone()).is_err(), "{value}");
        }
        let tools = json!({ "messages": hi, "tools": [{}] });
        assert!(serde_json::from_value::<ChatRequest>(tools).unwrap().conversation(false).is_err());
        assert!(
            chat(json!({ "messages": hi, "n": 1, "logprobs": false, "tool_choice": "none", "tools": [{}], "stop": vec!["a"; 64] })).is_ok()
        );
    }

    #[test]
    fn sampling_is_taken_over_and_checked() {
        let common = |value: Value| serde_json::from_value::<Common>(value).unwrap();
        let base = sampler::Params { temperature: 0.3, ..sampler::Params::default() };
        let asked =
            common(json!({ "top_p": 0.5, "seed": 7, "stop": "a", "max_tokens": 3, "max_completion_tokens": 4 }));
        let params = asked.sampling(&base, 9).unwrap();
        assert_eq!((params.temperature, params.top_p, params.seed), (0.3, 0.5, 7));
        assert_eq!((asked.stop(), asked.max_tokens(None)), (vec!["a".to_owned()], Some(4)));
        let unlimited = common(json!({ "max_tokens": -1, "top_k": -1 }));
        assert_eq!((unlimited.max_tokens(Some(5)), unlimited.sampling(&base, 9).unwrap().top_k), (None, 0));
        assert_eq!(common(json!({})).max_tokens(Some(5)), Some(5));
        assert_eq!(common(json!({ "seed": -1 })).sampling(&base, 9).unwrap().seed, 9);
        assert!(common(json!({ "temperature": -1 })).sampling(&base, 9).is_err());
    }
}

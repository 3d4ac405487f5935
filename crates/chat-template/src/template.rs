//! A parsed chat template and what is given to it.

use std::io::{self, Write};

use chrono::NaiveDateTime;
use minijinja::Environment;
use minijinja::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{OutputLimit, TemplateError};
use crate::limits::Limits;
use crate::watch::Watch;
use crate::{environment, source, time, value};

const NAME: &str = "chat_template";

/// Text of the special tokens that templates print.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateTokens {
    /// `bos_token`; empty when the vocabulary has none.
    pub bos: String,
    /// `eos_token`; empty when the vocabulary has none.
    pub eos: String,
}

/// A conversation, in the form of the OpenAI chat API that chat templates expect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RenderInput {
    /// `{role, content, ...}` in the order of the conversation.
    pub messages: Vec<Json>,
    /// Tool definitions: JSON schemas, `{type: "function", function: {name, description, parameters}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Json>,
    /// Documents for retrieval-augmented answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Json>,
    /// Whether the prompt ends where the assistant's answer begins.
    #[serde(default)]
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking` or `reasoning_effort`.
    #[serde(flatten)]
    pub extra: Map<String, Json>,
}

/// A chat template, ready to render.
#[derive(Debug)]
pub struct Template {
    env: Environment<'static>,
    tokens: TemplateTokens,
    limits: Limits,
    watch: Watch,
}

impl Template {
    /// Parses a template with the default [`Limits`].
    ///
    /// # Errors
    /// [`TemplateError::SourceTooLarge`] and [`TemplateError::Syntax`].
    pub fn parse(source: &str, tokens: TemplateTokens) -> Result<Self, TemplateError> {
        Self::parse_with_limits(source, tokens, Limits::default())
    }

    /// Parses a template that may cost at most `limits`.
    ///
    /// # Errors
    /// [`TemplateError::SourceTooLarge`] and [`TemplateError::Syntax`].
    pub fn parse_with_limits(source: &str, tokens: TemplateTokens, limits: Limits) -> Result<Self, TemplateError> {
        if source.len() > limits.source_bytes {
            return Err(TemplateError::SourceTooLarge { bytes: source.len(), limit: limits.source_bytes });
        }
        let (watch, source) = (Watch::default(), source.to_owned());
        watch.clone().run(&limits, move || {
            let engine_error = |e| TemplateError::from_engine(&e, &limits, limits.fuel);
            let mut env = environment::build(&limits, &watch).map_err(engine_error)?;
            let prepared = source::prepare(&source)
                .map_err(|line| TemplateError::Syntax { line, message: "a tag is too long".to_owned() })?;
            env.add_template_owned(NAME, prepared).map_err(engine_error)?;
            Ok(Self { env, tokens, limits, watch })
        })
    }

    /// Renders the prompt for `input`. `now` is the local time that `strftime_now` prints.
    ///
    /// Absent tools and documents are `None`, as in transformers.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] when the template itself rejects the conversation, otherwise the limit or
    /// operation that failed.
    pub fn render(&self, input: &RenderInput, now: NaiveDateTime) -> Result<String, TemplateError> {
        let too_deep = || TemplateError::InputTooDeep { limit: self.limits.depth };
        let convert = |json: &Json| value::from_json(json, self.limits.depth).ok_or_else(too_deep);
        let optional = |json: &Option<Json>| json.as_ref().map_or(Ok(Value::from(())), convert);

        let messages = input.messages.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
        let mut context: Vec<(&str, Value)> = vec![
            ("bos_token", Value::from(self.tokens.bos.as_str())),
            ("eos_token", Value::from(self.tokens.eos.as_str())),
            ("messages", Value::from(messages)),
            ("tools", optional(&input.tools)?),
            ("documents", optional(&input.documents)?),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
            ("strftime_now", Value::from_function(move |format: &str| time::strftime(now, format))),
        ];
        for (name, json) in &input.extra {
            context.push((name, convert(json)?));
        }
        let input_bytes = input.messages.iter().chain(&input.tools).chain(&input.documents).chain(input.extra.values());
        let fuel_for_input =
            input_bytes.map(value::json_bytes).sum::<u64>().saturating_mul(self.limits.fuel_per_input_byte);
        let fuel = self.limits.fuel.saturating_add(fuel_for_input).min(self.limits.most_fuel.max(self.limits.fuel));
        let (mut env, limits, context) = (self.env.clone(), self.limits, Value::from_pairs(context));
        env.set_fuel(Some(fuel));
        self.watch.run(&limits, move || render_context(&env, &limits, context, fuel))
    }
}

fn render_context(env: &Environment<'_>, limits: &Limits, context: Value, fuel: u64) -> Result<String, TemplateError> {
    let engine_error = |e| TemplateError::from_engine(&e, limits, fuel);
    let mut out = Bounded { text: Vec::new(), limit: limits.output_bytes };
    env.get_template(NAME).map_err(engine_error)?.render_captured_to(context, &mut out).map_err(engine_error)?;
    String::from_utf8(out.text)
        .map_err(|e| TemplateError::Failed { line: 0, message: format!("the prompt is not UTF-8: {e}") })
}

/// Collects output up to a limit.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(io::Error::other(OutputLimit));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

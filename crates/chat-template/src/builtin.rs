//! Templates for models that come without one, each a named choice.

use serde::{Deserialize, Serialize};

/// A built-in chat format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuiltinTemplate {
    /// `<|im_start|>role ... <|im_end|>`.
    ChatMl,
    /// Llama 3's header tokens.
    Llama3,
    /// Gemma's turns; the system prompt joins the first user turn.
    Gemma,
    /// `[INST] ... [/INST]`.
    Mistral,
    /// "User:" and "Assistant:" lines, for models that were never trained to chat.
    Plain,
}

/// Where a model's chat format comes from. Shown to the user when it is not the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source", content = "template")]
pub enum TemplateChoice {
    /// The template in the model's file.
    Model,
    /// The file has no template; this format was chosen by the vocabulary's control tokens, or by the user.
    Builtin(BuiltinTemplate),
}

impl TemplateChoice {
    /// The model's own template if it has one, else the built-in format whose control tokens its vocabulary has.
    pub fn new(model_template: Option<&str>, has_token: impl Fn(&str) -> bool) -> Self {
        match model_template {
            Some(source) if !source.trim().is_empty() => Self::Model,
            _ => Self::Builtin(BuiltinTemplate::for_vocabulary(has_token)),
        }
    }
}

impl BuiltinTemplate {
    /// Every built-in format.
    pub const ALL: [Self; 5] = [Self::ChatMl, Self::Llama3, Self::Gemma, Self::Mistral, Self::Plain];

    /// The format whose control tokens the vocabulary has; [`Self::Plain`] when it has none of them.
    pub fn for_vocabulary(has_token: impl Fn(&str) -> bool) -> Self {
        let formats = [
            (Self::ChatMl, ["<|im_start|>", "<|im_end|>"]),
            (Self::Llama3, ["<|start_header_id|>", "<|eot_id|>"]),
            (Self::Gemma, ["<start_of_turn>", "<end_of_turn>"]),
            (Self::Mistral, ["[INST]", "[/INST]"]),
        ];
        let fits = |(format, tokens): &(Self, [&str; 2])| tokens.iter().all(|t| has_token(t)).then_some(*format);
        formats.iter().find_map(fits).unwrap_or(Self::Plain)
    }

    /// The template's Jinja source.
    pub fn source(self) -> &'static str {
        match self {
            Self::ChatMl => {
                "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                 {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
            }
            Self::Llama3 => {
                "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
                 {{ m.content | trim }}<|eot_id|>{% endfor %}\
                 {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
            }
            Self::Gemma => {
                "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
                 {% if m.role == 'system' %}{% set ns.system = ns.system + m.content + '\\n\\n' %}{% else %}\
                 <start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n\
                 {{ (ns.system + m.content) | trim }}<end_of_turn>\n{% set ns.system = '' %}{% endif %}{% endfor %}\
                 {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
            }
            Self::Mistral => {
                "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
                 {% if m.role == 'system' %}{% set ns.system = ns.system + m.content + '\\n\\n' %}\
                 {% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}\
                 {% else %}[INST] {{ ns.system }}{{ m.content | trim }} [/INST]{% set ns.system = '' %}{% endif %}\
                 {% endfor %}"
            }
            Self::Plain => {
                "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n\
                 {% else %}{{ 'Assistant' if m.role == 'assistant' else 'User' }}: {{ m.content }}\n{% endif %}\
                 {% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
            }
        }
    }
}

use super::{RecoveryNotice, Sampling, WireError};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A line of the chat list. Command `chats {query}`.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ChatSummary {
    pub id: String,
    pub title: String,
    pub pinned: bool,
    pub updated: u64,
    /// In the bin since then; deleted for good 30 days later.
    pub deleted: Option<u64>,
    /// Where the search words were found.
    pub snippet: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum FinishReason {
    /// The model ended it.
    End,
    /// Stopped by the user.
    Stopped,
    /// `max_tokens` reached.
    Length,
    /// The context is full.
    ContextFull,
    Error,
    /// The program ended in the middle of it.
    Interrupted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default)]
pub struct AnswerStats {
    pub prompt_tokens: u32,
    /// Of those, taken from the turn before.
    pub reused_tokens: u32,
    pub answer_tokens: u32,
    pub first_token_ms: f64,
    pub tokens_per_second: f64,
    pub prompt_tokens_per_second: f64,
    pub context_used: u32,
    pub context: u32,
    /// Tokens that were guessed and computed ahead, and those of them that the answer has.
    pub drafted: u32,
    pub accepted: u32,
}

/// A tool that the model wants to be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    pub name: String,
    /// A JSON object.
    pub arguments: String,
    pub id: Option<String>,
    /// As the model wrote it.
    pub source: String,
}

impl From<&chat_template::ToolCall> for ToolCall {
    fn from(call: &chat_template::ToolCall) -> ToolCall {
        let arguments = serde_json::Value::Object(call.arguments.clone()).to_string();
        ToolCall { name: call.name.clone(), arguments, id: call.id.clone(), source: call.source.clone() }
    }
}

impl From<&ToolCall> for chat_template::ToolCall {
    fn from(call: &ToolCall) -> chat_template::ToolCall {
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
        let (name, id, source) = (call.name.clone(), call.id.clone(), call.source.clone());
        chat_template::ToolCall { name, arguments, id, source }
    }
}

#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub id: String,
    /// The message before it; branches share a parent.
    pub parent: Option<String>,
    pub role: Role,
    pub text: String,
    pub thinking: Option<String>,
    /// Tools that the model wanted; nobody ran them.
    pub tool_calls: Vec<ToolCall>,
    pub model: Option<String>,
    pub created: u64,
    pub finish: Option<FinishReason>,
    pub stats: Option<AnswerStats>,
}

/// What the answers of a chat must look like. Command `chat_set_format {id, format}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AnswerFormat {
    /// Whatever the model writes.
    #[default]
    Text,
    /// A JSON object or array.
    Json,
    /// JSON that is valid under this schema.
    Schema { schema: String },
}

impl AnswerFormat {
    /// As the crate `grammar` takes it.
    pub fn form(&self) -> Option<grammar::Form> {
        match self {
            AnswerFormat::Text => None,
            AnswerFormat::Json => Some(grammar::Form::Json),
            AnswerFormat::Schema { schema } => Some(grammar::Form::JsonSchema(schema.clone())),
        }
    }
}

/// Command `chat {id}`: every branch; `path` is the one shown, first message first.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    pub id: String,
    pub title: String,
    pub pinned: bool,
    pub system_prompt: String,
    pub format: AnswerFormat,
    pub messages: Vec<Message>,
    pub path: Vec<String>,
    /// An answer is being written now.
    pub running: bool,
}

/// Command `chat_send` (with a Tauri channel of [`AnswerEvent`]).
#[derive(Clone, Debug, Deserialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Turn {
    /// A new message after the last one of the path, or after `parent`.
    Send { text: String, parent: Option<String> },
    /// A message of the user said otherwise, as a branch beside it.
    Edit { message: String, text: String },
    /// Another answer to the same message.
    Regenerate { message: String },
    /// Go on where an answer was cut.
    Continue { message: String },
}

#[derive(Clone, Debug, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct SendArgs {
    pub chat: String,
    pub turn: Turn,
    /// null: the settings' own.
    pub sampling: Option<Sampling>,
}

/// What an answer's channel carries. Text pieces are merged to one every 25-50 ms.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AnswerEvent {
    /// First: the ids under which the user's message (if any) and the answer are kept.
    Started {
        user: Option<Message>,
        answer: Message,
        path: Vec<String>,
    },
    /// Another program's answer is written first.
    Waiting,
    /// The answer's format is prepared, which takes a moment the first time that a model is given one.
    Preparing,
    Prompt {
        done: u32,
        total: u32,
    },
    Thinking {
        text: String,
    },
    Text {
        text: String,
    },
    /// The model wants a tool; nobody runs it.
    ToolCall {
        call: ToolCall,
    },
    Stats {
        stats: AnswerStats,
    },
    /// Old turns were left out because the context is full.
    Dropped {
        turns: u32,
        tokens: u32,
    },
    /// Layers had to move; the answer goes on.
    Recovery {
        notice: RecoveryNotice,
    },
    /// Last.
    Finished {
        message: Message,
        reason: FinishReason,
        title: String,
        error: Option<WireError>,
    },
}

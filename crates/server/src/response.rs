//! Answers as OpenAI's clients read them: whole, or piece by piece.

use crate::answers::{Answer, Piece};
use crate::error::Problem;
use app::wire::{AnswerStats, FinishReason};
use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chat_template::ToolCall;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands in every part of one response.
pub struct Head {
    pub id: String,
    pub model: String,
    /// A conversation, not a text that is continued.
    pub chat: bool,
    pub usage: bool,
}

impl Head {
    fn object(&self, chunk: bool, choice: Value) -> Value {
        let object = match (self.chat, chunk) {
            (true, true) => "chat.completion.chunk",
            (true, false) => "chat.completion",
            (false, _) => "text_completion",
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        json!({ "id": self.id, "object": object, "created": created, "model": self.model, "choices": [choice] })
    }

    /// A piece, or the end with its reason.
    fn chunk(&self, delta: Value, finish: Option<&str>) -> Value {
        let choice = match self.chat {
            true => json!({ "index": 0, "delta": delta, "finish_reason": finish }),
            false => {
                json!({ "index": 0, "text": delta["content"].as_str().unwrap_or_default(), "finish_reason": finish })
            }
        };
        self.object(true, choice)
    }

    /// An id for a tool call that the model gave none: nine letters and digits, which is what Mistral's templates want.
    fn call_id(&self, call: &ToolCall, at: usize) -> String {
        let own = self.id.bytes().rev().take(6).map(char::from).collect::<String>();
        call.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{own}{:03}", at % 1000))
    }

    fn call(&self, call: &ToolCall, at: usize) -> Value {
        let arguments = Value::Object(call.arguments.clone()).to_string();
        let function = json!({ "name": call.name, "arguments": arguments });
        json!({ "index": at, "id": self.call_id(call, at), "type": "function", "function": function })
    }
}

/// The whole answer at once.
pub async fn whole(head: Head, mut answer: Answer) -> Response {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    loop {
        match answer.next().await {
            Piece::Begun => {}
            Piece::Text(piece) => text.push_str(&piece),
            Piece::Thinking(piece) => thinking.push_str(&piece),
            Piece::Call(call) => {
                let mut call = head.call(&call, calls.len());
                if let Some(call) = call.as_object_mut() {
                    call.remove("index");
                }
                calls.push(call);
            }
            Piece::Failed(error) => return Problem::from(error).into_response(),
            Piece::End(reason, stats) => {
                let finish = word(reason, !calls.is_empty());
                let choice = match head.chat {
                    true => json!({ "index": 0, "message": message(text, thinking, calls), "finish_reason": finish }),
                    false => json!({ "index": 0, "text": text, "finish_reason": finish }),
                };
                let mut value = head.object(false, choice);
                add_stats(&mut value, &stats);
                return Json(value).into_response();
            }
        }
    }
}

fn message(text: String, thinking: String, calls: Vec<Value>) -> Value {
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content });
    if !thinking.is_empty() {
        message["reasoning_content"] = thinking.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// Piece by piece, as events.
pub fn streamed(head: Head, answer: Answer) -> Response {
    Sse::new(events(head, answer)).keep_alive(KeepAlive::default()).into_response()
}

enum State {
    Begin,
    Pieces,
    /// What is left to be said.
    Rest(Vec<String>),
}

fn events(head: Head, answer: Answer) -> impl Stream<Item = Result<Event, Infallible>> {
    let begin = (head, answer, 0, State::Begin);
    stream::unfold(begin, |(head, mut answer, mut calls, mut state)| async move {
        loop {
            let value = match &mut state {
                State::Begin => {
                    state = State::Pieces;
                    if !head.chat {
                        continue;
                    }
                    head.chunk(json!({ "role": "assistant", "content": "" }), None)
                }
                State::Rest(rest) => {
                    let data = rest.pop()?;
                    return Some((Ok(Event::default().data(data)), (head, answer, calls, state)));
                }
                State::Pieces => match answer.next().await {
                    Piece::Begun => continue,
                    Piece::Text(text) => head.chunk(json!({ "content": text }), None),
                    Piece::Thinking(text) => head.chunk(json!({ "reasoning_content": text }), None),
                    Piece::Call(call) => {
                        calls += 1;
                        head.chunk(json!({ "tool_calls": [head.call(&call, calls - 1)] }), None)
                    }
                    Piece::Failed(error) => {
                        state = State::Rest(vec!["[DONE]".into()]);
                        Problem::from(error).to_json()
                    }
                    Piece::End(reason, stats) => {
                        let mut last = head.chunk(json!({}), Some(word(reason, calls > 0)));
                        let mut rest = vec!["[DONE]".to_owned()];
                        if head.usage {
                            // OpenAI's own comes in a part without choices.
                            let mut value = head.object(true, Value::Null);
                            value["choices"] = json!([]);
                            add_stats(&mut value, &stats);
                            rest.push(value.to_string());
                        } else {
                            last["timings"] = timings(&stats);
                        }
                        state = State::Rest(rest);
                        last
                    }
                },
            };
            let event = Event::default().data(value.to_string());
            return Some((Ok(event), (head, answer, calls, state)));
        }
    })
}

fn add_stats(value: &mut Value, stats: &AnswerStats) {
    value["usage"] = json!({
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.answer_tokens,
        "total_tokens": stats.prompt_tokens + stats.answer_tokens,
        "prompt_tokens_details": { "cached_tokens": stats.reused_tokens },
    });
    value["timings"] = timings(stats);
}

/// As llama.cpp's server tells them.
fn timings(stats: &AnswerStats) -> Value {
    json!({
        "prompt_per_second": stats.prompt_tokens_per_second,
        "predicted_per_second": stats.tokens_per_second,
        "draft_n": stats.drafted,
        "draft_n_accepted": stats.accepted,
    })
}

fn word(reason: FinishReason, calls: bool) -> &'static str {
    match reason {
        FinishReason::Length | FinishReason::ContextFull => "length",
        FinishReason::End if calls => "tool_calls",
        FinishReason::End | FinishReason::Stopped | FinishReason::Error | FinishReason::Interrupted => "stop",
    }
}

//! An answer on its way to the terminal: thinking dimmed, statistics at the end.

use crate::failure::Failure;
use crate::output::{self, visible};
use app::wire::{AnswerStats, FinishReason};
use app::{Apart, Said, Step};
use chat_template::{Part, ToolCall};
use console::style;
use serde_json::{Value, json};
use std::io::IsTerminal;

/// Prints pieces as they come, unless only the whole is wanted.
pub struct Printer {
    /// JSON has the answer whole, at its end.
    silent: bool,
    terminal: bool,
    apart: Apart,
    thinking: String,
    text: String,
    tool_calls: Vec<ToolCall>,
    /// Printing failed; told at the end, because the engine does not want to know.
    failed: Option<Failure>,
    last: Option<char>,
}

impl Printer {
    pub fn new(silent: bool) -> Printer {
        Printer {
            silent,
            terminal: std::io::stdout().is_terminal(),
            apart: Apart::default(),
            thinking: String::new(),
            text: String::new(),
            tool_calls: Vec::new(),
            failed: None,
            last: None,
        }
    }

    /// Where a person looks on.
    fn progress(&self, text: &str) {
        if self.terminal && !self.silent {
            output::progress(text);
        }
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Preparing => self.progress("preparing the answer's format"),
            Step::Prompt(apart) => {
                self.progress("");
                self.apart = apart;
            }
            Step::Reading { done, total } if self.terminal && !self.silent && total > 512 => {
                output::progress(if done < total {
                    format!("reading {done} of {total} tokens")
                } else {
                    String::new()
                });
            }
            // Nobody else asks this model.
            Step::Waiting | Step::Reading { .. } | Step::Stats(_) => {}
            Step::Text(text) => self.apart.push(text).into_iter().for_each(|part| self.part(part)),
            Step::Dropped { turns, tokens } => {
                output::note(format!("[the context is full: {turns} old turns ({tokens} tokens) are left out]"));
            }
            Step::Recovery(notice) => {
                let (what, of) = (output::moved_away(&notice), notice.layers);
                output::note(format!("[{what}; {} of {of} layers are on the GPU now]", notice.gpu_layers));
            }
        }
    }

    fn part(&mut self, part: Part) {
        match part {
            Part::ToolCall(call) => {
                // A line of its own, which scripts can read; nothing is run here.
                let line = visible(&json!({ "tool_call": call.name, "arguments": call.arguments }).to_string());
                let begin = if self.last.is_some_and(|last| last != '\n') { "\n" } else { "" };
                self.print(&format!("{begin}{line}\n"), Some('\n'));
                self.tool_calls.push(call);
            }
            Part::Thinking(text) => {
                // A pipe gets the answer alone.
                if self.terminal {
                    self.print(&style(visible(&text)).dim().to_string(), text.chars().next_back());
                }
                self.thinking.push_str(&text);
            }
            Part::Text(text) => {
                let last = text.chars().next_back();
                match self.terminal {
                    true => {
                        if self.text.is_empty() && !self.thinking.is_empty() {
                            self.print("\n", Some('\n'));
                        }
                        self.print(&visible(&text), last);
                    }
                    false => self.print(&text, last),
                }
                self.text.push_str(&text);
            }
        }
    }

    fn print(&mut self, text: &str, last: Option<char>) {
        if !self.silent && self.failed.is_none() {
            self.failed = output::bytes(text.as_bytes()).err();
            self.last = last.or(self.last);
        }
    }

    /// The whole answer as it goes into the history, and whether it could be printed.
    pub fn finish(mut self) -> (Said, Result<(), Failure>) {
        self.apart.finish().into_iter().for_each(|part| self.part(part));
        if self.last.is_some_and(|last| last != '\n') {
            self.print("\n", None);
        }
        (self.so_far(), self.failed.map_or(Ok(()), Err))
    }

    /// What there is of the answer.
    pub fn so_far(&self) -> Said {
        let thinking = Some(self.thinking.clone()).filter(|thinking| !thinking.is_empty());
        let tool_calls = self.tool_calls.clone();
        Said { role: "assistant", text: self.text.clone(), thinking, tool_calls, called: None }
    }
}

/// The answer as one JSON object.
pub fn to_json(said: &Said, reason: FinishReason, stats: &AnswerStats) -> Value {
    json!({
        "text": said.text,
        "thinking": said.thinking,
        "tool_calls": said.tool_calls.iter().map(|call| json!({
            "name": call.name, "arguments": call.arguments, "id": call.id,
        })).collect::<Value>(),
        "finish": word(reason),
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "answer_tokens": stats.answer_tokens,
        "first_token_ms": stats.first_token_ms,
        "tg_tps": stats.tokens_per_second,
        "pp_tps": stats.prompt_tokens_per_second,
        "context_used": stats.context_used,
        "context": stats.context,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
    })
}

/// Statistics for people, and why the answer is not whole, if so.
pub fn summary(reason: FinishReason, stats: &AnswerStats) -> String {
    let end = match reason {
        FinishReason::Length => "; the limit is reached",
        FinishReason::ContextFull => "; the context is full",
        FinishReason::Stopped => "; stopped",
        _ => "",
    };
    let drafts = match stats.drafted {
        0 => String::new(),
        drafted => format!("; {} of {drafted} guessed ahead held", stats.accepted),
    };
    format!(
        "[prompt {} tokens ({} reused), {:.1}/s; answer {} tokens, {:.1}/s{drafts}; context {} of {}{end}]",
        stats.prompt_tokens,
        stats.reused_tokens,
        stats.prompt_tokens_per_second,
        stats.answer_tokens,
        stats.tokens_per_second,
        stats.context_used,
        stats.context
    )
}

fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::End => "end",
        FinishReason::Stopped => "stopped",
        FinishReason::Length => "length",
        FinishReason::ContextFull => "context_full",
        FinishReason::Error => "error",
        FinishReason::Interrupted => "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_told_apart() {
        let mut printer = Printer::new(true);
        let calls = chat_template::CallMarks::of_template("<tool_call>");
        let parser = chat_template::AnswerParser::new("<|im_start|>assistant\n<think>\n", calls);
        printer.step(Step::Prompt(Apart::new(parser)));
        for text in ["hm", "m</thi", "nk>\n\n4", "2<tool_", "call>{\"name\": \"f\"}"] {
            printer.step(Step::Text(text.into()));
        }
        let (said, _) = printer.finish();
        assert_eq!((said.thinking.as_deref().map(str::trim), said.text.trim()), (Some("hmm"), "42"));
        assert_eq!(said.tool_calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["f"]);
    }
}

//! An answer on its way to the terminal: thinking dimmed, statistics at the end.

use crate::failure::Failure;
use crate::output::{self, visible};
use app::wire::{AnswerStats, FinishReason};
use app::{MAX_TEXT, Said, Step};
use chat_template::{AnswerParser, Part, ToolCall};
use console::style;
use engine::Cancel;
use serde_json::{Value, json};
use std::io::IsTerminal;

/// Prints pieces as they come, unless only the whole is wanted.
pub struct Printer {
    /// JSON has the answer whole, at its end.
    silent: bool,
    terminal: bool,
    /// `None` where a text is continued.
    parser: Option<AnswerParser>,
    thinking: String,
    text: String,
    tool_calls: Vec<ToolCall>,
    /// Printing failed; told at the end, because the engine does not want to know.
    failed: Option<Failure>,
    last: Option<char>,
    /// Bytes as the model wrote them.
    written: usize,
    /// It would write more than anybody reads, and was stopped.
    full: bool,
    /// Stops it.
    cancel: Cancel,
}

impl Printer {
    pub fn new(silent: bool, cancel: &Cancel) -> Printer {
        Printer {
            silent,
            terminal: std::io::stdout().is_terminal(),
            parser: None,
            thinking: String::new(),
            text: String::new(),
            tool_calls: Vec::new(),
            failed: None,
            last: None,
            written: 0,
            full: false,
            cancel: cancel.clone(),
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
            Step::Prompt(parser) => {
                self.progress("");
                self.parser = parser;
            }
            Step::Reading { done, total } if self.terminal && !self.silent && total > 512 => {
                output::progress(if done < total {
                    format!("reading {done} of {total} tokens")
                } else {
                    String::new()
                });
            }
            Step::Reading { .. } | Step::Stats(_) => {}
            Step::Text(text) if text.is_empty() => {}
            // As in the window: a model without an end would fill memory, and the file of a session.
            Step::Text(_) if self.written >= MAX_TEXT => {
                self.full = true;
                self.cancel.cancel();
            }
            Step::Text(text) => {
                self.written += text.len();
                match &mut self.parser {
                    Some(parser) => parser.push(&text).into_iter().for_each(|part| self.part(part)),
                    None => self.part(Part::Text(text)),
                }
            }
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

    /// Why the answer ended, of which the engine knows only that it was stopped where it was full.
    pub fn reason(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Stopped if self.full => FinishReason::Length,
            other => other,
        }
    }

    /// The whole answer as it goes into the history, and whether it could be printed. Tells where it was cut.
    pub fn finish(mut self) -> (Said, Result<(), Failure>) {
        let rest = self.parser.take().map(AnswerParser::finish).unwrap_or_default();
        rest.into_iter().for_each(|part| self.part(part));
        if self.last.is_some_and(|last| last != '\n') {
            self.print("\n", None);
        }
        if self.full {
            output::note(format!("[the answer is not whole: it ends at {} MiB]", MAX_TEXT >> 20));
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
        let mut printer = Printer::new(true, &Cancel::new());
        let calls = chat_template::CallMarks::of_template("<tool_call>");
        printer.step(Step::Prompt(Some(AnswerParser::new("<|im_start|>assistant\n<think>\n", calls))));
        for text in ["hm", "m</thi", "nk>\n\n4", "2<tool_", "call>{\"name\": \"f\"}"] {
            printer.step(Step::Text(text.into()));
        }
        let (said, _) = printer.finish();
        assert_eq!((said.thinking.as_deref().map(str::trim), said.text.trim()), (Some("hmm"), "42"));
        assert_eq!(said.tool_calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["f"]);
    }

    #[test]
    fn an_answer_has_an_end() {
        let cancel = Cancel::new();
        let mut printer = Printer::new(true, &cancel);
        printer.step(Step::Prompt(Some(AnswerParser::new("<think>", chat_template::CallMarks::of_template("")))));
        let piece = "é".repeat(MAX_TEXT / 4);
        for text in ["hm</think>", &piece, "", &piece] {
            printer.step(Step::Text(text.into()));
        }
        assert!(!cancel.is_cancelled(), "the last one may be longer");
        assert_eq!(printer.reason(FinishReason::Stopped), FinishReason::Stopped);
        for _ in 0..10 {
            printer.step(Step::Text(piece.clone()));
        }
        assert!(cancel.is_cancelled());
        assert_eq!(printer.reason(FinishReason::Stopped), FinishReason::Length);
        assert_eq!(printer.reason(FinishReason::ContextFull), FinishReason::ContextFull);
        assert_eq!(printer.finish().0.text.len(), 2 * piece.len());
    }
}

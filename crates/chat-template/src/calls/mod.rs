//! Tool calls in a model's answer: which marks a model uses, and what stands between them.

mod bodies;
mod cursor;
mod loose;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::answer::start_of;
use cursor::{Cursor, Stop};

/// Bytes of one tool call, its marks included. What is longer is text.
pub(crate) const MAX_CALL: usize = 256 << 10;

/// A tool that the model wants to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// Its arguments by name.
    pub arguments: Map<String, Json>,
    /// The call's id, where the model writes one.
    pub id: Option<String>,
    /// As the model wrote it, marks included. Of calls that were written as one, the first has all.
    pub source: String,
}

/// How a family of models marks a tool call.
pub(crate) struct Syntax {
    /// Texts, each of which in a template tells that its model writes calls like this.
    facts: &'static [&'static str],
    /// Begins a call. Empty: the call is the whole answer, and nothing but its form tells it.
    pub open: &'static str,
    /// Control tokens around several calls; they are not shown.
    pub around: &'static [&'static str],
    body: fn(&mut Cursor<'_>) -> Result<Vec<ToolCall>, Stop>,
    /// Ends a call; may be missing.
    close: &'static str,
}

/// Llama 3's own words, in all templates of the family.
const LLAMA: &str = r#"{"name": function name, "parameters""#;

pub(crate) const SYNTAXES: [Syntax; 15] = [
    // Qwen, Hermes (JSON); Qwen3-Coder, Qwen 3.5, Nemotron 3, Step (functions with parameters); GLM (keys and values).
    Syntax { facts: &["<tool_call>"], open: "<tool_call>", around: &[], body: bodies::tagged, close: "</tool_call>" },
    // The same without its outer mark: Functionary 3.1, and what Qwen3-Coder writes at times.
    Syntax { facts: &["<function="], open: "<function=", around: &[], body: bodies::function, close: "</tool_call>" },
    // ByteDance Seed-OSS.
    Syntax {
        facts: &["<seed:tool_call>"],
        open: "<seed:tool_call>",
        around: &[],
        body: bodies::tagged,
        close: "</seed:tool_call>",
    },
    // Apriel.
    Syntax { facts: &["<tool_calls>"], open: "<tool_calls>", around: &[], body: bodies::json, close: "</tool_calls>" },
    // Mistral.
    Syntax { facts: &["[TOOL_CALLS]"], open: "[TOOL_CALLS]", around: &[], body: bodies::mistral, close: "" },
    // DeepSeek V3, R1, V3.1.
    Syntax {
        facts: &["<｜tool▁call▁begin｜>"],
        open: "<｜tool▁call▁begin｜>",
        around: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
        body: bodies::deepseek,
        close: "<｜tool▁call▁end｜>",
    },
    // Gemma 4.
    Syntax { facts: &["<|tool_call>"], open: "<|tool_call>", around: &[], body: bodies::gemma, close: "<tool_call|>" },
    // LFM2, whose templates tell of the tools only.
    Syntax {
        facts: &["<|tool_list_start|>", "<|tool_call_start|>"],
        open: "<|tool_call_start|>",
        around: &[],
        body: bodies::python_list,
        close: "<|tool_call_end|>",
    },
    // Kimi K2.
    Syntax {
        facts: &["<|tool_call_argument_begin|>"],
        open: "<|tool_call_begin|>",
        around: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
        body: bodies::kimi,
        close: "<|tool_call_end|>",
    },
    // Cohere Command.
    Syntax {
        facts: &["<|START_ACTION|>"],
        open: "<|START_ACTION|>",
        around: &[],
        body: bodies::json,
        close: "<|END_ACTION|>",
    },
    // Granite 3.
    Syntax { facts: &["<|tool_call|>"], open: "<|tool_call|>", around: &[], body: bodies::json, close: "" },
    // Llama 3.
    Syntax { facts: &["<|python_tag|>", LLAMA], open: "<|python_tag|>", around: &[], body: bodies::python, close: ";" },
    Syntax { facts: &[LLAMA], open: "", around: &[], body: bodies::bare, close: ";" },
    // Firefunction 2.
    Syntax { facts: &[" functools["], open: "functools[", around: &[], body: bodies::functools, close: "" },
    // DeepSeek V3.2.
    Syntax {
        facts: &["｜DSML｜"],
        open: "<｜DSML｜function_calls>",
        around: &[],
        body: bodies::dsml,
        close: "</｜DSML｜function_calls>",
    },
];

/// The marks of tool calls that a model may use, known from its template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallMarks(Vec<usize>);

impl CallMarks {
    /// The marks that a template's source tells of.
    pub fn of_template(source: &str) -> Self {
        let told = |syntax: &Syntax| syntax.facts.iter().any(|fact| source.contains(fact));
        Self((0..SYNTAXES.len()).filter(|at| told(&SYNTAXES[*at])).collect())
    }

    /// Whether there are none: answers hold no calls that could be found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Indices into [`SYNTAXES`].
    pub(crate) fn syntaxes(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// The marks' texts. Some of them are control tokens, which a history has to keep as such.
    pub fn texts(&self) -> impl Iterator<Item = &'static str> + '_ {
        let of =
            |at: usize| [SYNTAXES[at].open, SYNTAXES[at].close].into_iter().chain(SYNTAXES[at].around.iter().copied());
        self.syntaxes().flat_map(of).filter(|mark| !mark.is_empty())
    }
}

/// What is known of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// More text is needed.
    More,
    /// It is none: its first mark is text.
    Text,
    /// It is none, and too long to look at again: all of it is text.
    TooLong(usize),
    /// Calls, and their bytes.
    Calls(Vec<ToolCall>, usize),
}

/// Reads the call at the beginning of `text`. What is found does not change when more text comes; at the `end` none
/// comes.
pub(crate) fn read(syntax: &Syntax, text: &str, end: bool) -> Found {
    let window = window(text);
    let full = text.len() >= MAX_CALL;
    let end = end && !full;
    let mut cursor = Cursor::new(&window[syntax.open.len()..], end);
    let result = (syntax.body)(&mut cursor).and_then(|calls| {
        close(&mut cursor, syntax.close)?;
        Ok(calls)
    });
    match result {
        Ok(calls) if calls.iter().all(|call| !call.name.is_empty()) && !calls.is_empty() => {
            let len = window.len() - cursor.rest().len();
            Found::Calls(with_source(calls, &text[..len]), len)
        }
        Ok(_) | Err(Stop::Bad) => Found::Text,
        Err(Stop::More) if full => Found::TooLong(window.len()),
        // Looking at its inside again for every mark in it could take long.
        Err(Stop::More) if end => Found::TooLong(text.len()),
        Err(Stop::More) => Found::More,
    }
}

/// The first [`MAX_CALL`] bytes, in whole characters.
pub(crate) fn window(text: &str) -> &str {
    &text[..start_of(text, MAX_CALL)]
}

/// Takes the mark at the end, which models forget.
fn close(cursor: &mut Cursor<'_>, mark: &str) -> Result<(), Stop> {
    if mark.is_empty() {
        return Ok(());
    }
    let before = *cursor;
    cursor.space();
    if !cursor.take(mark)? {
        *cursor = before;
    }
    Ok(())
}

fn with_source(mut calls: Vec<ToolCall>, source: &str) -> Vec<ToolCall> {
    if let Some(first) = calls.first_mut() {
        first.source = source.to_owned();
    }
    calls
}

/// A call that is known but for its source.
pub(crate) fn call(name: &str, arguments: Map<String, Json>) -> ToolCall {
    ToolCall { name: name.to_owned(), arguments, id: None, source: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_call_is_text_wherever_it_is_cut() {
        let syntax = &SYNTAXES[0];
        let text =
            format!(r#"<tool_call>{{"name": "f", "arguments": {{"a": "{}"}}}}</tool_call>"#, "é".repeat(MAX_CALL / 2));
        assert_eq!(read(syntax, &text[..start_of(&text, MAX_CALL - 1)], false), Found::More);
        let len = window(&text).len();
        for end in [false, true] {
            assert_eq!(read(syntax, &text, end), Found::TooLong(len));
        }
    }

    #[test]
    fn each_fact_tells_one_family() {
        for (source, opens) in [
            ("a <tool_call> b", vec!["<tool_call>"]),
            ("<|tool_call>call:", vec!["<|tool_call>"]),
            ("<|tool_call|>", vec!["<|tool_call|>"]),
            (LLAMA, vec!["<|python_tag|>", ""]),
            ("<|im_start|>", vec![]),
        ] {
            let marks = CallMarks::of_template(source);
            assert_eq!(marks.syntaxes().map(|at| SYNTAXES[at].open).collect::<Vec<_>>(), opens, "{source}");
        }
    }
}

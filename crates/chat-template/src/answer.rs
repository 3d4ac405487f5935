//! A streamed answer in parts: what the model thought, what it said, which tools it wants.

use crate::calls::{self, CallMarks, Found, SYNTAXES, ToolCall};
use crate::harmony::Harmony;
use crate::marks::{MARKS, answer_that_opens};

/// A part of the model's answer, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// The model's reasoning, to be shown folded.
    Thinking(String),
    /// The answer itself.
    Text(String),
    /// A tool is to be called.
    ToolCall(ToolCall),
}

/// How far an answer has come, for what must hold for it and not for the reasoning before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The answer begins here, unless reasoning opens.
    Start,
    /// Within reasoning, or between its end and the answer's text.
    Reasoning,
    /// Within the answer.
    Answer,
}

/// The block of reasoning before a text, as an index into [`MARKS`]: it tells the marks around the answer.
type After = Option<usize>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space was said: a block of reasoning may open. White space at the start is kept only where
    /// nothing (neither reasoning nor a call) was before it.
    Start { after: After, first: bool },
    /// Inside a block; the number is an index into [`MARKS`].
    Thinking { marks: usize, begun: bool },
    /// The answer runs; reasoning marks in it are quotations.
    Text { after: After },
    /// Inside a tool call, of which nothing has come out, nor of the white space before it; an index into [`SYNTAXES`].
    Call { syntax: usize, after: After },
    /// Channels of OpenAI's Harmony format.
    Harmony,
}

/// What a mark within an answer does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// It is left out.
    Answer,
    /// It is left out, and white space around it.
    AroundCalls,
    /// A call begins; an index into [`SYNTAXES`].
    Call(usize),
}

/// Takes a streamed answer apart. However the stream is cut, the parts put together are the same.
///
/// Reasoning is recognized where an answer begins, by the marks that model families use; the same marks inside an
/// answer are text. Tool calls are recognized by the marks of the model's template. White space next to the marks
/// belongs to neither side. What only looks like a call, or never ends, is text.
#[derive(Debug)]
pub struct AnswerParser {
    state: State,
    harmony: Harmony,
    calls: CallMarks,
    /// Nothing within the answer is a mark.
    verbatim: bool,
    /// Text that cannot be assigned yet: a possible beginning of a mark, a call, or white space that may be dropped.
    held: String,
}

impl AnswerParser {
    /// A parser for the answer to `prompt`, by a model that marks its tool calls with `calls`.
    ///
    /// Many templates end the prompt with an opening mark, so that the answer begins inside the reasoning; others end
    /// with the head of a Harmony message.
    pub fn new(prompt: &str, calls: CallMarks) -> Self {
        let tail = prompt.trim_end();
        let opened = MARKS.iter().position(|marks| tail.ends_with(marks.open));
        let mut harmony = Harmony::default();
        let answers = answer_that_opens(|mark| tail.ends_with(mark));
        let state = match opened {
            Some(marks) => State::Thinking { marks, begun: false },
            None if answers.is_some() => State::Start { after: answers, first: false },
            None if harmony.continue_prompt(tail) => State::Harmony,
            None => State::Start { after: None, first: true },
        };
        Self { state, harmony, calls, verbatim: false, held: String::new() }
    }

    /// A parser for an answer to `prompt` whose form is prescribed: after the reasoning everything is text as it is, also
    /// what looks like a call or a mark.
    pub fn verbatim(prompt: &str) -> Self {
        Self { verbatim: true, ..Self::new(prompt, CallMarks::default()) }
    }

    /// How far the answer has come.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Start { .. } if self.held.trim_start().is_empty() => Stage::Start,
            State::Start { .. } | State::Thinking { .. } => Stage::Reasoning,
            State::Text { .. } | State::Call { .. } => Stage::Answer,
            State::Harmony if self.harmony.in_answer() => Stage::Answer,
            State::Harmony => Stage::Reasoning,
        }
    }

    /// Takes the next text of the stream and returns what became certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        self.run(false)
    }

    /// Ends the stream and returns the rest.
    pub fn finish(mut self) -> Vec<Part> {
        self.run(true)
    }

    fn run(&mut self, end: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        while !self.held.is_empty() && self.step(&mut parts, end) {}
        parts
    }

    /// Handles some of the held text; `false` when more text is needed. At the `end` nothing stays held.
    fn step(&mut self, parts: &mut Vec<Part>, end: bool) -> bool {
        match self.state {
            State::Start { after, first } => self.start(after, first, parts, end),
            State::Thinking { marks, begun } => self.thinking(marks, begun, parts, end),
            State::Text { after } => self.text(after, parts, end),
            State::Call { syntax, after } => self.call(syntax, after, parts, end),
            State::Harmony => self.harmony.step(&mut self.held, parts, end),
        }
    }

    fn start(&mut self, after: After, first: bool, parts: &mut Vec<Part>, end: bool) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            if end && first {
                add(parts, false, &self.held);
            }
            if end {
                self.held.clear();
            }
            return false;
        }
        if Harmony::opens(text) {
            self.state = State::Harmony;
            return true;
        }
        if let Some(marks) = MARKS.iter().position(|marks| text.starts_with(marks.open)) {
            // `<think>` is no beginning of `<thinking>`: each mark ends with a character of its own.
            self.held = text[MARKS[marks].open.len()..].to_owned();
            self.state = State::Thinking { marks, begun: false };
            return true;
        }
        if let (None, Some(family)) = (after, answer_that_opens(|mark| text.starts_with(mark))) {
            self.held = text.to_owned();
            self.state = State::Start { after: Some(family), first: false };
            return true;
        }
        let begun = self.marks(after).find(|(mark, _)| text.starts_with(mark));
        let unmarked = || self.calls.syntaxes().find(|at| SYNTAXES[*at].open.is_empty() && text.starts_with('{'));
        let kind = begun.map(|(_, kind)| kind).or_else(|| unmarked().map(Mark::Call));
        match (kind, begun) {
            (Some(Mark::Call(syntax)), _) => {
                self.held = if first { self.held.clone() } else { text.to_owned() };
                self.state = State::Call { syntax, after };
                return true;
            }
            (_, Some((mark, _))) => {
                self.held = text[mark.len()..].to_owned();
                self.state = State::Start { after, first: false };
                return true;
            }
            _ => {}
        }
        let undecided = MARKS.iter().map(|m| m.open).chain(self.marks(after).map(|m| m.0)).any(|m| m.starts_with(text));
        let undecided =
            undecided || Harmony::may_open(text) || answer_that_opens(|mark| mark.starts_with(text)).is_some();
        if undecided && !end {
            return false;
        }
        if !first {
            self.held = text.to_owned();
        }
        self.state = State::Text { after };
        true
    }

    fn thinking(&mut self, marks: usize, begun: bool, parts: &mut Vec<Part>, end: bool) -> bool {
        if !begun {
            let text = self.held.trim_start();
            // A prompt may have opened the block that the model opens again.
            let open = MARKS[marks].open;
            if !end && (text.is_empty() || open.starts_with(text) && open != text) {
                return false;
            }
            self.held = match text.strip_prefix(open) {
                Some(rest) => rest.to_owned(),
                None => {
                    self.state = State::Thinking { marks, begun: true };
                    text.to_owned()
                }
            };
            return true;
        }
        let close = MARKS[marks].close;
        if let Some(at) = self.held.find(close) {
            add(parts, true, self.held[..at].trim_end());
            self.held.drain(..at + close.len());
            self.state = State::Start { after: Some(marks), first: false };
            return true;
        }
        // White space before a closing mark is dropped, so it is held together with the mark's beginning.
        let keep = if end { 0 } else { partial(&self.held, [close]) };
        let text = self.held[..self.held.len() - keep].trim_end().len();
        add(parts, true, &self.held[..text]);
        self.held.drain(..if end { self.held.len() } else { text });
        false
    }

    fn text(&mut self, after: After, parts: &mut Vec<Part>, end: bool) -> bool {
        let found = self.marks(after).filter_map(|(mark, kind)| Some((self.held.find(mark)?, kind, mark.len()))).min();
        if let Some((at, kind, len)) = found {
            let trimmed = self.held[..at].trim_end().len();
            let (text, gone, state) = match kind {
                Mark::Answer => (at, at + len, self.state),
                Mark::AroundCalls => (trimmed, at + len, State::Start { after, first: false }),
                Mark::Call(syntax) => (trimmed, trimmed, State::Call { syntax, after }),
            };
            add(parts, false, &self.held[..text]);
            self.held.drain(..gone);
            self.state = state;
            return true;
        }
        let mut sure = self.held.as_str();
        if !end {
            sure = &sure[..sure.len() - partial(sure, self.marks(after).map(|(mark, _)| mark))];
            // A call may come, and white space before it is dropped.
            sure = if self.calls.is_empty() { sure } else { sure.trim_end() };
        }
        let sure = sure.len();
        add(parts, false, &self.held[..sure]);
        self.held.drain(..sure);
        false
    }

    fn call(&mut self, syntax: usize, after: After, parts: &mut Vec<Part>, end: bool) -> bool {
        let space = self.held.len() - self.held.trim_start().len();
        let text = match calls::read(&SYNTAXES[syntax], &self.held[space..], end) {
            Found::More => return false,
            Found::Calls(calls, len) => {
                parts.extend(calls.into_iter().map(Part::ToolCall));
                self.held.drain(..space + len);
                self.state = State::Start { after, first: false };
                return true;
            }
            Found::Text => space + SYNTAXES[syntax].open.len(),
            Found::TooLong(len) => space + len,
        };
        add(parts, false, &self.held[..text]);
        self.held.drain(..text);
        self.state = State::Text { after };
        true
    }

    /// Marks that mean something within an answer.
    fn marks(&self, after: After) -> impl Iterator<Item = (&'static str, Mark)> + '_ {
        let after = after.filter(|_| !self.verbatim);
        let answer = after.map_or(&[][..], |at| MARKS[at].answer).iter().map(|mark| (*mark, Mark::Answer));
        let calls = self.calls.syntaxes().flat_map(|at| {
            let around = SYNTAXES[at].around.iter().map(|mark| (*mark, Mark::AroundCalls));
            around.chain(Some((SYNTAXES[at].open, Mark::Call(at))).filter(|(open, _)| !open.is_empty()))
        });
        answer.chain(calls)
    }
}

/// The first place at or before `at` where a character begins.
pub(crate) fn start_of(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Bytes at the end of `text` that may be the beginning of one of `marks`.
pub(crate) fn partial<'a>(text: &str, marks: impl IntoIterator<Item = &'a str>) -> usize {
    let longest_end = |mark: &str| {
        let from = start_of(text, text.len().saturating_sub(mark.len()));
        let mut ends = (from..text.len()).filter(|at| text.is_char_boundary(*at));
        ends.find(|at| mark.starts_with(&text[*at..])).map_or(0, |at| text.len() - at)
    };
    marks.into_iter().map(longest_end).max().unwrap_or(0)
}

/// Adds text to the last part or begins another one.
pub(crate) fn add(parts: &mut Vec<Part>, thinking: bool, text: &str) {
    if text.is_empty() {
        return;
    }
    match (parts.last_mut(), thinking) {
        (Some(Part::Thinking(last)), true) | (Some(Part::Text(last)), false) => last.push_str(text),
        (_, true) => parts.push(Part::Thinking(text.to_owned())),
        (_, false) => parts.push(Part::Text(text.to_owned())),
    }
}

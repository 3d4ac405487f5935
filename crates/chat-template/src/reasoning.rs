//! Splits a streamed answer into what the model thought and what it said.

use crate::harmony::Harmony;
use crate::marks::{MARKS, answer_that_opens};

/// A piece of the model's answer, in order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "text")]
pub enum Piece {
    /// The model's reasoning, to be shown folded.
    Thinking(String),
    /// The answer itself.
    Answer(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space was said: a block of reasoning may open. After a block its answer's marks are known.
    Start { after: Option<usize> },
    /// Inside a block; the number is an index into [`MARKS`].
    Thinking { marks: usize, begun: bool },
    /// The answer runs; reasoning marks in it are quotations. The number is the block before it, if any.
    Answer { after: Option<usize> },
    /// Channels of OpenAI's Harmony format.
    Harmony,
}

/// Splits a streamed answer. However the stream is cut, the concatenated pieces are the same.
///
/// Reasoning is recognized where an answer begins, by the marks that model families use; the same marks inside an
/// answer are text. White space next to the marks belongs to neither.
#[derive(Debug)]
pub struct ReasoningSplitter {
    state: State,
    harmony: Harmony,
    /// Text that cannot be assigned yet: a possible beginning of a mark, or white space that may be dropped.
    held: String,
}

impl ReasoningSplitter {
    /// A splitter for the answer to `prompt`.
    ///
    /// Many templates end the prompt with an opening mark, so that the answer begins inside the reasoning; others end
    /// with the head of a Harmony message.
    pub fn new(prompt: &str) -> Self {
        let tail = prompt.trim_end();
        let opened = MARKS.iter().position(|marks| tail.ends_with(marks.open));
        let mut harmony = Harmony::default();
        let answers = answer_that_opens(|mark| tail.ends_with(mark));
        let state = match opened {
            Some(marks) => State::Thinking { marks, begun: false },
            None if answers.is_some() => State::Start { after: answers },
            None if harmony.continue_prompt(tail) => State::Harmony,
            None => State::Start { after: None },
        };
        Self { state, harmony, held: String::new() }
    }

    /// Whether the text that comes next belongs to the reasoning, as far as is known.
    pub fn is_thinking(&self) -> bool {
        match self.state {
            State::Thinking { .. } => true,
            State::Harmony => self.harmony.is_thinking(),
            _ => false,
        }
    }

    /// Takes the next text of the stream and returns what became certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.held.push_str(text);
        while self.step(&mut pieces) {}
        pieces
    }

    /// Ends the stream and returns the rest.
    pub fn finish(mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Start { after: None } | State::Answer { after: None } => add(&mut pieces, false, &rest),
            State::Start { .. } => add(&mut pieces, false, rest.trim_start()),
            State::Answer { .. } => add(&mut pieces, false, &rest),
            State::Thinking { begun: false, .. } => add(&mut pieces, true, rest.trim()),
            State::Thinking { .. } => add(&mut pieces, true, rest.trim_end()),
            State::Harmony => {
                self.held = rest;
                while self.harmony.step(&mut self.held, &mut pieces, true) {}
            }
        }
        pieces
    }

    /// Handles some of the held text; `false` when more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        match self.state {
            State::Start { after } => self.start(after, pieces),
            State::Thinking { marks, begun } => self.thinking(marks, begun, pieces),
            State::Answer { after } => self.answer(after, pieces),
            State::Harmony => self.harmony.step(&mut self.held, pieces, false),
        }
    }

    fn start(&mut self, after: Option<usize>, pieces: &mut Vec<Piece>) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
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
            self.state = State::Start { after: Some(family) };
            return true;
        }
        let answer_marks = after.map_or(&[][..], |a| MARKS[a].answer);
        if let Some(mark) = answer_marks.iter().find(|mark| text.starts_with(**mark)) {
            self.held = text[mark.len()..].to_owned();
            return true;
        }
        let undecided = MARKS.iter().map(|m| m.open).chain(answer_marks.iter().copied()).any(|m| m.starts_with(text));
        if undecided || Harmony::may_open(text) || answer_that_opens(|mark| mark.starts_with(text)).is_some() {
            return false;
        }
        if after.is_some() {
            self.held = text.to_owned();
        }
        self.state = State::Answer { after };
        self.answer(after, pieces)
    }

    fn thinking(&mut self, marks: usize, begun: bool, pieces: &mut Vec<Piece>) -> bool {
        if !begun {
            let text = self.held.trim_start();
            if text.is_empty() {
                return false;
            }
            // A prompt may have opened the block that the model opens again.
            let open = MARKS[marks].open;
            if open.starts_with(text) && open != text {
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
            add(pieces, true, self.held[..at].trim_end());
            self.held.drain(..at + close.len());
            self.state = State::Start { after: Some(marks) };
            return true;
        }
        // White space before a closing mark is dropped, so it is held together with the mark's beginning.
        let keep = partial(&self.held, &[close]);
        let end = self.held[..self.held.len() - keep].trim_end().len();
        add(pieces, true, &self.held[..end]);
        self.held.drain(..end);
        false
    }

    fn answer(&mut self, after: Option<usize>, pieces: &mut Vec<Piece>) -> bool {
        let marks = after.map_or(&[][..], |a| MARKS[a].answer);
        let first = marks.iter().filter_map(|mark| Some((self.held.find(mark)?, mark.len()))).min();
        if let Some((at, len)) = first {
            add(pieces, false, &self.held[..at]);
            self.held.drain(..at + len);
            return true;
        }
        let end = self.held.len() - partial(&self.held, marks);
        add(pieces, false, &self.held[..end]);
        self.held.drain(..end);
        false
    }
}

/// Bytes at the end of `text` that may be the beginning of one of `marks`.
pub(crate) fn partial(text: &str, marks: &[&str]) -> usize {
    let longest = marks.iter().map(|m| m.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest);
    (from..text.len())
        .filter(|at| text.is_char_boundary(*at))
        .find(|at| marks.iter().any(|m| m.starts_with(&text[*at..])))
        .map_or(0, |at| text.len() - at)
}

/// Adds text to the last piece or begins another one.
pub(crate) fn add(pieces: &mut Vec<Piece>, thinking: bool, text: &str) {
    if text.is_empty() {
        return;
    }
    match (pieces.last_mut(), thinking) {
        (Some(Piece::Thinking(last)), true) | (Some(Piece::Answer(last)), false) => last.push_str(text),
        (_, true) => pieces.push(Piece::Thinking(text.to_owned())),
        (_, false) => pieces.push(Piece::Answer(text.to_owned())),
    }
}

//! OpenAI's Harmony format (gpt-oss): an answer is a series of messages, each with a channel.
//!
//! `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>`
//! (<https://github.com/openai/harmony/blob/main/docs/format.md>).

use crate::reasoning::{Piece, add, partial};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", START];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Between a message's start and its text.
    #[default]
    Head,
    /// In the text of a message.
    Body { thinking: bool },
    /// Between messages.
    Between,
}

/// Where the stream is within Harmony messages.
#[derive(Debug, Default)]
pub(crate) struct Harmony {
    state: State,
}

impl Harmony {
    /// Whether `text` begins with a Harmony message.
    pub fn opens(text: &str) -> bool {
        text.starts_with(CHANNEL) || text.starts_with(START)
    }

    /// Whether `text` may become the beginning of a Harmony message.
    pub fn may_open(text: &str) -> bool {
        CHANNEL.starts_with(text) || START.starts_with(text)
    }

    /// Continues a prompt that ends within a message of the assistant; `false` when it does not.
    pub fn continue_prompt(&mut self, prompt: &str) -> bool {
        let Some(at) = prompt.rfind("<|start|>assistant") else { return false };
        let head = &prompt[at..];
        if !head.contains(CHANNEL) || ENDS[..3].iter().any(|end| head.contains(end)) {
            return false;
        }
        let mut held = head.to_owned();
        let mut ignored = Vec::new();
        while self.step(&mut held, &mut ignored, true) {}
        true
    }

    /// Whether the text that comes next is reasoning.
    pub fn is_thinking(&self) -> bool {
        self.state == State::Body { thinking: true }
    }

    /// Handles some of the held text; `false` when more text is needed. At the `end` nothing stays held.
    pub fn step(&mut self, held: &mut String, pieces: &mut Vec<Piece>, end: bool) -> bool {
        match self.state {
            State::Head => {
                let Some(at) = held.find(MESSAGE) else {
                    if end {
                        held.clear();
                    }
                    return false;
                };
                let thinking = channel(&held[..at]) == "analysis";
                held.drain(..at + MESSAGE.len());
                self.state = State::Body { thinking };
                true
            }
            State::Body { thinking } => {
                let first = ENDS.iter().filter_map(|mark| Some((held.find(mark)?, *mark))).min();
                if let Some((at, mark)) = first {
                    add(pieces, thinking, &held[..at]);
                    held.drain(..at + mark.len());
                    self.state = if mark == START { State::Head } else { State::Between };
                    return true;
                }
                let keep = if end { 0 } else { partial(held, &ENDS) };
                add(pieces, thinking, &held[..held.len() - keep]);
                held.drain(..held.len() - keep);
                false
            }
            State::Between => {
                let first = [START, CHANNEL].iter().filter_map(|mark| held.find(mark)).min();
                match first {
                    Some(at) => {
                        held.drain(..at);
                        self.state = State::Head;
                        true
                    }
                    None => {
                        let keep = if end { 0 } else { partial(held, &[START, CHANNEL]) };
                        held.drain(..held.len() - keep);
                        false
                    }
                }
            }
        }
    }
}

/// The channel named in a message's head; "final" when there is none.
fn channel(head: &str) -> &str {
    let Some((_, name)) = head.rsplit_once(CHANNEL) else { return "final" };
    name.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or("final")
}

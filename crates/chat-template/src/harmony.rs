//! OpenAI's Harmony format (gpt-oss): an answer is a series of messages, each with a channel.
//!
//! `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>`; a message `to`
//! somebody is a call: `<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>`
//! (<https://github.com/openai/harmony/blob/main/docs/format.md>).

use serde_json::{Map, Value as Json};

use crate::answer::{Part, add, partial, start_of};
use crate::calls::{MAX_CALL, ToolCall, window};

const START: &str = "<|start|>";
pub(crate) const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", START];
/// Bytes of a message's head. What is longer is text.
const MAX_HEAD: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    /// Between a message's start and its text.
    #[default]
    Head,
    /// In the text of a message.
    Body { thinking: bool },
    /// In the arguments of a call.
    Call { recipient: String, head: String },
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
        while self.step(&mut held, &mut ignored, false) {}
        true
    }

    /// Whether the text that comes is said to the user.
    pub fn in_answer(&self) -> bool {
        self.state == State::Body { thinking: false }
    }

    /// Handles some of the held text; `false` when more text is needed. At the `end` nothing stays held.
    pub fn step(&mut self, held: &mut String, parts: &mut Vec<Part>, end: bool) -> bool {
        match std::mem::take(&mut self.state) {
            State::Head => self.head(held, parts, end),
            State::Body { thinking } => self.body(thinking, held, parts, end),
            State::Call { recipient, head } => self.call(recipient, head, held, parts, end),
            State::Between => self.between(held, parts, end),
        }
    }

    fn head(&mut self, held: &mut String, parts: &mut Vec<Part>, end: bool) -> bool {
        let bound = start_of(held, MAX_HEAD);
        if let Some(at) = held[..bound].find(MESSAGE) {
            let head: String = held.drain(..at + MESSAGE.len()).collect();
            self.state = match recipient(&head[..at]) {
                Some(recipient) => State::Call { recipient: recipient.to_owned(), head },
                None => State::Body { thinking: channel(&head[..at]) == "analysis" },
            };
            return true;
        }
        if held.len() < MAX_HEAD && !end {
            return false;
        }
        if held.len() < MAX_HEAD && is_head(held) {
            // The answer was cut before the text began.
            held.clear();
            return false;
        }
        // The first mark is no mark, then.
        let mark = [START, CHANNEL].into_iter().find(|mark| held.starts_with(mark)).map_or(0, str::len);
        add(parts, false, &held[..mark]);
        held.drain(..mark);
        self.state = State::Body { thinking: false };
        true
    }

    fn body(&mut self, thinking: bool, held: &mut String, parts: &mut Vec<Part>, end: bool) -> bool {
        if let Some((at, mark)) = first_end(held) {
            add(parts, thinking, &held[..at]);
            held.drain(..at + mark.len());
            self.state = after(mark);
            return true;
        }
        let sure = held.len() - if end { 0 } else { partial(held, ENDS) };
        add(parts, thinking, &held[..sure]);
        held.drain(..sure);
        self.state = State::Body { thinking };
        false
    }

    fn call(&mut self, to: String, head: String, held: &mut String, parts: &mut Vec<Part>, end: bool) -> bool {
        let full = held.len() >= MAX_CALL;
        let (len, mark) = match first_end(window(held)) {
            Some((at, mark)) => (at, mark),
            // The mark that ends a call ends the answer, and is no part of it.
            None if end && !full => (held.len(), ""),
            None if full => {
                add(parts, false, &head);
                self.state = State::Body { thinking: false };
                return true;
            }
            None => {
                self.state = State::Call { recipient: to, head };
                return false;
            }
        };
        let body: String = held.drain(..len + mark.len()).collect();
        match arguments(&to, &body[..len]) {
            Some(arguments) => {
                let name = to.strip_prefix("functions.").unwrap_or(&to).to_owned();
                let source = format!("{head}{body}");
                parts.push(Part::ToolCall(ToolCall { name, arguments, id: None, source }));
            }
            None => add(parts, false, &format!("{head}{}", &body[..len])),
        }
        self.state = after(mark);
        true
    }

    fn between(&mut self, held: &mut String, parts: &mut Vec<Part>, end: bool) -> bool {
        let text = held.trim_start();
        if Self::opens(text) {
            *held = text.to_owned();
            self.state = State::Head;
            return true;
        }
        if text.is_empty() || Self::may_open(text) && !end {
            self.state = State::Between;
            if end {
                held.clear();
            }
            return false;
        }
        // Nothing should be here, but it is part of the answer.
        add(parts, false, "\n");
        *held = text.to_owned();
        self.state = State::Body { thinking: false };
        true
    }
}

/// The first mark that ends a message, and where it is.
fn first_end(text: &str) -> Option<(usize, &'static str)> {
    ENDS.iter().filter_map(|mark| Some((text.find(mark)?, *mark))).min()
}

fn after(mark: &str) -> State {
    if mark == START { State::Head } else { State::Between }
}

/// The channel named in a message's head; "final" when there is none.
fn channel(head: &str) -> &str {
    let Some((_, name)) = head.rsplit_once(CHANNEL) else { return "final" };
    name.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or("final")
}

/// To whom a message is, if not to the user.
fn recipient(head: &str) -> Option<&str> {
    let (_, to) = head.split_once(" to=")?;
    let name = to.split(|c: char| c.is_whitespace() || c == '<').next()?;
    Some(name).filter(|name| !name.is_empty() && !matches!(*name, "user" | "assistant" | "all"))
}

/// The arguments in a call's text. Python gets code instead.
fn arguments(recipient: &str, body: &str) -> Option<Map<String, Json>> {
    match serde_json::from_str(body.trim()) {
        Ok(Json::Object(arguments)) => Some(arguments),
        _ if body.trim().is_empty() => Some(Map::new()),
        _ if recipient == "python" => Some(Map::from_iter([("code".to_owned(), body.into())])),
        _ => None,
    }
}

/// Whether `text` is nothing but a head, perhaps cut.
fn is_head(text: &str) -> bool {
    const WORDS: [&str; 5] = ["assistant", "analysis", "commentary", "final", "json"];
    let words = text.split(|c: char| c.is_whitespace() || c == '<' || c == '>').filter(|word| !word.is_empty());
    words.into_iter().all(|word| {
        word.starts_with('|') || word.starts_with("to=") || WORDS.iter().any(|known| known.starts_with(word))
    })
}

//! Between the engine's thread and the window: takes answers apart, merges pieces, keeps them in the data base.

use crate::answer::{Apart, Step};
use crate::chats::{AnswerText, Chats};
use crate::wire::{AnswerEvent, RecoveryNotice};
use chat_template::Part;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Pieces of text go to the window this often at most.
const MERGE: Duration = Duration::from_millis(33);
/// What has been written is kept this often; a crash loses no more.
const KEEP: Duration = Duration::from_millis(200);

pub struct Stream<'a> {
    chats: &'a Chats,
    /// The answer's message.
    id: &'a str,
    answer: AnswerText,
    apart: Apart,
    /// Not sent to the window yet.
    pending: Vec<Part>,
    reading: Option<(u32, u32)>,
    /// Since the first text that is not in the data base.
    unsaved: Option<Instant>,
    emit: &'a mut dyn FnMut(AnswerEvent),
    on_recovery: &'a dyn Fn(&RecoveryNotice),
}

impl<'a> Stream<'a> {
    /// Goes on with `answer`, which is empty for a new one.
    pub fn new(
        chats: &'a Chats,
        id: &'a str,
        answer: AnswerText,
        emit: &'a mut dyn FnMut(AnswerEvent),
        on_recovery: &'a dyn Fn(&RecoveryNotice),
    ) -> Stream<'a> {
        let pending = Vec::new();
        Stream { chats, id, answer, apart: Apart::default(), pending, reading: None, unsaved: None, emit, on_recovery }
    }

    /// Passes everything on until the sender is gone; returns the whole answer.
    pub fn run(mut self, steps: &Receiver<Step>) -> AnswerText {
        loop {
            // Text is kept in time also where no more comes for a while.
            let wait = self.unsaved.map_or(Duration::from_secs(3600), |since| KEEP.saturating_sub(since.elapsed()));
            match steps.recv_timeout(wait) {
                Ok(step) => self.take(step),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let until = Instant::now() + MERGE;
            while let Ok(step) = steps.recv_timeout(until.saturating_duration_since(Instant::now())) {
                self.take(step);
            }
            self.flush();
            if self.unsaved.is_some_and(|since| since.elapsed() >= KEEP) {
                self.save();
            }
        }
        let rest = self.apart.finish();
        self.add(rest);
        self.flush();
        self.answer
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Prompt(apart) => {
                self.apart = apart;
                // What was written before the answer was cut is read again: its last words may have been half a mark.
                let raw = std::mem::take(&mut self.answer).raw;
                self.apart.push(raw.clone()).iter().for_each(|part| self.keep(part));
                self.answer.raw = raw;
            }
            Step::Waiting => (self.emit)(AnswerEvent::Waiting),
            Step::Preparing => (self.emit)(AnswerEvent::Preparing),
            Step::Reading { done, total } => self.reading = Some((done, total)),
            Step::Text(text) => {
                self.answer.raw.push_str(&text);
                let parts = self.apart.push(text);
                self.unsaved.get_or_insert_with(Instant::now);
                self.add(parts);
            }
            Step::Stats(stats) => {
                self.flush();
                (self.emit)(AnswerEvent::Stats { stats });
            }
            Step::Dropped { turns, tokens } => {
                self.flush();
                (self.emit)(AnswerEvent::Dropped { turns, tokens });
            }
            Step::Recovery(notice) => {
                self.flush();
                (self.on_recovery)(&notice);
                (self.emit)(AnswerEvent::Recovery { notice });
            }
        }
    }

    fn keep(&mut self, part: &Part) {
        match part {
            Part::Thinking(text) => self.answer.thinking.get_or_insert_default().push_str(text),
            Part::Text(text) => self.answer.text.push_str(text),
            Part::ToolCall(call) => self.answer.tool_calls.push(call.into()),
        }
    }

    fn add(&mut self, parts: Vec<Part>) {
        for part in parts {
            self.keep(&part);
            match (self.pending.last_mut(), part) {
                (Some(Part::Thinking(last)), Part::Thinking(text)) => last.push_str(&text),
                (Some(Part::Text(last)), Part::Text(text)) => last.push_str(&text),
                (_, part) => self.pending.push(part),
            }
        }
    }

    fn flush(&mut self) {
        if let Some((done, total)) = self.reading.take() {
            (self.emit)(AnswerEvent::Prompt { done, total });
        }
        for part in self.pending.drain(..) {
            (self.emit)(match part {
                Part::Thinking(text) => AnswerEvent::Thinking { text },
                Part::Text(text) => AnswerEvent::Text { text },
                Part::ToolCall(call) => AnswerEvent::ToolCall { call: (&call).into() },
            });
        }
    }

    fn save(&mut self) {
        // A full disk must not end the answer: its end is told at the end, when it cannot be kept either.
        if let Err(error) = self.chats.save_answer(self.id, &self.answer) {
            tracing::warn!("an answer cannot be kept for now: {error}");
        }
        self.unsaved = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::wire::FinishReason;
    use chat_template::{AnswerParser, CallMarks};
    use std::sync::{Arc, mpsc};

    /// Passes `texts` on to an answer that is `begun`; what is kept of it, and the tools that were told of.
    fn stream(begun: AnswerText, texts: &[&str]) -> (crate::wire::Message, Vec<String>) {
        let (chats, _) = Chats::open(Arc::new(Store::in_memory().unwrap())).unwrap();
        let chat = chats.create("").unwrap();
        let (_, answer) = chats.ask(&chat, None, "Hi", "m").unwrap();
        let (sender, steps) = mpsc::channel();
        let parser = AnswerParser::new("<think>", CallMarks::of_template("<tool_call>"));
        sender.send(Step::Prompt(Apart::new(parser))).unwrap();
        texts.iter().for_each(|text| sender.send(Step::Text((*text).into())).unwrap());
        drop(sender);
        let mut told = Vec::new();
        let mut emit = |event| {
            if let AnswerEvent::ToolCall { call } = event {
                told.push(call.name);
            }
        };
        let text = Stream::new(&chats, &answer.id, begun, &mut emit, &|_| {}).run(&steps);
        chats.end_answer(&answer.id, &text, FinishReason::End, None).unwrap();
        (chats.get(&chat).unwrap().messages.remove(1), told)
    }

    #[test]
    fn the_parts_of_an_answer_are_told_and_kept() {
        let texts = ["Hm</think>Yes.\n<tool", "_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>"];
        let (kept, told) = stream(AnswerText::default(), &texts);
        assert_eq!((kept.thinking.as_deref(), kept.text.as_str()), (Some("Hm"), "Yes."));
        assert_eq!(told, ["f"]);
        let [call] = kept.tool_calls.as_slice() else { panic!("{:?}", kept.tool_calls) };
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("f", "{\"a\":1}"));
        assert!(call.source.starts_with("<tool_call>") && call.source.ends_with("</tool_call>"));
    }

    #[test]
    fn an_answer_that_was_cut_within_a_mark_goes_on() {
        let begun = AnswerText {
            text: "Yes.<tool_".into(),
            thinking: Some("Hm".into()),
            raw: "Hm</think>Yes.<tool_".into(),
            ..AnswerText::default()
        };
        let (kept, _) = stream(begun, &["call>{\"name\": \"f\"}"]);
        assert_eq!((kept.thinking.as_deref(), kept.text.as_str()), (Some("Hm"), "Yes."));
        assert_eq!(kept.tool_calls.len(), 1);
    }
}

//! Between the engine's thread and the window: splits thinking off, merges pieces, keeps them in the data base.

use crate::answer::Step;
use crate::chats::{AnswerText, Chats};
use crate::wire::{AnswerEvent, RecoveryNotice};
use chat_template::{Piece, ReasoningSplitter};
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
    splitter: Option<ReasoningSplitter>,
    /// Not sent to the window yet.
    pending: Vec<Piece>,
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
        Stream { chats, id, answer, splitter: None, pending, reading: None, unsaved: None, emit, on_recovery }
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
        let rest = self.splitter.take().map(ReasoningSplitter::finish).unwrap_or_default();
        self.add(rest);
        self.flush();
        self.answer
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Prompt(prompt) => {
                let mut splitter = ReasoningSplitter::new(&prompt);
                // What was written before the answer was cut puts the splitter into its state.
                splitter.push(&self.answer.raw);
                self.splitter = Some(splitter);
            }
            Step::Reading { done, total } => self.reading = Some((done, total)),
            Step::Text(text) if text.is_empty() => {}
            Step::Text(text) => {
                self.answer.raw.push_str(&text);
                let pieces = match &mut self.splitter {
                    Some(splitter) => splitter.push(&text),
                    None => vec![Piece::Answer(text)],
                };
                self.unsaved.get_or_insert_with(Instant::now);
                self.add(pieces);
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

    fn add(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match &piece {
                Piece::Thinking(text) => self.answer.thinking.get_or_insert_default().push_str(text),
                Piece::Answer(text) => self.answer.text.push_str(text),
            }
            match (self.pending.last_mut(), piece) {
                (Some(Piece::Thinking(last)), Piece::Thinking(text)) => last.push_str(&text),
                (Some(Piece::Answer(last)), Piece::Answer(text)) => last.push_str(&text),
                (_, piece) => self.pending.push(piece),
            }
        }
    }

    fn flush(&mut self) {
        if let Some((done, total)) = self.reading.take() {
            (self.emit)(AnswerEvent::Prompt { done, total });
        }
        for piece in self.pending.drain(..) {
            (self.emit)(match piece {
                Piece::Thinking(text) => AnswerEvent::Thinking { text },
                Piece::Answer(text) => AnswerEvent::Text { text },
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

//! Answers of the one model, one after the other.

use crate::error::Problem;
use crate::stop_words::StopWords;
use app::wire::{AnswerStats, ErrorCode, FinishReason, WireError};
use app::{Apart, App, Defaults, Session, Step, Task};
use chat_template::{Part, ToolCall};
use engine::Cancel;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes of an answer, in order.
pub enum Piece {
    /// The prompt was taken and is read, which may take minutes: from now on a stream can be kept alive.
    Begun,
    Thinking(String),
    Text(String),
    Call(ToolCall),
    /// The last one.
    End(FinishReason, AnswerStats),
    /// The last one.
    Failed(WireError),
}

pub struct Answers {
    app: Arc<App>,
    /// Whose turn it is among those who ask; those who wait get it in order. Only the one whose turn it is waits for the
    /// window with a thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    running: Mutex<Cancel>,
    closed: AtomicBool,
}

/// An answer that is being written. Whoever drops it ends it.
pub struct Answer {
    pieces: UnboundedReceiver<Piece>,
    first: Option<Piece>,
    cancel: Cancel,
}

impl Answers {
    pub fn new(app: Arc<App>) -> Answers {
        let (turn, running) = Default::default();
        Answers { app, turn, running, closed: AtomicBool::new(false) }
    }

    /// The model that is loaded now.
    pub fn session(&self) -> Result<Arc<Session>, Problem> {
        Ok(self.app.session()?)
    }

    /// [`App::defaults`]
    pub fn defaults(&self) -> Defaults {
        self.app.defaults()
    }

    /// Ends the answer that is being written, and refuses all others.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Waits for its turn, and until the prompt is taken. What keeps an answer from being begun at all is told as a failure.
    pub async fn begin(&self, task: Task, stop: Vec<String>) -> Result<Answer, Problem> {
        let turn = self.turn.clone().lock_owned().await;
        let (sender, pieces) = unbounded_channel();
        let cancel = Cancel::new();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = cancel.clone();
        if self.closed.load(Ordering::Acquire) {
            return Err(Problem::closing());
        }
        let (app, own) = (self.app.clone(), cancel.clone());
        tokio::task::spawn_blocking(move || {
            let mut teller = Teller::new(sender, own.clone(), stop);
            let ended = app.answer_guest(task, &own, &mut |step| teller.step(step));
            teller.end(ended);
            // The next one's turn comes when the engine is free.
            drop(turn);
        });
        let mut answer = Answer { pieces, first: None, cancel };
        match answer.next().await {
            Piece::Failed(error) => Err(error.into()),
            Piece::Begun => Ok(answer),
            first => {
                answer.first = Some(first);
                Ok(answer)
            }
        }
    }
}

impl Answer {
    pub async fn next(&mut self) -> Piece {
        if let Some(first) = self.first.take() {
            return first;
        }
        let gone = || Piece::Failed(WireError::internal("the answer broke off"));
        self.pieces.recv().await.unwrap_or_else(gone)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Takes an answer apart and passes it on.
struct Teller {
    sender: UnboundedSender<Piece>,
    cancel: Cancel,
    apart: Apart,
    stop: StopWords,
    begun: bool,
}

impl Teller {
    fn new(sender: UnboundedSender<Piece>, cancel: Cancel, stop: Vec<String>) -> Teller {
        Teller { sender, cancel, apart: Apart::default(), stop: StopWords::new(stop), begun: false }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Prompt(apart) => self.apart = apart,
            Step::Text(text) => self.apart.push(text).into_iter().for_each(|part| self.part(part)),
            Step::Reading { .. } if !std::mem::replace(&mut self.begun, true) => self.tell(Piece::Begun),
            // Clients have no words for them.
            Step::Waiting
            | Step::Preparing
            | Step::Reading { .. }
            | Step::Stats(_)
            | Step::Dropped { .. }
            | Step::Recovery(_) => {}
        }
    }

    fn part(&mut self, part: Part) {
        match part {
            Part::Thinking(text) => self.tell(Piece::Thinking(text)),
            Part::Text(text) => {
                let text = self.stop.push(&text);
                self.tell(Piece::Text(text));
                if self.stop.met {
                    self.cancel.cancel();
                }
            }
            Part::ToolCall(call) => self.tell(Piece::Call(call)),
        }
    }

    fn tell(&mut self, piece: Piece) {
        if matches!(&piece, Piece::Thinking(text) | Piece::Text(text) if text.is_empty()) {
            return;
        }
        // Who hung up has ended the answer already.
        if self.sender.send(piece).is_err() {
            self.cancel.cancel();
        }
    }

    fn end(mut self, ended: Result<(FinishReason, AnswerStats), WireError>) {
        if !self.stop.met {
            self.apart.finish().into_iter().for_each(|part| self.part(part));
            let held = self.stop.finish();
            self.tell(Piece::Text(held));
        }
        let met = self.stop.met;
        self.tell(match ended {
            Ok((FinishReason::Stopped, stats)) if met => Piece::End(FinishReason::End, stats),
            // A client must not take the half for the whole.
            Ok((FinishReason::Stopped, _)) => {
                let text = "the answer was cut off: its model or the server is going";
                Piece::Failed(WireError::new(ErrorCode::Cancelled, text))
            }
            Ok((reason, stats)) => Piece::End(reason, stats),
            Err(error) => Piece::Failed(error),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_template::{AnswerParser, CallMarks};

    /// What is told of these texts, which end with `ended`; and whether the answer was called off.
    fn told(stop: &[&str], texts: &[&str], ended: FinishReason) -> (Vec<String>, bool) {
        let (sender, mut pieces) = unbounded_channel();
        let cancel = Cancel::new();
        let mut teller = Teller::new(sender, cancel.clone(), stop.iter().map(|word| (*word).into()).collect());
        let parser = AnswerParser::new("<think>", CallMarks::of_template("<tool_call>"));
        teller.step(Step::Prompt(Apart::new(parser)));
        texts.iter().for_each(|text| teller.step(Step::Text((*text).into())));
        teller.end(Ok((ended, AnswerStats::default())));
        let mut told = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            told.push(match piece {
                Piece::Begun => "begins".into(),
                Piece::Thinking(text) => format!("thinks {text}"),
                Piece::Text(text) => text,
                Piece::Call(call) => format!("calls {}", call.name),
                Piece::End(reason, _) => format!("{reason:?}"),
                Piece::Failed(error) => error.message,
            });
        }
        (told, cancel.is_cancelled())
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let texts = ["Hm END</th", "ink>Yes.<tool", "_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"];
        let (pieces, cancelled) = told(&["END"], &texts, FinishReason::End);
        assert_eq!(pieces.concat().replace("thinks ", ""), "Hm ENDYes.calls fEnd");
        assert!(pieces[0].starts_with("thinks ") && !cancelled, "words end the answer, not the reasoning");
    }

    #[test]
    fn a_word_ends_the_answer_as_its_own_end_would() {
        let (pieces, cancelled) = told(&["END"], &["</think>One E", "ND two", " three"], FinishReason::Stopped);
        assert_eq!((pieces.concat().as_str(), cancelled), ("One End", true));
        let (pieces, _) = told(&["END"], &["</think>One E"], FinishReason::Length);
        assert_eq!(pieces.concat(), "One ELength");
    }

    #[test]
    fn half_an_answer_is_not_told_as_a_whole_one() {
        let (pieces, _) = told(&["END"], &["</think>One E"], FinishReason::Stopped);
        assert_eq!(pieces[..pieces.len() - 1].concat(), "One E");
        assert!(pieces.last().is_some_and(|last| last.contains("cut off")), "{pieces:?}");
    }

    #[test]
    fn a_prompt_that_is_read_is_told_once() {
        let (sender, mut pieces) = unbounded_channel();
        let mut teller = Teller::new(sender, Cancel::new(), Vec::new());
        teller.step(Step::Preparing);
        assert!(pieces.try_recv().is_err(), "nothing is certain yet");
        teller.step(Step::Reading { done: 0, total: 9 });
        assert!(matches!(pieces.try_recv(), Ok(Piece::Begun)));
        teller.step(Step::Reading { done: 9, total: 9 });
        assert!(pieces.try_recv().is_err());
    }

    #[test]
    fn a_failure_is_told_last() {
        let (sender, mut pieces) = unbounded_channel();
        Teller::new(sender, Cancel::new(), Vec::new()).end(Err(WireError::new(ErrorCode::ContextFull, "full")));
        assert!(matches!(pieces.try_recv(), Ok(Piece::Failed(error)) if error.message == "full"));
    }
}

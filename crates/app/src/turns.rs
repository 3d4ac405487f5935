//! The window and other programs take turns with the one loaded model: each answer waits until those before it have ended.

use crate::answer::{self, Defaults, Step, Task};
use crate::app::{App, lock};
use crate::error::Result;
use crate::session::Session;
use crate::wire::{AnswerStats, AppEvent, ErrorCode, FinishReason, RecoveryNotice, WireError};
use engine::Cancel;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Who waits looks this often whether it still shall.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// Whose turn it is, then who waits, in order.
    tickets: VecDeque<u64>,
    /// Ends the answer for another program that is being written.
    guest: Option<Cancel>,
}

/// A place in the queue, given back when it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// Blocks until those who came before have ended; `on_wait` is told once if there are any.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`]
    pub fn wait(&self, cancel: &Cancel, on_wait: &mut dyn FnMut()) -> Result<Turn<'_>> {
        let mut queue = lock(&self.queue);
        let ticket = queue.next;
        queue.next += 1;
        queue.tickets.push_back(ticket);
        let turn = Turn { turns: self, ticket };
        let mut waits = false;
        while queue.tickets.front() != Some(&ticket) {
            if cancel.is_cancelled() {
                drop(queue);
                return Err(WireError::new(ErrorCode::Cancelled, "stopped before it began"));
            }
            if !std::mem::replace(&mut waits, true) {
                drop(queue);
                on_wait();
                queue = lock(&self.queue);
                continue;
            }
            queue = self.changed.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(turn)
    }

    /// Whether an answer for another program is being written.
    pub fn has_guest(&self) -> bool {
        lock(&self.queue).guest.is_some()
    }

    /// Ends the answer for another program that is being written.
    pub fn end_guest(&self) {
        if let Some(guest) = &lock(&self.queue).guest {
            guest.cancel();
        }
    }
}

impl Turn<'_> {
    /// It is another program that writes, until `cancel`.
    fn give_to_guest(&self, cancel: &Cancel) {
        lock(&self.turns.queue).guest = Some(cancel.clone());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.turns.queue);
        if queue.tickets.front() == Some(&self.ticket) {
            queue.guest = None;
        }
        queue.tickets.retain(|ticket| *ticket != self.ticket);
        drop(queue);
        self.turns.changed.notify_all();
    }
}

impl App {
    /// Writes an answer for another program with the model that is loaded when its turn comes; blocks. What the model
    /// remembers of chats is kept.
    ///
    /// # Errors
    /// [`ErrorCode::NoModelLoaded`], [`ErrorCode::Cancelled`] before it began, and as [`answer::write`].
    pub fn answer_guest(
        &self,
        task: Task,
        cancel: &Cancel,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(FinishReason, AnswerStats)> {
        let turn = self.turns.wait(cancel, &mut || ())?;
        turn.give_to_guest(cancel);
        // Whoever takes the model away has done so, or finds the guest.
        let session = self.session()?;
        self.leave_disk_alone();
        self.turn_to(&session, None, cancel)?;
        let ended = answer::write(&session, task, cancel, &mut |step| {
            if let Step::Recovery(notice) = &step {
                self.recovered(&session, notice);
            }
            on_step(step);
        });
        drop(turn);
        // Layers may have moved by the slider meanwhile.
        self.model_changed();
        ended
    }

    /// What answers are like where nobody says otherwise.
    pub fn defaults(&self) -> Defaults {
        let settings = self.settings_get();
        Defaults::of(&settings.sampling, settings.thinking)
    }

    /// Whether the loaded model writes an answer, or is about to.
    pub(crate) fn is_answering(&self) -> bool {
        lock(&self.answer).is_some() || self.turns.has_guest()
    }

    /// Layers moved while an answer was written.
    pub(crate) fn recovered(&self, session: &Session, notice: &RecoveryNotice) {
        // The plan and the bars follow what the engine did.
        if let Err(error) = session.replan(None) {
            tracing::warn!("{error}");
        }
        self.emit(AppEvent::Recovery { notice: notice.clone() });
        self.model_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn turns_come_in_order_and_who_is_called_off_leaves_the_queue() {
        let (turns, cancel, calm) = (Turns::default(), Cancel::new(), Cancel::new());
        let (order, came) = mpsc::channel();
        let (waits, waiting) = mpsc::channel();
        let first = turns.wait(&calm, &mut || panic!("nobody is there")).unwrap();
        std::thread::scope(|scope| {
            for (name, cancel) in [("second", &cancel), ("third", &calm)] {
                let (turns, order, waits) = (&turns, order.clone(), waits.clone());
                scope.spawn(move || {
                    let turn = turns.wait(cancel, &mut || waits.send(()).unwrap());
                    order.send((name, turn.as_ref().err().map(|error| error.code))).unwrap();
                    drop(turn);
                });
                waiting.recv().unwrap();
            }
            cancel.cancel();
            assert_eq!(came.recv().unwrap(), ("second", Some(ErrorCode::Cancelled)), "though its turn never came");
            assert!(came.try_recv().is_err(), "the first one's turn has not ended");
            drop(first);
            assert_eq!(came.recv().unwrap(), ("third", None));
        });
        drop(turns.wait(&cancel, &mut || panic!("somebody is left")).unwrap());
    }

    #[test]
    fn a_guest_is_there_as_long_as_its_turn() {
        let (turns, cancel) = (Turns::default(), Cancel::new());
        let turn = turns.wait(&cancel, &mut || ()).unwrap();
        assert!(!turns.has_guest(), "the window's turn");
        turns.end_guest();
        assert!(!cancel.is_cancelled());
        turn.give_to_guest(&cancel);
        turns.end_guest();
        assert!(turns.has_guest() && cancel.is_cancelled());
        drop(turn);
        assert!(!turns.has_guest());
    }
}

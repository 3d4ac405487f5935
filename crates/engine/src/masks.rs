//! A constraint and the tokens that it allows next. Which they are depends on the tokens before only, so where finding out
//! takes long it is done on a thread beside, while the model computes the logits that the tokens are chosen from.

use sampler::{Constraint, ConstraintError, Mask};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

/// To wake a thread and to hear of it takes a part of this. What is found sooner is not worth it.
const WORTH_IT: Duration = Duration::from_micros(50);

type Held<'s> = &'s mut (dyn Constraint + 's);

/// Asks a constraint, which is here or with the helper: it hears of the same in the same order in both cases.
pub(crate) struct Masks<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    /// `None`: with the helper.
    here: Option<Held<'s>>,
    helper: Option<Helper<'s>>,
    /// What the last mask took.
    took: Duration,
}

/// Takes the constraint, has it find its mask, and gives it back with what that took.
struct Helper<'s> {
    give: Sender<Held<'s>>,
    back: Receiver<(Held<'s>, Result<Duration, ConstraintError>)>,
}

impl<'s> Helper<'s> {
    fn start<'e>(scope: &'s Scope<'s, 'e>) -> Helper<'s> {
        let (give, taken) = channel::<Held<'s>>();
        let (done, back) = channel();
        let work = move || {
            while let Ok(constraint) = taken.recv() {
                let started = Instant::now();
                let result = constraint.mask().map(|_| started.elapsed());
                if done.send((constraint, result)).is_err() {
                    break;
                }
            }
        };
        // Without a thread nobody takes the constraint: it stays here.
        drop(Builder::new().name("masks".into()).spawn_scoped(scope, work));
        Helper { give, back }
    }
}

impl<'s, 'e> Masks<'s, 'e> {
    pub fn new(scope: &'s Scope<'s, 'e>, constraint: Held<'s>) -> Masks<'s, 'e> {
        Masks { scope, here: Some(constraint), helper: None, took: Duration::ZERO }
    }

    /// A step of the model begins. The mask that is asked for after it is found meanwhile, if that is worth it.
    pub fn begin(&mut self) {
        if self.took < WORTH_IT {
            return;
        }
        let Some(constraint) = self.here.take() else { return };
        let helper = self.helper.get_or_insert_with(|| Helper::start(self.scope));
        if let Err(SendError(constraint)) = helper.give.send(constraint) {
            self.here = Some(constraint);
        }
    }

    /// As [`Constraint::mask`]. Waits for the helper.
    pub fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError> {
        if self.here.is_some() {
            let started = Instant::now();
            self.constraint()?.mask()?;
            self.took = started.elapsed();
        }
        self.constraint()?.mask()
    }

    /// As [`Constraint::accept`].
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.constraint()?.accept(token)
    }

    /// As [`Constraint::is_complete`], between [`Masks::accept`] and [`Masks::begin`].
    pub fn is_complete(&self) -> bool {
        self.here.as_ref().is_some_and(|constraint| constraint.is_complete())
    }

    fn constraint(&mut self) -> Result<&mut Held<'s>, ConstraintError> {
        if self.here.is_none()
            && let Some(helper) = &self.helper
            && let Ok((constraint, took)) = helper.back.recv()
        {
            self.here = Some(constraint);
            self.took = took?;
        }
        // Gone with a helper that panicked, which goes on at the end of the scope.
        self.here.as_mut().ok_or_else(|| ConstraintError::TooComplex("its parser failed".into()))
    }
}

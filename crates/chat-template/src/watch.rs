//! The end of a rendering that takes too long. A thread cannot be ended from outside: it is left to itself, looks now and then
//! whether anybody still waits, and until it is through its template renders nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};

use minijinja::{Error, ErrorKind};

use crate::error::TemplateError;
use crate::limits::Limits;

/// The engine and the values it makes recurse: with the limits on nesting this is several times what is needed, while callers
/// may have as little as 1 MiB.
const STACK_BYTES: usize = 32 << 20;

/// How many renderings of a template were given up and have not ended yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<AtomicUsize>);

impl Watch {
    /// # Errors
    /// Nobody waits for what is computed here, or there is one such thread.
    pub fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(Error::from(ErrorKind::OutOfFuel)),
        }
    }

    /// Runs `work` on a thread of its own, for as long as the limits allow.
    pub fn run<T: Send + 'static>(
        &self,
        limits: &Limits,
        work: impl FnOnce() -> Result<T, TemplateError> + Send + 'static,
    ) -> Result<T, TemplateError> {
        let too_slow = || TemplateError::TooSlow { seconds: limits.time.as_secs() };
        self.check().map_err(|_| too_slow())?;
        let (sender, done) = mpsc::channel();
        let state = Arc::new(AtomicU8::new(RUNS));
        let end = End { watch: self.clone(), state: state.clone() };
        let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let _end = end;
            // Where nobody waits any more, it is of no use.
            drop(sender.send(work()));
        });
        started.map_err(|e| TemplateError::NoThread { message: e.to_string() })?;
        let result = match done.recv_timeout(limits.time) {
            Err(RecvTimeoutError::Timeout) => {
                self.0.fetch_add(1, Ordering::AcqRel);
                if state.compare_exchange(RUNS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return Err(too_slow());
                }
                // It has ended just now.
                self.0.fetch_sub(1, Ordering::AcqRel);
                done.recv().ok()
            }
            result => result.ok(),
        };
        let panicked =
            || TemplateError::Failed { line: 0, message: "the template engine failed internally".to_owned() };
        result.unwrap_or_else(|| Err(panicked()))
    }
}

const RUNS: u8 = 0;
const GIVEN_UP: u8 = 1;
const ENDED: u8 = 2;

/// The end of a rendering's thread, also by a panic.
struct End {
    watch: Watch,
    state: Arc<AtomicU8>,
}

impl Drop for End {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == GIVEN_UP {
            self.watch.0.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_is_given_up_ends_at_the_next_look() {
        let watch = Watch::default();
        let limits = Limits { time: Duration::from_millis(50), ..Limits::default() };
        let (inner, (begun, wait)) = (watch.clone(), mpsc::channel());
        let slow = watch.run(&limits, move || {
            let _ = begun.send(());
            while inner.check().is_ok() {
                std::thread::yield_now();
            }
            let _ = begun.send(());
            Ok(())
        });
        assert_eq!(slow, Err(TemplateError::TooSlow { seconds: 0 }));
        assert!(wait.iter().count() == 2, "the thread has ended");
        let patient = Limits::default();
        while watch.check().is_err() {
            std::thread::yield_now();
        }
        assert_eq!(watch.run(&patient, || Ok(1)), Ok(1), "others can be rendered again");
        let panicked: Result<(), _> = watch.run(&patient, || panic!("a bug"));
        assert_eq!(panicked.map_err(|error| error.code()), Err("template_failed"));
        assert!(watch.check().is_ok());
    }

    #[test]
    fn while_one_is_stuck_no_other_begins() {
        let watch = Watch::default();
        let (release, wait) = mpsc::channel::<()>();
        let limits = Limits { time: Duration::ZERO, ..Limits::default() };
        let stuck = watch.run(&limits, move || Ok(wait.recv().is_ok()));
        assert_eq!(stuck, Err(TemplateError::TooSlow { seconds: 0 }));
        let next = watch.run(&Limits::default(), || Ok(()));
        assert_eq!(next, Err(TemplateError::TooSlow { seconds: 20 }));
        drop(release);
        while watch.check().is_err() {
            std::thread::yield_now();
        }
        assert_eq!(watch.run(&Limits::default(), || Ok(())), Ok(()));
    }
}

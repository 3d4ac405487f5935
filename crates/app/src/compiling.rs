//! Kernels that the driver compiles, which may take it a minute the first time: somebody hears how far that is, and may go away.

use crate::error::Result;
use crate::wire::{ErrorCode, WireError};
use backend_cuda::{Absent, Card};
use engine::Cancel;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Who waits for kernels.
pub(crate) struct Watch<'a> {
    /// Hears how many of how many modules are ready, whenever there are more.
    pub told: Box<dyn FnMut(usize, usize) + 'a>,
    pub cancel: Cancel,
}

impl Watch<'_> {
    /// Somebody who waits to the end.
    pub fn patient() -> Watch<'static> {
        Watch { told: Box::new(|_, _| {}), cancel: Cancel::new() }
    }
}

/// Has the kernels of a GPU compiled, `done` of `of` GPUs that are waited for being ready. A thread of its own does that and
/// goes on when nobody waits any more: what it has made is there the next time.
///
/// # Errors
/// [`ErrorCode::Cancelled`], soon after it was; within, that the GPU cannot be used.
pub(crate) fn compile(
    card: &Card,
    (done, of): (usize, usize),
    watch: &mut Watch<'_>,
) -> Result<std::result::Result<(), Absent>> {
    let (sender, receiver) = channel();
    let compiled = card.clone();
    // If nobody waits for the result any more, it is in the card all the same.
    let work = move || drop(sender.send(compiled.compile()));
    if let Err(error) = std::thread::Builder::new().name("kernels".into()).spawn(work) {
        return Ok(Err(Absent::BadState(error.to_string())));
    }
    let mut last = None;
    loop {
        let found = receiver.recv_timeout(LOOK);
        let (now, modules) = card.compiled();
        if last != Some(now) && !matches!(found, Ok(Err(_))) {
            last = Some(now);
            (watch.told)(done * modules + now, of * modules);
        }
        match found {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Err(Absent::BadState("the thread that has kernels compiled has ended".into())));
            }
            Err(RecvTimeoutError::Timeout) if watch.cancel.is_cancelled() => {
                return Err(WireError::new(ErrorCode::Cancelled, "cancelled while kernels were compiled"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

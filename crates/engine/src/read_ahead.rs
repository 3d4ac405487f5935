//! Weights that stay in RAM are read in before the first token asks for them: while the user still types. Otherwise a model
//! that is not in the system's cache would be read page by page, while the first prompt waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use weights::WeightBytes;

/// Bytes between two looks whether that is still wanted.
const PIECE: usize = 2 << 20;

/// A thread that reads. It ends with its work, or when this is dropped.
pub(crate) struct ReadAhead {
    called_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Reads these in, in order. `None` where there is no thread for it: they are read when they are touched.
    pub fn start(weights: Vec<WeightBytes>) -> Option<ReadAhead> {
        let called_off = Arc::new(AtomicBool::new(false));
        let seen = called_off.clone();
        let read = move || {
            for bytes in &weights {
                for start in (0..bytes.len()).step_by(PIECE) {
                    if seen.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(piece) = bytes.slice(start..bytes.len().min(start + PIECE)) {
                        piece.read_in();
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("read-ahead".into()).spawn(read).ok()?;
        Some(ReadAhead { called_off, thread: Some(thread) })
    }

    pub fn is_at_work(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.called_off.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It holds the file; a panic in it has nothing to say.
            let _ = thread.join();
        }
    }
}

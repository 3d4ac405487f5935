//! The way from one GPU to another where the driver has none: through pinned memory, in pieces. One is on its way out while
//! the one before is on its way in, and no thread waits for either.

use super::Cuda;
use super::call::{Answer, check};
use super::card::Primary;
use super::slot::Slot;
use crate::{Address, Failure};
use cudarc::driver::sys;
use std::sync::Arc;

const SLOTS: usize = 2;
const SLOT_BYTES: usize = 2 << 20;

/// Belongs to the GPU that copies go to.
pub(super) struct Bounce {
    card: Arc<Primary>,
    slots: Vec<Slot>,
    next: usize,
}

impl Bounce {
    /// Needs the context of the card to be current.
    pub fn new(card: &Arc<Primary>) -> Result<Bounce, Failure> {
        let mut bounce = Bounce { card: card.clone(), slots: Vec::new(), next: 0 };
        for _ in 0..SLOTS {
            // Pinned for the other GPU, too.
            bounce.slots.push(Slot::new(SLOT_BYTES, sys::CU_MEMHOSTALLOC_PORTABLE)?);
            card.add_pinned(SLOT_BYTES as u64);
        }
        Ok(bounce)
    }

    /// Copies from a GPU to the one that this belongs to, after all work of both and before all that comes next. After a
    /// failure whoever calls must wait for both.
    ///
    /// # Safety
    /// The range at `to` is allocated in the memory of `here`, the one at `from` in that of `there`.
    pub unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64, here: &mut Cuda, there: &mut Cuda) -> Answer {
        there.ready()?;
        here.ready()?;
        let (mut done, bytes) = (0, bytes as usize);
        while done < bytes {
            let slot = &self.slots[self.next];
            self.next = (self.next + 1) % self.slots.len();
            let piece = (bytes - done).min(SLOT_BYTES);
            there.bind()?;
            // SAFETY: the ranges are allocated (the caller). The slot is as long as a piece; it is written when it has been
            // emptied (an event that was never recorded has come already), and read when it has been filled.
            unsafe {
                check("cuStreamWaitEvent", sys::cuStreamWaitEvent(there.stream, slot.emptied, 0))?;
                let out = sys::cuMemcpyDtoHAsync_v2(slot.memory, from + done as u64, piece, there.stream);
                check("cuMemcpyDtoHAsync", out)?;
                here.after(there)?;
                let into = sys::cuMemcpyHtoDAsync_v2(to + done as u64, slot.memory, piece, here.stream);
                check("cuMemcpyHtoDAsync", into)?;
                check("cuEventRecord", sys::cuEventRecord(slot.emptied, here.stream))?;
            }
            done += piece;
        }
        Ok(())
    }
}

/// Whoever drops it has waited for both streams and has the context current.
impl Drop for Bounce {
    fn drop(&mut self) {
        self.card.sub_pinned((self.slots.len() * SLOT_BYTES) as u64);
    }
}

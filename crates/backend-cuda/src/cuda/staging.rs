//! A small ring of pinned memory: weights go from the mapped file into it and on to the GPU, one piece being copied while
//! another is on its way.

use super::call::{Answer, check};
use super::slot::Slot;
use crate::{Address, Failure};
use cudarc::driver::sys;
use std::sync::Arc;

const SLOTS: usize = 4;
const SLOT_BYTES: usize = 4 << 20;

/// Copies bytes to a place of the same length, as one thread does, or several that have nothing else to do meanwhile.
pub type Copier = Arc<dyn Fn(&mut [u8], &[u8]) + Send + Sync>;

/// Whoever drops it has waited for the stream.
pub(super) struct Staging {
    slots: Vec<Slot>,
    next: usize,
    /// Fills the slots: one thread may be slower than the way to the GPU.
    pub copier: Copier,
}

impl Staging {
    /// Needs a current context.
    pub fn new() -> Result<Staging, Failure> {
        let copier = Arc::new(|to: &mut [u8], from: &[u8]| to.copy_from_slice(from));
        let mut staging = Staging { slots: Vec::new(), next: 0, copier };
        for _ in 0..SLOTS {
            let slot = Slot::new(SLOT_BYTES, 0)?;
            // SAFETY: as many bytes as were just allocated. They are a slice later, so they must have values.
            unsafe { slot.memory.cast::<u8>().write_bytes(0, SLOT_BYTES) };
            staging.slots.push(slot);
        }
        Ok(staging)
    }

    /// Bytes of RAM that it holds.
    pub fn bytes(&self) -> u64 {
        (self.slots.len() * SLOT_BYTES) as u64
    }

    /// Copies bytes to the GPU in the order of the stream.
    ///
    /// # Safety
    /// The range at `to` is allocated.
    pub unsafe fn upload(&mut self, to: Address, from: &[u8], stream: sys::CUstream) -> Answer {
        for (index, piece) in from.chunks(SLOT_BYTES).enumerate() {
            let slot = &self.slots[self.next];
            self.next = (self.next + 1) % self.slots.len();
            // SAFETY: the slot's last copy has ended before it is written again (an event that was never recorded has
            // come already), a piece is not longer than a slot, and nobody else has the slot.
            unsafe {
                check("cuEventSynchronize", sys::cuEventSynchronize(slot.emptied))?;
                (self.copier)(std::slice::from_raw_parts_mut(slot.memory.cast(), piece.len()), piece);
                let start = to + (index * SLOT_BYTES) as u64;
                let copy = sys::cuMemcpyHtoDAsync_v2(start, slot.memory, piece.len(), stream);
                check("cuMemcpyHtoDAsync", copy)?;
                check("cuEventRecord", sys::cuEventRecord(slot.emptied, stream))?;
            }
        }
        Ok(())
    }
}

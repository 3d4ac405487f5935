//! A small ring of pinned memory: weights go from the mapped file into it and on to the GPU, one piece being copied while
//! another is on its way.

use super::call::{Answer, check};
use crate::{Address, Failure};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr::null_mut;

const SLOTS: usize = 4;
const SLOT_BYTES: usize = 4 << 20;

struct Slot {
    memory: *mut u8,
    /// Comes when the copy out of the slot has ended.
    copied: sys::CUevent,
}

pub(super) struct Staging {
    slots: Vec<Slot>,
    next: usize,
}

impl Staging {
    /// Needs a current context.
    pub fn new() -> Result<Staging, Failure> {
        let mut staging = Staging { slots: Vec::new(), next: 0 };
        for _ in 0..SLOTS {
            let (mut memory, mut copied): (*mut c_void, _) = (null_mut(), null_mut());
            // SAFETY: both pointers are to pointers.
            unsafe {
                check("cuMemHostAlloc", sys::cuMemHostAlloc(&mut memory, SLOT_BYTES, 0))?;
                let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
                if let Err(failure) = check("cuEventCreate", sys::cuEventCreate(&mut copied, flags)) {
                    let _ = sys::cuMemFreeHost(memory);
                    return Err(failure);
                }
            }
            staging.slots.push(Slot { memory: memory.cast(), copied });
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
            // come already), and a piece is not longer than a slot.
            unsafe {
                check("cuEventSynchronize", sys::cuEventSynchronize(slot.copied))?;
                std::ptr::copy_nonoverlapping(piece.as_ptr(), slot.memory, piece.len());
                let start = to + (index * SLOT_BYTES) as u64;
                let copy = sys::cuMemcpyHtoDAsync_v2(start, slot.memory.cast(), piece.len(), stream);
                check("cuMemcpyHtoDAsync", copy)?;
                check("cuEventRecord", sys::cuEventRecord(slot.copied, stream))?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            // SAFETY: memory and event are ours, once; whoever drops us has waited for the stream.
            unsafe {
                let _ = sys::cuEventDestroy_v2(slot.copied);
                let _ = sys::cuMemFreeHost(slot.memory.cast());
            }
        }
    }
}

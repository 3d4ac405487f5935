//! Pinned memory that a stream copies from or to, piece by piece, and events.

use super::call::check;
use crate::Failure;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr::null_mut;

pub(super) struct Slot {
    pub memory: *mut c_void,
    /// Recorded when a copy out of the memory is queued: it has come when the memory may be written again, or was never
    /// recorded.
    pub emptied: sys::CUevent,
}

impl Slot {
    /// So many bytes. Needs a current context; `flags` are cuMemHostAlloc's.
    pub fn new(bytes: usize, flags: u32) -> Result<Slot, Failure> {
        let mut slot = Slot { memory: null_mut(), emptied: null_mut() };
        // SAFETY: the pointer is to a pointer. What was made is given back if the rest fails (`drop`).
        unsafe { check("cuMemHostAlloc", sys::cuMemHostAlloc(&mut slot.memory, bytes, flags))? };
        slot.emptied = event()?;
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: memory and event are ours, once; whoever drops us has waited for the streams.
        unsafe {
            if !self.emptied.is_null() {
                let _ = sys::cuEventDestroy_v2(self.emptied);
            }
            if !self.memory.is_null() {
                let _ = sys::cuMemFreeHost(self.memory);
            }
        }
    }
}

/// An event of the current context, to be waited for.
pub(super) fn event() -> Result<sys::CUevent, Failure> {
    let (mut event, flags) = (null_mut(), sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32);
    // SAFETY: the pointer is to a handle; without a context the driver says so.
    unsafe { check("cuEventCreate", sys::cuEventCreate(&mut event, flags))? };
    Ok(event)
}

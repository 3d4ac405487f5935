//! A second queue of the GPU, for copies beside the work, and what makes the two wait for each other.

use super::call::{Answer, check};
use super::slot::event;
use cudarc::driver::sys;
use std::ptr::null_mut;

pub(super) struct Beside {
    pub stream: sys::CUstream,
    /// Come when what was in a queue at the last turn has ended: copies, work.
    copied: sys::CUevent,
    worked: sys::CUevent,
}

impl Beside {
    /// Needs a current context.
    pub fn new() -> Result<Beside, crate::Failure> {
        let mut beside = Beside { stream: null_mut(), copied: null_mut(), worked: null_mut() };
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current, the pointer is to a handle. What was made is given back if the rest fails (`drop`).
        unsafe { check("cuStreamCreate", sys::cuStreamCreate(&mut beside.stream, flags))? };
        beside.copied = event()?;
        beside.worked = event()?;
        Ok(beside)
    }

    /// What comes next in either queue waits for what is in the other.
    pub fn turn(&self, work: sys::CUstream) -> Answer {
        // SAFETY: streams and events are live and of the current context (the caller is the owner of both).
        unsafe {
            check("cuEventRecord", sys::cuEventRecord(self.copied, self.stream))?;
            check("cuEventRecord", sys::cuEventRecord(self.worked, work))?;
            check("cuStreamWaitEvent", sys::cuStreamWaitEvent(work, self.copied, 0))?;
            check("cuStreamWaitEvent", sys::cuStreamWaitEvent(self.stream, self.worked, 0))
        }
    }

    pub fn synchronize(&self) -> Answer {
        // SAFETY: the stream is ours until we are dropped.
        unsafe { check("cuStreamSynchronize", sys::cuStreamSynchronize(self.stream)) }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // SAFETY: the handles are ours, once; whoever drops us has the context current and has waited for the stream.
        unsafe {
            for event in [self.copied, self.worked] {
                if !event.is_null() {
                    let _ = sys::cuEventDestroy_v2(event);
                }
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
        }
    }
}

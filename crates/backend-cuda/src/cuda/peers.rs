//! Copies from one GPU to another, for which no thread waits: each of the two queues waits for what it must in the other one.
//! The driver sends the bytes directly where the hardware can, or else through memory of its own; where it does neither, or
//! something else arrives, they go through pinned memory of ours (`bounce`).

use super::Cuda;
use super::bounce::Bounce;
use super::call::{Answer, check};
use super::card::Primary;
use super::slot::event;
use crate::{Address, Driver, Failure};
use cudarc::driver::sys;
use std::ffi::c_void;

/// Bytes at most of a copy from a GPU that are compared, if it is larger than any that was compared before. There are machines
/// (with an IOMMU in the way, for one) on which GPUs say that they reach each other, and what arrives is something else.
const COMPARED: u64 = 16 << 20;

/// As old as CUDA 4. The binding panics at a function that the library does not have.
const FUNCTIONS: [&[u8]; 3] = [b"cuDeviceCanAccessPeer\0", b"cuCtxEnablePeerAccess\0", b"cuMemcpyPeerAsync\0"];

/// How bytes come from another GPU.
pub(super) enum Way {
    /// As the driver sends them: bytes of the largest copy that was seen to be right. None was tried yet if there is none.
    Driver(Option<u64>),
    Pinned(Bounce),
    /// Neither works.
    None,
}

impl Cuda {
    /// [`Driver::copy_from`].
    ///
    /// # Safety
    /// The range at `to` is allocated here, the one at `from` there.
    pub(super) unsafe fn copy_from_peer(&mut self, to: Address, other: &mut Cuda, from: Address, bytes: u64) -> bool {
        let peer = other.card.context() as usize;
        if peer == self.card.context() as usize || bytes == 0 {
            return false;
        }
        let mut way = self.peers.remove(&peer).unwrap_or(Way::Driver(None));
        if let Way::Driver(known) = way {
            // SAFETY: the caller's promise.
            way = match unsafe { self.copy_by_driver(to, other, from, bytes, known) } {
                Some(compared) => Way::Driver(Some(compared)),
                // Whatever it was, it is not tried again.
                None => self.bind().and_then(|()| Bounce::new(&self.card)).map_or(Way::None, Way::Pinned),
            };
        }
        let copied = match &mut way {
            Way::Driver(_) => true,
            // SAFETY: the caller's promise.
            Way::Pinned(bounce) => unsafe { bounce.copy(to, from, bytes, self, other) }.is_ok(),
            Way::None => false,
        };
        if !copied {
            // The pinned memory may be in use.
            let one = other.bind().and_then(|()| other.synchronize());
            if self.bind().and_then(|()| self.synchronize()).and(one).is_err() {
                // One of them is lost, which whoever goes through the host will hear. There may be another one in its place.
                return false;
            }
            way = Way::None;
        }
        self.peers.insert(peer, way);
        copied
    }

    /// What comes next here comes after everything that the other one was given so far.
    pub(super) fn after(&mut self, other: &mut Cuda) -> Answer {
        other.ready()?;
        let mark = other.mark()?;
        // SAFETY: the other's context is current, stream and event are its own.
        unsafe { check("cuEventRecord", sys::cuEventRecord(mark, other.stream))? };
        self.ready()?;
        // SAFETY: both are live; a stream may wait for an event of another context, and waits for what was recorded last.
        unsafe { check("cuStreamWaitEvent", sys::cuStreamWaitEvent(self.stream, mark, 0)) }
    }

    /// Needs the context to be current.
    fn mark(&mut self) -> Result<sys::CUevent, Failure> {
        if self.mark.is_null() {
            self.mark = event()?;
        }
        Ok(self.mark)
    }

    /// Bytes that copies were compared up to; `None`: it does not work like this.
    ///
    /// # Safety
    /// As above.
    unsafe fn copy_by_driver(
        &mut self,
        to: Address,
        other: &mut Cuda,
        from: Address,
        bytes: u64,
        known: Option<u64>,
    ) -> Option<u64> {
        if known.is_none() && !is_there() {
            return None;
        }
        self.after(other).ok()?;
        if known.is_none() {
            reach(&self.card, &other.card);
        }
        let (here, there) = (self.card.context(), other.card.context());
        // SAFETY: both ranges are allocated (the caller); this queue has waited for what uses them, and the other one will wait
        // for the copy before it uses or gives back anything (`after`).
        let copy = unsafe { sys::cuMemcpyPeerAsync(to, here, from, there, bytes as usize, self.stream) };
        check("cuMemcpyPeerAsync", copy).ok()?;
        if other.after(self).is_err() {
            // Then this thread waits.
            self.bind().and_then(|()| self.synchronize()).ok()?;
        }
        let (now, compared) = (bytes.min(COMPARED), known.unwrap_or(0));
        // SAFETY: the caller's promise.
        let right = now <= compared || unsafe { self.is_same(to, other, from, now) };
        right.then_some(now.max(compared))
    }

    /// # Safety
    /// As above.
    unsafe fn is_same(&mut self, to: Address, other: &mut Cuda, from: Address, bytes: u64) -> bool {
        let [mut here, mut there] = [0, 1].map(|byte| vec![byte; bytes as usize]);
        // SAFETY: the caller's promise.
        let read = unsafe { self.download(to, &mut here).and(other.download(from, &mut there)) };
        read.is_ok() && here == there
    }
}

fn is_there() -> bool {
    // SAFETY: the library is loaded; the addresses are not used.
    FUNCTIONS.iter().all(|name| unsafe { sys::culib().get::<*mut c_void>(*name) }.is_ok())
}

/// Lets the current context reach the memory of another GPU, where the hardware can. Where not, the driver copies all the
/// same.
fn reach(here: &Primary, there: &Primary) {
    let mut can = 0;
    // SAFETY: both devices and contexts are live, the pointer is to an integer.
    unsafe {
        let asked = sys::cuDeviceCanAccessPeer(&mut can, here.device(), there.device());
        if asked == sys::CUresult::CUDA_SUCCESS && can != 0 {
            let _ = sys::cuCtxEnablePeerAccess(there.context(), 0);
        }
    }
}

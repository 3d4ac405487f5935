//! Copies from one GPU to another. The driver sends them directly where the hardware can, or else through memory of its own.

use super::Cuda;
use super::call::{Answer, check};
use super::card::Primary;
use crate::{Address, Driver};
use cudarc::driver::sys;
use std::ffi::c_void;

/// Bytes at most of a copy from a GPU that are compared, if it is larger than any that was compared before. There are machines
/// (with an IOMMU in the way, for one) on which GPUs say that they reach each other, and what arrives is something else.
const COMPARED: u64 = 16 << 20;

/// As old as CUDA 4. The binding panics at a function that the library does not have.
const FUNCTIONS: [&[u8]; 3] = [b"cuDeviceCanAccessPeer\0", b"cuCtxEnablePeerAccess\0", b"cuMemcpyPeerAsync\0"];

impl Cuda {
    /// [`Driver::copy_from`].
    ///
    /// # Safety
    /// The range at `to` is allocated here, the one at `from` there.
    pub(super) unsafe fn copy_from_peer(&mut self, to: Address, other: &mut Cuda, from: Address, bytes: u64) -> bool {
        let peer = other.card.context() as usize;
        let known = self.peers.get(&peer).copied();
        if known == Some(None) || peer == self.card.context() as usize || bytes == 0 {
            return false;
        }
        let (is_new, compared, now) = (known.is_none(), known.flatten().unwrap_or(0), bytes.min(COMPARED));
        // SAFETY: the caller's promise.
        let copied = unsafe {
            let copied = (!is_new || is_there()) && self.try_copy(to, other, from, bytes, is_new).is_ok();
            copied && (now <= compared || self.is_same(to, other, from, now))
        };
        // Whatever it was, it is not tried again.
        self.peers.insert(peer, copied.then_some(now.max(compared)));
        copied
    }

    /// # Safety
    /// As above.
    unsafe fn try_copy(&mut self, to: Address, other: &mut Cuda, from: Address, bytes: u64, is_new: bool) -> Answer {
        other.ready()?;
        other.synchronize()?;
        self.ready()?;
        if is_new {
            reach(&self.card, &other.card);
        }
        let (here, there) = (self.card.context(), other.card.context());
        // SAFETY: both ranges are allocated (the caller), and nothing of either GPU uses them before this has ended.
        let copy = unsafe { sys::cuMemcpyPeerAsync(to, here, from, there, bytes as usize, self.stream) };
        // Waited for in any case: the other may do with the range what it likes after this.
        self.synchronize().and(check("cuMemcpyPeerAsync", copy))
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

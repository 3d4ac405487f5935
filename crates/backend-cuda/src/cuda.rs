//! The driver of NVIDIA GPUs, loaded at run time.

mod absent;
mod beside;
mod bounce;
mod call;
mod card;
mod listed;
mod peers;
mod queue;
mod share;
mod slot;
mod staging;

pub use absent::Absent;
pub use card::{Card, GRAPHS};
pub use listed::Listed;
pub use staging::Copier;

use crate::{Address, Architecture, Driver, Failure, Launch, Share};
use beside::Beside;
use call::{Answer, check};
use card::Primary;
use cudarc::driver::sys;
use peers::Way;
use queue::Queue;
use staging::Staging;
use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;

/// A queue of work on a [`Card`], with the memory it uses.
pub struct Cuda {
    card: Arc<Primary>,
    stream: sys::CUstream,
    staging: Option<Staging>,
    /// Made when it is first used.
    beside: Option<Beside>,
    /// Kernels that wait; everything else comes after them.
    queue: Queue,
    /// How copies come from other GPUs, by the addresses of their contexts.
    peers: HashMap<usize, Way>,
    /// What others wait for; made when the first one does.
    mark: sys::CUevent,
    /// What the card was told of our graphs' memory.
    graph_bytes: u64,
    functions: HashMap<&'static str, sys::CUfunction>,
    /// Bytes of each.
    allocations: HashMap<Address, u64>,
}

// SAFETY: the handles belong to the process, not to a thread; every call makes the context current first, and `&mut self`
// lets one thread at a time call.
unsafe impl Send for Cuda {}

impl Cuda {
    fn new(card: Arc<Primary>) -> Result<Cuda, Absent> {
        let mut stream = null_mut();
        card.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current, the pointer is to a pointer.
        unsafe { check("cuStreamCreate", sys::cuStreamCreate(&mut stream, flags))? };
        // Without pinned memory copies are slower, but they work.
        let staging = Staging::new().ok();
        card.add_pinned(staging.as_ref().map_or(0, Staging::bytes));
        Ok(Cuda {
            card,
            stream,
            staging,
            beside: None,
            queue: Queue::new(),
            peers: HashMap::new(),
            mark: null_mut(),
            graph_bytes: 0,
            functions: HashMap::new(),
            allocations: HashMap::new(),
        })
    }

    /// Who copies bytes into pinned memory, from which the GPU takes them; without this, the thread that uploads.
    #[must_use]
    pub fn with_copier(mut self, copier: Copier) -> Cuda {
        if let Some(staging) = &mut self.staging {
            staging.copier = copier;
        }
        self
    }

    /// Makes the context current in this thread.
    fn bind(&self) -> Answer {
        self.card.bind()
    }

    /// Makes the context current, and the kernels that wait go before whatever comes next.
    fn ready(&mut self) -> Answer {
        self.bind()?;
        // SAFETY: the context is current; memory that a waiting kernel uses is not released before it has gone (`release`).
        let flushed = unsafe { self.queue.flush(self.stream, &self.card) };
        self.count_graphs();
        flushed
    }

    fn count_graphs(&mut self) {
        let bytes = self.queue.graph_bytes();
        if bytes != self.graph_bytes {
            self.card.count_graphs(self.graph_bytes, bytes);
            self.graph_bytes = bytes;
        }
    }

    /// Waits for all work, and for all copies beside it.
    fn synchronize_all(&self) -> Answer {
        self.beside.as_ref().map_or(Ok(()), Beside::synchronize).and(self.synchronize())
    }

    fn synchronize(&self) -> Answer {
        // SAFETY: the stream is ours until we are dropped.
        unsafe { check("cuStreamSynchronize", sys::cuStreamSynchronize(self.stream)) }
    }

    fn function(&mut self, module: &'static str, kernel: &'static str) -> Result<sys::CUfunction, Failure> {
        if let Some(function) = self.functions.get(kernel) {
            return Ok(*function);
        }
        let loaded = self.card.module(module)?;
        let name = CString::new(kernel).map_err(|_| Failure::Lost(format!("{kernel} is no name")))?;
        let mut function = null_mut();
        // SAFETY: the module is loaded and stays as long as the card, the name ends with 0.
        unsafe { check("cuModuleGetFunction", sys::cuModuleGetFunction(&mut function, loaded, name.as_ptr()))? };
        self.functions.insert(kernel, function);
        Ok(function)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Nobody is left to tell of failures; after a lost device all of this fails.
        let _ = self.bind();
        let _ = self.synchronize_all();
        self.beside = None;
        self.peers.clear();
        self.card.sub_pinned(self.staging.take().map_or(0, |staging| staging.bytes()));
        self.queue = Queue::new();
        self.count_graphs();
        // SAFETY: everything given back here is ours, once, and nothing runs any more.
        unsafe {
            for (start, bytes) in self.allocations.drain() {
                self.card.give_back(bytes, || {
                    let _ = sys::cuMemFree_v2(start);
                });
            }
            if !self.mark.is_null() {
                let _ = sys::cuEventDestroy_v2(self.mark);
            }
            let _ = sys::cuStreamDestroy_v2(self.stream);
        }
    }
}

impl Driver for Cuda {
    fn name(&self) -> &str {
        self.card.name()
    }

    fn architecture(&self) -> Architecture {
        self.card.architecture()
    }

    fn multiprocessors(&self) -> usize {
        self.card.multiprocessors()
    }

    fn free_bytes(&mut self) -> u64 {
        self.card.free_bytes().unwrap_or(0)
    }

    fn reserve(&mut self) -> u64 {
        self.card.reserve()
    }

    fn share(&mut self) -> Option<Share> {
        self.card.share()
    }

    fn lost(&mut self, detail: &str) {
        self.card.lose(detail);
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, Failure> {
        self.bind()?;
        let size = usize::try_from(bytes).map_err(|_| Failure::OutOfMemory)?;
        let mut start = 0;
        // SAFETY: the pointer is to an address.
        self.card.take(bytes, || unsafe { check("cuMemAlloc", sys::cuMemAlloc_v2(&mut start, size)) })?;
        self.allocations.insert(start, bytes);
        Ok(start)
    }

    unsafe fn release(&mut self, start: Address) {
        let Some(bytes) = self.allocations.remove(&start) else { return };
        let works = self.ready().is_ok();
        if works {
            // Rare: nobody streams all the time.
            let _ = self.beside.as_ref().map(Beside::synchronize);
        }
        self.card.give_back(bytes, || {
            if works {
                // SAFETY: the allocation is ours; cuMemFree waits for the work of this GPU, which comes after what others copy
                // from it.
                let _ = unsafe { sys::cuMemFree_v2(start) };
            }
        });
    }

    unsafe fn clear(&mut self, start: Address, bytes: u64) -> Result<(), Failure> {
        self.ready()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is allocated (the caller).
        unsafe { check("cuMemsetD8Async", sys::cuMemsetD8Async(start, 0, bytes as usize, self.stream)) }
    }

    unsafe fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        self.ready()?;
        if from.is_empty() {
            return Ok(());
        }
        if let Some(staging) = &mut self.staging {
            // SAFETY: the range is allocated (the caller).
            return unsafe { staging.upload(to, from, self.stream) };
        }
        // The copy is no part of our stream: it must come after what is in it.
        self.synchronize()?;
        // SAFETY: the range is allocated (the caller), and this call returns when the bytes are there.
        unsafe { check("cuMemcpyHtoD", sys::cuMemcpyHtoD_v2(to, from.as_ptr().cast(), from.len()))? };
        self.synchronize()
    }

    unsafe fn upload_beside(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        self.bind()?;
        if self.beside.is_none() {
            self.ready()?;
            self.beside = Beside::new().ok();
            // After everything so far.
            self.beside.as_ref().map_or(Ok(()), |beside| beside.turn(self.stream))?;
        }
        match (&mut self.staging, &self.beside) {
            // SAFETY: the range is allocated, and no work uses it (the caller).
            (Some(staging), Some(beside)) if !from.is_empty() => unsafe { staging.upload(to, from, beside.stream) },
            // Not beside, but right.
            // SAFETY: the caller's promise.
            _ => unsafe { self.upload(to, from) },
        }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.ready()?;
        self.beside.as_ref().map_or(Ok(()), |beside| beside.turn(self.stream))
    }

    unsafe fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), Failure> {
        self.ready()?;
        if to.is_empty() {
            return self.synchronize();
        }
        // SAFETY: the range is allocated (the caller); the bytes are borrowed until the stream has been waited for.
        unsafe {
            let copy = sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), self.stream);
            let copied = check("cuMemcpyDtoHAsync", copy);
            // Waited for in any case: nothing may write to `to` after this.
            self.synchronize().and(copied)
        }
    }

    unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64) -> Result<(), Failure> {
        self.ready()?;
        // SAFETY: both ranges are allocated (the caller).
        unsafe { check("cuMemcpyDtoDAsync", sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, self.stream)) }
    }

    unsafe fn copy_from(&mut self, to: Address, other: &mut Cuda, from: Address, bytes: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.copy_from_peer(to, other, from, bytes) }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.ready()?;
        self.synchronize()
    }

    unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), Failure> {
        let function = self.function(launch.module, launch.kernel)?;
        if self.queue.push(function, &launch) { self.ready() } else { Ok(()) }
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.ready()
    }
}

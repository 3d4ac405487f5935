//! The device: buffers in video memory, operations as launches of kernels.

use crate::arena::Arena;
use crate::buffers::{Buffers, Span};
use crate::ops;
use crate::spill::{self, Spills};
use crate::{Address, Architecture, Driver, Failure, Launch};
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op, RopeSpec};
use std::any::Any;
use std::time::Instant;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuConfig {
    /// Bytes that buffers may take; without a limit, what the driver gives.
    pub limit: Option<u64>,
    /// One block of attention takes all splits of its queries, as it does where there are many of them. Otherwise, with few,
    /// splits are computed beside each other.
    pub whole_attention: bool,
}

/// Memory that operations reuse. It is no buffer of the caller's and is not counted among those.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Activations rounded to 8 bits, and slots grouped by experts.
    pub products: Block,
    /// Where ranges start whose rounding products had to make.
    pub wanted: Vec<Address>,
    /// Softmaxes of the splits of an attention.
    pub splits: Block,
    /// Mixes of angles of the rotary embeddings that were seen: a model has one or two.
    pub mixes: Vec<(RopeSpec, Address)>,
    /// Tables of the types whose weights are points of one: 36 KiB if all of them are used.
    pub lattices: Vec<(&'static [u8], Address)>,
}

/// Bytes that are taken for scratch memory of `bytes`: some more, so that a growing context does not grow it at every step.
pub(crate) fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
}

/// A piece of memory that grows.
#[derive(Clone, Copy, Default)]
pub(crate) struct Block {
    address: Address,
    bytes: u64,
}

impl Block {
    /// Where it starts, if it has room for so many bytes now.
    pub fn start(&self, bytes: u64) -> Option<Address> {
        (bytes <= self.bytes).then_some(self.address)
    }
}

/// Memory and work of one GPU, with the driver's failures as errors.
pub(crate) struct Gpu<D: Driver> {
    driver: D,
    arena: Arena,
    limit: Option<u64>,
    pub whole_attention: bool,
    /// The driver has failed: whatever else is asked of it may do anything.
    lost: Option<String>,
}

impl<D: Driver> Gpu<D> {
    fn present(&self) -> Result<(), BackendError> {
        match &self.lost {
            Some(detail) => Err(BackendError::Lost { device: self.driver.name().into(), detail: detail.clone() }),
            None => Ok(()),
        }
    }

    fn full(&mut self, needed: u64) -> BackendError {
        let free = self.driver.free_bytes();
        BackendError::OutOfMemory { device: self.driver.name().into(), needed, free }
    }

    fn error(&mut self, failure: Failure, needed: u64) -> BackendError {
        match failure {
            Failure::OutOfMemory => self.full(needed),
            Failure::Lost(detail) => {
                self.driver.lost(&detail);
                self.lost = Some(detail.clone());
                BackendError::Lost { device: self.driver.name().into(), detail }
            }
        }
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, BackendError> {
        self.present()?;
        let driver = &mut self.driver;
        let taken = self.arena.allocate(bytes, &mut |slab| spill::grow(driver, slab));
        taken.map_err(|failure| self.error(failure, bytes))
    }

    fn release(&mut self, address: Address, bytes: u64) {
        if let Some(slab) = self.arena.release(address, bytes)
            && self.lost.is_none()
        {
            // SAFETY: the arena gave the slab up because none of its ranges is in use.
            unsafe { self.driver.release(slab) };
        }
    }

    fn clear(&mut self, span: Span) -> Result<(), BackendError> {
        self.present()?;
        // SAFETY: a span is a range of a live buffer.
        unsafe { self.driver.clear(span.address, span.bytes) }.map_err(|failure| self.error(failure, 0))
    }

    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), BackendError> {
        self.present()?;
        assert_eq!(to.bytes, bytes.len() as u64);
        // SAFETY: a span is a range of a live buffer, as long as the bytes.
        unsafe { self.driver.upload(to.address, bytes) }.map_err(|failure| self.error(failure, 0))
    }

    fn upload_beside(&mut self, to: Span, bytes: &[u8]) -> Result<(), BackendError> {
        self.present()?;
        assert_eq!(to.bytes, bytes.len() as u64);
        // SAFETY: as in `upload`. That no work uses the range is the caller's promise; it is memory of the same device all the
        // same, so that breaking it gives wrong values and nothing worse.
        unsafe { self.driver.upload_beside(to.address, bytes) }.map_err(|failure| self.error(failure, 0))
    }

    fn download(&mut self, from: Span, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.present()?;
        assert_eq!(from.bytes, bytes.len() as u64);
        // SAFETY: as in `upload`.
        unsafe { self.driver.download(from.address, bytes) }.map_err(|failure| self.error(failure, 0))
    }

    /// Copies between spans of the same length that do not overlap.
    pub fn copy(&mut self, to: Span, from: Span) -> Result<(), BackendError> {
        self.present()?;
        assert!(to.bytes == from.bytes && !to.overlaps(from));
        // SAFETY: both are ranges of live buffers.
        unsafe { self.driver.copy(to.address, from.address, to.bytes) }.map_err(|failure| self.error(failure, 0))
    }

    /// Copies between spans of the same length of two GPUs. False: they cannot do that by themselves.
    fn copy_from(&mut self, to: Span, other: &mut Gpu<D>, from: Span) -> bool {
        assert_eq!(to.bytes, from.bytes);
        let both = self.lost.is_none() && other.lost.is_none();
        // SAFETY: both are ranges of live buffers, each of its own driver's memory.
        both && unsafe { self.driver.copy_from(to.address, &mut other.driver, from.address, to.bytes) }
    }

    /// Runs a kernel.
    ///
    /// # Safety
    /// The arguments are the kernel's own struct, and every range that it reaches through them with these sizes lies in
    /// live buffers or scratch memory.
    pub unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), BackendError> {
        self.present()?;
        if launch.grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the caller's promise is the driver's.
        unsafe { self.driver.launch(launch) }.map_err(|failure| self.error(failure, 0))
    }

    /// At least `bytes` of scratch memory; what was in it is gone if it has to grow.
    pub fn scratch(&mut self, block: &mut Block, bytes: u64) -> Result<Address, BackendError> {
        if block.bytes < bytes {
            // Work that still uses the old memory comes before all that will use it next.
            let old = std::mem::take(block);
            if old.bytes > 0 {
                self.release(old.address, old.bytes);
            }
            let more = with_reserve(bytes);
            *block = Block { address: self.allocate(more)?, bytes: more };
        }
        Ok(block.address)
    }

    /// A table that stays.
    pub fn table(&mut self, bytes: &[u8]) -> Result<Address, BackendError> {
        let address = self.allocate(bytes.len() as u64)?;
        self.upload(Span { address, bytes: bytes.len() as u64 }, bytes)?;
        Ok(address)
    }

    pub fn name(&self) -> &str {
        self.driver.name()
    }

    pub fn architecture(&self) -> Architecture {
        self.driver.architecture()
    }

    pub fn multiprocessors(&self) -> usize {
        self.driver.multiprocessors()
    }
}

/// A GPU. Weights are copied into its memory.
pub struct GpuDevice<D: Driver> {
    gpu: Gpu<D>,
    buffers: Buffers,
    scratch: Scratch,
    /// Operations that wait for the next one. Everything but [`Device::run`] lets them go first.
    held: ops::Held,
    /// The most bytes that were ours or free: what is missing from it has been taken by others.
    most: u64,
    spills: Spills,
}

/// With less than this free, others press.
const LOW: u64 = 64 << 20;

impl<D: Driver + 'static> GpuDevice<D> {
    pub fn new(mut driver: D, config: GpuConfig) -> GpuDevice<D> {
        let most = driver.free_bytes();
        let gpu = Gpu {
            arena: Arena::new(driver.exact()),
            driver,
            limit: config.limit,
            whole_attention: config.whole_attention,
            lost: None,
        };
        let (buffers, scratch, held) = (Buffers::default(), Scratch::default(), ops::Held::default());
        GpuDevice { gpu, buffers, scratch, held, most, spills: Spills::default() }
    }

    fn working(&mut self) -> ops::Run<'_, D> {
        let GpuDevice { gpu, buffers, scratch, held, .. } = self;
        ops::Run { gpu, buffers, scratch, held }
    }

    /// What waits for its successor is launched as it is.
    fn let_go(&mut self) -> Result<(), BackendError> {
        ops::let_go(&mut self.working())
    }

    /// Bytes taken from the driver for buffers and scratch memory, in whole pages.
    pub fn reserved(&self) -> u64 {
        self.gpu.arena.reserved()
    }

    /// Bytes that operations hold for themselves now; never more than [`crate::scratch`] says of what was computed.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch.products.bytes + self.scratch.splits.bytes
    }

    fn take(&mut self, bytes: u64, read_only: bool) -> Result<(BufferId, Span), BackendError> {
        if let Some(limit) = self.gpu.limit
            && self.buffers.used.saturating_add(bytes) > limit
        {
            let free = limit.saturating_sub(self.buffers.used);
            return Err(BackendError::OutOfMemory { device: self.gpu.name().into(), needed: bytes, free });
        }
        let address = self.gpu.allocate(bytes)?;
        Ok((self.buffers.add(address, bytes, read_only), Span { address, bytes }))
    }

    /// Keeps a new buffer only if it could be filled.
    fn keep(&mut self, id: BufferId, filled: Result<(), BackendError>) -> Result<BufferId, BackendError> {
        if filled.is_err() {
            self.free(id);
        }
        filled.map(|()| id)
    }
}

impl<D: Driver + 'static> Device for GpuDevice<D> {
    fn name(&self) -> &str {
        self.gpu.name()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Accelerator
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { used: self.buffers.used, limit: self.gpu.limit }
    }

    fn scratch(&self, need: &Need) -> Option<u64> {
        ops::scratch(need)
    }

    fn pressure(&mut self) -> u64 {
        if self.gpu.lost.is_some() {
            return 0;
        }
        let free = self.gpu.driver.free_bytes();
        let now = free.saturating_add(self.reserved());
        self.most = now.max(self.most);
        let short = if self.most - now < LOW { 0 } else { LOW.saturating_sub(free) };
        let (share, reserved) = (self.gpu.driver.share(), self.reserved());
        short.max(self.spills.pressure(share, reserved, Instant::now()))
    }

    fn spare(&mut self) -> u64 {
        if self.gpu.lost.is_some() {
            return 0;
        }
        let left = self.gpu.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.buffers.used));
        let reserve = self.gpu.driver.reserve();
        self.gpu.driver.free_bytes().saturating_sub(reserve).min(left)
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        self.let_go()?;
        let bytes: &[u8] = (*bytes).as_ref();
        let (id, span) = self.take(bytes.len() as u64, true)?;
        let filled = self.gpu.upload(span, bytes);
        self.keep(id, filled)
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.let_go()?;
        let (id, span) = self.take(bytes, false)?;
        let filled = self.gpu.clear(span);
        self.keep(id, filled)
    }

    fn free(&mut self, buffer: BufferId) {
        // A GPU that is lost says so to the next call.
        let _ = self.let_go();
        if let Some(span) = self.buffers.remove(buffer) {
            self.gpu.release(span.address, span.bytes);
        }
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.let_go()?;
        let span = self.buffers.range_mut("write", buffer, offset, bytes.len() as u64)?;
        self.gpu.upload(span, bytes)
    }

    fn write_beside(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.let_go()?;
        let span = self.buffers.range_mut("write", buffer, offset, bytes.len() as u64)?;
        self.gpu.upload_beside(span, bytes)
    }

    fn turn(&mut self) -> Result<(), BackendError> {
        self.let_go()?;
        self.gpu.present()?;
        let turned = self.gpu.driver.turn();
        turned.map_err(|failure| self.gpu.error(failure, 0))
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.let_go()?;
        let span = self.buffers.range("read", buffer, offset, bytes.len() as u64)?;
        self.gpu.download(span, bytes)
    }

    fn copy_from(&mut self, to: (BufferId, u64), other: &mut dyn Device, from: (BufferId, u64), bytes: u64) -> bool {
        let other: &mut dyn Any = other;
        let Some(other) = other.downcast_mut::<GpuDevice<D>>() else { return false };
        // What is lost by that is lost for the copy too.
        let _ = (self.let_go(), other.let_go());
        let to = self.buffers.range_mut("copy", to.0, to.1, bytes);
        let from = other.buffers.range("copy", from.0, from.1, bytes);
        let (Ok(to), Ok(from)) = (to, from) else { return false };
        self.gpu.copy_from(to, &mut other.gpu, from)
    }

    fn finish(&mut self) -> Result<(), BackendError> {
        self.let_go()?;
        self.gpu.present()?;
        let finished = self.gpu.driver.finish();
        finished.map_err(|failure| self.gpu.error(failure, 0))
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        // Of one that is lost nothing is held.
        self.gpu.present()?;
        ops::run(&mut self.working(), op)
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.let_go()?;
        self.gpu.present()?;
        let started = self.gpu.driver.start();
        started.map_err(|failure| self.gpu.error(failure, 0))
    }
}

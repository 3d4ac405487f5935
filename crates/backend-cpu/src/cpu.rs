//! The device: buffers, and operations dispatched to kernels.

use crate::buffers::Buffers;
use crate::ops;
use crate::{PoolError, Simd, SimdLevel, ThreadPool};
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op};
use std::sync::Arc;

/// What activations are multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 activations and dequantized weights.
    Exact,
    /// Activations rounded to 8 bits, integer products, for weights that are quantized.
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads of the pool that this configuration is for.
    pub threads: usize,
    pub precision: Precision,
    /// Instructions to use; `None`: the best that this CPU has.
    pub simd: Option<SimdLevel>,
}

/// What kernels work with.
pub(crate) struct Machine {
    pub pool: Arc<ThreadPool>,
    pub simd: Simd,
    pub precision: Precision,
    pub scratch: ops::Scratch,
}

impl Machine {
    /// Runs chunks on the pool; a panic in a kernel is an error of the operation.
    pub fn run(
        &self,
        op: &'static str,
        chunks: usize,
        task: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), BackendError> {
        self.pool.run(chunks, task).map_err(|PoolError(detail)| BackendError::Invalid { op, detail })
    }
}

/// The CPU. Weights are used where they lie.
pub struct CpuDevice {
    name: String,
    kind: DeviceKind,
    pub(crate) buffers: Buffers,
    machine: Machine,
}

impl CpuDevice {
    pub fn new(pool: Arc<ThreadPool>, config: CpuConfig) -> CpuDevice {
        CpuDevice::named("CPU", DeviceKind::Host, pool, config)
    }

    pub(crate) fn named(name: &str, kind: DeviceKind, pool: Arc<ThreadPool>, config: CpuConfig) -> CpuDevice {
        let simd = config.simd.and_then(Simd::with).unwrap_or_else(Simd::best);
        let scratch = ops::Scratch::new(pool.threads());
        let machine = Machine { pool, simd, precision: config.precision, scratch };
        CpuDevice { name: name.into(), kind, buffers: Buffers::default(), machine }
    }

    /// The instructions that kernels use.
    pub fn simd(&self) -> SimdLevel {
        self.machine.simd.level()
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> DeviceKind {
        self.kind
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { used: self.buffers.used, limit: None }
    }

    fn scratch(&self, _: &Need) -> Option<u64> {
        Some(0)
    }

    fn pressure(&mut self) -> u64 {
        0
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        Ok(self.buffers.adopt(bytes))
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.buffers.allocate(&self.name, bytes)
    }

    fn free(&mut self, buffer: BufferId) {
        self.buffers.free(buffer);
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.buffers.write(buffer, offset, bytes)
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.buffers.read(buffer, offset, bytes)
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        ops::run(&self.machine, &self.buffers, op)
    }
}

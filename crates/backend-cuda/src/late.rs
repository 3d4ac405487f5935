//! A device on a GPU that is opened when it is first given something: a context takes some hundred MiB and a moment, and
//! what beside a first GPU is there is often given nothing.

use crate::{Driver, GpuDevice};
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op};
use std::any::Any;

/// Opens the GPU, or says what it lacks, for people.
pub type Opener<D> = Box<dyn FnMut() -> Result<GpuDevice<D>, String> + Send>;

pub struct LateDevice<D: Driver> {
    name: String,
    open: Opener<D>,
    spare: Box<dyn FnMut() -> u64 + Send>,
    device: Option<GpuDevice<D>>,
}

impl<D: Driver + 'static> LateDevice<D> {
    /// `spare`: [`Device::spare`] while it is not open, without what it takes for itself when it is.
    pub fn new(name: String, open: Opener<D>, spare: Box<dyn FnMut() -> u64 + Send>) -> LateDevice<D> {
        LateDevice { name, open, spare, device: None }
    }

    /// It is open already.
    #[must_use]
    pub fn with(mut self, device: GpuDevice<D>) -> LateDevice<D> {
        self.device = Some(device);
        self
    }

    fn opened(&mut self) -> Result<&mut GpuDevice<D>, BackendError> {
        let device = match self.device.take() {
            Some(device) => device,
            None => (self.open)().map_err(|detail| BackendError::Lost { device: self.name.clone(), detail })?,
        };
        Ok(self.device.insert(device))
    }

    /// What has a buffer is open.
    fn there(&mut self) -> Result<&mut GpuDevice<D>, BackendError> {
        let nothing = || BackendError::Invalid { op: "device", detail: "nothing was given to it".into() };
        self.device.as_mut().ok_or_else(nothing)
    }

    /// Where it is not open, there is nothing to do.
    fn if_open(&mut self, work: fn(&mut GpuDevice<D>) -> Result<(), BackendError>) -> Result<(), BackendError> {
        self.device.as_mut().map_or(Ok(()), work)
    }
}

impl<D: Driver + 'static> Device for LateDevice<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Accelerator
    }

    fn memory(&self) -> MemoryUse {
        self.device.as_ref().map(Device::memory).unwrap_or_default()
    }

    fn scratch(&self, need: &Need) -> Option<u64> {
        crate::scratch(need)
    }

    fn pressure(&mut self) -> u64 {
        self.device.as_mut().map_or(0, Device::pressure)
    }

    fn spare(&mut self) -> u64 {
        match &mut self.device {
            Some(device) => device.spare(),
            None => (self.spare)(),
        }
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        self.opened()?.adopt(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.opened()?.allocate(bytes)
    }

    fn free(&mut self, buffer: BufferId) {
        if let Some(device) = &mut self.device {
            device.free(buffer);
        }
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.there()?.write(buffer, offset, bytes)
    }

    fn write_beside(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.there()?.write_beside(buffer, offset, bytes)
    }

    fn turn(&mut self) -> Result<(), BackendError> {
        self.if_open(Device::turn)
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.there()?.read(buffer, offset, bytes)
    }

    fn copy_from(&mut self, to: (BufferId, u64), other: &mut dyn Device, from: (BufferId, u64), bytes: u64) -> bool {
        let other: &mut dyn Any = other;
        let other = other.downcast_mut::<LateDevice<D>>().and_then(|late| late.device.as_mut());
        let (Some(device), Some(other)) = (&mut self.device, other) else { return false };
        device.copy_from(to, other, from, bytes)
    }

    fn finish(&mut self) -> Result<(), BackendError> {
        self.if_open(Device::finish)
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        self.there()?.run(op)
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.if_open(Device::start)
    }
}

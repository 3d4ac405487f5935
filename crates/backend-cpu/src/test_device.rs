//! A device with memory of its own and a limit, that fails when told to; for machines without a GPU.

use crate::{CpuConfig, CpuDevice, ThreadPool};
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op};
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const NAME: &str = "Test device";

#[derive(Debug)]
struct State {
    limit: u64,
    others: u64,
    margin: u64,
    /// Allocations until one fails.
    fail_allocation: Option<u64>,
    /// Operations until one fails.
    fail_run: Option<u64>,
    lost: bool,
    /// It is lost when something is next read from it.
    lost_when_read: bool,
    /// It has failed, which nobody has seen yet.
    failed: bool,
    /// Bytes written beside operations.
    streamed: u64,
    /// Copies nothing from others of its kind, and bytes that it did copy from them.
    apart: bool,
    copied: u64,
    /// What each copy of weights takes.
    delay: Duration,
}

/// A handle to a [`TestDevice`] that the engine owns.
#[derive(Clone, Debug)]
pub struct TestDeviceControl(Arc<Mutex<State>>);

impl TestDeviceControl {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit. Below what is used, the next operation finds no room: as if another program had taken it.
    pub fn set_limit(&self, bytes: u64) {
        self.state().limit = bytes;
    }

    /// Other programs have taken this much of the limit and press for it; operations still find room.
    pub fn set_others(&self, bytes: u64) {
        self.state().others = bytes;
    }

    /// So much of the limit is left to other programs by whoever comes without having been planned.
    pub fn set_margin(&self, bytes: u64) {
        self.state().margin = bytes;
    }

    pub fn limit(&self) -> u64 {
        self.state().limit
    }

    /// The allocation after `after` more ones finds no room; those after it do again.
    pub fn fail_allocation(&self, after: u64) {
        self.state().fail_allocation = Some(after);
    }

    /// The operation after `after` more ones finds no room; those after it do again.
    pub fn fail_run(&self, after: u64) {
        self.state().fail_run = Some(after);
    }

    /// Bytes that were written beside operations so far.
    pub fn streamed(&self) -> u64 {
        self.state().streamed
    }

    /// What comes from others of its kind goes through the host.
    pub fn set_apart(&self) {
        self.state().apart = true;
    }

    /// Bytes that came from others of its kind so far.
    pub fn copied(&self) -> u64 {
        self.state().copied
    }

    /// Weights take this long to come, as those of a large model do.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// The device is gone, as after a driver reset.
    pub fn lose(&self) {
        self.state().lost = true;
    }

    /// The same as soon as something is read from it, by the host or by another one.
    pub fn lose_when_read(&self) {
        self.state().lost_when_read = true;
    }

    /// It computes nothing from now on, and says so to whoever waits for it: not to another device that copies from it.
    pub fn fail_unseen(&self) {
        self.state().failed = true;
    }
}

/// CPU arithmetic over memory of its own: tokens are those of the CPU, failures are those of a GPU.
pub struct TestDevice {
    cpu: CpuDevice,
    control: TestDeviceControl,
    /// Written beside, but not there before the next turn: as late as it may be.
    beside: Vec<(BufferId, u64, Vec<u8>)>,
}

impl TestDevice {
    /// A device with room for `limit` bytes, and the handle that makes it fail.
    pub fn new(pool: Arc<ThreadPool>, config: CpuConfig, limit: u64) -> (TestDevice, TestDeviceControl) {
        let state = State {
            limit,
            others: 0,
            margin: 0,
            fail_allocation: None,
            fail_run: None,
            lost: false,
            lost_when_read: false,
            failed: false,
            streamed: 0,
            apart: false,
            copied: 0,
            delay: Duration::ZERO,
        };
        let control = TestDeviceControl(Arc::new(Mutex::new(state)));
        let cpu = CpuDevice::named(NAME, DeviceKind::Accelerator, pool, config);
        (TestDevice { cpu, control: control.clone(), beside: Vec::new() }, control)
    }

    fn present(&self) -> Result<MutexGuard<'_, State>, BackendError> {
        let state = self.control.state();
        if state.lost {
            return Err(BackendError::Lost { device: NAME.into(), detail: "told to be".into() });
        }
        Ok(state)
    }

    fn full(&self, needed: u64, limit: u64) -> BackendError {
        let free = limit.saturating_sub(self.cpu.memory().used);
        BackendError::OutOfMemory { device: NAME.into(), needed, free }
    }

    fn room(&self, bytes: u64) -> Result<(), BackendError> {
        let mut state = self.present()?;
        let told = countdown(&mut state.fail_allocation);
        if told || self.cpu.memory().used.saturating_add(bytes) > state.limit {
            return Err(self.full(bytes, state.limit));
        }
        Ok(())
    }
}

/// Whether it is time.
fn countdown(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

impl Device for TestDevice {
    fn name(&self) -> &str {
        NAME
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Accelerator
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { used: self.cpu.memory().used, limit: Some(self.control.limit()) }
    }

    fn scratch(&self, need: &Need) -> Option<u64> {
        self.cpu.scratch(need)
    }

    fn pressure(&mut self) -> u64 {
        let state = self.control.state();
        (self.cpu.memory().used + state.others).saturating_sub(state.limit)
    }

    fn spare(&mut self) -> u64 {
        let state = self.control.state();
        state.limit.saturating_sub(self.cpu.memory().used + state.others + state.margin)
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        let delay = self.control.state().delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let bytes: &[u8] = (*bytes).as_ref();
        let buffer = self.allocate(bytes.len() as u64)?;
        self.cpu.write(buffer, 0, bytes)?;
        Ok(buffer)
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.room(bytes)?;
        self.cpu.allocate(bytes)
    }

    fn free(&mut self, buffer: BufferId) {
        self.beside.retain(|(to, ..)| *to != buffer);
        self.cpu.free(buffer);
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        drop(self.present()?);
        self.cpu.write(buffer, offset, bytes)
    }

    fn write_beside(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        drop(self.present()?);
        self.control.state().streamed += bytes.len() as u64;
        self.beside.push((buffer, offset, bytes.to_vec()));
        Ok(())
    }

    fn turn(&mut self) -> Result<(), BackendError> {
        drop(self.present()?);
        let beside = std::mem::take(&mut self.beside);
        beside.into_iter().try_for_each(|(buffer, offset, bytes)| self.cpu.write(buffer, offset, &bytes))
    }

    fn finish(&mut self) -> Result<(), BackendError> {
        let mut state = self.control.state();
        state.lost |= state.failed;
        drop(state);
        self.present().map(drop)
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        let mut state = self.control.state();
        state.lost |= state.lost_when_read || state.failed;
        drop(state);
        drop(self.present()?);
        self.cpu.read(buffer, offset, bytes)
    }

    fn copy_from(&mut self, to: (BufferId, u64), other: &mut dyn Device, from: (BufferId, u64), bytes: u64) -> bool {
        let other: &mut dyn Any = other;
        let Some(other) = other.downcast_mut::<TestDevice>() else { return false };
        let mut piece = vec![0; bytes as usize];
        let unseen = other.control.state().failed;
        let read = if unseen { Ok(()) } else { other.read(from.0, from.1, &mut piece) };
        let apart = self.control.state().apart;
        let copied = !apart && read.and_then(|()| self.write(to.0, to.1, &piece)).is_ok();
        self.control.state().copied += if copied { bytes } else { 0 };
        copied
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        let mut state = self.present()?;
        if state.failed {
            return Ok(());
        }
        let told = countdown(&mut state.fail_run);
        if told || self.cpu.memory().used > state.limit {
            return Err(self.full(0, state.limit));
        }
        drop(state);
        self.cpu.run(op)
    }
}

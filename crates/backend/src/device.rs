use crate::{BackendError, Need, Op};
use std::any::Any;
use std::sync::Arc;

/// A buffer in one device's memory. Ids are unique per device and are not reused while the buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

/// Bytes in host memory (usually a range of the mapped model file) that stay valid as long as this handle lives.
pub type HostBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Whether a device computes from host memory or has memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Weights are used where they lie; adopting them takes no bytes.
    Host,
    /// Weights are copied into the device's own memory.
    Accelerator,
}

/// What a device's own buffers take, in bytes. Adopted host bytes are not counted on a [`DeviceKind::Host`] device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes that live buffers take now.
    pub used: u64,
    /// The most that may be used, if there is a limit.
    pub limit: Option<u64>,
}

/// One place that holds layers and computes them.
///
/// Operations run in the order given. After an error the contents of the operation's outputs are undefined, everything
/// else is as before; the engine may run the step again, here or elsewhere.
///
/// A device may know others of its own kind ([`Any`]).
pub trait Device: Any + Send {
    /// A short name for people and errors, such as "CPU" or "NVIDIA GeForce RTX 4070".
    fn name(&self) -> &str;

    fn kind(&self) -> DeviceKind;

    fn memory(&self) -> MemoryUse;

    /// The most bytes that this takes of the device's memory besides buffers; `None`: the device cannot do it. Depends on
    /// the kind of device alone, so that it can be asked before anything is loaded.
    fn scratch(&self, need: &Need) -> Option<u64>;

    /// Bytes that should be given back because other programs have taken so much that little is left; 0 where nothing
    /// presses. What the caller has taken itself does not count.
    fn pressure(&mut self) -> u64;

    /// Bytes that can be taken here without having been planned: beyond them is what a plan leaves to other programs.
    fn spare(&mut self) -> u64 {
        u64::MAX
    }

    /// Takes weights: keeps the handle (host) or copies the bytes (accelerator). They are read-only from then on.
    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError>;

    /// A zeroed buffer of exactly `bytes` bytes, counted in [`Device::memory`] as exactly that many.
    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError>;

    /// Gives a buffer back. Freeing an unknown id does nothing.
    fn free(&mut self, buffer: BufferId);

    /// Copies host bytes into a buffer, starting at byte `offset`.
    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError>;

    /// Copies bytes of a buffer to the host, after all operations before it have ended.
    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError>;

    /// Copies bytes of another device's buffer into one here, from a byte of one to a byte of the other, after all operations
    /// of both before and before all that come next. Nobody waits for it: whether the other one had failed is said by its
    /// [`Device::finish`]. False: these two cannot, and what is at `to` now may be anything; it must go through the host.
    fn copy_from(
        &mut self,
        _to: (BufferId, u64),
        _other: &mut dyn Device,
        _from: (BufferId, u64),
        _bytes: u64,
    ) -> bool {
        false
    }

    /// Waits until all that was given has ended, and says whether that went well. Where everything was done at once there is
    /// nothing to wait for.
    fn finish(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Runs one operation (or enqueues it: a later [`Device::read`] waits).
    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError>;

    /// As [`Device::write`], beside the operations: it does not wait for those given since the last [`Device::turn`], nor they
    /// for it. So neither may use what the other writes.
    fn write_beside(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.write(buffer, offset, bytes)
    }

    /// What is given from now on comes after everything before: operations after what was written beside, and what is
    /// written beside after operations.
    fn turn(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Begins with what is enqueued and does not wait for it: the caller does something else now.
    fn start(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

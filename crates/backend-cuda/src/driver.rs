//! What the device needs of a GPU's driver: memory, copies, launches. One implementation is CUDA's; the tests have another,
//! which runs the kernels' sources on the CPU.

use crate::{Architecture, Share};

/// An address in the GPU's memory.
pub type Address = u64;

/// What a driver can fail with. Whatever is not a lack of memory leaves a GPU in an unknown state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    OutOfMemory,
    Lost(String),
}

/// One kernel with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The file in `kernels` that has it, without its ending.
    pub module: &'static str,
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// The bytes of the kernel's only parameter.
    pub arguments: &'a [u8],
}

/// Memory and one queue of work. Everything runs in the order of the calls; only [`Driver::download`] and
/// [`Driver::finish`] wait. What fails may say so to a later call, at the latest to the next one of these.
///
/// # Safety of the methods
/// Where a method is `unsafe`, every range that it is given, or that a kernel reaches through its arguments, lies in
/// memory that [`Driver::allocate`] gave and that was not released.
pub trait Driver: Send {
    /// What the GPU is called.
    fn name(&self) -> &str;

    /// The architecture whose kernels are launched: what they are called, and how work is shared out, depends on it.
    fn architecture(&self) -> Architecture;

    /// How many blocks the GPU works on side by side, where each takes most of what it works on.
    fn multiprocessors(&self) -> usize;

    /// Bytes that are free now, for this program and all others.
    fn free_bytes(&mut self) -> u64;

    /// Bytes of that which are to stay free: for other programs, and for what comes by and by besides allocations.
    fn reserve(&mut self) -> u64 {
        0
    }

    /// What the system grants us of the GPU's memory, where it moves to RAM what is beyond that instead of refusing it.
    fn share(&mut self) -> Option<Share> {
        None
    }

    /// The GPU counts as lost from now on, because of this: nothing more is asked of it.
    fn lost(&mut self, _detail: &str) {}

    /// Whether every buffer gets memory of its own, exactly as large, so that a tool sees what leaves it.
    fn exact(&self) -> bool {
        false
    }

    /// Memory with any contents, at a multiple of 256.
    fn allocate(&mut self, bytes: u64) -> Result<Address, Failure>;

    /// Gives memory back once the work that uses it is done.
    ///
    /// # Safety
    /// `start` is an allocation, and nothing uses it afterwards.
    unsafe fn release(&mut self, start: Address);

    /// # Safety
    /// See [`Driver`].
    unsafe fn clear(&mut self, start: Address, bytes: u64) -> Result<(), Failure>;

    /// Copies from the host; `from` may be changed as soon as this returns.
    ///
    /// # Safety
    /// See [`Driver`].
    unsafe fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), Failure>;

    /// As [`Driver::upload`], beside the work since the last [`Driver::turn`], which does not wait for it, nor it for that.
    ///
    /// # Safety
    /// See [`Driver`]; and no work since the last turn uses the range, nor work before the next one.
    unsafe fn upload_beside(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.upload(to, from) }
    }

    /// What comes from now on comes after everything before, beside the work or not.
    fn turn(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Copies to the host, after all work before.
    ///
    /// # Safety
    /// See [`Driver`].
    unsafe fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), Failure>;

    /// Copies within the GPU; the ranges do not overlap.
    ///
    /// # Safety
    /// See [`Driver`].
    unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64) -> Result<(), Failure>;

    /// Copies from another GPU, after all work of both and before all that comes next; the host does not wait. False: it cannot
    /// be done like this, and what is at `to` now may be anything.
    ///
    /// # Safety
    /// See [`Driver`]; `from` is the other's.
    unsafe fn copy_from(&mut self, _to: Address, _other: &mut Self, _from: Address, _bytes: u64) -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Waits for all work.
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// # Safety
    /// See [`Driver`]; and the arguments are those of the kernel.
    unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), Failure>;

    /// What was launched begins now, where the driver collects launches.
    fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

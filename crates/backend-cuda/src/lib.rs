//! NVIDIA GPUs as a device: CUDA kernels, video memory, operations in the order of one stream.
//!
//! Kernels are CUDA C++ in `kernels`, compiled to PTX ahead of time (`cargo xtask kernels`) and embedded: nothing of
//! NVIDIA's is needed to build this, and to run it only the driver. What a kernel computes is proven without a GPU: the
//! tests run the very same sources on the CPU, under the very same device, through [`Driver`].
//!
//! A row's result does not depend on how many rows are computed together: products and attention have one order of
//! summation each, whichever kernel computes them.
//!
//! `unsafe` is allowed here: the driver is a C library, and kernels get addresses.

mod arena;
mod arguments;
mod buffers;
mod cuda;
mod device;
mod driver;
mod kernels;
mod late;
mod margin;
mod ops;
mod rates;
mod spill;

pub use arena::{SLAB, footprint};
pub use cuda::{Absent, Card, Copier, Cuda, GRAPHS, Listed};
pub use device::{GpuConfig, GpuDevice};
pub use driver::{Address, Driver, Failure, Launch};
pub use kernels::Architecture;
pub use late::{LateDevice, Opener};
pub use margin::LEAST as LEAST_MARGIN;
pub use ops::scratch;
pub use rates::{Rates, measure};
pub use spill::Share;

/// An NVIDIA GPU.
pub type CudaDevice = GpuDevice<Cuda>;

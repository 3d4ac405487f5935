//! The CPU as a device: kernels chosen at run time, a thread pool that others can live beside, and a byte-limited test
//! device that computes with the same kernels.
//!
//! A row's result depends neither on how many rows are computed together nor on the number of threads nor on how work is
//! cut into chunks: every output value has one fixed order of summation.
//!
//! `unsafe` is allowed here: kernels write disjoint parts of one buffer from several threads and use vector instructions.

mod buffers;
mod copy;
mod cpu;
mod ops;
mod pool;
mod rate;
pub mod simd;
mod test_device;

pub use cpu::{CpuConfig, CpuDevice, Precision};
pub use pool::{PoolError, ThreadPool};
pub use rate::{int8_limit, int8_rate};
pub use simd::{Simd, SimdLevel};
pub use test_device::{TestDevice, TestDeviceControl};

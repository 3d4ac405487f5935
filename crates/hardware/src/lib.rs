//! Probe CPU, memory, disks and GPUs; measure bandwidths.
//!
//! What the system does not tell is `None`, never a guess. Nothing here changes the system.

mod cgroup;
mod cpu;
mod direct;
mod disk;
mod error;
mod gpu;
mod measure;
mod memory;
mod monitor;
mod nvml;
mod process;

use serde::Serialize;

pub use cpu::Cpu;
pub use disk::{Disk, DiskKind, disk_of};
pub use error::HardwareError;
pub use gpu::{Gpu, GpuProcess, GpuReason, GpuStatus, NEEDED_DRIVER, Throttle, gpus};
pub use measure::{MeasureOptions, Measured, SMALLEST_SAMPLE, measure, measure_disk_read, measure_read_bandwidth};
pub use memory::Memory;
pub use monitor::{GpuSample, Monitor, Sample};
pub use process::{MemoryWatch, ProcessMemory, process_memory, processor_time};

/// What is known about this machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hardware {
    pub cpu: Cpu,
    /// RAM that this process may use in all, in bytes: the machine's, or the limit of its control group.
    pub ram_total: u64,
    /// RAM that can be taken now without driving others out, in bytes; bounded by the control group's limit.
    pub ram_available: u64,
    /// Memory and swap in detail.
    pub memory: Memory,
    /// NVIDIA GPUs, or why there are none to use.
    pub gpus: GpuStatus,
}

impl Hardware {
    /// Asks the system. Takes some milliseconds; the first use of a sleeping GPU's driver may take a second.
    pub fn probe() -> Self {
        let mut system = memory::system();
        let memory = memory::probe(system.as_mut());
        Self {
            cpu: cpu::probe(system.as_mut()),
            ram_total: memory.total(),
            ram_available: memory.available(),
            memory,
            gpus: gpu::gpus(),
        }
    }
}

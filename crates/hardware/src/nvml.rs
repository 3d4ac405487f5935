//! Questions to the NVIDIA driver through its management library, which is loaded at run time where there is one.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use crate::gpu::{Gpu, GpuProcess};

/// What the driver answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its library is not installed.
    NoLibrary,
    /// Its library is there but does not work.
    Failed(Failure),
    Facts(Facts),
}

/// Why the library does not work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel driver is not loaded.
    NotLoaded,
    /// The library lacks a function: it is too old.
    MissingFunction {
        driver: Option<String>,
    },
    Other(String),
}

/// What a working driver tells.
#[derive(Debug)]
pub(crate) struct Facts {
    pub driver: Option<String>,
    /// 1000 x major + 10 x minor.
    pub cuda_driver: Option<i32>,
    /// Each device, or why it does not answer.
    pub devices: Vec<Result<Gpu, String>>,
}

/// A connection to the driver, where it works.
pub(crate) fn connect() -> Result<Nvml, Answer> {
    Nvml::init().map_err(|error| match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Answer::NoLibrary,
        error => Answer::Failed(failure(error, None)),
    })
}

/// Asks for everything.
pub(crate) fn ask() -> Answer {
    let nvml = match connect() {
        Ok(nvml) => nvml,
        Err(answer) => return answer,
    };
    let driver = nvml.sys_driver_version().ok();
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => return Answer::Failed(failure(error, driver)),
    };
    let mut devices = Vec::new();
    for index in 0..count {
        match nvml.device_by_index(index).and_then(|device| gpu(&nvml, &device, index, driver.as_deref())) {
            Ok(gpu) => devices.push(Ok(gpu)),
            // All devices share the library that is too old.
            Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Answer::Failed(failure(error, driver)),
            Err(error) => devices.push(Err(format!("device {index}: {error}"))),
        }
    }
    Answer::Facts(Facts { driver, cuda_driver: nvml.sys_cuda_driver_version().ok(), devices })
}

fn failure(error: NvmlError, driver: Option<String>) -> Failure {
    match error {
        NvmlError::DriverNotLoaded => Failure::NotLoaded,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Failure::MissingFunction { driver },
        error => Failure::Other(error.to_string()),
    }
}

/// What must be known of a device, and what else it tells.
fn gpu(nvml: &Nvml, device: &Device<'_>, index: u32, driver: Option<&str>) -> Result<Gpu, NvmlError> {
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability().ok();
    Ok(Gpu {
        index,
        id: device.uuid().ok(),
        name: device.name()?,
        vram_total: memory.total,
        vram_free: memory.free,
        driver_version: driver.map(str::to_owned),
        compute_capability: capability.and_then(|c| Some((u32::try_from(c.major).ok()?, u32::try_from(c.minor).ok()?))),
        pcie: device.current_pcie_link_gen().ok().zip(device.current_pcie_link_width().ok()),
        pcie_max: device.max_pcie_link_gen().ok().zip(device.max_pcie_link_width().ok()),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        processes: processes(nvml, device),
    })
}

/// Programs that compute or draw with the device; each once.
pub(crate) fn processes(nvml: &Nvml, device: &Device<'_>) -> Option<Vec<GpuProcess>> {
    const NAME_BYTES: usize = 256;
    let (compute, graphics) = (device.running_compute_processes(), device.running_graphics_processes());
    if compute.is_err() && graphics.is_err() {
        return None;
    }
    let mut processes: Vec<GpuProcess> = Vec::new();
    for info in compute.into_iter().flatten().chain(graphics.into_iter().flatten()) {
        let vram = used(&info);
        match processes.iter_mut().find(|p| p.pid == info.pid) {
            // The driver lists a program's whole memory under either use.
            Some(process) => process.vram = process.vram.max(vram),
            None => {
                let name = nvml.sys_process_name(info.pid, NAME_BYTES).ok();
                processes.push(GpuProcess { pid: info.pid, name, vram });
            }
        }
    }
    Some(processes)
}

fn used(info: &ProcessInfo) -> Option<u64> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

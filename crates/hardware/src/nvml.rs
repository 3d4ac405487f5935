//! Questions to the NVIDIA driver through its management library, which is loaded at run time where there is one.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use std::collections::BTreeMap;

use crate::gpu::{Gpu, GpuProcess, Throttle};

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
        temperature: temperature(device),
        processes: processes(nvml, device, memory.total),
    })
}

/// Degrees Celsius; nothing that no card survives.
pub(crate) fn temperature(device: &Device<'_>) -> Option<u32> {
    device.temperature(TemperatureSensor::Gpu).ok().filter(|degrees| *degrees <= 150)
}

/// 0 to 1.
pub(crate) fn load(device: &Device<'_>) -> Option<f32> {
    let percent = device.utilization_rates().ok()?.gpu;
    (percent <= 100).then_some(percent as f32 / 100.0)
}

/// What slows the device down now.
pub(crate) fn throttling(device: &Device<'_>) -> Option<Vec<Throttle>> {
    device.current_throttle_reasons().ok().map(throttles)
}

fn throttles(reasons: ThrottleReasons) -> Vec<Throttle> {
    use ThrottleReasons as T;
    let heat = T::SW_THERMAL_SLOWDOWN | T::HW_THERMAL_SLOWDOWN;
    let told = [
        (Throttle::Heat, heat),
        (Throttle::PowerLimit, T::SW_POWER_CAP),
        (Throttle::PowerSupply, T::HW_POWER_BRAKE_SLOWDOWN),
    ];
    let mut found: Vec<Throttle> =
        told.into_iter().filter(|(_, of)| reasons.intersects(*of)).map(|(throttle, _)| throttle).collect();
    // The driver tells this one beside heat and power supply, too.
    if reasons.contains(T::HW_SLOWDOWN) && !reasons.intersects(heat | T::HW_POWER_BRAKE_SLOWDOWN) {
        found.push(Throttle::Hardware);
    }
    found
}

/// The most that is told of one device.
const MAX_PROCESSES: usize = 64;

/// Programs that compute or draw with the device; each once, those that hold most first.
pub(crate) fn processes(nvml: &Nvml, device: &Device<'_>, vram_total: u64) -> Option<Vec<GpuProcess>> {
    const NAME_BYTES: usize = 256;
    let (compute, graphics) = (device.running_compute_processes(), device.running_graphics_processes());
    if compute.is_err() && graphics.is_err() {
        return None;
    }
    let mut by_pid: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for info in compute.into_iter().flatten().chain(graphics.into_iter().flatten()) {
        // The driver lists a program's whole memory under either use.
        let vram = by_pid.entry(info.pid).or_default();
        *vram = (*vram).max(used(&info).filter(|bytes| *bytes <= vram_total));
    }
    let mut processes: Vec<(u32, Option<u64>)> = by_pid.into_iter().collect();
    processes.sort_by_key(|(_, vram)| std::cmp::Reverse(*vram));
    processes.truncate(MAX_PROCESSES);
    let name = |pid| nvml.sys_process_name(pid, NAME_BYTES).ok().and_then(|path| program(&path));
    Some(processes.into_iter().map(|(pid, vram)| GpuProcess { pid, name: name(pid), vram }).collect())
}

/// A program's name of its path, without what steers terminals.
fn program(path: &str) -> Option<String> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn used(info: &ProcessInfo) -> Option<u64> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slows_a_card_down_is_told_once() {
        let of = |bits: u64| throttles(ThrottleReasons::from_bits_truncate(bits));
        // Idle, clocks that somebody has set, sync boost: nothing that is wrong.
        assert_eq!(of(0x1 | 0x2 | 0x10 | 0x100), []);
        assert_eq!(of(0x4), [Throttle::PowerLimit]);
        assert_eq!(of(0x8), [Throttle::Hardware]);
        assert_eq!(of(0x8 | 0x40), [Throttle::Heat]);
        assert_eq!(of(0x8 | 0x80 | 0x20), [Throttle::Heat, Throttle::PowerSupply]);
        assert_eq!(of(u64::MAX), [Throttle::Heat, Throttle::PowerLimit, Throttle::PowerSupply]);
    }

    #[test]
    fn programs_are_called_by_their_files() {
        assert_eq!(program("/usr/lib/xorg/Xorg").as_deref(), Some("Xorg"));
        assert_eq!(program("C:\\Games\\game.exe").as_deref(), Some("game.exe"));
        assert_eq!(program("/opt/\u{1b}[2Jx\n").as_deref(), Some("[2Jx"));
        assert_eq!(program(&"長".repeat(300)).map(|name| name.chars().count()), Some(80));
        assert_eq!([program(""), program("/opt/"), program("\u{7}")], [None, None, None]);
    }
}

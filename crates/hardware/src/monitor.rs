//! Live figures: what changes from second to second.

use nvml_wrapper::Nvml;
use serde::Serialize;
use sysinfo::System;

use crate::gpu::{GpuProcess, Throttle};
use crate::process::{self, ProcessMemory};
use crate::{memory, nvml};

/// One GPU now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuSample {
    pub index: u32,
    /// [`crate::Gpu::id`]
    pub id: Option<String>,
    pub vram_total: u64,
    pub vram_free: u64,
    /// Share of the last sampling period in which it worked, 0 to 1.
    pub load: Option<f32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Empty: nothing slows it down.
    pub throttling: Option<Vec<Throttle>>,
    /// Programs that hold its memory, those that hold most first.
    pub processes: Option<Vec<GpuProcess>>,
}

/// The machine and this process now, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    pub ram_total: u64,
    pub ram_available: u64,
    pub process: ProcessMemory,
    /// Share of all cores' time since the last sample, 0 to 1; `None` in the first one.
    pub cpu_load: Option<f32>,
    pub gpus: Vec<GpuSample>,
}

/// Takes samples. Keeps what is costly to set up.
#[derive(Debug)]
pub struct Monitor {
    system: Option<System>,
    nvml: Option<Nvml>,
    samples: u64,
}

impl Monitor {
    /// Connects to the system and, where it works, to the GPU driver.
    pub fn new() -> Self {
        Self { system: memory::system(), nvml: nvml::connect().ok(), samples: 0 }
    }

    /// Bytes that are free of each GPU's memory, and what it is called for good.
    pub fn vram_free(&self) -> Vec<(Option<String>, u64)> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let free = |index| {
            let device = nvml.device_by_index(index).ok()?;
            Some((device.uuid().ok(), device.memory_info().ok()?.free))
        };
        (0..nvml.device_count().unwrap_or(0)).filter_map(free).collect()
    }

    /// Bytes of RAM that can be taken now.
    pub fn ram_available(&mut self) -> u64 {
        memory::probe(self.system.as_mut()).available()
    }

    /// Figures of this moment. Processor load needs at least 0.2 s between samples.
    pub fn sample(&mut self) -> Sample {
        let memory = memory::probe(self.system.as_mut());
        let cpu_load = self.system.as_mut().map(|system| {
            system.refresh_cpu_usage();
            system.global_cpu_usage() / 100.0
        });
        self.samples += 1;
        Sample {
            ram_total: memory.total(),
            ram_available: memory.available(),
            process: process::process_memory(),
            cpu_load: cpu_load.filter(|load| self.samples > 1 && load.is_finite()),
            gpus: self.nvml.as_ref().map(gpus).unwrap_or_default(),
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

fn gpus(nvml: &Nvml) -> Vec<GpuSample> {
    let sample = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        Some(GpuSample {
            index,
            id: device.uuid().ok(),
            vram_total: memory.total,
            vram_free: memory.free,
            load: nvml::load(&device),
            temperature: nvml::temperature(&device),
            throttling: nvml::throttling(&device),
            processes: nvml::processes(nvml, &device, memory.total),
        })
    };
    (0..nvml.device_count().unwrap_or(0)).filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn samples_are_plausible() {
        let mut monitor = super::Monitor::new();
        let first = monitor.sample();
        assert!(first.ram_available > 0 && first.ram_available <= first.ram_total);
        assert_eq!(first.cpu_load, None);
        let second = monitor.sample();
        assert!(second.cpu_load.is_none_or(|load| (0.0..=1.01).contains(&load)));
        assert!(first.gpus.iter().all(|gpu| gpu.vram_free <= gpu.vram_total));
    }
}

//! This PC as the planner and the window see it.

use crate::error::Result;
use crate::files::{now, write_atomically};
use crate::wire::{Gpu, GpuReason, HardwareReport, MonitorSample, WireError};
use hardware::{Hardware, MeasureOptions, Measured, Monitor};
use planner::{AcceleratorFacts, Facts};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

pub struct Machine {
    /// Bytes of the test device, where there is one.
    test_device: Option<u64>,
    measured_path: PathBuf,
    measured: Mutex<Measured>,
    measuring: AtomicBool,
    monitor: Mutex<Option<Monitor>>,
}

impl Machine {
    pub fn new(data_dir: &Path, test_device: Option<u64>) -> Machine {
        let measured_path = data_dir.join("measured.json");
        let text = std::fs::read(&measured_path).ok();
        // Anything unreadable is measured again.
        let measured = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Machine {
            test_device,
            measured_path,
            measured: Mutex::new(measured),
            measuring: AtomicBool::new(false),
            monitor: Mutex::new(None),
        }
    }

    pub fn was_measured(&self) -> bool {
        let measured = lock(&self.measured);
        measured.ram_read_bytes_per_s.is_some() && measured.int8_ops_per_s.is_some()
    }

    /// The device that takes layers, or why there is none.
    pub fn accelerator(&self) -> (Option<Gpu>, Option<GpuReason>) {
        match self.test_device {
            Some(bytes) => (Some(test_gpu(bytes)), None),
            None => (None, Some(reason(&Hardware::probe()))),
        }
    }

    /// Blocks for some milliseconds.
    pub fn report(&self, models: &Path) -> HardwareReport {
        let hardware = Hardware::probe();
        let measured = *lock(&self.measured);
        let (gpus, gpu_reason) = match self.test_device {
            Some(bytes) => (vec![test_gpu(bytes)], None),
            None => (Vec::new(), Some(reason(&hardware))),
        };
        HardwareReport {
            cpu_name: hardware.cpu.name.clone(),
            physical_cores: hardware.cpu.physical_cores.unwrap_or(hardware.cpu.logical_cores) as u32,
            logical_cores: hardware.cpu.logical_cores as u32,
            cpu_features: hardware.cpu.features.clone(),
            ram_total: hardware.ram_total,
            ram_available: hardware.ram_available,
            gpus,
            gpu_reason,
            models_disk_free: hardware::disk_of(models).map(|disk| disk.free),
            ram_bandwidth: measured.ram_read_bytes_per_s,
            disk_bandwidth: measured.disk_read_bytes_per_s,
            measuring: self.measuring.load(Ordering::Acquire),
        }
    }

    /// Measures bandwidths and arithmetic, in about 3 seconds; `false` if that is being done already.
    pub fn measure(&self, disk: Option<PathBuf>) -> Result<bool> {
        if self.measuring.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        let threads = threads(None, false);
        let result = hardware::measure(&MeasureOptions { threads, disk }, &AtomicBool::new(false));
        let int8 = backend_cpu::int8_rate(threads).ok();
        self.measuring.store(false, Ordering::Release);
        let found = result.map_err(|error| WireError::internal(format!("measuring failed: {error}")))?;
        let kept = {
            let mut measured = lock(&self.measured);
            *measured = Measured {
                disk_read_bytes_per_s: found.disk_read_bytes_per_s.or(measured.disk_read_bytes_per_s),
                int8_ops_per_s: int8.or(measured.int8_ops_per_s),
                ..found
            };
            *measured
        };
        let text = serde_json::to_vec(&kept).map_err(|error| WireError::internal(error.to_string()))?;
        write_atomically(&self.measured_path, &text, false)?;
        Ok(true)
    }

    /// What a plan depends on. `own`: bytes of RAM that our loaded model would give back.
    pub fn facts(&self, own: u64) -> Facts {
        let measured = *lock(&self.measured);
        let available = self.with_monitor(|monitor| monitor.sample().ram_available);
        Facts {
            ram_available: available.saturating_add(own),
            accelerator: self.test_device.map(|bytes| AcceleratorFacts {
                memory_free: bytes,
                // It is RAM with a limit.
                bandwidth: measured.ram_read_bytes_per_s,
                ..AcceleratorFacts::default()
            }),
            ram_bandwidth: measured.ram_read_bytes_per_s,
            disk_bandwidth: measured.disk_read_bytes_per_s,
            int8_rate: measured.int8_ops_per_s,
        }
    }

    /// Live figures. `own_vram`: bytes of our buffers on the accelerator.
    pub fn sample(&self, own_vram: Option<u64>) -> MonitorSample {
        let sample = self.with_monitor(Monitor::sample);
        let gpu = sample.gpus.first();
        let vram_total = self.test_device.or(gpu.map(|gpu| gpu.vram_total));
        let test_free = self.test_device.map(|bytes| bytes.saturating_sub(own_vram.unwrap_or(0)));
        MonitorSample {
            at: now(),
            ram_total: sample.ram_total,
            ram_available: sample.ram_available,
            own_private: sample.process.private_bytes,
            own_resident: sample.process.rss_bytes,
            vram_total,
            vram_free: test_free.or(gpu.map(|gpu| gpu.vram_free)),
            own_vram: own_vram.or(self.test_device.map(|_| 0)).or(gpu.and_then(|gpu| gpu.own_vram)),
            cpu_load: sample.cpu_load,
        }
    }

    fn with_monitor<T>(&self, work: impl FnOnce(&mut Monitor) -> T) -> T {
        work(lock(&self.monitor).get_or_insert_with(Monitor::new))
    }
}

/// The instructions that kernels use on this CPU, for people.
pub fn kernels() -> &'static str {
    backend_cpu::Simd::best().level().name()
}

/// Threads to compute with: as the user says, or the physical cores.
pub fn threads(wanted: Option<u32>, leave_responsive: bool) -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let cores = *CORES.get_or_init(|| {
        let cpu = Hardware::probe().cpu;
        cpu.physical_cores.unwrap_or(cpu.available_threads).min(cpu.available_threads).max(1)
    });
    let threads = wanted.map_or(cores, |wanted| wanted as usize).clamp(1, 1024);
    if leave_responsive { threads.min(cores.saturating_sub(1)).max(1) } else { threads }
}

fn test_gpu(bytes: u64) -> Gpu {
    Gpu {
        name: "Test device".into(),
        vram_total: bytes,
        vram_free: bytes,
        driver: None,
        compute_capability: None,
        is_test_device: true,
    }
}

/// Why no GPU takes layers: this build has no GPU code.
fn reason(hardware: &Hardware) -> GpuReason {
    use hardware::GpuReason as R;
    match hardware.gpus.unusable(false) {
        Some(R::NoDriver) => GpuReason::NoDriver,
        Some(R::DriverTooOld { found, needed }) => GpuReason::DriverTooOld { found, needed },
        Some(R::NoDevice) => GpuReason::NoDevice,
        Some(R::BadState { detail }) => GpuReason::BadState { detail },
        Some(R::NotBuilt) | None => GpuReason::NotBuilt,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

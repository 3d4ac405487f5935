//! `headroom doctor`

use crate::failure::Failure;
use crate::output::{self, size};
use crate::program::Program;
use app::largest_file;
use app::wire::{Gpu, GpuReason};
use hardware::{DiskKind, Hardware};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;

/// Sizes of model files that speed is told for.
const EXAMPLES: [u64; 3] = [2_000_000_000, 5_000_000_000, 20_000_000_000];

pub fn doctor(program: &Program) -> Result<(), Failure> {
    let app = program.visit(None)?;
    // Whether a GPU can be used is seen when it is opened.
    program.wait(app.gpus_open())?;
    let report = program.wait(app.hardware_measure())?;
    let facts = program.wait(app.facts())?;
    let machine = Hardware::probe();
    let folder = program.models_dir()?;
    let disk = hardware::disk_of(&folder);
    let reason = &report.gpu_reason;
    let reads = reads(&machine.cpu)?;
    let int8_limit = backend_cpu::int8_limit(report.physical_cores as usize);
    let in_ram = largest_file(facts.ram_available);
    let speed = |bytes: u64| speed(bytes, in_ram, facts.ram_bandwidth, facts.disk_bandwidth);
    if program.json {
        let gpus: Vec<Value> = report.gpus.iter().map(gpu).collect();
        let works: Vec<Value> =
            EXAMPLES.iter().map(|bytes| json!({ "file_bytes": bytes, "tg_tps": speed(*bytes) })).collect();
        return output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cpu": {
                "name": report.cpu_name,
                "physical_cores": report.physical_cores,
                "logical_cores": report.logical_cores,
                "features": report.cpu_features,
                "kernels": app::kernels(),
                "int8_per_s": facts.int8_rate,
                "int8_limit_per_s": int8_limit,
            },
            "ram": {
                "total": report.ram_total,
                "available": report.ram_available,
                "read_bytes_per_s": report.ram_bandwidth,
                "by_threads": reads.iter().map(|(threads, rate)| json!({ "threads": threads, "read_bytes_per_s": rate })).collect::<Vec<_>>(),
            },
            "gpu": {
                "usable": reason.is_none(),
                "reason": reason,
                "text": reason.as_ref().map(why),
                "driver": machine.gpus.driver_version,
                "cuda": machine.gpus.cuda_version.map(|(major, minor)| format!("{major}.{minor}")),
                "gpus": gpus,
                "upload_bytes_per_s": facts.accelerators.first().and_then(|gpu| gpu.upload_rate),
                "int8_per_s": facts.accelerators.first().and_then(|gpu| gpu.int8_rate),
            },
            "disk": {
                "folder": folder,
                "kind": disk.as_ref().map(|disk| disk.kind),
                "free": disk.as_ref().map(|disk| disk.free),
                "read_bytes_per_s": report.disk_bandwidth,
            },
            "works": { "largest_file_in_ram": in_ram, "speed": works },
        }));
    }
    let rate = |rate: Option<f64>| rate.map_or("not measured".into(), |rate| format!("{}/s", size(rate as u64)));
    output::line(&format!("CPU   {}, {} cores", report.cpu_name, report.physical_cores))?;
    output::line(&format!("      kernels for {} ({})", app::kernels(), report.cpu_features.join(" ")))?;
    let adds = |rate: f64| format!("{:.2} T/s", rate / 1e12);
    output::line(&format!(
        "      8-bit multiply-adds: {}, of at most {}",
        facts.int8_rate.map_or("not measured".into(), adds),
        adds(int8_limit)
    ))?;
    output::line(&format!(
        "RAM   {} of {} available, read at {}",
        size(report.ram_available),
        size(report.ram_total),
        rate(report.ram_bandwidth)
    ))?;
    let by_threads =
        reads.iter().map(|(threads, read)| format!("{threads}: {}", rate(Some(*read)))).collect::<Vec<_>>();
    output::line(&format!("      by threads: {}", by_threads.join(", ")))?;
    // Numbers as --gpu takes them, where there is something to choose.
    let choice = report.gpus.len() > 1 || report.gpus.iter().any(|gpu| !gpu.used);
    let order = if choice { app::gpus().unwrap_or_default() } else { Vec::new() };
    for gpu in &report.gpus {
        let number = order.iter().position(|one| one.id == gpu.id).map_or(String::new(), |n| n.to_string());
        let free = gpu.vram_free.map_or("?".into(), size);
        let unused = if gpu.used { "" } else { " (not used: --gpu chooses it)" };
        output::line(&format!("GPU {number:<2}{}{unused}, {free} of {} free", gpu.name, size(gpu.vram_total)))?;
        let (capability, driver) = (gpu.compute_capability.as_deref(), gpu.driver.as_deref());
        output::line(&format!(
            "      compute capability {}, driver {}",
            capability.unwrap_or("-"),
            driver.unwrap_or("-")
        ))?;
        if let Some(facts) = facts.accelerators.iter().find(|facts| gpu.used && facts.name == gpu.name) {
            // Measured when the first model is loaded.
            output::line(&format!(
                "      from RAM at {}, 8-bit multiply-adds: {}",
                rate(facts.upload_rate),
                facts.int8_rate.map_or("not measured".into(), adds)
            ))?;
        }
    }
    if let Some(reason) = reason {
        output::line(&format!("GPU   not used: {}", why(reason)))?;
    }
    // Windows lists no network drives.
    let (kind, free) = disk.map_or(("disk", "?".into()), |disk| (kind(disk.kind), size(disk.free)));
    output::line(&format!("Disk  {kind}, {free} free, read at {}", rate(report.disk_bandwidth)))?;
    output::line(&format!("      models are in {}", folder.display()))?;
    output::line("")?;
    output::line(&format!("Models up to about {} run from RAM, larger ones from disk.", size(in_ram)))?;
    for bytes in EXAMPLES {
        if let Some(speed) = speed(bytes) {
            output::line(&format!("A model file of {:>8} gives about {speed:.1} tokens/s.", size(bytes)))?;
        }
    }
    Ok(())
}

/// Bytes that 1, 2, 4 and so on up to all cores read per second.
fn reads(cpu: &hardware::Cpu) -> Result<Vec<(usize, f64)>, Failure> {
    /// Several times the largest caches.
    const BUFFER: usize = 256 << 20;
    let cores = cpu.physical_cores.unwrap_or(cpu.logical_cores).max(1);
    let read = |threads| match hardware::measure_read_bandwidth(threads, BUFFER, &AtomicBool::new(false)) {
        Ok(rate) => Ok((threads, rate)),
        Err(error) => Err(Failure::new(error.code(), error)),
    };
    thread_counts(cores).into_iter().map(read).collect()
}

fn thread_counts(cores: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |count| Some(2 * count)).take_while(|count| *count < cores);
    doubled.chain([cores]).collect()
}

/// Tokens per second of a dense model: every byte of it is read for each token, at four fifths of the bandwidth.
fn speed(bytes: u64, in_ram: u64, ram: Option<f64>, disk: Option<f64>) -> Option<f64> {
    let from_disk = bytes.saturating_sub(in_ram) as f64;
    let from_ram = bytes as f64 - from_disk;
    let disk_seconds = if from_disk > 0.0 { from_disk / disk? } else { 0.0 };
    Some(0.8 / (from_ram / ram? + disk_seconds))
}

fn gpu(gpu: &Gpu) -> Value {
    json!({
        "id": gpu.id,
        "name": gpu.name,
        "vram_total": gpu.vram_total,
        "vram_free": gpu.vram_free,
        "driver": gpu.driver,
        "compute_capability": gpu.compute_capability,
        "used": gpu.used,
    })
}

pub fn why(reason: &GpuReason) -> String {
    match reason {
        GpuReason::NoDriver => "the NVIDIA driver is not installed; install it from nvidia.com".into(),
        GpuReason::DriverTooOld { found, needed } => {
            format!("the driver {found} is too old; install {needed} or newer")
        }
        GpuReason::NoDevice => "there is no NVIDIA GPU; models run on the CPU".into(),
        GpuReason::DeviceTooOld { found, needed } => {
            format!("the GPU's compute capability is {found}; {needed} or newer is needed")
        }
        GpuReason::BadState { detail } => format!("the driver reports a failure ({detail}); restart the computer"),
        GpuReason::TurnedOff => "--no-gpu was given".into(),
        GpuReason::NoneChosen => "the window's settings choose none; --gpu chooses others".into(),
    }
}

fn kind(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::Ssd => "SSD",
        DiskKind::Hdd => "hard disk",
        DiskKind::Unknown => "disk",
    }
}

#[cfg(test)]
mod tests {
    use super::{speed, thread_counts};

    #[test]
    fn threads_are_doubled_up_to_the_cores() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(6), [1, 2, 4, 6]);
    }

    #[test]
    fn what_does_not_fit_into_ram_comes_at_the_speed_of_the_disk() {
        assert_eq!(speed(10, 10, Some(100.0), None), Some(8.0));
        assert_eq!(speed(20, 10, Some(100.0), Some(10.0)), Some(0.8 / 1.1));
        assert_eq!(speed(20, 10, Some(100.0), None), None);
        assert_eq!(speed(10, 20, None, None), None);
    }
}

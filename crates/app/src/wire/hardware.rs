use serde::Serialize;
use ts_rs::TS;

/// Why no GPU takes layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GpuReason {
    NoDriver,
    DriverTooOld {
        found: String,
        needed: String,
    },
    NoDevice,
    /// Compute capabilities, such as "5.2".
    DeviceTooOld {
        found: String,
        needed: String,
    },
    BadState {
        detail: String,
    },
    /// This run shall leave the GPU alone (--no-gpu).
    TurnedOff,
    /// The settings choose none.
    NoneChosen,
}

#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// For [`GpuName::id`](super::GpuName).
    pub id: String,
    pub name: String,
    pub vram_total: u64,
    /// null: not known of a GPU that is not used.
    pub vram_free: Option<u64>,
    pub driver: Option<String>,
    /// "8.9"
    pub compute_capability: Option<String>,
    /// It takes layers; others could be chosen.
    pub used: bool,
    /// The test device, not a real card.
    pub is_test_device: bool,
}

/// Command `hardware`; measured again by `hardware_measure`.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HardwareReport {
    pub cpu_name: String,
    pub physical_cores: u32,
    pub logical_cores: u32,
    /// The instruction sets that the kernels use here ("AVX2", ...).
    pub cpu_features: Vec<String>,
    pub ram_total: u64,
    pub ram_available: u64,
    /// GPUs that can take layers, those that do first, in the order in which they are filled.
    pub gpus: Vec<Gpu>,
    /// Why none of them does. Those that were asked for and cannot be used are not in `gpus`.
    pub gpu_reason: Option<GpuReason>,
    pub models_disk_free: Option<u64>,
    /// Bytes per second; null until measured.
    pub ram_bandwidth: Option<f64>,
    pub disk_bandwidth: Option<f64>,
    pub measuring: bool,
}

/// Why a GPU computes slower than it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Throttle {
    Heat,
    /// It takes as much power as it may.
    PowerLimit,
    /// The power supply asks it to take less.
    PowerSupply,
    /// The card does not say why.
    Hardware,
}

/// A program that holds memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GpuProgram {
    pub pid: u32,
    pub name: Option<String>,
    /// Bytes; Windows does not tell.
    pub vram: Option<u64>,
    /// It is this program.
    pub own: bool,
}

/// A GPU now, memory in bytes. What the driver does not tell is null.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GpuFigures {
    pub name: String,
    pub total: u64,
    pub free: u64,
    /// What our own buffers take.
    pub own: u64,
    /// 0..1
    pub load: Option<f32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Empty: nothing slows it down.
    pub throttling: Option<Vec<Throttle>>,
    /// Those that hold most first.
    pub programs: Option<Vec<GpuProgram>>,
}

/// Live figures for the bars. Command `monitor_start` / `monitor_stop`.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MonitorSample {
    pub at: u64,
    pub ram_total: u64,
    pub ram_available: u64,
    /// This process: private (anonymous) and resident bytes.
    pub own_private: Option<u64>,
    pub own_resident: Option<u64>,
    /// Those that take layers; where there is none, the first that could.
    pub gpus: Vec<GpuFigures>,
    /// 0..1
    pub cpu_load: Option<f32>,
}

//! From a model's description, the hardware and the user's wishes to a plan with reasons. Pure: nothing is asked of the
//! system here, and all bytes come from [`model::Layout`], the same count that the engine allocates from.

mod choice;
mod draft;
mod forecast;
mod plan;
mod room;
mod stream;

pub use draft::{Draft, plan_placed, plan_with_draft};
pub use forecast::{Forecast, Speed};
pub use plan::{Fits, Plan, Reason, ReasonCode, Share, TOKEN_BYTES, plan};
pub use stream::Streamed;

use backend::Need;
use quant::GgmlType;

/// What is known of the machine. Rates are bytes per second.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// RAM that can be taken without driving others out, in bytes.
    pub ram_available: u64,
    /// By number, as [`model::Place`] counts them. One that has gone has no free memory.
    pub accelerators: Vec<AcceleratorFacts>,
    pub ram_bandwidth: Option<f64>,
    pub disk_bandwidth: Option<f64>,
    /// 8-bit multiply-adds per second of all cores.
    pub int8_rate: Option<f64>,
}

/// A device that takes layers.
#[derive(Clone, Debug)]
pub struct AcceleratorFacts {
    /// For people.
    pub name: String,
    /// Bytes that are free, or would be without us: what the driver holds for us is counted in here.
    pub memory_free: u64,
    /// Bytes that the driver takes for us besides buffers and scratch memory: its context, the kernels' code.
    pub overhead: u64,
    /// Bytes to leave to others.
    pub margin: u64,
    /// Read bandwidth of its memory.
    pub bandwidth: Option<f64>,
    /// Bytes per second from RAM to it.
    pub upload_rate: Option<f64>,
    /// Its 8-bit multiply-adds per second.
    pub int8_rate: Option<f64>,
    /// [`backend::Device::scratch`] of the device.
    pub scratch: fn(&Need) -> Option<u64>,
    /// Bytes that a buffer of so many bytes really takes.
    pub footprint: fn(u64) -> u64,
}

impl Default for AcceleratorFacts {
    /// Nothing is free; whatever a model needs can be done, without scratch memory.
    fn default() -> Self {
        AcceleratorFacts {
            name: "GPU".into(),
            memory_free: 0,
            overhead: 0,
            margin: 0,
            bandwidth: None,
            upload_rate: None,
            int8_rate: None,
            scratch: |_| Some(0),
            footprint: |bytes| bytes,
        }
    }
}

impl AcceleratorFacts {
    /// Bytes for layers and what comes with them.
    pub fn available(&self) -> u64 {
        self.memory_free.saturating_sub(self.margin)
    }
}

/// How many layers go to accelerators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuLayers {
    Auto,
    Fixed(u32),
}

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wishes {
    pub gpu_layers: GpuLayers,
    /// So many of the first layers leave their routed experts in RAM; `None`: as many as it takes for the layers to fit,
    /// and where those are not wished either, for the best speed.
    pub cpu_moe: Option<u32>,
    /// Tokens; `None`: as many as are useful and fit.
    pub context: Option<u32>,
    pub kv_type_k: GgmlType,
    pub kv_type_v: GgmlType,
    /// Tokens of a prompt that are computed at once; `None`: as many as are useful.
    pub ubatch: Option<u32>,
    pub logits_rows: u32,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes {
            gpu_layers: GpuLayers::Auto,
            cpu_moe: None,
            context: None,
            kv_type_k: GgmlType::F16,
            kv_type_v: GgmlType::F16,
            ubatch: None,
            logits_rows: 1,
        }
    }
}

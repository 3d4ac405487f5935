//! What was measured of this PC and is kept: of the machine, and of each GPU what long prompts need of it.

use crate::disk_rates::DiskRates;
use backend_cuda::Rates;
use engine::Device;
use hardware::Measured;
use planner::AcceleratorFacts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rates of a GPU, per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuRates {
    pub upload_bytes_per_s: f64,
    pub int8_ops_per_s: f64,
}

/// As it is in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    #[serde(flatten)]
    pub machine: Measured,
    /// As measured from models; before there are any, `machine` has what a small file said.
    pub disks: DiskRates,
    /// By [`crate::wire::Gpu::id`].
    pub gpus: BTreeMap<String, GpuRates>,
}

impl Limits {
    /// Adds what is known of the GPU `id`.
    pub fn tell(&self, id: &str, facts: AcceleratorFacts) -> AcceleratorFacts {
        let rates = self.gpus.get(id);
        AcceleratorFacts {
            upload_rate: rates.map(|rates| rates.upload_bytes_per_s),
            int8_rate: rates.map(|rates| rates.int8_ops_per_s),
            ..facts
        }
    }
}

/// Measures a device made for it. `None`: it has no memory for that now, or fails.
pub(crate) fn measure(mut device: Box<dyn Device>) -> Option<GpuRates> {
    let Rates { upload, int8 } = backend_cuda::measure(&mut *device).ok()?;
    Some(GpuRates { upload_bytes_per_s: upload, int8_ops_per_s: int8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_from_before_gpus_were_measured_are_read() {
        let old = r#"{"ram_read_bytes_per_s":1e10,"int8_ops_per_s":null,"disk_read_bytes_per_s":2e9}"#;
        let mut limits: Limits = serde_json::from_str(old).unwrap();
        assert_eq!(limits.machine.ram_read_bytes_per_s, Some(1e10));
        assert!(limits.gpus.is_empty() && limits.disks == DiskRates::default());
        limits.disks.add("/".into(), 3e9, 1);
        limits.gpus.insert("GPU-1".into(), GpuRates { upload_bytes_per_s: 1e10, int8_ops_per_s: 2e13 });
        let again = serde_json::from_slice(&serde_json::to_vec(&limits).unwrap()).unwrap();
        assert_eq!(limits, again);
        let facts = |id| limits.tell(id, AcceleratorFacts::default());
        assert_eq!((facts("GPU-1").upload_rate, facts("GPU-1").int8_rate), (Some(1e10), Some(2e13)));
        assert_eq!((facts("GPU-2").upload_rate, facts("GPU-2").int8_rate), (None, None));
    }
}

//! The GPUs that the driver has, without opening one.

use super::call::{Answer, check};
use super::share::Grant;
use super::{Absent, absent};
use crate::{Failure, kernels};
use cudarc::driver::sys;

/// A GPU that is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In the driver's order, which may change when cards are added: for [`super::Card::open`].
    pub number: usize,
    /// What it is called for good: "GPU-" and a UUID, as NVIDIA's tools write it.
    pub id: String,
    pub name: String,
    /// Bytes of its memory.
    pub total_bytes: u64,
    /// Major and minor compute capability.
    pub capability: (i32, i32),
    /// The newest CUDA version that its driver knows: 1000 x major + 10 x minor.
    pub cuda_version: i32,
}

impl Listed {
    /// Every GPU, in the driver's order. Takes no memory of them.
    ///
    /// # Errors
    /// Why there is none.
    pub fn all() -> Result<Vec<Listed>, Absent> {
        // See `Card::open`.
        let listed = std::panic::catch_unwind(|| {
            let cuda_version = absent::check_driver()?;
            let mut count = 0;
            // SAFETY: the driver is there and initialised (`check_driver`); the pointer is to an integer.
            unsafe { check("cuDeviceGetCount", sys::cuDeviceGetCount(&mut count))? };
            (0..count as usize).map(|number| Ok(Listed::of(number, cuda_version)?.1)).collect()
        });
        listed.unwrap_or_else(|_| Err(Absent::BadState("the driver's library lacks functions".into())))
    }

    /// Whether the kernels run on it.
    pub fn is_usable(&self) -> bool {
        self.capability >= kernels::LEAST_CAPABILITY
    }

    /// Bytes per second at which its memory can be read at best, by its clock and width; newer drivers may not tell.
    pub fn bandwidth(&self) -> Option<f64> {
        bandwidth(self.device()?)
    }

    /// Bytes that this program may take without spilling, where the system says so; see [`super::Card::free_bytes`].
    pub fn granted(&self) -> Option<u64> {
        let granted = Grant::of(self.device()?)?.now()?;
        Some(granted.budget.saturating_sub(granted.local))
    }

    /// Whoever was listed has a driver that was initialised.
    fn device(&self) -> Option<sys::CUdevice> {
        let mut device = 0;
        // SAFETY: the driver is there and initialised, or this would not be listed; the pointer is to a handle.
        unsafe { check("cuDeviceGet", sys::cuDeviceGet(&mut device, i32::try_from(self.number).ok()?)) }.ok()?;
        Some(device)
    }

    /// The GPU of this number. The driver is there and initialised, and of this version.
    pub(super) fn of(number: usize, cuda_version: i32) -> Result<(sys::CUdevice, Listed), Failure> {
        use sys::CUdevice_attribute_enum as Attribute;
        let (mut device, mut total, mut uuid) = (0, 0usize, sys::CUuuid { bytes: [0; 16] });
        // SAFETY: the driver is initialised; the pointers are to values of the right types.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, number as i32))?;
            check("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&mut total, device))?;
            check("cuDeviceGetUuid", sys::cuDeviceGetUuid(&mut uuid, device))?;
        }
        let capability = (
            attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let id = id(uuid.bytes.map(|byte| byte as u8));
        let (name, total_bytes) = (name(device)?, total as u64);
        Ok((device, Listed { number, id, name, total_bytes, capability, cuda_version }))
    }
}

/// "GPU-00112233-4455-6677-8899-aabbccddeeff"
fn id(uuid: [u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [&uuid[..4], &uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]];
    format!("GPU-{}", parts.map(hex).join("-"))
}

pub(super) fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32, Failure> {
    let mut value = 0;
    // SAFETY: the driver is initialised; the pointer is to an integer.
    unsafe { check("cuDeviceGetAttribute", sys::cuDeviceGetAttribute(&mut value, attribute, device))? };
    Ok(value)
}

/// See [`Listed::bandwidth`]. The driver is initialised.
pub(super) fn bandwidth(device: sys::CUdevice) -> Option<f64> {
    use sys::CUdevice_attribute_enum as Attribute;
    // kHz and bits; two transfers a cycle.
    let clock = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE).ok()?;
    let width = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).ok()?;
    Some(2e3 * f64::from(clock) * f64::from(width) / 8.0).filter(|rate| *rate > 0.0)
}

fn name(device: sys::CUdevice) -> Result<String, Failure> {
    let mut bytes = [0u8; 256];
    // SAFETY: the driver is initialised; the buffer is as long as is said.
    let result: Answer = unsafe {
        let result = sys::cuDeviceGetName(bytes.as_mut_ptr().cast(), bytes.len() as i32 - 1, device);
        check("cuDeviceGetName", result)
    };
    result?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_written_as_by_the_drivers_tools() {
        let uuid = std::array::from_fn(|n| 0x11 * n as u8);
        assert_eq!(super::id(uuid), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}

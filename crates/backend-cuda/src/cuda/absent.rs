//! Why there is no GPU to use.

use super::call::check;
use crate::Failure;
use cudarc::driver::sys::{self, CUresult};

/// CUDA 12.0, whose PTX the kernels are: driver 525 and newer.
const NEEDED_CUDA: i32 = 12_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is no driver's library.
    NoDriver,
    /// The driver is older than the kernels: CUDA versions as the driver counts them, 1000 x major + 10 x minor.
    DriverTooOld {
        found: i32,
        needed: i32,
    },
    NoDevice,
    /// The GPU is older than the kernels: compute capabilities.
    DeviceTooOld {
        capability: (i32, i32),
        needed: (i32, i32),
    },
    /// The driver or the GPU reports a failure.
    BadState(String),
}

impl From<Failure> for Absent {
    fn from(failure: Failure) -> Absent {
        match failure {
            Failure::OutOfMemory => Absent::BadState("no memory is left for a context".into()),
            Failure::Lost(detail) => Absent::BadState(detail),
        }
    }
}

/// Whether the driver is there, new enough and has a GPU; after that its functions can be called. Gives the CUDA version.
pub(super) fn check_driver() -> Result<i32, Absent> {
    // cudarc panics when it is asked anything without the library.
    // SAFETY: loading NVIDIA's library runs its initialisers, which is what every program does that uses CUDA.
    if !unsafe { sys::is_culib_present() } {
        return Err(Absent::NoDriver);
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: the library is there; both pointers are to integers. cuDriverGetVersion may come before cuInit.
    unsafe {
        check("cuDriverGetVersion", sys::cuDriverGetVersion(&mut version))?;
        if version < NEEDED_CUDA {
            return Err(Absent::DriverTooOld { found: version, needed: NEEDED_CUDA });
        }
        match sys::cuInit(0) {
            CUresult::CUDA_ERROR_NO_DEVICE => return Err(Absent::NoDevice),
            result => check("cuInit", result)?,
        }
        check("cuDeviceGetCount", sys::cuDeviceGetCount(&mut count))?;
    }
    if count == 0 { Err(Absent::NoDevice) } else { Ok(version) }
}

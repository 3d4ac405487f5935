//! Results of the driver's functions.

use crate::Failure;
use cudarc::driver::sys::{self, CUresult};
use std::ffi::CStr;

pub(super) type Answer = Result<(), Failure>;

/// Turns a result into our terms: whatever is not a lack of memory means that the GPU's state is not known any more.
pub(super) fn check(what: &str, result: CUresult) -> Answer {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Failure::OutOfMemory),
        other => Err(Failure::Lost(format!("{what}: {}", text(other)))),
    }
}

/// What the driver calls a result.
fn text(result: CUresult) -> String {
    let mut name = std::ptr::null();
    // SAFETY: the pointer is to a pointer; the driver gives a text that is never freed, or null.
    let name = unsafe {
        let found = sys::cuGetErrorName(result, &mut name);
        (found == CUresult::CUDA_SUCCESS && !name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.map_or_else(|| format!("error {}", result as u32), |name| name.to_string_lossy().into_owned())
}

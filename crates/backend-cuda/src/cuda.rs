//! The driver of NVIDIA GPUs, loaded at run time.

mod absent;
mod call;
mod staging;

pub use absent::Absent;

use crate::kernels;
use crate::{Address, Driver, Failure, Launch};
use call::{Answer, check};
use cudarc::driver::sys;
use staging::Staging;
use std::collections::{HashMap, HashSet};
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

/// A GPU that this program holds a context of.
pub struct Cuda {
    name: String,
    device: sys::CUdevice,
    capability: (i32, i32),
    context: sys::CUcontext,
    stream: sys::CUstream,
    staging: Option<Staging>,
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    allocations: HashSet<Address>,
}

// SAFETY: the handles belong to the process, not to a thread; every call makes the context current first, and `&mut self`
// lets one thread at a time call.
unsafe impl Send for Cuda {}

impl Cuda {
    /// Takes the GPU of this number, in the driver's order.
    pub fn open(number: usize) -> Result<Cuda, Absent> {
        absent::check_driver()?;
        let (mut device, mut context, mut stream) = (0, null_mut(), null_mut());
        // SAFETY: the driver is there and initialised (`check_driver`); all pointers are to values of the right type.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, number as i32))?;
        }
        let capability = capability(device)?;
        if capability < kernels::LEAST_CAPABILITY {
            return Err(Absent::DeviceTooOld { capability, needed: kernels::LEAST_CAPABILITY });
        }
        let name = name(device)?;
        // SAFETY: as above.
        unsafe { check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&mut context, device))? };
        // From here on, dropping gives the context back.
        let mut cuda = Cuda {
            name,
            device,
            capability,
            context,
            stream,
            staging: None,
            modules: HashMap::new(),
            functions: HashMap::new(),
            allocations: HashSet::new(),
        };
        cuda.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: as above, with the context current.
        unsafe { check("cuStreamCreate", sys::cuStreamCreate(&mut stream, flags))? };
        cuda.stream = stream;
        // Without pinned memory copies are slower, but they work.
        cuda.staging = Staging::new().ok();
        Ok(cuda)
    }

    /// Major and minor compute capability.
    pub fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Makes the context current in this thread.
    fn bind(&self) -> Answer {
        // SAFETY: the context is ours until we are dropped.
        unsafe { check("cuCtxSetCurrent", sys::cuCtxSetCurrent(self.context)) }
    }

    fn synchronize(&self) -> Answer {
        // SAFETY: the stream is ours until we are dropped.
        unsafe { check("cuStreamSynchronize", sys::cuStreamSynchronize(self.stream)) }
    }

    /// A kernel; its module is compiled by the driver when it is first asked for.
    fn function(&mut self, module: &'static str, kernel: &'static str) -> Result<sys::CUfunction, Failure> {
        if let Some(function) = self.functions.get(kernel) {
            return Ok(*function);
        }
        let loaded = match self.modules.get(module) {
            Some(loaded) => *loaded,
            None => {
                let loaded = self.load(module)?;
                self.modules.insert(module, loaded);
                loaded
            }
        };
        let name = CString::new(kernel).map_err(|_| Failure::Lost(format!("{kernel} is no name")))?;
        let mut function = null_mut();
        // SAFETY: the module is loaded, the name ends with 0.
        unsafe { check("cuModuleGetFunction", sys::cuModuleGetFunction(&mut function, loaded, name.as_ptr()))? };
        self.functions.insert(kernel, function);
        Ok(function)
    }

    fn load(&self, module: &str) -> Result<sys::CUmodule, Failure> {
        let ptx = kernels::ptx(module, self.capability).and_then(|ptx| CString::new(ptx).ok());
        let ptx = ptx.ok_or_else(|| Failure::Lost(format!("there is no module {module}")))?;
        let mut log = vec![0u8; 4096];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut loaded = null_mut();
        // SAFETY: the PTX ends with 0; options and values are as many as is said, and the log lives through the call.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut loaded,
                ptx.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        let Err(failure) = check("cuModuleLoadDataEx", result) else { return Ok(loaded) };
        let text = String::from_utf8_lossy(&log);
        Err(match failure {
            Failure::Lost(detail) => {
                Failure::Lost(format!("{detail} {module}: {}", text.trim_end_matches('\0').trim()))
            }
            other => other,
        })
    }
}

fn capability(device: sys::CUdevice) -> Result<(i32, i32), Failure> {
    use sys::CUdevice_attribute as Attribute;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the driver is initialised; both pointers are to integers.
    unsafe {
        let attribute = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        check("cuDeviceGetAttribute", sys::cuDeviceGetAttribute(&mut major, attribute, device))?;
        let attribute = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
        check("cuDeviceGetAttribute", sys::cuDeviceGetAttribute(&mut minor, attribute, device))?;
    }
    Ok((major, minor))
}

fn name(device: sys::CUdevice) -> Result<String, Failure> {
    let mut bytes = [0u8; 256];
    // SAFETY: the driver is initialised; the buffer is as long as is said.
    let result = unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr().cast(), bytes.len() as i32 - 1, device) };
    check("cuDeviceGetName", result)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string())
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Nobody is left to tell of failures; after a lost device all of this fails.
        let _ = self.bind();
        let _ = self.synchronize();
        self.staging = None;
        // SAFETY: everything given back here is ours, once, and nothing runs any more.
        unsafe {
            for start in self.allocations.drain() {
                let _ = sys::cuMemFree_v2(start);
            }
            for (_, module) in self.modules.drain() {
                let _ = sys::cuModuleUnload(module);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

impl Driver for Cuda {
    fn name(&self) -> &str {
        &self.name
    }

    fn free_bytes(&mut self) -> u64 {
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: both pointers are to sizes.
        let result =
            self.bind().and_then(|()| unsafe { check("cuMemGetInfo", sys::cuMemGetInfo_v2(&mut free, &mut total)) });
        if result.is_ok() { free as u64 } else { 0 }
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, Failure> {
        self.bind()?;
        let size = usize::try_from(bytes).map_err(|_| Failure::OutOfMemory)?;
        let mut start = 0;
        // SAFETY: the pointer is to an address.
        unsafe { check("cuMemAlloc", sys::cuMemAlloc_v2(&mut start, size))? };
        self.allocations.insert(start);
        Ok(start)
    }

    unsafe fn release(&mut self, start: Address) {
        if self.allocations.remove(&start) && self.bind().is_ok() {
            // SAFETY: the allocation is ours; cuMemFree waits for the work that uses it.
            let _ = unsafe { sys::cuMemFree_v2(start) };
        }
    }

    unsafe fn clear(&mut self, start: Address, bytes: u64) -> Result<(), Failure> {
        self.bind()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is allocated (the caller).
        unsafe { check("cuMemsetD8Async", sys::cuMemsetD8Async(start, 0, bytes as usize, self.stream)) }
    }

    unsafe fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        self.bind()?;
        if from.is_empty() {
            return Ok(());
        }
        if let Some(staging) = &mut self.staging {
            // SAFETY: the range is allocated (the caller).
            return unsafe { staging.upload(to, from, self.stream) };
        }
        // The copy is no part of our stream: it must come after what is in it.
        self.synchronize()?;
        // SAFETY: the range is allocated (the caller), and this call returns when the bytes are there.
        unsafe { check("cuMemcpyHtoD", sys::cuMemcpyHtoD_v2(to, from.as_ptr().cast(), from.len()))? };
        self.synchronize()
    }

    unsafe fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), Failure> {
        self.bind()?;
        if to.is_empty() {
            return self.synchronize();
        }
        // SAFETY: the range is allocated (the caller); the bytes are borrowed until the stream has been waited for.
        unsafe {
            let copy = sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), self.stream);
            let copied = check("cuMemcpyDtoHAsync", copy);
            // Waited for in any case: nothing may write to `to` after this.
            self.synchronize().and(copied)
        }
    }

    unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64) -> Result<(), Failure> {
        self.bind()?;
        // SAFETY: both ranges are allocated (the caller).
        unsafe { check("cuMemcpyDtoDAsync", sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, self.stream)) }
    }

    unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), Failure> {
        self.bind()?;
        let function = self.function(launch.module, launch.kernel)?;
        let [x, y, z] = launch.grid;
        // The driver copies the arguments before it returns. It reads as many bytes as the kernel's parameter has.
        let mut parameters = [launch.arguments.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the arguments are the kernel's (the caller), aligned to 8 as their struct is.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                launch.block,
                1,
                1,
                launch.shared,
                self.stream,
                parameters.as_mut_ptr(),
                null_mut(),
            )
        };
        check(launch.kernel, result)
    }
}

//! A GPU that this program has a context of: what it is, how much of its memory is free, the kernels' code.

use super::call::{Answer, check};
use super::listed::{Listed, attribute, bandwidth};
use super::share::Grant;
use super::{Absent, Cuda, absent};
use crate::margin::{LEAST, Others};
use crate::{Architecture, Failure, SLAB, Share, kernels};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What graphs of launches may take: they are made while tokens are generated, after the plan. A guess, until more is seen.
pub const GRAPHS: u64 = 16 << 20;

/// A handle of a GPU and this program's one context of it, which is there as long as handles or drivers made of them are.
/// Opening takes a moment and some hundred MiB of the GPU's memory; everything else is quick, from any thread.
#[derive(Clone)]
pub struct Card(Arc<Primary>);

/// What the handles share.
pub(super) struct Primary {
    device: sys::CUdevice,
    listed: Listed,
    architecture: Architecture,
    bandwidth: Option<f64>,
    multiprocessors: usize,
    context: sys::CUcontext,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
    /// How many of them are there, to be asked while one is being compiled.
    loaded: AtomicUsize,
    /// Held by whoever has all of them compiled.
    compiling: Mutex<()>,
    /// Bytes that the modules' code took when they were loaded; `u64::MAX` before.
    code: AtomicU64,
    /// Bytes of the allocations of all drivers.
    taken: AtomicU64,
    /// Bytes of their graphs.
    graphs: AtomicU64,
    /// Where the system moves video memory to RAM: what it grants, what it had in RAM when the context was new, and bytes of
    /// our drivers' pinned memory, which it counts to that.
    grant: Option<Grant>,
    ram: u64,
    pinned: AtomicU64,
    others: Mutex<Others>,
    lost: Mutex<Option<String>>,
}

// SAFETY: handles of the driver belong to the process, and its functions may be called by any threads at once; every call
// makes the context current in its thread first.
unsafe impl Send for Primary {}
// SAFETY: as above.
unsafe impl Sync for Primary {}

impl Card {
    /// Takes the GPU of this number, in the driver's order.
    ///
    /// # Errors
    /// Why there is none to use.
    pub fn open(number: usize) -> Result<Card, Absent> {
        whole(|| Card::try_open(number))
    }

    fn try_open(number: usize) -> Result<Card, Absent> {
        let cuda_version = absent::check_driver()?;
        use sys::CUdevice_attribute_enum as Attribute;
        let (device, listed) = Listed::of(number, cuda_version)?;
        let Some(architecture) = Architecture::of(listed.capability, &listed.name) else {
            return Err(Absent::DeviceTooOld { capability: listed.capability, needed: kernels::LEAST_CAPABILITY });
        };
        let multiprocessors = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let mut context = null_mut();
        // SAFETY: the driver is there and initialised (`check_driver`); the pointer is to a handle.
        unsafe { check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&mut context, device))? };
        let grant = Grant::of(device);
        let ram = grant.as_ref().and_then(Grant::now).map_or(0, |granted| granted.ram);
        let card = Card(Arc::new(Primary {
            device,
            listed,
            architecture,
            bandwidth: bandwidth(device),
            multiprocessors: usize::try_from(multiprocessors).unwrap_or(1),
            context,
            modules: Mutex::default(),
            loaded: AtomicUsize::new(0),
            compiling: Mutex::default(),
            code: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
            graphs: AtomicU64::new(0),
            grant,
            ram,
            pinned: AtomicU64::new(0),
            others: Mutex::default(),
            lost: Mutex::default(),
        }));
        card.0.bind()?;
        Ok(card)
    }

    /// What it is called for good; see [`Listed`].
    pub fn id(&self) -> &str {
        &self.0.listed.id
    }

    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Major and minor compute capability.
    pub fn capability(&self) -> (i32, i32) {
        self.0.listed.capability
    }

    /// The newest CUDA version that the driver knows: 1000 x major + 10 x minor.
    pub fn cuda_version(&self) -> i32 {
        self.0.listed.cuda_version
    }

    /// Bytes of the GPU's memory.
    pub fn total_bytes(&self) -> u64 {
        self.0.listed.total_bytes
    }

    /// Bytes that are free now, for this program and all others, and that it may take without spilling; `None`: the driver
    /// does not tell, or the GPU is lost.
    pub fn free_bytes(&self) -> Option<u64> {
        if self.lost().is_some() { None } else { self.0.free_bytes() }
    }

    /// Bytes of our allocations.
    pub fn taken_bytes(&self) -> u64 {
        self.0.taken.load(Ordering::Acquire)
    }

    /// Bytes that the kernels' code takes; `None` before the first driver was made.
    pub fn code_bytes(&self) -> Option<u64> {
        self.0.code_bytes()
    }

    /// Bytes that the graphs of launches take now, as far as the driver's free memory shows it; more of them come while tokens
    /// are generated.
    pub fn graph_bytes(&self) -> u64 {
        self.0.graphs.load(Ordering::Acquire)
    }

    /// Bytes to leave to other programs, by what they use and used not long ago.
    pub fn margin(&self) -> u64 {
        self.0.margin()
    }

    /// [`Listed::bandwidth`]
    pub fn bandwidth(&self) -> Option<f64> {
        self.0.bandwidth
    }

    /// What happened to the GPU, if it was lost: let all handles and drivers go and open it again.
    pub fn lost(&self) -> Option<String> {
        lock(&self.0.lost).clone()
    }

    /// Has the kernels compiled, which takes the NVIDIA driver a while if it has not kept the result of an earlier time; see
    /// [`Card::compiled`].
    ///
    /// # Errors
    /// No memory, or a GPU that does not work.
    pub fn compile(&self) -> Result<(), Absent> {
        if let Some(detail) = self.lost() {
            return Err(Absent::BadState(detail));
        }
        whole(|| Ok(self.0.load_all()?))
    }

    /// How many of how many modules of kernels are compiled and loaded; quick, also while [`Card::compile`] is at work.
    pub fn compiled(&self) -> (usize, usize) {
        (self.0.loaded.load(Ordering::Acquire), kernels::names().count())
    }

    /// A driver of the GPU with a queue of its own, once the kernels are compiled ([`Card::compile`]).
    ///
    /// # Errors
    /// No memory, or a GPU that does not work.
    pub fn driver(&self) -> Result<Cuda, Absent> {
        self.compile()?;
        Cuda::new(self.0.clone())
    }
}

impl Primary {
    /// Makes the context current in this thread.
    pub fn bind(&self) -> Answer {
        // SAFETY: the context is ours until we are dropped.
        unsafe { check("cuCtxSetCurrent", sys::cuCtxSetCurrent(self.context)) }
    }

    pub fn device(&self) -> sys::CUdevice {
        self.device
    }

    pub fn context(&self) -> sys::CUcontext {
        self.context
    }

    pub fn name(&self) -> &str {
        &self.listed.name
    }

    /// The code that it gets.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    pub fn free_bytes(&self) -> Option<u64> {
        let (mut free, mut total) = (0usize, 0usize);
        self.bind().ok()?;
        // SAFETY: both pointers are to sizes.
        unsafe { check("cuMemGetInfo", sys::cuMemGetInfo_v2(&mut free, &mut total)) }.ok()?;
        Some(self.share().map_or(free as u64, |share| share.room().min(free as u64)))
    }

    pub fn share(&self) -> Option<Share> {
        let granted = self.grant.as_ref()?.now()?;
        let meant = self.ram.saturating_add(self.pinned.load(Ordering::Acquire));
        Some(Share { budget: granted.budget, local: granted.local, spilled: granted.ram.saturating_sub(meant) })
    }

    pub fn code_bytes(&self) -> Option<u64> {
        Some(self.code.load(Ordering::Acquire)).filter(|bytes| *bytes != u64::MAX)
    }

    pub fn margin(&self) -> u64 {
        // While kernels are loaded nobody knows whose the memory is that goes.
        let Some(code) = self.code_bytes() else { return LEAST };
        let total = self.listed.total_bytes;
        let mut others = lock(&self.others);
        let ours = self.taken.load(Ordering::Acquire) + self.graphs.load(Ordering::Acquire) + code;
        // Of a GPU that does not answer nothing is taken. Our context counts as theirs: it stays as it is.
        let now = self.free_bytes().map_or(0, |free| total.saturating_sub(free.saturating_add(ours)));
        others.margin(now, total, Instant::now())
    }

    /// What is to stay free: as plans leave it.
    pub fn reserve(&self) -> u64 {
        self.margin() + SLAB + GRAPHS.saturating_sub(self.graphs.load(Ordering::Acquire))
    }

    pub fn add_pinned(&self, bytes: u64) {
        self.pinned.fetch_add(bytes, Ordering::AcqRel);
    }

    pub fn sub_pinned(&self, bytes: u64) {
        self.pinned.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Allocates so many bytes by `work`, and counts them. [`Primary::margin`] sees both or none: what is ours must not pass for
    /// other programs' for a moment.
    pub fn take<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let _others = lock(&self.others);
        let taken = work()?;
        self.taken.fetch_add(bytes, Ordering::AcqRel);
        Ok(taken)
    }

    /// Frees so many bytes by `work`, in the same way.
    pub fn give_back(&self, bytes: u64, work: impl FnOnce()) {
        let _others = lock(&self.others);
        work();
        self.taken.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// One driver's graphs took so many bytes, and now so many.
    pub fn count_graphs(&self, before: u64, now: u64) {
        self.graphs.fetch_add(now, Ordering::AcqRel);
        self.graphs.fetch_sub(before, Ordering::AcqRel);
    }

    pub fn lose(&self, detail: &str) {
        lock(&self.lost).get_or_insert_with(|| detail.into());
    }

    fn load_all(&self) -> Answer {
        // A second one would take what the first one's code takes for less than it is.
        let _alone = lock(&self.compiling);
        if self.code_bytes().is_some() {
            return Ok(());
        }
        let before = self.free_bytes();
        for module in kernels::names() {
            self.module(module)?;
        }
        let taken = before.zip(self.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
        self.code.store(taken, Ordering::Release);
        Ok(())
    }

    /// A module's code, compiled by the driver when it is first asked for.
    pub fn module(&self, module: &'static str) -> Result<sys::CUmodule, Failure> {
        let mut modules = lock(&self.modules);
        if let Some(loaded) = modules.get(module) {
            return Ok(*loaded);
        }
        let loaded = self.load(module)?;
        modules.insert(module, loaded);
        self.loaded.store(modules.len(), Ordering::Release);
        Ok(loaded)
    }

    fn load(&self, module: &str) -> Result<sys::CUmodule, Failure> {
        self.bind()?;
        let ptx = kernels::ptx(module, self.architecture).and_then(|ptx| CString::new(ptx).ok());
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

impl Drop for Primary {
    fn drop(&mut self) {
        let lost = lock(&self.lost).is_some();
        // Nobody is left to tell of failures.
        let _ = self.bind();
        // SAFETY: modules and context are ours, once, and no driver is left that uses them. A context that has failed
        // answers nothing any more: a reset makes the next one new.
        unsafe {
            if lost {
                let _ = sys::cuDevicePrimaryCtxReset_v2(self.device);
            } else {
                for (_, module) in lock(&self.modules).drain() {
                    let _ = sys::cuModuleUnload(module);
                }
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// The binding panics at a function that the library does not have: it is not the driver's, or a broken one. What `work` uses is
/// behind [`lock`], or gone afterwards.
fn whole<T>(work: impl FnOnce() -> Result<T, Absent>) -> Result<T, Absent> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(Absent::BadState("the driver's library lacks functions".into())))
}

/// Values are replaced whole under these locks, so a panic elsewhere leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

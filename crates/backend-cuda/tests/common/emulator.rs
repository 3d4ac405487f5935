//! A driver whose GPU is the CPU.

use super::library::{DIFFERENT, Tried, module, ptx, sanitizer, tried};
use backend_cuda::Architecture::{self, Compute61, Compute75, Compute80};
use backend_cuda::{Address, Driver, Failure, Launch};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

type Run = unsafe extern "C" fn(*const c_char, *const c_void, usize, *const u32, *const u32, usize, u64) -> c_int;

struct Library {
    run: Run,
    _library: libloading::Library,
}

/// What a kernel is in: the library of its module for an architecture, or one of its own.
type Place = (&'static str, Option<&'static str>, &'static str);

/// One launch at a time: fibers and shared memory are global to a library.
static LIBRARIES: OnceLock<Mutex<HashMap<Place, Library>>> = OnceLock::new();

fn libraries() -> MutexGuard<'static, HashMap<Place, Library>> {
    LIBRARIES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel whose mutants are tried.
fn tried_now() -> Option<&'static Tried> {
    static TRIED: OnceLock<Option<Tried>> = OnceLock::new();
    TRIED.get_or_init(tried).as_ref()
}

fn load((name, kernel, architecture): Place) -> Library {
    let path = module(name, kernel, architecture);
    // SAFETY: the library was made from our sources; it runs nothing but constructors that fill a list.
    unsafe {
        let library = libloading::Library::new(&path).unwrap();
        let run = *library.get::<Run>(b"emulator_launch\0").unwrap();
        Library { run, _library: library }
    }
}

/// The newest architecture that there is here: that of the PTX that is run, if any.
pub fn newest() -> Architecture {
    let Some(name) = ptx() else { return Compute80 };
    let known = [Compute61, Compute75, Compute80].into_iter().find(|known| known.name() == name);
    known.expect("HEADROOM_PTX is an architecture")
}

/// Appends a launch to the file that HEADROOM_LAUNCHES names, with its threads: which tests are for which kernels.
fn record(launch: &Launch<'_>) {
    let Some(file) = std::env::var_os("HEADROOM_LAUNCHES") else { return };
    let threads = launch.grid.iter().map(|n| u64::from(*n)).product::<u64>() * u64::from(launch.block);
    let line = format!("{}:{}\t{threads}\n", launch.module, launch.kernel);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
    file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
}

/// Kernels on the CPU, memory that is the CPU's and unlimited.
pub struct Emulator {
    /// Order of the threads.
    seed: u64,
    wanted: Architecture,
    /// Kernels that architectures differ in are run from the PTX that ships.
    text: bool,
    allocations: HashMap<Address, Layout>,
}

// SAFETY: the allocations belong to the driver alone.
unsafe impl Send for Emulator {}

impl Emulator {
    pub fn new(seed: u64, wanted: Architecture, text: bool) -> Emulator {
        // Where PTX is run anyway, it is run as a whole.
        Emulator { seed, wanted, text: text && ptx().is_none(), allocations: HashMap::new() }
    }

    /// The range lies in one allocation.
    fn check(&self, start: Address, bytes: u64) {
        let inside = |(base, layout): (&u64, &Layout)| *base <= start && start + bytes <= base + layout.size() as u64;
        assert!(self.allocations.iter().any(inside), "{bytes} bytes at {start:#x} are not allocated");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for (start, layout) in self.allocations.drain() {
            // SAFETY: allocated with this layout, freed once.
            unsafe { dealloc(start as *mut u8, layout) };
        }
    }
}

impl Driver for Emulator {
    fn name(&self) -> &str {
        "Emulated GPU"
    }

    /// While a kernel of one is tried, there is no other.
    fn architecture(&self) -> Architecture {
        if tried_now().is_some() { newest() } else { self.wanted.min(newest()) }
    }

    fn multiprocessors(&self) -> usize {
        1
    }

    fn free_bytes(&mut self) -> u64 {
        1 << 40
    }

    fn exact(&self) -> bool {
        sanitizer().is_some()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, Failure> {
        let layout = Layout::from_size_align(bytes as usize, 256).unwrap();
        // SAFETY: the arena never asks for nothing.
        let start = unsafe { alloc(layout) };
        // NaN as f32, f16 and bf16: what is read before it is written shows.
        // SAFETY: just allocated.
        unsafe { start.write_bytes(0xff, bytes as usize) };
        self.allocations.insert(start as Address, layout);
        Ok(start as Address)
    }

    unsafe fn release(&mut self, start: Address) {
        let layout = self.allocations.remove(&start).expect("an allocation");
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(start as *mut u8, layout) };
    }

    unsafe fn clear(&mut self, start: Address, bytes: u64) -> Result<(), Failure> {
        self.check(start, bytes);
        // SAFETY: just checked.
        unsafe { (start as *mut u8).write_bytes(0, bytes as usize) };
        Ok(())
    }

    unsafe fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        self.check(to, from.len() as u64);
        // SAFETY: just checked.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), Failure> {
        self.check(from, to.len() as u64);
        // SAFETY: just checked.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64) -> Result<(), Failure> {
        self.check(from, bytes);
        self.check(to, bytes);
        // SAFETY: just checked.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes as usize) };
        Ok(())
    }

    unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), Failure> {
        assert!(launch.shared <= 48 << 10, "{} wants too much shared memory", launch.kernel);
        assert!(launch.grid[1] <= 65535 && launch.grid[2] <= 65535, "{} has too many blocks", launch.kernel);
        record(&launch);
        let mut libraries = libraries();
        let alone = tried_now().is_some_and(|tried| tried.module == launch.module)
            || self.text && DIFFERENT.contains(&launch.module);
        // What is the same for all is one library.
        let architecture = if DIFFERENT.contains(&launch.module) { self.architecture() } else { newest() };
        let place = (launch.module, alone.then_some(launch.kernel), architecture.name());
        let library = libraries.entry(place).or_insert_with(|| load(place));
        let name = CString::new(launch.kernel).unwrap();
        let (grid, block) = (launch.grid, [launch.block, 1, 1]);
        // SAFETY: the library checks the arguments' size; that their addresses are good is the caller's promise.
        let result = unsafe {
            (library.run)(
                name.as_ptr(),
                launch.arguments.as_ptr().cast(),
                launch.arguments.len(),
                grid.as_ptr(),
                block.as_ptr(),
                launch.shared as usize,
                self.seed,
            )
        };
        assert_eq!(
            result, 0,
            "{} in {}.cu: unknown (1), other arguments (2), too many threads (3)",
            launch.kernel, launch.module
        );
        Ok(())
    }
}

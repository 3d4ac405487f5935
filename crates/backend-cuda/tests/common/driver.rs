//! The driver that tests give the device: the emulator, or with HEADROOM_DRIVER=cuda the GPU of this machine, as the GPU
//! suite does. Memory ends and the GPU is lost when a test says so, on either.

use super::emulator::Emulator;
use backend_cuda::{Address, Architecture, Card, Driver, Failure, Launch, Share};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Larger allocations of a real GPU are not filled: only the emulator's are, whatever their size.
const FILLED: u64 = 64 << 20;

/// What is around buffers that have memory of their own, and must stay: NaN as f32, f16 and bf16, as f32 a signalling one,
/// which no arithmetic leaves as it is.
const GUARD: [u8; 4] = 0xffbf_ffbf_u32.to_le_bytes();
const GUARD_BYTES: u64 = 256;

/// What a test may change while the engine owns the driver.
#[derive(Debug)]
pub struct State {
    /// Bytes of the GPU; 0: without a limit.
    pub memory: u64,
    pub used: u64,
    /// Launches until the GPU is lost.
    pub lose_after: Option<u64>,
    pub launches: u64,
    /// By kernel.
    pub kernels: BTreeMap<&'static str, u64>,
    /// Those of them that a driver which collects launches may not have begun.
    pub waiting: u64,
    /// Order of the threads.
    pub seed: u64,
    /// The emulated GPU's, if it is there.
    pub architecture: Architecture,
    /// Run its own kernels from the PTX that ships, not from their sources.
    pub text: bool,
    /// As on Windows: what the system grants, and what it keeps in video memory; the rest goes to RAM and nothing fails.
    pub windows: Option<Windows>,
    /// Every buffer has memory of its own, and nothing may be written beside it.
    pub exact: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            memory: 0,
            used: 0,
            lose_after: None,
            launches: 0,
            kernels: BTreeMap::new(),
            waiting: 0,
            seed: 0,
            architecture: Architecture::Compute80,
            text: false,
            windows: None,
            exact: false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub budget: u64,
    pub holds: u64,
}

pub struct TestDriver {
    state: Arc<Mutex<State>>,
    inner: Box<dyn Driver>,
    allocations: HashMap<Address, u64>,
    /// Bytes before and behind each.
    guard: u64,
}

impl TestDriver {
    pub fn new(state: State) -> (TestDriver, Arc<Mutex<State>>) {
        let inner = inner(&state);
        // A sanitizer sees more where there is nothing.
        let guard = if state.exact && !inner.exact() { GUARD_BYTES } else { 0 };
        let state = Arc::new(Mutex::new(state));
        (TestDriver { state: state.clone(), inner, allocations: HashMap::new(), guard }, state)
    }

    /// Ends the test if something was written beside a buffer.
    fn check_guards(&mut self, start: Address, bytes: u64) {
        if self.guard == 0 || std::thread::panicking() {
            return;
        }
        for (from, side) in [(start - self.guard, "before"), (start + bytes, "behind")] {
            let mut found = vec![0; self.guard as usize];
            // SAFETY: allocated with both guards.
            if unsafe { self.inner.download(from, &mut found) }.is_ok() {
                let changed = found.chunks(4).position(|word| word != GUARD);
                assert_eq!(changed, None, "written {side} a buffer of {bytes} bytes");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn inner(state: &State) -> Box<dyn Driver> {
    static CARD: OnceLock<Card> = OnceLock::new();
    match std::env::var("HEADROOM_DRIVER").as_deref() {
        Ok("cuda") => Box::new(CARD.get_or_init(|| Card::open(0).unwrap()).driver().unwrap()),
        Ok(other) => panic!("HEADROOM_DRIVER={other}"),
        Err(_) => Box::new(Emulator::new(state.seed, state.architecture, state.text)),
    }
}

impl Drop for TestDriver {
    fn drop(&mut self) {
        for (start, bytes) in std::mem::take(&mut self.allocations) {
            self.check_guards(start, bytes);
        }
    }
}

impl Driver for TestDriver {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn architecture(&self) -> Architecture {
        self.inner.architecture()
    }

    /// So few that large tiles are used for matrices of tests, on a real GPU too.
    fn multiprocessors(&self) -> usize {
        1
    }

    fn free_bytes(&mut self) -> u64 {
        let state = self.state();
        let free = if state.memory == 0 { 1 << 40 } else { state.memory.saturating_sub(state.used) };
        state.windows.map_or(free, |windows| free.min(windows.budget.saturating_sub(state.used)))
    }

    fn share(&mut self) -> Option<Share> {
        let state = self.state();
        let Windows { budget, holds } = state.windows?;
        Some(Share { budget, local: state.used.min(holds), spilled: state.used.saturating_sub(holds) })
    }

    fn exact(&self) -> bool {
        self.state().exact || self.inner.exact()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, Failure> {
        {
            let state = self.state();
            if state.memory > 0 && state.used + bytes > state.memory {
                return Err(Failure::OutOfMemory);
            }
        }
        let start = self.inner.allocate(bytes + 2 * self.guard)? + self.guard;
        self.state().used += bytes;
        self.allocations.insert(start, bytes);
        if self.guard > 0 {
            let guard = GUARD.repeat(self.guard as usize / 4);
            for beside in [start - self.guard, start + bytes] {
                // SAFETY: just allocated.
                unsafe { self.inner.upload(beside, &guard) }?;
            }
        }
        if bytes <= FILLED {
            // NaN as f32, f16 and bf16: what is read before it is written shows.
            // SAFETY: just allocated.
            unsafe { self.inner.upload(start, &vec![0xff; bytes as usize]) }?;
        }
        Ok(start)
    }

    unsafe fn release(&mut self, start: Address) {
        let bytes = self.allocations.remove(&start).expect("an allocation");
        self.state().used -= bytes;
        self.check_guards(start, bytes);
        // SAFETY: the caller's promise; with the guard it was allocated.
        unsafe { self.inner.release(start - self.guard) };
    }

    unsafe fn clear(&mut self, start: Address, bytes: u64) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.clear(start, bytes) }
    }

    unsafe fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        self.state().waiting = 0;
        // SAFETY: the caller's promise.
        unsafe { self.inner.upload(to, from) }
    }

    unsafe fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), Failure> {
        self.state().waiting = 0;
        // SAFETY: the caller's promise.
        unsafe { self.inner.download(from, to) }
    }

    unsafe fn copy(&mut self, to: Address, from: Address, bytes: u64) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.copy(to, from, bytes) }
    }

    unsafe fn launch(&mut self, launch: Launch<'_>) -> Result<(), Failure> {
        {
            let mut state = self.state();
            state.launches += 1;
            *state.kernels.entry(launch.kernel).or_default() += 1;
            state.waiting += 1;
            match &mut state.lose_after {
                Some(0) => return Err(Failure::Lost("told to be".into())),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.launch(launch) }
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.state().waiting = 0;
        self.inner.start()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.state().waiting = 0;
        self.inner.turn()
    }

    unsafe fn upload_beside(&mut self, to: Address, from: &[u8]) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.upload_beside(to, from) }
    }
}

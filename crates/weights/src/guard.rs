//! Survive unreadable pages of a mapped file (Linux).
//!
//! Touching a page of a mapping that cannot be read - the file was truncated, its disk unplugged - raises SIGBUS, which
//! ends the program. A handler for SIGBUS cannot return an error to the kernel that was reading, but it can put zeros
//! there: from the bad page to the end of that mapping, it maps anonymous memory over it, marks the mapping damaged, and
//! lets the reader go on. Whoever asks [`crate::ModelFile::check`] then learns that the answer is worthless.
//!
//! A signal handler belongs to the process, so this is the one global thing of the crate: installed with the first
//! mapping, it touches only addresses of mappings registered here, and hands every other SIGBUS to the handler that was
//! there before.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};

/// Mappings that can be guarded at a time; more than the parts of a split model.
const SLOTS: usize = 2048;

/// A guarded mapping. The handler can take no lock, so the fields are atomic and `end` is zero while it is not in use.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    /// End of the last page; zero in an empty slot.
    end: AtomicUsize,
    damaged: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        damaged: AtomicBool::new(false),
    }
}; SLOTS];

/// How SIGBUS was handled before, and the page size; set before the handler is installed.
static BEFORE: OnceLock<Before> = OnceLock::new();

struct Before {
    action: libc::sigaction,
    page_size: usize,
}

/// Guards a mapping as long as it lives. Must be dropped before the mapping is.
pub(crate) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// Guards `len` bytes mapped at `start`, the beginning of a page. `None` if the handler cannot be installed or too
    /// many mappings are guarded: the mapping works, but is not guarded.
    pub(crate) fn new(start: usize, len: usize) -> Option<Guard> {
        let page_size = install()?;
        let slot = TABLE
            .iter()
            .find(|slot| slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok())?;
        slot.damaged.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store((start + len).next_multiple_of(page_size), Ordering::Release);
        Some(Guard { slot })
    }

    /// Whether a page could not be read.
    pub(crate) fn damaged(&self) -> bool {
        self.slot.damaged.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.end.store(0, Ordering::Release);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Installs the handler, once; returns the page size.
fn install() -> Option<usize> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        // SAFETY: `sigaction` and `sysconf` are called with valid pointers to zero-initialized plain C structs, which
        // all-zero bytes are valid for. `on_sigbus` has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut action) != 0 {
                return false;
            }
            let page_size = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            // The handler reads `BEFORE`, so it must be there first.
            BEFORE.get_or_init(|| Before { action, page_size });
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_sigbus as *const () as usize;
            // On the alternate stack, as the handler that we may hand on to (Rust's, for stack overflows) needs it.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) == 0
        }
    });
    if installed { BEFORE.get().map(|before| before.page_size) } else { None }
}

/// Calls nothing but system calls and reads nothing but atomics: it may interrupt anything.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`, whose address field is set for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    let Some(before) = BEFORE.get() else { return };
    if repair(address, before.page_size) {
        return;
    }
    // SAFETY: the previous action was filled in by the kernel. Its handler is called the way its flags say.
    unsafe {
        match before.action.sa_sigaction {
            // The default (or an ignored fault) ends the program: restore it, and let the instruction fault again.
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(libc::SIGBUS, &default, std::ptr::null_mut());
            }
            handler if before.action.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

/// Puts zeros from the page of `address` to the end of its mapping, if it is one of ours.
fn repair(address: usize, page_size: usize) -> bool {
    for slot in &TABLE {
        let end = slot.end.load(Ordering::Acquire);
        let start = slot.start.load(Ordering::Relaxed);
        if end == 0 || address < start || address >= end {
            continue;
        }
        let page = address - address % page_size;
        // SAFETY: [page, end) lies within a mapping that lives, because its guard does (a thread is reading it at this
        // moment). Read-only zeros take the place of pages that are read only as plain bytes. `errno` is the
        // interrupted thread's, so it is put back.
        let mapped = unsafe {
            let errno = *libc::__errno_location();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let mapped = libc::mmap(page as *mut c_void, end - page, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            mapped
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        slot.damaged.store(true, Ordering::Release);
        return true;
    }
    false
}

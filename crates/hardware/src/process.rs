//! Memory of our own process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

/// Memory of this process, in bytes; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Private memory: what no file backs, in RAM or swapped out. Linux: anonymous pages; Windows: private bytes.
    pub private_bytes: Option<u64>,
    /// The most private memory so far. The systems keep no such record: only [`MemoryWatch`] fills it in.
    pub peak_private_bytes: Option<u64>,
    /// Resident memory, mapped files included.
    pub rss_bytes: Option<u64>,
    /// The most resident memory so far; kept by Linux, elsewhere only by [`MemoryWatch`].
    pub peak_rss_bytes: Option<u64>,
}

/// Memory of this process now.
pub fn process_memory() -> ProcessMemory {
    now()
}

/// Time of processors that this process has used, to about 10 ms; `None` where the system does not tell.
pub fn processor_time() -> Option<Duration> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
    let (Ok(pid), Ok(mut system)) = (sysinfo::get_current_pid(), System::new()) else { return None };
    let refresh = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, refresh);
    system.process(pid).map(|process| Duration::from_millis(process.accumulated_cpu_time()))
}

#[cfg(target_os = "linux")]
fn now() -> ProcessMemory {
    std::fs::read_to_string("/proc/self/status").map_or_else(|_| ProcessMemory::default(), |text| parse_status(&text))
}

#[cfg(not(target_os = "linux"))]
fn now() -> ProcessMemory {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
    let (Ok(pid), Ok(mut system)) = (sysinfo::get_current_pid(), System::new()) else {
        return ProcessMemory::default();
    };
    let refresh = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, refresh);
    let Some(process) = system.process(pid) else { return ProcessMemory::default() };
    ProcessMemory {
        // On Windows sysinfo's virtual memory is the private usage; elsewhere it is the address space.
        private_bytes: cfg!(windows).then(|| process.virtual_memory()),
        rss_bytes: Some(process.memory()),
        ..ProcessMemory::default()
    }
}

/// Reads `/proc/self/status` (proc_pid_status(5)); values are in kB, which are units of 1024 bytes.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn parse_status(text: &str) -> ProcessMemory {
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    ProcessMemory {
        private_bytes: field("RssAnon").map(|anonymous| anonymous.saturating_add(field("VmSwap").unwrap_or(0))),
        peak_private_bytes: None,
        rss_bytes: field("VmRSS"),
        peak_rss_bytes: field("VmHWM"),
    }
}

/// Watches this process's memory from a thread of its own and keeps the peaks.
///
/// Peaks shorter than the interval of 10 ms may be missed. It takes 0.7 % of a core: for measurements, not to live with.
#[derive(Debug)]
pub struct MemoryWatch {
    peaks: Arc<Peaks>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Peaks {
    private: AtomicU64,
    rss: AtomicU64,
    known: AtomicBool,
}

impl Peaks {
    fn add(&self, memory: &ProcessMemory) {
        if let Some(private) = memory.private_bytes {
            self.private.fetch_max(private, Relaxed);
            self.known.store(true, Relaxed);
        }
        let rss = memory.peak_rss_bytes.max(memory.rss_bytes).unwrap_or(0);
        self.rss.fetch_max(rss, Relaxed);
    }
}

impl MemoryWatch {
    /// Starts watching. Where no thread can be started, only the moments of asking are seen.
    pub fn start() -> Self {
        const INTERVAL: Duration = Duration::from_millis(10);
        let peaks = Arc::new(Peaks::default());
        let (stop, stopped) = mpsc::channel::<()>();
        let seen = Arc::clone(&peaks);
        let watch = move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                seen.add(&now());
            }
        };
        let thread = std::thread::Builder::new().name("memory-watch".to_owned()).spawn(watch).ok();
        Self { peaks, stop: Some(stop), thread }
    }

    /// Memory now, with the peaks since the start of the watch (resident on Linux: since the start of the process).
    pub fn memory(&self) -> ProcessMemory {
        let memory = now();
        self.peaks.add(&memory);
        let rss = self.peaks.rss.load(Relaxed);
        ProcessMemory {
            peak_private_bytes: self.peaks.known.load(Relaxed).then(|| self.peaks.private.load(Relaxed)),
            peak_rss_bytes: memory.rss_bytes.map(|_| rss),
            ..memory
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has nothing left to report.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_status() {
        let text = "Name:\theadroom\nVmPeak:\t 9000000 kB\nVmHWM:\t    1992 kB\nVmRSS:\t    1500 kB\nRssAnon:\t     160 kB\n\
                    RssFile:\t    1340 kB\nRssShmem:\t       0 kB\nVmSwap:\t      40 kB\nThreads:\t1\n";
        let memory = parse_status(text);
        assert_eq!(memory.private_bytes, Some(200 * 1024));
        assert_eq!(memory.rss_bytes, Some(1500 * 1024));
        assert_eq!(memory.peak_rss_bytes, Some(1992 * 1024));
        assert_eq!(memory.peak_private_bytes, None);
        assert_eq!(parse_status("VmRSS: x kB\nRssAnon:\t99999999999999999999 kB"), ProcessMemory::default());
        assert_eq!(parse_status("VmRSS:\t18446744073709551615 kB"), ProcessMemory::default());
    }

    #[test]
    fn a_watch_sees_a_peak_that_is_gone() {
        let watch = MemoryWatch::start();
        let before = watch.memory();
        let block = vec![1u8; 64 << 20];
        std::hint::black_box(&block);
        let during = watch.memory();
        drop(block);
        let after = watch.memory();
        assert!(after.peak_rss_bytes >= after.rss_bytes);
        // Known on Linux and Windows.
        assert_eq!(before.private_bytes.is_some(), cfg!(any(target_os = "linux", windows)));
        let Some(peak) = after.peak_private_bytes else { return };
        assert!(Some(peak) >= during.private_bytes && peak >= 64 << 20, "{before:?} {during:?} {peak}");
    }
}

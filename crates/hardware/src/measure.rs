//! Bandwidths, measured: the speed of generation is bound by how fast weights are read.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::direct;
use crate::error::HardwareError;

/// A file with fewer bytes tells too little of its disk.
pub const SMALLEST_SAMPLE: u64 = 64 << 20;
/// Bytes that are read between two looks at the clock and at the cancel flag.
const CHUNK: usize = 1 << 20;

/// Measured rates; `None`: not measured. Worth keeping: they change only with the hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Bytes of RAM read per second by all cores together.
    pub ram_read_bytes_per_s: Option<f64>,
    /// 8-bit multiply-adds per second of all cores. Filled in by the owner of the kernels that do them.
    pub int8_ops_per_s: Option<f64>,
    /// Bytes of the models' disk read per second, past the page cache.
    pub disk_read_bytes_per_s: Option<f64>,
}

/// What [`measure`] measures.
#[derive(Debug, Clone)]
pub struct MeasureOptions {
    /// Threads that read RAM: as many as compute.
    pub threads: usize,
    /// A file on the disk to measure, best a large one, or a folder; `None` leaves the disk out.
    pub disk: Option<PathBuf>,
}

/// Measures in less than 3 seconds. A disk that cannot be measured is left out.
///
/// # Errors
/// [`HardwareError::Cancelled`] once `cancel` is set; too little memory or no threads for the RAM measurement.
pub fn measure(options: &MeasureOptions, cancel: &AtomicBool) -> Result<Measured, HardwareError> {
    /// Several times the largest caches.
    const BUFFER: usize = 256 << 20;
    let ram = measure_read_bandwidth(options.threads, BUFFER, cancel)?;
    let disk = match options.disk.as_deref().map(|path| measure_disk_read(path, cancel)) {
        Some(Err(HardwareError::Cancelled)) => return Err(HardwareError::Cancelled),
        Some(Ok(rate)) => Some(rate),
        Some(Err(_)) | None => None,
    };
    Ok(Measured { ram_read_bytes_per_s: Some(ram), int8_ops_per_s: None, disk_read_bytes_per_s: disk })
}

/// Bytes per second that `threads` threads together read from a buffer of `bytes` bytes in RAM, in about half a second.
///
/// # Errors
/// [`HardwareError::NoMemory`], [`HardwareError::Thread`] and [`HardwareError::Cancelled`].
pub fn measure_read_bandwidth(threads: usize, bytes: usize, cancel: &AtomicBool) -> Result<f64, HardwareError> {
    const DURATION: Duration = Duration::from_millis(400);
    let threads = threads.clamp(1, 1024);
    let words = (bytes / threads / 8).max(CHUNK / 8);
    let read = AtomicU64::new(0);
    let longest = Mutex::new(Duration::ZERO);
    let failed = AtomicBool::new(false);
    // Not a barrier: a thread that cannot be started must not leave the others waiting.
    let ready = AtomicU64::new(0);
    let go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = || {
            let buffer = filled(words);
            ready.fetch_add(1, Relaxed);
            let Some(buffer) = buffer else {
                failed.store(true, Relaxed);
                return;
            };
            while !go.load(Relaxed) {
                std::thread::yield_now();
            }
            let begun = Instant::now();
            let mut count = 0u64;
            'time: loop {
                for chunk in buffer.chunks(CHUNK / 8) {
                    black_box(sum(chunk));
                    count += size_of_val(chunk) as u64;
                    if begun.elapsed() >= DURATION || cancel.load(Relaxed) || failed.load(Relaxed) {
                        break 'time;
                    }
                }
            }
            let elapsed = begun.elapsed();
            read.fetch_add(count, Relaxed);
            if let Ok(mut longest) = longest.lock() {
                *longest = elapsed.max(*longest);
            }
        };
        let mut started = 0;
        let mut result = Ok(());
        for _ in 0..threads {
            match std::thread::Builder::new().spawn_scoped(scope, worker) {
                Ok(_) => started += 1,
                Err(e) => {
                    failed.store(true, Relaxed);
                    result = Err(HardwareError::Thread(e));
                    break;
                }
            }
        }
        // All buffers are made before the clock runs.
        while ready.load(Relaxed) < started {
            std::thread::sleep(Duration::from_millis(1));
        }
        go.store(true, Relaxed);
        result
    })?;
    if cancel.load(Relaxed) {
        return Err(HardwareError::Cancelled);
    }
    if failed.load(Relaxed) {
        return Err(HardwareError::NoMemory { needed: words * 8 * threads });
    }
    let seconds = longest.lock().map_or(DURATION, |longest| *longest).as_secs_f64();
    Ok(read.load(Relaxed) as f64 / seconds)
}

/// A buffer whose pages are really there, or `None` without memory for it.
fn filled(words: usize) -> Option<Vec<u64>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(words).ok()?;
    // Zeros would stay one shared page.
    buffer.extend((0..words as u64).map(|i| i | 1));
    Some(buffer)
}

/// Adds with independent accumulators, so that reading and not adding is the limit.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    let (blocks, rest) = words.as_chunks::<16>();
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

/// Bytes per second that the disk of `path` delivers, past the page cache, in at most 1.5 seconds.
///
/// `path` may be a file of at least [`SMALLEST_SAMPLE`] bytes, which is read, or a folder, in which a file is made for the
/// measurement and deleted again.
///
/// # Errors
/// [`HardwareError::Disk`], [`HardwareError::Cached`] and [`HardwareError::Cancelled`].
pub fn measure_disk_read(path: &Path, cancel: &AtomicBool) -> Result<f64, HardwareError> {
    let disk = |source| HardwareError::Disk { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(disk)?;
    if metadata.is_file() && metadata.len() >= SMALLEST_SAMPLE {
        return read_rate(path, metadata.len(), cancel);
    }
    let folder = if metadata.is_dir() { path } else { path.parent().unwrap_or(path) };
    let scratch = Scratch::new(folder, cancel)?;
    read_rate(&scratch.path, scratch.bytes, cancel)
}

/// Reads with several requests at once, as loading does.
fn read_rate(path: &Path, bytes: u64, cancel: &AtomicBool) -> Result<f64, HardwareError> {
    const DURATION: Duration = Duration::from_millis(800);
    const BLOCK: usize = 4 << 20;
    const READERS: u64 = 4;
    let disk = |source| HardwareError::Disk { path: path.to_owned(), source };
    let files = (0..READERS).map(|_| direct::open(path)).collect::<Result<Vec<File>, _>>().map_err(|e| {
        match direct::unsupported(&e) {
            true => HardwareError::Cached { path: path.to_owned() },
            false => disk(e),
        }
    })?;
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    let results = std::thread::scope(|scope| {
        let next = &next;
        let reader = |file: File| {
            move || -> std::io::Result<u64> {
                let mut buffer = direct::Buffer::new(BLOCK);
                let mut count = 0;
                while begun.elapsed() < DURATION && !cancel.load(Relaxed) {
                    let at = next.fetch_add(1, Relaxed) * BLOCK as u64;
                    if at + BLOCK as u64 > bytes {
                        break;
                    }
                    count += direct::read_at(&file, buffer.block(), at)? as u64;
                }
                Ok(count)
            }
        };
        let threads: Vec<_> = files
            .into_iter()
            .map(|file| std::thread::Builder::new().spawn_scoped(scope, reader(file)).map_err(HardwareError::Thread))
            .collect::<Result<_, _>>()?;
        let failed = || disk(std::io::Error::other("a reader failed"));
        let join =
            |thread: std::thread::ScopedJoinHandle<'_, std::io::Result<u64>>| thread.join().map_err(|_| failed());
        threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    if cancel.load(Relaxed) {
        return Err(HardwareError::Cancelled);
    }
    let mut total = 0;
    for result in results {
        total += result.map_err(|e| match direct::unsupported(&e) {
            true => HardwareError::Cached { path: path.to_owned() },
            false => disk(e),
        })?;
    }
    match total {
        0 => Err(disk(std::io::ErrorKind::UnexpectedEof.into())),
        total => Ok(total as f64 / elapsed),
    }
}

/// A file made for the measurement; deleted when dropped.
struct Scratch {
    path: PathBuf,
    bytes: u64,
}

impl Scratch {
    /// Writes for at most half a second or 128 MiB.
    fn new(folder: &Path, cancel: &AtomicBool) -> Result<Self, HardwareError> {
        use std::io::Write;
        const DURATION: Duration = Duration::from_millis(500);
        const BLOCK: usize = 4 << 20;
        const MOST: u64 = 128 << 20;
        let path = folder.join(format!(".headroom-disk-speed-{}", std::process::id()));
        let disk = |source| HardwareError::Disk { path: folder.to_owned(), source };
        let mut file = File::create_new(&path).map_err(disk)?;
        let mut scratch = Self { path, bytes: 0 };
        // Not compressible, so that a compressing file system has to store it.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut block = vec![0u8; BLOCK];
        for bytes in block.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes()[..bytes.len()]);
        }
        let begun = Instant::now();
        while scratch.bytes < MOST && (scratch.bytes < 4 * BLOCK as u64 || begun.elapsed() < DURATION) {
            if cancel.load(Relaxed) {
                return Err(HardwareError::Cancelled);
            }
            file.write_all(&block).and_then(|()| file.sync_data()).map_err(disk)?;
            scratch.bytes += BLOCK as u64;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that cannot be deleted now is small and has a telling name.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_every_word() {
        for len in [0, 1, 15, 16, 17, 100] {
            let words: Vec<u64> = (0..len).collect();
            assert_eq!(sum(&words), words.iter().sum::<u64>());
        }
        assert_eq!(sum(&[u64::MAX, 2]), 1);
    }

    #[test]
    fn measures_ram() {
        let rate = measure_read_bandwidth(2, 8 << 20, &AtomicBool::new(false)).unwrap();
        assert!(rate > 1e6 && rate < 1e14, "{rate}");
    }

    #[test]
    fn measures_a_disk_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        match measure_disk_read(folder.path(), &AtomicBool::new(false)) {
            Ok(rate) => assert!(rate > 1e4 && rate < 1e12, "{rate}"),
            Err(e) => assert!(matches!(e, HardwareError::Cached { .. }), "{e}"),
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the scratch file is gone");
        let missing = measure_disk_read(&folder.path().join("missing"), &AtomicBool::new(false)).unwrap_err();
        assert_eq!(missing.code(), "measure_disk");
    }

    #[test]
    fn can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let cancelled = AtomicBool::new(true);
        let options = MeasureOptions { threads: 1, disk: Some(folder.path().to_owned()) };
        assert_eq!(measure(&options, &cancelled).unwrap_err().code(), "measure_cancelled");
        assert_eq!(measure_disk_read(folder.path(), &cancelled).unwrap_err().code(), "measure_cancelled");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn measurements_can_be_kept() {
        let measured = Measured { ram_read_bytes_per_s: Some(2.5e10), ..Measured::default() };
        let text = serde_json::to_string(&measured).unwrap();
        assert_eq!(serde_json::from_str::<Measured>(&text).unwrap(), measured);
    }
}
